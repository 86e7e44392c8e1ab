//! The load generator: keep-alive connections that send what they were given, over and over.
//!
//! Closed loop: each connection sends its next request when the last one is answered. Open loop: each
//! connection has a schedule, and a request that is late because the one before it was slow counts
//! from when it was due, so that a stall is seen by every request that it held up.
//!
//! It reads the watched process's processor time itself, at the two instants between which it counts.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use crate::http_message::response;
use crate::role::tell;
use crate::statistics::percentile;
use crate::{Fallible, process_cpu};

/// What load to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadRole {
    /// The proxy.
    pub target: SocketAddr,
    /// The process whose processor time counts.
    pub watched_pid: u32,
    /// Connections, all open before the first request.
    pub connections: usize,
    /// Requests a second over all connections; closed loop where there is none.
    pub rate: Option<f64>,
    /// Load that is not counted.
    pub warm_up: Duration,
    /// Load that is counted.
    pub measured: Duration,
    /// Whether to go on until this process is ended, and to report each time that so much has been
    /// counted.
    pub repeat: bool,
    /// The requests, complete; each connection begins at another and goes round.
    pub requests: Vec<String>,
    /// The status that every answer must have.
    pub expected_status: u16,
}

/// What was counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadReport {
    /// Answers that arrived in the measured time.
    pub answers: u64,
    /// How long that really was.
    pub elapsed: Duration,
    /// The watched process's processor time in it.
    pub cpu: Duration,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
    /// All requests that were sent so far, warm-up included.
    pub sent: u64,
}

impl LoadReport {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time of the watched process for each answer, in microseconds.
    pub fn cpu_micros_per_answer(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answers as f64
    }

    /// How much of a processor the watched process used.
    pub fn processors(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// What the connections share.
#[derive(Default)]
struct Tally {
    measuring: Cell<bool>,
    stopping: Cell<bool>,
    sent: Cell<u64>,
    nanoseconds: RefCell<Vec<u64>>,
}

/// Makes the load and tells what was counted.
pub(crate) fn play(role: LoadRole) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(role))
}

async fn run(role: LoadRole) -> Fallible<()> {
    if role.requests.is_empty() || role.connections == 0 {
        return Err("no requests or no connections to send them on".into());
    }
    let role = Rc::new(role);
    let tally = Rc::new(Tally::default());
    let mut streams = Vec::new();
    for _ in 0..role.connections {
        let stream = TcpStream::connect(role.target).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let start = Instant::now();
    let connections: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let schedule = Schedule::new(&role, index, start);
            tokio::task::spawn_local(converse(
                stream,
                index,
                schedule,
                Rc::clone(&role),
                Rc::clone(&tally),
            ))
        })
        .collect();

    sleep(role.warm_up).await;
    loop {
        let report = measure(&role, &tally).await?;
        // A connection ends early only by an error.
        if !role.repeat || connections.iter().any(JoinHandle::is_finished) {
            tally.stopping.set(true);
            for connection in connections {
                connection.await??;
            }
            let sent = tally.sent.get();
            return tell(&LoadReport { sent, ..report });
        }
        tell(&report)?;
    }
}

async fn measure(role: &LoadRole, tally: &Tally) -> Fallible<LoadReport> {
    let cpu_before = process_cpu::of(role.watched_pid)?;
    let begun = Instant::now();
    tally.measuring.set(true);
    sleep(role.measured).await;
    tally.measuring.set(false);
    let elapsed = begun.elapsed();
    let cpu = process_cpu::of(role.watched_pid)?.saturating_sub(cpu_before);

    let mut nanoseconds = tally.nanoseconds.take();
    nanoseconds.sort_unstable();
    let at = |share| Duration::from_nanos(percentile(&nanoseconds, share));
    Ok(LoadReport {
        answers: nanoseconds.len() as u64,
        elapsed,
        cpu,
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
        sent: tally.sent.get(),
    })
}

async fn converse(
    mut stream: TcpStream,
    index: usize,
    mut schedule: Option<Schedule>,
    role: Rc<LoadRole>,
    tally: Rc<Tally>,
) -> Fallible<()> {
    // Not all at the same request: a stride that shares no factor with usual numbers of requests.
    let mut next = index * 7919;
    let mut buffer = Vec::with_capacity(16 << 10);
    while !tally.stopping.get() {
        let due = match &mut schedule {
            Some(schedule) => schedule.next().await,
            None => Instant::now(),
        };
        let request = &role.requests[next % role.requests.len()];
        next += 1;
        tally.sent.set(tally.sent.get() + 1);
        stream.write_all(request.as_bytes()).await?;
        let answer = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the proxy closed a connection that was in use".into());
            }
            if let Some(answer) = response(&buffer)? {
                break answer;
            }
        };
        if answer.status != role.expected_status || buffer.len() != answer.bytes() {
            let (status, text) = (answer.status, String::from_utf8_lossy(&buffer));
            return Err(format!(
                "an answer with status {status} instead of {}: {text}",
                role.expected_status
            )
            .into());
        }
        buffer.clear();
        if tally.measuring.get() {
            let nanoseconds = u64::try_from(due.elapsed().as_nanos())?;
            tally.nanoseconds.borrow_mut().push(nanoseconds);
        }
    }
    Ok(())
}

/// When the requests of one connection are due.
struct Schedule {
    due: Instant,
    interval: Duration,
}

impl Schedule {
    fn new(role: &LoadRole, index: usize, start: Instant) -> Option<Self> {
        let interval = Duration::from_secs_f64(role.connections as f64 / role.rate?);
        Some(Self {
            due: start + interval.mul_f64(index as f64 / role.connections as f64),
            interval,
        })
    }

    /// Waits for the next instant and returns what the latency counts from: that instant where the
    /// connection comes late to it, now where it slept. What the timer oversleeps (up to a
    /// millisecond) is not the proxy's.
    async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        if due <= Instant::now() {
            return due;
        }
        sleep_until(due.into()).await;
        Instant::now()
    }
}
