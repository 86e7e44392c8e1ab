//! What every command that serves needs: a gateway beside the runtime, and errors that name places.

use std::io;
use std::path::Path;
use std::sync::Arc;

use durward_auth::AuthService;
use durward_gateway::{Gateway, GatewayRevocations, MirrorLimits, RevocationFeed};
use durward_news::RedisTarget;
use durward_policy::{Policy, RevocationsMode};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Failure;
use crate::shutdown::Shutdown;
use crate::upgrade::CLOSE_TIMEOUT;

/// How the gateway learns of revocations: from an empty mirror at first, where the policy asks one.
pub fn revocations(policy: &Policy, redis: Option<&RedisTarget>) -> Result<GatewayRevocations, Failure> {
    Ok(match (policy.revocations(), redis) {
        (RevocationsMode::None, _) => GatewayRevocations::None,
        (RevocationsMode::Embedded | RevocationsMode::Redis, _) => {
            GatewayRevocations::Mirror(RevocationFeed::new(policy, MirrorLimits::default()))
        }
        (RevocationsMode::Lookup(_), Some(redis)) => GatewayRevocations::Lookup(redis.clone()),
        (RevocationsMode::Lookup(_), None) => {
            return Err(Failure::Failed("`mode: lookup` has no store to ask".into()));
        }
    })
}

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

/// Waits until what is closed before a successor serves has ended; not longer than
/// [`CLOSE_TIMEOUT`].
pub async fn closed_in_time(closed: impl Future<Output = ()>) {
    if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::warn!("upgrading: open requests of the auth service or the control socket do not end");
    }
}

/// Reads the log of revocations at the moment of taking over: with what was committed last in the process
/// before this one. Where it cannot be read now, what is known grows stale as it would at any other time.
pub async fn catch_up(service: &AuthService) {
    if service.attest().await.is_err() {
        tracing::warn!("the revocation log could not be read at the moment of taking over");
    }
}

/// SIGHUP asks for a reload, and a process without a gateway has nothing to reload: it says so, and
/// goes on.
pub fn ignore_hangup() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!("SIGHUP: the auth service takes nothing over while it runs; restart it instead");
        }
    });
    Ok(())
}

/// The control socket could not be bound.
pub fn control_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot open the control socket {}: {error}",
        path.display()
    ))
}
