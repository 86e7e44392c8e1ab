//! How the cost of news grows with gateways and with bans a second: measured as far as this machine
//! goes, by arithmetic past it.

use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::durward::User;
use crate::fleet::{Fleet, FleetOptions};
use crate::fleet_cpu::FleetCpu;
use crate::machine;
use crate::operator::{Door, Operator};
use crate::report::table;
use crate::statistics::{line_through, median};

/// Gateways that the arithmetic is done for, besides the most that ran.
const BEYOND: [usize; 2] = [100, 1000];
/// Who bans at the same time.
const OPERATORS: usize = 16;
/// Users that are banned, again and again: each ban writes an entry, also of who is banned already.
const USERS: usize = 64;
/// After more gateways were started.
const SETTLE: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processes; its gateways are those of `gateways`.
    pub fleet: FleetOptions,
    /// How many gateways, in rising order.
    pub gateways: Vec<usize>,
    /// Bans a second.
    pub rates: Vec<f64>,
    /// How long each is measured.
    pub measured: Duration,
}

/// Runs it all and prints what came of it.
pub fn run(options: &Options) -> Fallible<()> {
    println!("{}", machine::description());
    let first = options.gateways.first().copied().unwrap_or(1);
    let mut fleet = Fleet::start(&FleetOptions {
        gateways: first,
        ..options.fleet.clone()
    })?;
    println!("{}\n", fleet.description()?);
    let names: Vec<_> = (0..USERS).map(|user| format!("user-{user}")).collect();
    let users = fleet.users(&names, &["customer"])?;
    let mut operators = fleet.several_operators(OPERATORS)?;

    let mut steps = Vec::new();
    for gateways in &options.gateways {
        fleet.grow_to(*gateways)?;
        thread::sleep(SETTLE);
        eprintln!("{gateways} gateways");
        let idle = observe(&fleet, || {
            thread::sleep(options.measured);
            Ok(0)
        })?;
        let mut busy = Vec::new();
        for rate in &options.rates {
            busy.push(observe(&fleet, || {
                ban(&mut operators, &users, *rate, options.measured)
            })?);
        }
        steps.push(Step {
            gateways: *gateways,
            idle,
            busy,
        });
    }
    println!("{}\n", idle_table(&steps));
    println!("{}\n", busy_table(&options.rates, &steps));
    println!("{}", arithmetic(&options.rates, &steps));
    fleet.stop()
}

/// What was seen with so many gateways.
struct Step {
    gateways: usize,
    idle: Observed,
    /// At each rate.
    busy: Vec<Observed>,
}

/// Costs of some time.
#[derive(Clone, Copy, Debug, Default)]
struct Observed {
    seconds: f64,
    bans: f64,
    /// Processor microseconds: of all gateways, of Redis, of the auth replicas, of PostgreSQL.
    gateways: f64,
    redis: f64,
    replicas: f64,
    postgres: f64,
    /// Of Redis.
    commands: f64,
    bytes_in: f64,
    bytes_out: f64,
}

fn observe(fleet: &Fleet, during: impl FnOnce() -> Fallible<usize>) -> Fallible<Observed> {
    let (cpu, traffic, start) = (FleetCpu::now(fleet, &[])?, fleet.redis.traffic()?, Instant::now());
    let bans = during()?;
    let seconds = start.elapsed().as_secs_f64();
    let traffic = fleet.redis.traffic()?.since(&traffic);
    let now = FleetCpu::now(fleet, &[])?;
    let micros = |part| now.spent_since(&cpu, part).as_secs_f64() * 1e6;
    Ok(Observed {
        seconds,
        bans: bans as f64,
        gateways: micros("gateways"),
        redis: micros("Redis"),
        replicas: micros("auth replicas"),
        postgres: micros("PostgreSQL"),
        commands: traffic.commands as f64,
        bytes_in: traffic.bytes_in as f64,
        bytes_out: traffic.bytes_out as f64,
    })
}

/// Bans at that rate, open loop, for that long; returns how many were acknowledged.
fn ban(operators: &mut [Operator], users: &[User], rate: f64, during: Duration) -> Fallible<usize> {
    let start = Instant::now();
    let stride = operators.len();
    let one = |first: usize, operator: &mut Operator| -> Fallible<usize> {
        let mut acknowledged = 0;
        for number in (first..).step_by(stride) {
            let due = Duration::from_secs_f64(number as f64 / rate);
            if due >= during || start.elapsed() >= during {
                break;
            }
            thread::sleep(due.saturating_sub(start.elapsed()));
            operator.ban(Door::Http, &users[number % users.len()])?;
            acknowledged += 1;
        }
        Ok(acknowledged)
    };
    let one = &one;
    let acknowledged = thread::scope(|scope| {
        let threads: Vec<_> = operators
            .iter_mut()
            .enumerate()
            .map(|(first, operator)| scope.spawn(move || one(first, operator)))
            .collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread has panicked")?);
        counts.sum::<Fallible<usize>>()
    })?;
    // The same time for every rate: the last ban may have come early in it.
    thread::sleep(during.saturating_sub(start.elapsed()));
    Ok(acknowledged)
}

impl Observed {
    /// What a ban costs beyond what the same time costs without any.
    fn each_ban(&self, idle: &Self, of: fn(&Self) -> f64) -> f64 {
        (of(self) - of(idle) / idle.seconds * self.seconds) / self.bans.max(1.0)
    }

    fn each_second(&self, of: fn(&Self) -> f64) -> f64 {
        of(self) / self.seconds
    }
}

fn idle_table(steps: &[Step]) -> String {
    let rows: Vec<_> = steps
        .iter()
        .map(|Step { gateways, idle, .. }| {
            vec![
                gateways.to_string(),
                format!("{:.1}", idle.each_second(|idle| idle.commands)),
                format!("{:.0}", idle.each_second(|idle| idle.bytes_in)),
                format!("{:.0}", idle.each_second(|idle| idle.bytes_out)),
                format!("{:.0}", idle.each_second(|idle| idle.redis)),
                format!("{:.0}", idle.each_second(|idle| idle.replicas)),
                format!("{:.0}", idle.each_second(|idle| idle.gateways) / *gateways as f64),
            ]
        })
        .collect();
    let header = [
        "gateways, no bans",
        "Redis commands/s",
        "bytes in/s",
        "bytes out/s",
        "Redis cpu us/s",
        "replicas cpu us/s",
        "each gateway cpu us/s",
    ];
    let (_, commands) = idle_line(steps, |idle| idle.commands);
    let (_, bytes_in) = idle_line(steps, |idle| idle.bytes_in);
    let (_, bytes_out) = idle_line(steps, |idle| idle.bytes_out);
    format!(
        "{}\neach gateway more: {commands:.1} commands/s, {bytes_in:.0} bytes in/s, {bytes_out:.0} bytes out/s",
        table(&header, &rows)
    )
}

fn busy_table(rates: &[f64], steps: &[Step]) -> String {
    let mut rows = Vec::new();
    for step in steps {
        for (rate, busy) in rates.iter().zip(&step.busy) {
            let each = |of| busy.each_ban(&step.idle, of);
            rows.push(vec![
                step.gateways.to_string(),
                format!("{rate:.0}"),
                format!("{:.0}", busy.bans / busy.seconds),
                figure(each(|busy| busy.gateways) / step.gateways as f64, 0),
                figure(each(|busy| busy.redis), 0),
                figure(each(|busy| busy.replicas), 0),
                figure(each(|busy| busy.postgres), 0),
                figure(each(|busy| busy.commands), 1),
                figure(each(|busy| busy.bytes_out), 0),
            ]);
        }
    }
    let header = [
        "gateways",
        "bans/s offered",
        "acknowledged",
        "cpu us/ban: each gateway",
        "Redis",
        "replicas",
        "PostgreSQL",
        "Redis commands/ban",
        "bytes out/ban",
    ];
    table(&header, &rows)
}

/// What is measured, continued: straight lines through the numbers of gateways, each rate for itself.
fn arithmetic(rates: &[f64], steps: &[Step]) -> String {
    let most = steps.last().map_or(0, |step| step.gateways);
    let mut rows = Vec::new();
    for gateways in [most].into_iter().chain(BEYOND) {
        let idle_redis = at(idle_line(steps, |idle| idle.redis), gateways);
        let idle_bytes = at(idle_line(steps, |idle| idle.bytes_out), gateways);
        let idle_gateway = median_of(steps, |step| {
            step.idle.each_second(|idle| idle.gateways) / step.gateways as f64
        });
        for (number, rate) in rates.iter().enumerate() {
            let redis = at(ban_line(steps, number, |busy| busy.redis), gateways);
            let bytes = at(ban_line(steps, number, |busy| busy.bytes_out), gateways);
            let gateway = median_of(steps, |step| {
                step.busy[number].each_ban(&step.idle, |busy| busy.gateways) / step.gateways as f64
            });
            let percent = |idle: f64, ban: f64| format!("{:.2}", (idle + rate * ban) / 1e4);
            rows.push(vec![
                gateways.to_string(),
                format!("{rate:.0}"),
                percent(idle_redis, redis),
                format!("{:.3}", (idle_bytes + rate * bytes) / 1e6),
                percent(idle_gateway, gateway),
            ]);
        }
    }
    let header = [
        "gateways",
        "bans/s",
        "Redis: % of a processor",
        "MB/s out of Redis",
        "each gateway: % of a processor",
    ];
    format!(
        "by arithmetic from the lines through what was measured (past {most} gateways nothing was):\n{}",
        table(&header, &rows)
    )
}

/// With so many digits; noise around zero has no sign.
fn figure(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|byte| matches!(byte, b'0' | b'.')) => zero.to_owned(),
        _ => text,
    }
}

/// A cost each second without bans, over the number of gateways.
fn idle_line(steps: &[Step], of: fn(&Observed) -> f64) -> (f64, f64) {
    let points: Vec<_> = steps
        .iter()
        .map(|step| (step.gateways as f64, step.idle.each_second(of)))
        .collect();
    line_through(&points)
}

/// A cost each ban at the rate of that number, over the number of gateways.
fn ban_line(steps: &[Step], rate: usize, of: fn(&Observed) -> f64) -> (f64, f64) {
    let points: Vec<_> = steps
        .iter()
        .map(|step| (step.gateways as f64, step.busy[rate].each_ban(&step.idle, of)))
        .collect();
    line_through(&points)
}

fn at((start, rise): (f64, f64), gateways: usize) -> f64 {
    start + rise * gateways as f64
}

fn median_of(steps: &[Step], of: impl Fn(&Step) -> f64) -> f64 {
    median(&steps.iter().map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Redis: 100 us/s and 50 for each gateway; 20 us a ban and 10 for each gateway.
    fn step(gateways: usize) -> Step {
        let idle = |seconds: f64| seconds * (100.0 + 50.0 * gateways as f64);
        let busy = Observed {
            seconds: 4.0,
            bans: 400.0,
            redis: idle(4.0) + 400.0 * (20.0 + 10.0 * gateways as f64),
            gateways: 400.0 * 30.0 * gateways as f64,
            ..Observed::default()
        };
        Step {
            gateways,
            idle: Observed {
                seconds: 2.0,
                redis: idle(2.0),
                ..Observed::default()
            },
            busy: vec![busy],
        }
    }

    #[test]
    fn what_would_be_spent_without_bans_is_not_theirs() {
        let step = step(3);
        assert!((step.busy[0].each_ban(&step.idle, |busy| busy.redis) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn lines_are_continued() {
        let steps = [step(1), step(3), step(10)];
        let text = arithmetic(&[100.0], &steps);
        let row = |gateways: &str| -> Vec<String> {
            let line = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some(gateways));
            line.unwrap().split_whitespace().map(str::to_owned).collect()
        };
        // 100 + 50 * 1000 us/s, and 100 bans of 20 + 10 * 1000 us: 1.0521 s of a processor's second.
        assert_eq!(row("1000"), ["1000", "100", "105.21", "0.000", "0.30"]);
        assert_eq!(row("10")[2], "1.26");
    }
}
