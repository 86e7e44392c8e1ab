//! Serving the control socket.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

use crate::shutdown::Shutdown;

/// A bound control socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: OwnerOnly,
    file: SocketFile,
}

/// What is needed of a control socket to hand it over.
#[derive(Debug)]
pub struct ControlHandle {
    socket: OwnedFd,
    path: PathBuf,
    left: Arc<AtomicBool>,
}

impl ControlHandle {
    /// The socket once more.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Where its file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file is another process's from now on: it is not removed.
    pub fn leave_file(&self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

impl ControlSocket {
    /// The socket at `path`: the one that was handed over, if its file is there, or a new one.
    pub fn open(path: &Path, inherited: Option<(PathBuf, OwnedFd)>) -> io::Result<Self> {
        let Some((_, socket)) = inherited.filter(|(known, _)| known == path) else {
            return Self::bind(path);
        };
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Self::on(UnixListener::from_std(listener)?, path)
    }

    /// What it takes to hand it over.
    pub fn handle(&self) -> io::Result<ControlHandle> {
        Ok(ControlHandle {
            socket: self.listener.listener.as_fd().try_clone_to_owned()?,
            path: self.file.path.clone(),
            left: Arc::clone(&self.file.left),
        })
    }

    /// Binds the socket at `path` with mode 0600, whatever the umask. It is bound in a private
    /// folder and moved into place, so that there is no moment at which others could open it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another service is running on it",
            ));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let private = folder.join(format!(".control-{}", std::process::id()));
        let _ = fs::remove_dir_all(&private);
        fs::DirBuilder::new().mode(0o700).create(&private)?;
        let bound = bind_and_move(&private.join("socket"), path);
        let _ = fs::remove_dir_all(&private);
        Self::on(bound?, path)
    }

    fn on(listener: UnixListener, path: &Path) -> io::Result<Self> {
        let owner = fs::metadata(path)?.uid();
        Ok(Self {
            listener: OwnerOnly { listener, owner },
            file: SocketFile {
                path: path.to_owned(),
                left: Arc::default(),
            },
        })
    }

    /// Serves `router` until `shutdown`.
    pub async fn serve(self, router: Router, shutdown: Shutdown) -> io::Result<()> {
        axum::serve(self.listener, router)
            .with_graceful_shutdown(shutdown.requested())
            .await
    }
}

fn bind_and_move(from: &Path, to: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(from)?;
    fs::set_permissions(from, fs::Permissions::from_mode(0o600))?;
    fs::rename(from, to)?;
    Ok(listener)
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    left: Arc<AtomicBool>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.left.load(Ordering::SeqCst) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Hangs up on everyone but the socket's owner and root, as the kernel names them.
#[derive(Debug)]
struct OwnerOnly {
    listener: UnixListener,
    owner: u32,
}

impl axum::serve::Listener for OwnerOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if self.admits(&stream) => return (stream, address),
                Ok(_) => tracing::warn!("control socket: refused another user"),
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl OwnerOnly {
    fn admits(&self, stream: &UnixStream) -> bool {
        stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_not_taken_twice() {
        let folder = std::env::temp_dir().join(format!("durward-control-{}", std::process::id()));
        let path = folder.join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            ControlSocket::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(socket);
        assert!(!path.exists());
        // A file that a killed process left behind is no hindrance.
        ControlSocket::bind(&path).unwrap().handle().unwrap().leave_file();
        assert!(path.exists());
        ControlSocket::bind(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
