//! The log of the process, on standard error: what it says, how long a line may be, and how many there
//! may be a second.
//!
//! Clients and stores can bring about lines as often as they like. Beyond a budget lines are left out
//! and counted; the next one that is written is preceded by how many those were.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use durward_policy::{Quota, Rate};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// The longest line, in bytes; what is longer is cut.
const MAX_LINE_BYTES: usize = 4096;
/// How many lines there may be: of Durward's own, and of its libraries together.
const BUDGET: Quota = Quota::new(Rate::new(50, Duration::from_secs(1)), 500);
/// Stands where a line was cut.
const CUT: &[u8] = b"...\n";

/// `DURWARD_LOG` holds filter directives (`debug`, `durward_gateway=trace`); the default is `info`.
/// Libraries are held to `info` whatever it says: below that, Pingora writes out whole requests,
/// with the credentials that are in them.
pub fn to_standard_error() {
    let asked =
        EnvFilter::try_from_env("DURWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info,pingora=warn"));
    let held = |metadata: &Metadata<'_>| *metadata.level() <= Level::INFO || is_own(metadata);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Capped::new(io::stderr))
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(lines.with_filter(filter_fn(held)))
        .with(asked)
        .init();
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("durward")
}

/// Writes lines within their budgets.
struct Capped<S> {
    sink: S,
    started: Instant,
    budgets: Mutex<[Budget; 2]>,
}

#[derive(Debug, Default)]
struct Budget {
    whole_at: u64,
    left_out: u64,
}

impl<S> Capped<S> {
    fn new(sink: S) -> Self {
        Self {
            sink,
            started: Instant::now(),
            budgets: Mutex::default(),
        }
    }

    fn budgets(&self) -> MutexGuard<'_, [Budget; 2]> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line from a budget; gives how many were left out before it.
    fn take(&self, own: bool, now: Instant) -> Option<u64> {
        let now = u64::try_from((now - self.started).as_nanos()).unwrap_or(u64::MAX);
        let budget = &mut self.budgets()[usize::from(own)];
        match BUDGET.take(budget.whole_at, now) {
            Ok(taken) => {
                budget.whole_at = taken.whole_at;
                Some(std::mem::take(&mut budget.left_out))
            }
            Err(_) => {
                budget.left_out += 1;
                None
            }
        }
    }
}

impl<'a, S, W> MakeWriter<'a> for Capped<S>
where
    S: Fn() -> W + 'a,
    W: Write,
{
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line(Some((self.sink)()))
    }

    /// Who asks for more than `info` wants all of it.
    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<W> {
        if *metadata.level() > Level::INFO {
            return self.make_writer();
        }
        let Some(left_out) = self.take(is_own(metadata), Instant::now()) else {
            return Line(None);
        };
        let mut sink = (self.sink)();
        if left_out > 0 {
            // Where standard error is gone there is nobody to tell.
            let _ = writeln!(
                sink,
                "{left_out} lines of the log were left out: there were too many"
            );
        }
        Line(Some(sink))
    }
}

/// Where one line goes, if anywhere. It is written in one piece.
struct Line<W>(Option<W>);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(sink) = &mut self.0 else {
            return Ok(line.len());
        };
        match line.get(..MAX_LINE_BYTES - CUT.len()) {
            Some(start) if line.len() > MAX_LINE_BYTES => {
                sink.write_all(start)?;
                sink.write_all(CUT)?;
            }
            _ => sink.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_budget_lines_are_left_out_and_counted() {
        let log = Capped::new(io::sink);
        let now = log.started;
        for _ in 0..BUDGET.burst() {
            assert_eq!(log.take(true, now), Some(0));
        }
        assert_eq!(log.take(true, now), None);
        assert_eq!(log.take(true, now), None);
        assert_eq!(
            log.take(false, now),
            Some(0),
            "libraries have a budget of their own"
        );
        let later = now + Duration::from_secs(1);
        assert_eq!(log.take(true, later), Some(2));
        assert_eq!(log.take(true, later), Some(0));
    }

    #[test]
    fn a_long_line_is_cut_and_stays_one() {
        let mut written = Vec::new();
        for (length, kept) in [
            (10, 10),
            (MAX_LINE_BYTES, MAX_LINE_BYTES),
            (MAX_LINE_BYTES + 1, MAX_LINE_BYTES),
        ] {
            let mut line = vec![b'x'; length - 1];
            line.push(b'\n');
            written.clear();
            Line(Some(&mut written)).write_all(&line).unwrap();
            assert_eq!(written.len(), kept);
            assert!(written.ends_with(b"\n"));
        }
        assert!(written.ends_with(CUT));
        Line(None::<Vec<u8>>).write_all(b"nothing").unwrap();
    }
}
