//! Metadata as a child: writes what is only noted, and shows that its database still answers, so that a broken or full disk
//! is seen before a pipeline trips over it.

use std::sync::Arc;
use std::time::Duration;

use garam_meta::Meta;
use garam_stage::FailureKind;

use crate::supervise::{Context, Factory, Fault, factory};

/// How often the database is asked. Shorter than the tree's patience for signs of life.
const ASK: Duration = Duration::from_secs(5);

pub fn meta(meta: Arc<Meta>) -> Factory {
    factory(move |context| run(Arc::clone(&meta), context))
}

async fn run(meta: Arc<Meta>, context: Context) -> Result<(), Fault> {
    let mut ask = tokio::time::interval(ASK);
    loop {
        tokio::select! {
            () = context.stopping() => return Ok(()),
            _ = ask.tick() => {}
        }
        let answered = async {
            meta.flush().await?;
            meta.agents().await
        };
        answered.await.map_err(|error| {
            let kind = match error.kind() {
                // Both heal by themselves; so may a file that another process holds or damages.
                FailureKind::Full => FailureKind::Full,
                _ => FailureKind::Unreachable,
            };
            Fault::new(Some(kind), format!("metadata does not answer: {error}"))
        })?;
        context.progress.resting("questions");
    }
}
