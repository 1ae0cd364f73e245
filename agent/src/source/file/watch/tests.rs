//! What the kernel tells of folders, and when it is known to tell not everything.

use std::fs::{self, File};
use std::io::Write;

use garam_proto::{SourceName, StreamName};

use super::*;
use crate::config::StartAt;
use crate::source::file::{FileSet, Files};
use crate::source::{Seen, Source};

fn inotify() -> Inotify {
    Inotify::new().unwrap()
}

fn search(watch: &mut Inotify, folders: &[&Path]) {
    watch.begin_search();
    folders.iter().for_each(|folder| watch.cover(folder));
    watch.end_search();
}

fn append(path: &Path) {
    File::options().append(true).open(path).unwrap().write_all(b"x\n").unwrap();
}

#[test]
fn what_comes_goes_and_changes_in_a_folder_is_told_by_its_path() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = inotify();
    assert!(!watch.is_complete(), "before a search nothing is watched");
    search(&mut watch, &[root.path()]);
    assert!(watch.is_complete());
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    File::create(&a).unwrap();
    assert_eq!(watch.hear().names, [a.clone()].into());
    append(&a);
    let heard = watch.hear();
    assert_eq!((heard.changed, heard.names, heard.unclear), ([a.clone()].into(), [].into(), false));
    fs::rename(&a, &b).unwrap();
    assert_eq!(watch.hear().names, [a, b.clone()].into());
    fs::remove_file(&b).unwrap();
    assert_eq!(watch.hear().names, [b].into());
    fs::create_dir(root.path().join("folder")).unwrap();
    assert!(watch.hear().unclear, "a new folder must be searched");
    let heard = watch.hear();
    assert!(heard.changed.is_empty() && heard.names.is_empty() && !heard.unclear);
}

#[test]
fn more_events_than_the_kernel_keeps_ask_for_a_search() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut watch = inotify();
    search(&mut watch, &[root.path()]);
    for number in 0..=limit / 2 {
        let path = root.path().join(number.to_string());
        File::create(&path).unwrap();
        fs::remove_file(path).unwrap();
    }
    assert!(watch.hear().unclear);
    let path = root.path().join("after");
    File::create(&path).unwrap();
    assert!(watch.hear().names.contains(&path), "it goes on after that");
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_watched_anew() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("folder");
    let mut watch = inotify();
    for _ in 0..3 {
        fs::create_dir(&folder).unwrap();
        search(&mut watch, &[root.path(), &folder]);
        watch.hear();
        let path = folder.join("a");
        File::create(&path).unwrap();
        assert!(watch.hear().names.contains(&path));
        fs::remove_dir_all(&folder).unwrap();
        assert!(watch.hear().unclear);
    }
    search(&mut watch, &[root.path()]);
    assert_eq!((watch.folders.len(), watch.paths.len()), (1, 1), "nothing is kept of it");
}

#[test]
fn folders_that_change_places_are_known_by_their_new_names() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, link) = (root.path().join("a"), root.path().join("b"), root.path().join("link"));
    fs::create_dir(&a).unwrap();
    std::os::unix::fs::symlink(&a, &link).unwrap();
    let mut watch = inotify();
    search(&mut watch, &[root.path(), &a]);
    fs::rename(&a, &b).unwrap();
    fs::create_dir(&a).unwrap();
    assert!(watch.hear().unclear);
    search(&mut watch, &[root.path(), &a, &b]);
    for folder in [&a, &b] {
        File::create(folder.join("x")).unwrap();
        assert_eq!(watch.hear().names, [folder.join("x")].into());
    }
    // A link that is set to another folder moves nothing that is watched: only a search can see it.
    let mut watch = inotify();
    search(&mut watch, &[&link]);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&b, &link).unwrap();
    search(&mut watch, &[&link]);
    File::create(b.join("y")).unwrap();
    assert_eq!(watch.hear().names, [link.join("y")].into());
    File::create(a.join("y")).unwrap();
    assert!(watch.hear().names.is_empty(), "the old one is let go");
}

#[test]
fn a_folder_with_too_many_changes_is_not_listened_to_for_a_while_but_its_names_are() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    let mut watch = inotify();
    search(&mut watch, &[root.path()]);
    File::create(&a).unwrap();
    File::create(&b).unwrap();
    // Equal events in a row are one.
    for _ in 0..NOISY {
        append(&a);
        append(&b);
    }
    assert_eq!(watch.hear().changed.len(), 2);
    assert!(!watch.is_complete());
    append(&a);
    search(&mut watch, &[root.path()]);
    assert!(!watch.is_complete(), "nor after a search");
    assert!(watch.hear().changed.is_empty());
    File::create(root.path().join("c")).unwrap();
    assert!(!watch.hear().names.is_empty());
    watch.folders.get_mut(root.path()).unwrap().deaf_until = Some(Instant::now());
    search(&mut watch, &[root.path()]);
    assert!(watch.is_complete());
    append(&a);
    assert_eq!(watch.hear().changed, [a].into());
}

#[test]
fn beyond_the_limit_of_watches_searches_stay_frequent_until_there_is_room() {
    let root = tempfile::tempdir().unwrap();
    let folders = ["a", "b", "c"].map(|name| root.path().join(name));
    folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let all: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let mut watch = inotify();
    watch.most = 2;
    search(&mut watch, &all);
    assert!(!watch.is_complete() && watch.told);
    File::create(folders[0].join("x")).unwrap();
    assert!(!watch.hear().names.is_empty(), "what is watched is still told");
    search(&mut watch, &all[..2]);
    assert!(watch.is_complete() && !watch.told);
}

#[test]
fn what_the_kernel_tells_nobody_is_not_relied_on() {
    let mut watch = inotify();
    search(&mut watch, &[Path::new("/proc/self")]);
    assert!(!watch.is_complete());
    search(&mut watch, &[Path::new("/nowhere/at/all")]);
    assert!(!watch.is_complete());
}

fn files(glob: &Path) -> Files {
    let (name, stream) = (SourceName::new("a").unwrap(), StreamName::new("a").unwrap());
    let include = [glob.to_str().unwrap().to_owned()];
    let set = FileSet::new(name, stream, &include, &[], StartAt::Beginning, 1024).unwrap();
    Files::new(vec![set], true, Duration::from_secs(60), 10)
}

/// Claims to hear everything, and tells nothing.
struct Deaf;

impl Watch for Deaf {
    fn begin_search(&mut self) {}

    fn cover(&mut self, _folder: &Path) {}

    fn end_search(&mut self) {}

    fn is_complete(&self) -> bool {
        true
    }

    fn hear(&mut self) -> Heard {
        Heard::default()
    }

    fn bell(&self) -> Option<OwnedFd> {
        None
    }
}

#[test]
fn a_search_finds_everything_although_nothing_is_told() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let mut files = files(&path("**/*.log"));
    files.watch = Box::new(Deaf);
    File::create(path("a.log")).unwrap();
    let met = files.discover();
    let [a] = met.as_slice() else { panic!("one file is met") };
    let a = a.handle;
    assert!(matches!(files.look(a, 0, 0), Ok(Seen::Live(_))));
    files.changed();
    files.discover();
    assert_eq!(files.changed(), []);
    append(&path("a.log"));
    assert!(!files.listen() && files.changed().is_empty());
    files.discover();
    assert_eq!(files.changed(), [a], "a line in a known file");
    fs::create_dir(path("folder")).unwrap();
    File::create(path("folder/b.log")).unwrap();
    assert_eq!(files.discover().len(), 1, "a new file in a new folder");
    fs::rename(root.path().join("a.log"), path("folder/c.log")).unwrap();
    assert!(files.discover().is_empty());
    assert_eq!(files.label(a), path("folder/c.log").display().to_string());
}

#[test]
fn a_line_in_a_known_file_is_told_also_when_it_lies_behind_a_link() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("logs")).unwrap();
    fs::create_dir(path("elsewhere")).unwrap();
    File::create(path("logs/a.log")).unwrap();
    File::create(path("elsewhere/b")).unwrap();
    std::os::unix::fs::symlink(path("elsewhere/b"), path("logs/b.log")).unwrap();
    let mut files = files(&path("logs/*.log"));
    assert!(files.watch().is_some());
    for met in files.discover() {
        assert!(matches!(files.look(met.handle, 0, 0), Ok(Seen::Live(_))));
    }
    assert!(files.is_watched());
    files.changed();
    for name in ["logs/a.log", "elsewhere/b"] {
        append(&path(name));
        assert!(!files.listen(), "no search is needed");
        assert_eq!(files.changed().len(), 1, "{name}");
    }
    File::create(path("logs/other")).unwrap();
    assert!(!files.listen(), "nobody wants it");
    File::create(path("logs/c.log")).unwrap();
    assert!(files.listen());
    fs::hard_link(path("logs/a.log"), path("second name")).unwrap();
    files.discover();
    assert!(!files.is_watched(), "it may be written where nobody looks");
}
