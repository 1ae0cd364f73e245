//! Which paths a `[[file]]` table names: globs, and the walk below their fixed prefix.
//!
//! In: include and exclude globs. Out: paths of things that may be files. Promise: only the part of the tree below a
//! glob's fixed prefix is walked, and no deeper than the glob can match; symbolic links to folders are not followed inside
//! the walk, so it ends. Not here: opening anything.

use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use garam_proto::{SourceName, StreamName};
use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::identity;
use crate::config::{Compressed, StartAt};
use crate::lines::Rules;
use crate::source::spool::Spool;

/// One `[[file]]` table, checked.
#[derive(Debug, Clone)]
pub struct FileSet {
    pub name: SourceName,
    pub stream: StreamName,
    pub start_at: StartAt,
    pub max_record: usize,
    /// Files not written for so long are not begun.
    pub ignore_older: Option<Duration>,
    pub flush_partial: Option<Duration>,
    /// Whether compressed files are read.
    pub compressed: Compressed,
    /// How long an incomplete one must stay as it is before it counts as damaged.
    pub compressed_wait: Duration,
    /// What is done to lines; `None`: nothing, they travel in blocks nobody looks into.
    pub rules: Option<Arc<Rules>>,
    /// The files are the segments of this spool.
    pub spool: Option<Arc<Spool>>,
    include: Vec<Include>,
    exclude: GlobSet,
}

/// One include glob and the folder its walk begins in.
#[derive(Debug, Clone)]
struct Include {
    text: String,
    root: PathBuf,
    depth: usize,
    matcher: GlobMatcher,
}

/// What a walk meets.
#[derive(Debug)]
pub enum Step<'a> {
    Folder(&'a Path),
    Found { path: PathBuf, is_link: bool },
    Trouble { path: PathBuf, error: io::Error },
}

/// A glob that cannot be used.
#[derive(Debug)]
pub struct BadGlob {
    pub field: &'static str,
    pub glob: String,
    pub why: String,
}

impl FileSet {
    pub fn new(
        name: SourceName,
        stream: StreamName,
        include: &[String],
        exclude: &[String],
        start_at: StartAt,
        max_record: usize,
    ) -> Result<Self, BadGlob> {
        let include = include.iter().map(|text| Include::new(text)).collect::<Result<_, _>>()?;
        let mut set = GlobSetBuilder::new();
        for text in exclude {
            // A pattern without a slash names files wherever they lie.
            let whole = if text.contains('/') { text.clone() } else { format!("**/{text}") };
            set.add(compile("exclude", text, &whole)?);
        }
        let exclude = set.build().map_err(|e| BadGlob {
            field: "exclude",
            glob: exclude.join(" "),
            why: e.to_string(),
        })?;
        Ok(Self {
            name,
            stream,
            start_at,
            max_record,
            ignore_older: None,
            flush_partial: None,
            compressed: Compressed::default(),
            compressed_wait: crate::config::COMPRESSED_WAIT,
            rules: None,
            spool: None,
            include,
            exclude,
        })
    }

    /// Whether the globs name this path.
    pub fn matches(&self, path: &Path) -> bool {
        self.include.iter().any(|include| include.matcher.is_match(path))
            && !self.exclude.is_match(path)
    }

    /// After how long a quiet the last record is shipped although it may still grow.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        match &self.rules {
            Some(rules) if rules.joins() => Some(rules.timeout),
            _ => self.flush_partial,
        }
    }

    /// A position where a character can begin.
    pub(super) fn aligned(&self, position: u128) -> u128 {
        let unit = self.rules.as_ref().map_or(1, |rules| rules.encoding.unit() as u128);
        position.next_multiple_of(unit)
    }

    /// Whether a file that nobody knows yet was last written too long ago to be begun. A clock that jumps back makes files
    /// seem to come from the future: those are young.
    pub(super) fn is_too_old(&self, file: &Metadata) -> bool {
        let Some(limit) = self.ignore_older else { return false };
        let age = file.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age > limit)
    }

    /// The path a lineage is named after: the file's own, or for `app.log.3`, `app.log.3.gz` and `app.log-20261127.gz` the
    /// `app.log` it was rotated from, if that is in this set too; so that successors of one file stay in order even when
    /// all are met at once.
    pub fn lineage_path(&self, path: &Path) -> PathBuf {
        // Of a compressed file nothing tells whose it is but its name, dated or numbered.
        if identity::has_packed_name(path) {
            let original = identity::unrotated(path);
            return if self.matches(&original) { original } else { path.to_path_buf() };
        }
        let numbered = path
            .extension()
            .is_some_and(|e| !e.is_empty() && e.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        let base = path.with_extension("");
        if numbered && self.matches(&base) { base } else { path.to_path_buf() }
    }

    /// The include globs and where their walks begin, for `check`.
    pub fn roots(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.include.iter().map(|include| (include.text.as_str(), include.root.as_path()))
    }

    /// Tells every folder before it is listed, every path that matches, and every folder that cannot be read.
    pub fn walk(&self, visit: &mut dyn FnMut(Step<'_>)) {
        for include in &self.include {
            // A file named without any pattern: what happens to it happens in its folder.
            if include.depth == 0
                && let Some(folder) = include.root.parent()
            {
                visit(Step::Folder(folder));
            }
            let walk = walkdir::WalkDir::new(&include.root).max_depth(include.depth);
            for entry in walk {
                match entry {
                    Ok(entry) => {
                        let path = entry.path();
                        // The root may be a link to a folder.
                        if entry.file_type().is_dir() || (entry.depth() == 0 && path.is_dir()) {
                            if entry.depth() < include.depth {
                                visit(Step::Folder(path));
                            }
                        } else if include.matcher.is_match(path) && !self.exclude.is_match(path) {
                            let is_link = entry.path_is_symlink();
                            visit(Step::Found { path: entry.into_path(), is_link });
                        }
                    }
                    Err(error) => {
                        let path = error.path().unwrap_or(&include.root).to_path_buf();
                        let error = error
                            .into_io_error()
                            .unwrap_or_else(|| io::Error::other("a loop of links"));
                        visit(Step::Trouble { path, error });
                    }
                }
            }
        }
    }
}

impl Include {
    fn new(text: &str) -> Result<Self, BadGlob> {
        let bad = |why: &str| BadGlob { field: "include", glob: text.into(), why: why.into() };
        if !text.starts_with('/') {
            return Err(bad("is not an absolute path"));
        }
        let path = Path::new(text);
        if path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
            return Err(bad("contains . or .. as a folder"));
        }
        let matcher = compile("include", text, text)?.compile_matcher();
        let parts: Vec<Component<'_>> = path.components().collect();
        let fixed = parts.iter().take_while(|part| !has_meta(part)).count();
        // A path without any pattern is walked as itself, at depth 0.
        let root: PathBuf = parts.iter().take(fixed).collect();
        let rest = parts.get(fixed..).unwrap_or_default();
        let crosses =
            rest.iter().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"**"));
        let depth = if crosses { 64 } else { rest.len() };
        Ok(Self { text: text.into(), root, depth, matcher })
    }
}

fn compile(field: &'static str, shown: &str, pattern: &str) -> Result<Glob, BadGlob> {
    GlobBuilder::new(pattern).literal_separator(true).build().map_err(|e| BadGlob {
        field,
        glob: shown.into(),
        why: e.kind().to_string(),
    })
}

fn has_meta(part: &Component<'_>) -> bool {
    part.as_os_str().as_encoded_bytes().iter().any(|b| b"*?[]{}\\".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(include: &[&str], exclude: &[&str]) -> FileSet {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        FileSet::new(
            SourceName::new("s").unwrap(),
            StreamName::new("t").unwrap(),
            &owned(include),
            &owned(exclude),
            StartAt::Beginning,
            1 << 20,
        )
        .unwrap()
    }

    fn walk(set: &FileSet, root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        set.walk(&mut |step| match step {
            Step::Folder(_) => {}
            Step::Found { path, .. } => {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
            Step::Trouble { path, error } => panic!("{}: {error}", path.display()),
        });
        found.sort();
        found
    }

    #[test]
    fn globs_choose_files_and_exclude_wins() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        for name in ["x.log", "a/y.log", "a/b/c/z.log", "a/y.log.gz", "a/y.txt"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let glob = |tail: &str| format!("{}/{tail}", root.display());
        let all = set(&[&glob("**/*.log*")], &["*.gz"]);
        assert_eq!(walk(&all, root), ["a/b/c/z.log", "a/y.log", "x.log"]);
        let one = set(&[&glob("*.log")], &[]);
        assert_eq!(walk(&one, root), ["x.log"]);
        let fixed = set(&[&glob("a/y.txt")], &[]);
        assert_eq!(walk(&fixed, root), ["a/y.txt"]);
        let middle = set(&[&glob("*/y.*")], &[&glob("a/*.gz")]);
        assert_eq!(walk(&middle, root), ["a/y.log", "a/y.txt"]);
    }

    #[test]
    fn a_rotated_name_belongs_to_the_lineage_of_its_base() {
        let set = set(&["/l/app.log*"], &[]);
        assert_eq!(set.lineage_path(Path::new("/l/app.log.12")), Path::new("/l/app.log"));
        assert_eq!(set.lineage_path(Path::new("/l/app.log.12.gz")), Path::new("/l/app.log"));
        assert_eq!(set.lineage_path(Path::new("/l/app.log-20261127.zst")), Path::new("/l/app.log"));
        assert_eq!(set.lineage_path(Path::new("/l/app.log-1")), Path::new("/l/app.log-1"));
        assert_eq!(set.lineage_path(Path::new("/other/app.log.1")), Path::new("/other/app.log.1"));
    }
}
