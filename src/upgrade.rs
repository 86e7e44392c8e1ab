//! Going on in another process: on SIGUSR2 a running service starts its binary again, which may be a
//! newer one by then, hands its listening sockets over, and drains.
//!
//! The successor says when it could serve. Only then does this process stop to accept and lets the
//! open requests of its auth service end; and only when that is done does the successor begin to
//! accept. So a ban that one of the two acknowledged is known to whichever takes the next request.
//! What arrives in between waits in the sockets' queues. A successor that fails to start, or takes too
//! long, changes nothing: this process goes on.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use durward_gateway::Sockets;
use prometheus::{IntCounter, Registry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::control::server::ControlHandle;

mod channel;
mod supervisor;

pub use channel::{Handed, Kind};

/// Set for a process that is to take over; its standard input is the channel to the one before it.
const TAKES_OVER: &str = "DURWARD_TAKES_OVER";
/// How long a successor may take until it could serve.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open requests of the auth service and of the control socket may take to end before the
/// successor accepts.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a successor says when it could serve, and what it is told when it shall.
const PREPARED: u8 = b'P';
const GO: u8 = b'G';

/// The binary as it was started, before anybody put another in its place.
static STARTED_AS: OnceLock<PathBuf> = OnceLock::new();

/// Notes where the binary is: to be called before anybody could replace it.
pub fn note_binary() {
    if let Ok(path) = std::env::current_exe() {
        let _ = STARTED_AS.set(path);
    }
}

/// What this process was handed, and by whom.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Listening sockets.
    pub sockets: Arc<Sockets>,
    /// The control socket, and where its file is.
    pub control: Option<(PathBuf, OwnedFd)>,
    predecessor: Option<UnixStream>,
}

impl Inheritance {
    /// Takes what the process before this one hands over; nothing where there is none. To be called
    /// within a runtime.
    pub fn take() -> std::io::Result<Self> {
        // Left alone, either would end the process until somebody listens to it.
        for kind in [SignalKind::hangup(), SignalKind::user_defined2()] {
            drop(signal(kind)?);
        }
        if std::env::var_os(TAKES_OVER).is_none() {
            return Ok(Self::default());
        }
        let channel = UnixStream::from(std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?);
        channel.set_read_timeout(Some(PREPARE_TIMEOUT))?;
        let mut listeners = Vec::new();
        let mut control = None;
        for Handed { kind, socket } in channel::receive(&channel)? {
            match kind {
                Kind::Tcp(address) => listeners.push((address, socket.into())),
                Kind::Control(path) => control = Some((path, socket)),
            }
        }
        Ok(Self {
            sockets: Arc::new(Sockets::inheriting(listeners)),
            control,
            predecessor: Some(channel),
        })
    }

    /// Whether there is a process to take over from.
    pub fn takes_over(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Says that this process could serve, and waits until the one before it has stopped to accept, or
    /// is gone.
    pub async fn wait_for_go(&mut self) -> std::io::Result<()> {
        self.sockets.close_unused();
        let Some(mut channel) = self.predecessor.take() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || {
            channel.set_read_timeout(None)?;
            // An error means that nobody is left to go on in its place.
            if channel.write_all(&[PREPARED]).is_ok() {
                let _ = channel.read(&mut [0]);
            }
            Ok(())
        })
        .await?
    }
}

/// What a service does to go on in another process.
pub struct Upgrader {
    sockets: Arc<Sockets>,
    control: ControlHandle,
    failures: IntCounter,
}

impl Upgrader {
    /// For a service on these sockets. Failed upgrades are counted in `registry`.
    pub fn new(sockets: &Arc<Sockets>, control: ControlHandle, registry: &Registry) -> Self {
        let failures = IntCounter::new(
            "durward_upgrade_failures_total",
            "Successors that did not get to serve, so that this process goes on",
        )
        .expect("a name and a help text");
        let _ = registry.register(Box::new(failures.clone()));
        Self {
            sockets: Arc::clone(sockets),
            control,
            failures,
        }
    }

    /// On SIGUSR2 starts a successor; when that could serve, calls `close`, which stops to accept and
    /// resolves when nothing is acknowledged here any more, and then has the successor serve.
    pub fn start<F: Future<Output = ()> + Send>(
        self,
        close: impl FnOnce() -> F + Send + 'static,
    ) -> std::io::Result<Upgrading> {
        let mut asked = signal(SignalKind::user_defined2())?;
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let task = tokio::spawn(async move {
            while asked.recv().await.is_some() {
                match self.prepare_successor().await {
                    Ok(successor) => {
                        self.control.leave_file();
                        begins.store(true, Ordering::SeqCst);
                        return successor.take_over(close).await;
                    }
                    Err(problem) => {
                        self.failures.inc();
                        tracing::error!(%problem, "the upgrade failed; this process goes on");
                    }
                }
            }
        });
        Ok(Upgrading { begun, task })
    }

    async fn prepare_successor(&self) -> Result<Successor, String> {
        let mut handed: Vec<Handed> = Vec::new();
        let listeners = self.sockets.to_hand_over().map_err(|error| error.to_string())?;
        for (address, listener) in listeners {
            handed.push(Handed {
                kind: Kind::Tcp(address),
                socket: listener.into(),
            });
        }
        handed.push(Handed {
            kind: Kind::Control(self.control.path().to_owned()),
            socket: self.control.socket().map_err(|error| error.to_string())?,
        });
        tokio::task::spawn_blocking(move || Successor::prepare(handed))
            .await
            .map_err(|error| error.to_string())?
    }
}

/// The wait for being asked, and what follows.
#[derive(Debug)]
pub struct Upgrading {
    begun: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Upgrading {
    /// To be awaited before this process ends: where a successor takes over, it is told to serve first.
    pub async fn finish(self) {
        if self.begun.load(Ordering::SeqCst) {
            let _ = self.task.await;
        } else {
            self.task.abort();
        }
    }
}

/// A process that could serve.
struct Successor {
    child: Child,
    channel: UnixStream,
}

impl Successor {
    fn prepare(handed: Vec<Handed>) -> Result<Self, String> {
        let binary = STARTED_AS.get().ok_or("the path of the binary is not known")?;
        let (channel, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        let child = Command::new(binary)
            .args(arguments)
            .env(TAKES_OVER, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", binary.display()))?;
        tracing::info!(pid = child.id(), binary = %binary.display(), "upgrading: a successor starts");
        let mut successor = Self { child, channel };
        match successor.wait_until_prepared(&handed) {
            Ok(()) => Ok(successor),
            Err(problem) => {
                let _ = successor.child.kill();
                let ended = successor.child.wait().map(|status| status.to_string());
                Err(format!("{problem} ({})", ended.unwrap_or_default()))
            }
        }
    }

    fn wait_until_prepared(&mut self, handed: &[Handed]) -> Result<(), String> {
        let said = |error: std::io::Error| format!("the successor does not answer: {error}");
        self.channel
            .set_read_timeout(Some(PREPARE_TIMEOUT))
            .map_err(said)?;
        channel::send(&self.channel, handed).map_err(said)?;
        let mut answer = [0];
        match self.channel.read(&mut answer) {
            Ok(1) if answer[0] == PREPARED => Ok(()),
            Ok(_) => Err("the successor ended before it could serve".into()),
            Err(error) => Err(said(error)),
        }
    }

    async fn take_over<F: Future<Output = ()>>(mut self, close: impl FnOnce() -> F) {
        let pid = self.child.id();
        tracing::info!(
            pid,
            "upgrading: the successor could serve; this process stops to accept"
        );
        supervisor::tell_main_pid(pid);
        close().await;
        if let Err(error) = self.channel.write_all(&[GO]) {
            tracing::error!(%error, "the successor is gone");
        }
        tracing::info!(pid, "upgraded: the successor serves");
    }
}
