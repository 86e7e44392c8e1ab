//! SIGTERM and SIGINT, as one signal that everything listens to.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Signals so close together are one: a supervisor that signals both the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Resolves in every clone once the process was asked to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Installs the handlers. A second signal ends the process at once.
    pub fn on_signals() -> std::io::Result<(Self, watch::Sender<bool>)> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        let trigger = sender.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping: draining open requests");
            let _ = trigger.send(true);
            let first = Instant::now();
            while first.elapsed() < SAME_SIGNAL {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            }
            tracing::warn!("stopping at once: a second signal");
            std::process::exit(130);
        });
        Ok((Self(receiver), sender))
    }

    /// One that is triggered by hand, or by dropping its sender: for what others still need while
    /// they drain.
    pub fn by_hand() -> (Self, watch::Sender<bool>) {
        let (sender, receiver) = watch::channel(false);
        (Self(receiver), sender)
    }

    /// Waits for the signal.
    pub async fn requested(mut self) {
        // An error means that the sender is gone, and then there is nothing left to run for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
