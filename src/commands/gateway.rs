//! `durward gateway`: the gateway alone, for foreign issuers.

use std::sync::Arc;

use durward_gateway::{Gateway, GatewayRevocations};

use crate::cli::ConfigFile;
use crate::configuration::{self, Loaded, Role};
use crate::control::{self, server::ControlSocket};
use crate::exit::Failure;
use crate::running;
use crate::shutdown::Shutdown;

/// Runs until a signal.
pub async fn run(file: ConfigFile) -> Result<(), Failure> {
    let Loaded {
        control,
        gateway,
        policy,
        ..
    } = configuration::load_or_fail(&file.config, Role::GatewayAlone)?;
    let (shutdown, _trigger) = Shutdown::on_signals().map_err(Failure::failed)?;
    let gateway =
        Gateway::new(gateway, Arc::new(policy), None, GatewayRevocations::None).map_err(Failure::failed)?;
    let gateway = Arc::new(gateway);

    let socket = ControlSocket::bind(&control).map_err(|error| running::control_failure(&control, &error))?;
    let router = control::explain::router(Arc::clone(&gateway)).fallback(control::explain::not_here);
    let control = tokio::spawn(socket.serve(router, shutdown.clone()));
    for address in gateway.listen_addresses() {
        super::say(format_args!("gateway on http://{address}"));
    }
    running::gateway_until(gateway, shutdown).await?;
    let _ = control.await;
    Ok(())
}
