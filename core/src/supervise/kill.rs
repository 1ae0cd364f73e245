//! A tree of switches that cut work off at once, each remembering the first fault that threw it.
//!
//! Promise: throwing a switch throws all below it and none above; it is thrown once; a child of a thrown switch is born
//! thrown. Waiting for it costs nothing until then.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::watch;

use super::exit::Fault;

/// Clones are the same switch; [`KillSwitch::child`] makes one below.
#[derive(Debug, Clone, Default)]
pub struct KillSwitch {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    thrown: watch::Sender<bool>,
    fault: OnceLock<Fault>,
    below: Mutex<Vec<Weak<Inner>>>,
}

impl KillSwitch {
    pub fn new() -> Self {
        Self::default()
    }

    /// A switch that this one throws too.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut below = self.inner.below.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_thrown() {
            child.inner.throw(self.fault());
        } else {
            below.retain(|weak| weak.strong_count() > 0);
            below.push(Arc::downgrade(&child.inner));
        }
        child
    }

    pub fn kill(&self) {
        self.inner.throw(None);
    }

    /// Throws the switch and says why; only the first reason is kept.
    pub fn kill_with_fault(&self, fault: Fault) {
        self.inner.throw(Some(fault));
    }

    pub fn is_thrown(&self) -> bool {
        *self.inner.thrown.borrow()
    }

    /// The first fault, if it was thrown with one.
    pub fn fault(&self) -> Option<Fault> {
        self.inner.fault.get().cloned()
    }

    /// Ends when the switch is thrown.
    pub async fn thrown(&self) -> Option<Fault> {
        let mut thrown = self.inner.thrown.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        if thrown.wait_for(|&thrown| thrown).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.fault()
    }
}

impl Inner {
    fn throw(&self, fault: Option<Fault>) {
        // Held over the whole act, so that no child is born between the look and the throw.
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.thrown.borrow() {
            return;
        }
        if let Some(fault) = &fault {
            self.fault.get_or_init(|| fault.clone());
        }
        self.thrown.send_replace(true);
        for child in below.drain(..).filter_map(|weak| weak.upgrade()) {
            child.throw(fault.clone());
        }
    }
}
