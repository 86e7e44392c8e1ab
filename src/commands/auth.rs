//! `durward auth`: the auth service alone.

use std::sync::Arc;

use durward_auth::AuthService;
use prometheus::Registry;

use crate::cli::ConfigFile;
use crate::configuration::{self, LoadedAuth};
use crate::control::server::ControlSocket;
use crate::exit::Failure;
use crate::shutdown::Shutdown;
use crate::upgrade::{Inheritance, Upgrader};
use crate::{auth_admin, demo, news, running};

/// Runs until a signal.
pub async fn run(file: ConfigFile) -> Result<(), Failure> {
    let LoadedAuth { control, auth, redis } = configuration::load_auth(&file.config)?;
    let mut inheritance = Inheritance::take().map_err(Failure::failed)?;
    let (shutdown, trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    running::ignore_hangup().map_err(Failure::failed)?;
    let sockets = Arc::clone(&inheritance.sockets);
    let socket = ControlSocket::open(&control, inheritance.control.take())
        .map_err(|error| running::control_failure(&control, &error))?;
    let listener = demo::listen_on(&sockets, auth.listen)?;
    let admin = match auth.admin {
        Some(address) => Some(demo::listen_on(&sockets, address)?),
        None => None,
    };
    let address = auth.listen;
    let registry = Registry::new();
    let service = AuthService::start(auth, Vec::new(), &registry)
        .await
        .map_err(Failure::failed)?;
    let publishing = match &redis {
        Some(redis) => Some(news::publish(redis, &service, &registry)?),
        None => {
            tracing::warn!(
                "no gateway elsewhere hears of revocations: the file names no Redis for them under `revocations`"
            );
            None
        }
    };
    let upgrader = Upgrader::new(&sockets, socket.handle().map_err(Failure::failed)?, &registry);
    let takes_over = inheritance.takes_over();
    inheritance.wait_for_go().await.map_err(Failure::failed)?;
    if takes_over {
        running::catch_up(&service).await;
    }
    // The last request of this process ends before another serves.
    let (ended, running) = Shutdown::by_hand();
    let upgrading = upgrader
        .start(move || async move {
            let _ = trigger.send(true);
            running::closed_in_time(ended.requested()).await;
        })
        .map_err(Failure::failed)?;
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        stopping.requested().await;
        sockets.let_go();
    });
    // Who watches sees the drain too.
    let (drained, stop) = Shutdown::by_hand();
    let admin = admin.map(|listener| {
        let serving = auth_admin::serve(listener, service.clone(), registry, drained);
        tokio::spawn(serving)
    });
    let control = tokio::spawn(socket.serve(service.control_router(), shutdown.clone()));
    super::say(format_args!("auth service on http://{address}"));
    service
        .serve(listener, shutdown.requested())
        .await
        .map_err(Failure::failed)?;
    let _ = control.await;
    drop(running);
    if let Some(publishing) = publishing {
        publishing.stop().await;
    }
    let _ = stop.send(true);
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    service.close().await;
    upgrading.finish().await;
    Ok(())
}
