//! Child processes that do not outlive the run: ended when dropped, and when the run is told to stop.

use std::io;
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::{Fallible, scratch};

/// Everything that runs, for [`end_everything_when_told_to`].
static RUNNING: Mutex<Vec<Arc<Mutex<Process>>>> = Mutex::new(Vec::new());

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A child process, killed when dropped.
pub struct Child {
    process: Arc<Mutex<Process>>,
    pid: u32,
    name: String,
}

impl Child {
    /// Starts a process; `name` is for messages.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Fallible<Self> {
        let name = name.into();
        // Taken before the start: whoever ends everything holds it for good, and nothing starts then.
        let mut running = lock(&RUNNING);
        let process = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let pid = process.id();
        let process = Arc::new(Mutex::new(process));
        running.push(Arc::clone(&process));
        drop(running);
        Ok(Self { process, pid, name })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        lock(&self.process).try_wait()
    }

    /// Its standard streams, where they are pipes.
    pub(crate) fn take_streams(
        &self,
    ) -> (
        Option<std::process::ChildStdin>,
        Option<std::process::ChildStdout>,
    ) {
        let mut process = lock(&self.process);
        (process.stdin.take(), process.stdout.take())
    }

    /// Sends SIGTERM and waits for it to end; an error where it takes longer than `patience`.
    pub fn terminate(self, patience: Duration) -> Fallible<Duration> {
        let start = Instant::now();
        let status = Command::new("sh")
            .args(["-c", "kill -TERM \"$1\"", "sh", &self.pid.to_string()])
            .status()?;
        if !status.success() {
            return Err(format!("cannot signal {}", self.name).into());
        }
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
        lock(&RUNNING).retain(|other| !Arc::ptr_eq(other, &self.process));
        end(&self.process);
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
            running.iter().for_each(end);
            scratch::remove_all();
            std::process::exit(130);
        });
    })?;
    Ok(())
}

fn end(process: &Arc<Mutex<Process>>) {
    let mut process = lock(process);
    // Both fail only where it has ended already.
    let _ = process.kill();
    let _ = process.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
