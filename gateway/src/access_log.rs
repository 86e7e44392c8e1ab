//! The access log: one JSON line a request, written by a thread of its own.
//!
//! A request appends its line to this thread's buffer, under a lock that nobody else asks for, and
//! goes on. Where the writer cannot keep up, lines are dropped and counted; requests never wait. Lines of
//! refused requests, which anybody can bring about, have a limit of their own: beyond it they are left
//! out, and a line `{"time":...,"left_out":N}` says how many those were.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use durward_policy::Quota;
use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::config::AccessLogTarget;
use crate::log_file::LogFile;
use crate::log_line::push_left_out;
use crate::sharded::{Padded, SHARDS, shard};

/// Most bytes that wait in one buffer.
const MAX_WAITING: usize = 1 << 20;
/// Fullness at which the writer is woken before its time.
const WAKE_AT: usize = 128 << 10;
/// How often it is told how many lines were left out.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a line may wait.
const INTERVAL: Duration = Duration::from_millis(100);

/// The log's end that requests write to.
pub(crate) struct AccessLog {
    buffers: [Padded<Mutex<Vec<u8>>>; SHARDS],
    enabled: bool,
    dropped: AtomicU64,
    refused: RefusedLines,
    stop: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
}

/// The limit on lines of refused requests.
struct RefusedLines {
    quota: Option<Quota>,
    started: Instant,
    /// When the quota is whole again, in nanoseconds since `started`.
    whole_at: AtomicU64,
    left_out: AtomicU64,
}

/// The thread that writes; stopped and joined by [`AccessLogWriter::finish`].
pub(crate) struct AccessLogWriter {
    log: Arc<AccessLog>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target.
    pub(crate) fn open(
        target: &AccessLogTarget,
        refused: Option<Quota>,
    ) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        let sink: Option<Box<dyn Write + Send>> = match target {
            AccessLogTarget::Off => None,
            AccessLogTarget::Stdout => Some(Box::new(io::stdout())),
            AccessLogTarget::File(path) => Some(Box::new(LogFile::open(path)?)),
        };
        Self::start(sink, refused)
    }

    fn start(
        sink: Option<Box<dyn Write + Send>>,
        refused: Option<Quota>,
    ) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        let log = Arc::new(Self {
            buffers: std::array::from_fn(|_| Padded::default()),
            enabled: sink.is_some(),
            dropped: AtomicU64::new(0),
            refused: RefusedLines::new(refused),
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

    /// Whether a refused request may have a line at `now`; where not, that is counted.
    pub(crate) fn takes_refused(&self, now: Instant) -> bool {
        self.refused.take(now)
    }

    /// Lines of refused requests that were left out so far.
    pub(crate) fn left_out(&self) -> u64 {
        self.refused.left_out.load(Ordering::Relaxed)
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
        let mut told = LeftOut::default();
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            if let Some(count) = told.tell(self.left_out(), stopping) {
                self.append(|line| push_left_out(line, clock::wall(), count));
            }
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

impl RefusedLines {
    fn new(quota: Option<Quota>) -> Self {
        Self {
            quota,
            started: Instant::now(),
            whole_at: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    fn take(&self, now: Instant) -> bool {
        let Some(quota) = self.quota else {
            return true;
        };
        let now = now.saturating_duration_since(self.started).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let next = |whole_at| quota.take(whole_at, now).ok().map(|taken| taken.whole_at);
        let taken = self
            .whole_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok();
        if !taken {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

/// What was told of the lines that were left out.
#[derive(Default)]
struct LeftOut {
    told: u64,
    at: Option<Instant>,
}

impl LeftOut {
    /// How many to tell of now: of all that are new, once a second and at the end.
    fn tell(&mut self, count: u64, ends: bool) -> Option<u64> {
        let new = count - self.told;
        let early = self.at.is_some_and(|at| at.elapsed() < TELL_EVERY);
        if new == 0 || (early && !ends) {
            return None;
        }
        self.told = count;
        self.at = Some(Instant::now());
        Some(new)
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

#[cfg(test)]
mod tests {
    use durward_policy::Rate;

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
        let (log, writer) = AccessLog::start(Some(Box::new(sink.clone())), None).unwrap();
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
    fn lines_of_refused_requests_have_a_limit_and_it_is_told() {
        let sink = Shared::default();
        let quota = Quota::new(Rate::new(1, Duration::from_secs(3600)), 3);
        let (log, writer) = AccessLog::start(Some(Box::new(sink.clone())), Some(quota)).unwrap();
        let now = Instant::now();
        let taken: usize = thread::scope(|scope| {
            let takes = || (0..10).filter(|_| log.takes_refused(now)).count();
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(takes)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, log.left_out()), (3, 17));
        assert!(log.takes_refused(now + Duration::from_secs(3601)));
        writer.finish();
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        let told: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: u64 = told.iter().map(|line| line["left_out"].as_u64().unwrap()).sum();
        assert_eq!(told, 17);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (log, writer) = AccessLog::start(Some(Box::new(Stuck)), None).unwrap();
        log.append(|buffer| buffer.extend_from_slice(b"a\n"));
        writer.finish();
        assert_eq!(log.dropped(), 1);
    }
}
