//! The access log: one JSON line a request, written by a thread of its own.
//!
//! A request appends its line to this thread's buffer, under a lock that nobody else asks for, and
//! goes on. Where the writer cannot keep up, lines are dropped and counted; requests never wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::config::AccessLogTarget;
use crate::sharded::{Padded, SHARDS, shard};

/// Most bytes that wait in one buffer.
const MAX_WAITING: usize = 1 << 20;
/// Fullness at which the writer is woken before its time.
const WAKE_AT: usize = 128 << 10;
/// How long a line may wait.
const INTERVAL: Duration = Duration::from_millis(100);

/// The log's end that requests write to.
pub(crate) struct AccessLog {
    buffers: [Padded<Mutex<Vec<u8>>>; SHARDS],
    enabled: bool,
    dropped: AtomicU64,
    stop: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
}

/// The thread that writes; stopped and joined by [`AccessLogWriter::finish`].
pub(crate) struct AccessLogWriter {
    log: Arc<AccessLog>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target.
    pub(crate) fn open(target: &AccessLogTarget) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        let sink: Option<Box<dyn Write + Send>> = match target {
            AccessLogTarget::Off => None,
            AccessLogTarget::Stdout => Some(Box::new(io::stdout())),
            AccessLogTarget::File(path) => Some(Box::new(open_file(path)?)),
        };
        Self::start(sink)
    }

    fn start(sink: Option<Box<dyn Write + Send>>) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        let log = Arc::new(Self {
            buffers: std::array::from_fn(|_| Padded::default()),
            enabled: sink.is_some(),
            dropped: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            asleep: Mutex::default(),
            wake: Condvar::new(),
        });
        let writing = Arc::clone(&log);
        let thread = sink
            .map(|sink| {
                thread::Builder::new()
                    .name("access-log".into())
                    .spawn(move || writing.write_all(sink))
            })
            .transpose()?;
        let writer = AccessLogWriter {
            log: Arc::clone(&log),
            thread,
        };
        Ok((log, writer))
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Appends the line that `write` makes, line break included.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.buffers[shard()].0.lock();
        if buffer.len() > MAX_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = buffer.len();
        write(&mut buffer);
        let crossed = before < WAKE_AT && buffer.len() >= WAKE_AT;
        drop(buffer);
        if crossed {
            self.wake.notify_one();
        }
    }

    /// Lines that were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn write_all(&self, mut sink: Box<dyn Write + Send>) {
        let mut spare = Vec::new();
        let mut failing = false;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            for buffer in &self.buffers {
                std::mem::swap(&mut *buffer.0.lock(), &mut spare);
                if let Err(error) = sink.write_all(&spare).and_then(|()| sink.flush()) {
                    let lines = spare.iter().filter(|byte| **byte == b'\n').count();
                    self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the access log cannot be written");
                    }
                } else if !spare.is_empty() {
                    failing = false;
                }
                spare.clear();
            }
            if stopping {
                return;
            }
            let mut asleep = self.asleep.lock();
            self.wake.wait_for(&mut asleep, INTERVAL);
        }
    }
}

impl AccessLogWriter {
    /// Writes what waits, and ends.
    pub(crate) fn finish(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.log.stop.store(true, Ordering::Release);
        self.log.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the access log's writer has panicked");
        }
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot open the access log {}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_line_is_lost_or_torn_when_it_ends() {
        let sink = Shared::default();
        let (log, writer) = AccessLog::start(Some(Box::new(sink.clone()))).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for line in 0..500 {
                        log.append(|buffer| writeln!(buffer, "{thread}-{line}").unwrap());
                    }
                });
            }
        });
        writer.finish();
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 2000);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (log, writer) = AccessLog::start(Some(Box::new(Stuck))).unwrap();
        log.append(|buffer| buffer.extend_from_slice(b"a\n"));
        writer.finish();
        assert_eq!(log.dropped(), 1);
    }
}
