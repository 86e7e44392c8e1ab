//! What every command that serves needs: a gateway beside the runtime, and errors that name places.

use std::io;
use std::path::Path;
use std::sync::Arc;

use durward_gateway::Gateway;

use crate::exit::Failure;
use crate::shutdown::Shutdown;

/// Runs the gateway on threads of its own until `shutdown`, and waits for its drain.
pub async fn gateway_until(gateway: Arc<Gateway>, shutdown: Shutdown) -> Result<(), Failure> {
    let (trigger, stop) = durward_gateway::Shutdown::new();
    let serving = tokio::task::spawn_blocking(move || gateway.run(stop));
    tokio::spawn(async move {
        shutdown.requested().await;
        trigger.trigger();
    });
    serving
        .await
        .map_err(|error| Failure::Failed(format!("the gateway stopped: {error}")))
}

/// The control socket could not be bound.
pub fn control_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot open the control socket {}: {error}",
        path.display()
    ))
}
