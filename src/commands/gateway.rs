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
use crate::upgrade::{Inheritance, Upgrader};
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
    let mut inheritance = Inheritance::take().map_err(Failure::failed)?;
    let (shutdown, trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let revocations = running::revocations(&policy, redis.as_ref())?;
    let registry = Registry::new();
    let following = match (&redis, &revocations) {
        (Some(redis), GatewayRevocations::Mirror(feed)) => {
            Some(news::follow(redis, feed, &gateway, &registry)?)
        }
        _ => None,
    };
    let gateway = Gateway::on(&inheritance.sockets, gateway, Arc::new(policy), None, revocations)
        .map_err(Failure::failed)?;
    gateway.show_metrics_of(registry.clone());
    let gateway = Arc::new(gateway);

    let socket = ControlSocket::open(&control, inheritance.control.take())
        .map_err(|error| running::control_failure(&control, &error))?;
    let upgrader = Upgrader::new(
        &inheritance.sockets,
        socket.handle().map_err(Failure::failed)?,
        &registry,
    );
    if inheritance.takes_over() {
        gateway.prepare().await.map_err(Failure::Failed)?;
    }
    inheritance.wait_for_go().await.map_err(Failure::failed)?;
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
    let closing = Arc::clone(&gateway);
    let upgrading = upgrader
        .start(move || async move {
            closing.hand_over();
            let _ = trigger.send(true);
            running::closed_in_time(closing.doors_closed()).await;
        })
        .map_err(Failure::failed)?;
    running::gateway_until(gateway, shutdown).await?;
    if let Some(following) = following {
        following.stop().await;
    }
    let _ = control.await;
    upgrading.finish().await;
    Ok(())
}
