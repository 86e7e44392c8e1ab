//! `durward auth`: the auth service alone.

use durward_auth::AuthService;
use prometheus::Registry;

use crate::cli::ConfigFile;
use crate::configuration::{self, LoadedAuth};
use crate::control::server::ControlSocket;
use crate::exit::Failure;
use crate::shutdown::Shutdown;
use crate::{auth_admin, demo, news, running};

/// Runs until a signal.
pub async fn run(file: ConfigFile) -> Result<(), Failure> {
    let LoadedAuth { control, auth, redis } = configuration::load_auth(&file.config)?;
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    running::ignore_hangup().map_err(Failure::failed)?;
    let socket = ControlSocket::bind(&control).map_err(|error| running::control_failure(&control, &error))?;
    let listener = demo::listen(auth.listen).await?;
    let admin = match auth.admin {
        Some(address) => Some(demo::listen(address).await?),
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
    if let Some(publishing) = publishing {
        publishing.stop().await;
    }
    let _ = stop.send(true);
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    service.close().await;
    Ok(())
}
