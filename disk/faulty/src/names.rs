//! The names on the disk: as calls see them, as they are durable, and every change in between.
//!
//! Promise: a name lasts once its folder was synced after it was given; a folder that does not last takes everything in it
//! along. A rename is one change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use garam_disk::Listed;

use crate::content::Content;
use crate::held;
use crate::random::Random;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Folder,
    File(Arc<Mutex<Content>>),
}

type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    live: Tree,
    durable: Tree,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

impl Change {
    /// The name whose folder makes this last.
    fn name(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path,
        }
    }

    fn apply(&self, tree: &mut Tree) {
        match self {
            Self::Link(path, node) => drop(tree.insert(path.clone(), node.clone())),
            Self::Unlink(path) => drop(tree.remove(path)),
            Self::Rename(from, to, node) => {
                tree.remove(from);
                tree.insert(to.clone(), node.clone());
            }
        }
    }
}

impl Names {
    pub(crate) fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        match self.live.get(path) {
            Some(Node::File(content)) => Ok(content.clone()),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || matches!(self.live.get(path), Some(Node::Folder))
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&PathBuf, &Arc<Mutex<Content>>)> {
        self.live.iter().filter_map(|(path, node)| match node {
            Node::File(content) => Some((path, content)),
            Node::Folder => None,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn used(&self) -> u64 {
        self.files().map(|(_, content)| held(content).room()).sum()
    }

    pub(crate) fn list(&self, folder: &Path) -> Vec<Listed> {
        let inside = self.live.iter().filter(|(path, _)| path.parent() == Some(folder));
        let listed = inside.filter_map(|(path, node)| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(Listed { name, is_dir: matches!(node, Node::Folder) })
        });
        listed.collect()
    }

    pub(crate) fn link(&mut self, path: &Path, node: Node) -> io::Result<()> {
        if !path.parent().is_some_and(|parent| self.is_folder(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Link(path.to_path_buf(), node));
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Change::Unlink(path.to_path_buf()));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.file(from)?;
        if from.parent() != to.parent() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a rename into another folder: say first which of the two makes it durable",
            ));
        }
        let node = Node::File(content);
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), node));
        Ok(())
    }

    pub(crate) fn sync(&mut self, folder: &Path) -> io::Result<()> {
        if !self.is_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (synced, left) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.name().parent() == Some(folder));
        synced.iter().for_each(|change| change.apply(&mut self.durable));
        self.changes = left;
        Ok(())
    }

    pub(crate) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let above: Vec<_> = path.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
        for tree in [&mut self.live, &mut self.durable] {
            for folder in &above {
                tree.insert(folder.to_path_buf(), Node::Folder);
            }
        }
        let content = Arc::new(Mutex::new(Content::lasting(bytes)));
        for tree in [&mut self.live, &mut self.durable] {
            tree.insert(path.to_path_buf(), Node::File(content.clone()));
        }
    }

    /// What the disk may hold when the power comes back.
    pub(crate) fn after_crash(&self, random: &mut Random) -> Self {
        let mut kept = self.durable.clone();
        let prefix = random.up_to(self.changes.len());
        let in_order = random.happens(500);
        for (i, change) in self.changes.iter().enumerate() {
            let survives = if in_order { i < prefix } else { random.happens(500) };
            if survives {
                change.apply(&mut kept);
            }
        }
        let paths: Vec<PathBuf> = kept.keys().cloned().collect();
        for path in paths {
            let parent = path.parent().filter(|parent| parent.parent().is_some());
            if parent.is_some_and(|parent| !matches!(kept.get(parent), Some(Node::Folder))) {
                kept.remove(&path);
            }
        }
        for node in kept.values_mut() {
            if let Node::File(content) = node {
                let after = held(content).after_crash(random);
                *content = Arc::new(Mutex::new(after));
            }
        }
        Self { live: kept.clone(), durable: kept, changes: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }
}
