//! Child processes that do not outlive the run: ended when dropped, and when the run is told to stop.

use std::io;
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::{Fallible, scratch};

/// Everything that runs, for [`end_everything_when_told_to`].
static RUNNING: Mutex<Vec<Arc<Running>>> = Mutex::new(Vec::new());

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long a process that has to clean up behind itself may take for it before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);

struct Running {
    process: Mutex<Process>,
    pid: u32,
    /// The signal that ends it in good order, where being killed would leave something behind.
    farewell: Option<Signal>,
}

/// What a process is told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    fn send_to(self, pid: u32) -> Fallible<()> {
        let option = match self {
            Self::Terminate => "-TERM",
            Self::Interrupt => "-INT",
        };
        let status = Command::new("sh")
            .args(["-c", "kill \"$1\" \"$2\"", "sh", option, &pid.to_string()])
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("cannot signal process {pid}").into()),
        }
    }
}

/// A child process, ended when dropped.
pub struct Child {
    running: Arc<Running>,
    name: String,
}

impl Child {
    /// Starts a process; `name` is for messages. Dropped, it is killed.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Fallible<Self> {
        Self::spawn(name.into(), command, None)
    }

    /// Starts a process that, dropped, is told to end and killed only where it does not.
    pub fn start_with_farewell(
        name: impl Into<String>,
        command: &mut Command,
        farewell: Signal,
    ) -> Fallible<Self> {
        Self::spawn(name.into(), command, Some(farewell))
    }

    fn spawn(name: String, command: &mut Command, farewell: Option<Signal>) -> Fallible<Self> {
        // Taken before the start: whoever ends everything holds it for good, and nothing starts then.
        let mut running = lock(&RUNNING);
        let process = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let child = Arc::new(Running {
            pid: process.id(),
            process: Mutex::new(process),
            farewell,
        });
        running.push(Arc::clone(&child));
        drop(running);
        Ok(Self { running: child, name })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        lock(&self.running.process).try_wait()
    }

    /// Its standard streams, where they are pipes.
    pub(crate) fn take_streams(
        &self,
    ) -> (
        Option<std::process::ChildStdin>,
        Option<std::process::ChildStdout>,
    ) {
        let mut process = lock(&self.running.process);
        (process.stdin.take(), process.stdout.take())
    }

    /// Sends SIGTERM and waits for it to end; an error where it takes longer than `patience`.
    pub fn terminate(self, patience: Duration) -> Fallible<Duration> {
        let start = Instant::now();
        Signal::Terminate.send_to(self.pid())?;
        while self.ended()?.is_none() {
            if start.elapsed() > patience {
                return Err(format!("{} did not end within {patience:?} of SIGTERM", self.name).into());
            }
            thread::sleep(POLL);
        }
        Ok(start.elapsed())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        lock(&RUNNING).retain(|other| !Arc::ptr_eq(other, &self.running));
        end(&self.running);
    }
}

/// Makes SIGINT, SIGTERM and SIGHUP end every child, remove the scratch folders, and end this
/// process.
pub fn end_everything_when_told_to() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let kinds = [
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
            let running = lock(&RUNNING);
            running.iter().for_each(|child| end(child));
            scratch::remove_all();
            std::process::exit(130);
        });
    })?;
    Ok(())
}

fn end(child: &Running) {
    let mut process = lock(&child.process);
    if let Some(signal) = child.farewell
        && matches!(process.try_wait(), Ok(None))
        && signal.send_to(child.pid).is_ok()
    {
        let start = Instant::now();
        while matches!(process.try_wait(), Ok(None)) && start.elapsed() < FAREWELL {
            thread::sleep(POLL);
        }
    }
    // Both fail only where it has ended already.
    let _ = process.kill();
    let _ = process.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
