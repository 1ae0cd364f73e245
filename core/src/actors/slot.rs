//! How one child finds another: the newest generation of a room, or a wait until there is one.

use std::sync::Arc;

use tokio::sync::watch;

use crate::supervise::Progress;

/// The place where a child puts what it opened. Clones are the same place.
#[derive(Debug)]
pub struct Slot<T> {
    current: watch::Sender<Option<Arc<T>>>,
}

impl<T> Slot<T> {
    pub fn empty() -> Self {
        Self { current: watch::Sender::new(None) }
    }

    pub fn of(room: Arc<T>) -> Self {
        Self { current: watch::Sender::new(Some(room)) }
    }

    pub fn set(&self, room: Arc<T>) {
        self.current.send_replace(Some(room));
    }

    /// Takes the room out, so that nobody finds it while its successor is made.
    pub fn take(&self) -> Option<Arc<T>> {
        self.current.send_replace(None)
    }

    pub fn peek(&self) -> Option<Arc<T>> {
        self.current.borrow().clone()
    }

    /// The room, once there is one; the wait shows in the tree.
    pub async fn wait(&self, progress: &Progress, why: &'static str) -> Arc<T> {
        let mut current = self.current.subscribe();
        let _guard = progress.waiting(why);
        match current.wait_for(Option::is_some).await.map(|room| room.clone()) {
            Ok(Some(room)) => room,
            // The sender lives in `self`, so the wait cannot end without a room.
            _ => std::future::pending().await,
        }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone() }
    }
}
