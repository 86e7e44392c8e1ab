//! Telling systemd which process is the main one (`sd_notify(3)`: `MAINPID=`). Without its socket in
//! the environment nobody wants to know.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the process of this number is the main one from now on.
pub fn tell_main_pid(pid: u32) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(format!("MAINPID={pid}").as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the supervisor could not be told of the successor");
    }
}
