//! What is particular to an end at which another process goes on with the same sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long connections that wait for a request are kept after the sockets were handed over. A client
/// that uses its connection within this time is answered, and told that the answer is the
/// connection's last; who closes a connection at once may close it in the face of a request.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Whether the sockets were handed over, and which listeners still accept.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    done: Arc<AtomicBool>,
    /// How many listeners accept.
    open: Arc<watch::Sender<usize>>,
}

impl Default for Handover {
    fn default() -> Self {
        Self {
            done: Arc::default(),
            open: Arc::new(watch::channel(0).0),
        }
    }
}

impl Handover {
    /// Another process accepts from now on.
    pub(crate) fn set_done(&self) {
        self.done.store(true, Ordering::SeqCst);
    }

    /// Whether another process accepts.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// A listener that is going to accept.
    pub(crate) fn door(&self) -> Door {
        self.open.send_modify(|open| *open += 1);
        Door(self.clone())
    }

    /// Waits until no listener accepts.
    pub(crate) async fn all_closed(&self) {
        // The sender lives as long as this.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// One listener.
#[derive(Debug)]
pub(crate) struct Door(Handover);

impl Door {
    /// It accepts no longer. Resolves when the connections that wait for a request may be closed.
    pub(crate) async fn closed(&self) {
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
        if self.0.is_done() {
            tokio::time::sleep(LINGER).await;
        }
    }
}
