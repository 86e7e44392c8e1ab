//! `durward gateway`: the gateway alone, for foreign issuers, or for an auth service elsewhere whose
//! revocations come through Redis.

use std::sync::Arc;

use durward_gateway::{Gateway, GatewayRevocations};
use prometheus::Registry;

use crate::cli::ConfigFile;
use crate::configuration::{self, Loaded, Role};
use crate::control::{self, server::ControlSocket};
use crate::exit::Failure;
use crate::reload::Reloader;
use crate::shutdown::Shutdown;
use crate::{news, running};

/// Runs until a signal.
pub async fn run(file: ConfigFile) -> Result<(), Failure> {
    let Loaded {
        control,
        gateway,
        policy,
        redis,
        reload,
        document,
        ..
    } = configuration::load_or_fail(&file.config, Role::GatewayAlone)?;
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let revocations = running::revocations(&policy, redis.as_ref())?;
    let registry = Registry::new();
    let following = match (&redis, &revocations) {
        (Some(redis), GatewayRevocations::Mirror(feed)) => {
            Some(news::follow(redis, feed, &gateway, &registry)?)
        }
        _ => None,
    };
    let gateway = Gateway::new(gateway, Arc::new(policy), None, revocations).map_err(Failure::failed)?;
    gateway.show_metrics_of(registry);
    let gateway = Arc::new(gateway);

    let socket = ControlSocket::bind(&control).map_err(|error| running::control_failure(&control, &error))?;
    let reloader = Reloader::new(&file.config, Role::GatewayAlone, &gateway, document, reload.watch);
    reloader.start(&shutdown).map_err(Failure::failed)?;
    let router = control::explain::router(Arc::clone(&gateway))
        .merge(control::reload::router(reloader))
        .fallback(control::explain::not_here);
    let control = tokio::spawn(socket.serve(router, shutdown.clone()));
    for url in gateway.listen_urls() {
        super::say(format_args!("gateway on {url}"));
    }
    if let Some(address) = gateway.forward_auth_address() {
        super::say(format_args!("forward-auth on http://{address}"));
    }
    running::gateway_until(gateway, shutdown).await?;
    if let Some(following) = following {
        following.stop().await;
    }
    let _ = control.await;
    Ok(())
}
