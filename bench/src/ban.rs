//! How long a ban takes to bite, and how long the gateway takes to start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::backend::{BackendRole, Listening};
use crate::configuration::{DATABASE, ISSUER};
use crate::durward::{Durward, User};
use crate::machine;
use crate::operator::{Door, Operator};
use crate::report::{spread_micros, table};
use crate::revocation_rows;
use crate::role::{Role, RoleProcess};
use crate::scratch::Scratch;
use crate::statistics::{nanos, percentile};
use crate::victim::{Cut, Refusal, Victim, open_web_socket, wait_for_end};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway's binary.
    pub durward: PathBuf,
    /// Bans, each of another user.
    pub bans: usize,
    /// Open WebSockets that are cut.
    pub web_sockets: usize,
    /// Entries of the revocation log before the first ban.
    pub entries: u64,
    /// Starts with that log.
    pub starts: usize,
}

/// Runs it all and prints what came of it.
pub fn run(options: &Options) -> Fallible<()> {
    println!("{}\n", machine::description());
    let scratch = Scratch::new("ban-latency")?;
    let mut backend = RoleProcess::start("backend", &Role::Backend(BackendRole { body_bytes: 512 }), None)?;
    let backend_address = backend.hear::<Listening>()?.address;
    let folder = scratch.path();

    let first = Durward::whole(&options.durward, folder, backend_address)?;
    let first_start = first.ready_after;
    eprintln!("adding {} users", options.bans + options.web_sockets);
    let admin = first.add_users(&["root-admin".into()], &["admin"])?;
    let names: Vec<_> = (0..options.bans + options.web_sockets)
        .map(|user| format!("user-{user}"))
        .collect();
    let ids = first.add_users(&names, &["customer"])?;
    first.stop()?;
    revocation_rows::append(&folder.join(DATABASE), ISSUER, options.entries)?;

    let starts = time_starts(options, folder, backend_address)?;
    println!("start of the process to the first 200 of /readyz:");
    println!(
        "  {:>10.1} ms  first start: database, keys and migrations are made",
        millis(first_start)
    );
    println!(
        "  {}  with {} entries in the database\n",
        spread(&starts),
        options.entries
    );

    let durward = Durward::whole(&options.durward, folder, backend_address)?;
    eprintln!("logging {} users in", names.len());
    let users = durward.log_in(&names, &ids)?;
    let [admin] = durward
        .log_in(&["root-admin".into()], &admin)?
        .try_into()
        .map_err(|_| "no admin")?;
    let (banned, watched) = users.split_at(options.bans);
    let (by_http, by_control) = banned.split_at(banned.len().div_ceil(2));

    let mut operator = Operator::new(&durward, durward.edge, &admin)?;
    let mut rows = Vec::new();
    for (door, victims) in [(Door::Http, by_http), (Door::Control, by_control)] {
        let bans = victims
            .iter()
            .map(|user| ban_and_ask(&mut operator, durward.edge, door, user));
        rows.extend(ban_rows(door, &bans.collect::<Fallible<Vec<_>>>()?));
    }
    println!(
        "{}\n",
        table(
            &[
                "bans",
                "number",
                "accepted after ack",
                "p50 us",
                "p99 us",
                "max us"
            ],
            &rows
        )
    );
    let cuts = watched
        .iter()
        .map(|user| ban_and_watch(&mut operator, durward.edge, user));
    println!("{}", cut_table(&cuts.collect::<Fallible<Vec<_>>>()?));
    durward.stop()?;
    Ok(())
}

fn time_starts(options: &Options, folder: &Path, backend: SocketAddr) -> Fallible<Vec<u64>> {
    let mut times = Vec::new();
    for _ in 0..options.starts {
        let durward = Durward::whole(&options.durward, folder, backend)?;
        times.push(nanos(durward.ready_after));
        let entries = durward.metric("durward_revocation_entries")?;
        if entries < options.entries as f64 {
            return Err(format!(
                "the mirror holds {entries} entries instead of {}",
                options.entries
            )
            .into());
        }
        durward.stop()?;
    }
    times.sort_unstable();
    Ok(times)
}

/// One ban.
struct Ban {
    /// From sending it to its acknowledgement.
    acknowledged: Duration,
    /// What came of the requests after it.
    refusal: Refusal,
}

/// Bans a user, and asks in their name as soon as that is acknowledged, on a connection that has just
/// been used.
fn ban_and_ask(operator: &mut Operator, edge: SocketAddr, door: Door, user: &User) -> Fallible<Ban> {
    let mut victim = Victim::warm(edge, user)?;
    let sent = Instant::now();
    operator.ban(door, user)?;
    let acknowledged = Instant::now();
    Ok(Ban {
        acknowledged: acknowledged - sent,
        refusal: victim.ask_until_refused(acknowledged)?,
    })
}

/// Bans a user who has a WebSocket open.
fn ban_and_watch(operator: &mut Operator, edge: SocketAddr, user: &User) -> Fallible<Cut> {
    let stream = open_web_socket(edge, user)?;
    let watcher = thread::spawn(move || wait_for_end(stream));
    let sent = Instant::now();
    operator.ban(Door::Http, user)?;
    let acknowledged = Instant::now();
    let ended = watcher.join().map_err(|_| "the watcher has panicked")??;
    Ok(Cut::new(sent, acknowledged, ended))
}

fn ban_rows(door: Door, bans: &[Ban]) -> Vec<Vec<String>> {
    let accepted: usize = bans.iter().map(|ban| ban.refusal.accepted).sum();
    let name = match door {
        Door::Http => "HTTP",
        Door::Control => "control socket",
    };
    let row = |what: &str, accepted: String, figure: fn(&Ban) -> Duration| {
        let mut row = vec![format!("{name}: {what}"), bans.len().to_string(), accepted];
        row.extend(spread_micros(bans.iter().map(figure)));
        row
    };
    vec![
        row("sent to acknowledged", String::new(), |ban| ban.acknowledged),
        row("acknowledged to refused", accepted.to_string(), |ban| {
            ban.refusal.refused
        }),
    ]
}

fn cut_table(cuts: &[Cut]) -> String {
    let row = |what: &str, times: Vec<Duration>| {
        let mut row = vec![what.to_owned(), times.len().to_string()];
        row.extend(spread_micros(times));
        row
    };
    let late = cuts.iter().filter_map(|cut| cut.since_acknowledged);
    let rows = [
        row("ban sent to cut", cuts.iter().map(|cut| cut.since_sent).collect()),
        row("acknowledged to cut, of those cut later", late.collect()),
    ];
    table(
        &["open WebSockets", "number", "p50 us", "p99 us", "max us"],
        &rows,
    )
}

fn spread(sorted: &[u64]) -> String {
    let at = |share| percentile(sorted, share) as f64 / 1e6;
    format!(
        "{:>10.1} ms  median of {} starts, at most {:.1} ms,",
        at(0.5),
        sorted.len(),
        at(1.0)
    )
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
