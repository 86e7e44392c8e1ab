//! How long a ban takes to bite, and how long the gateway takes to start.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Fallible;
use crate::backend::{BackendRole, Listening};
use crate::client::{Answer, Connection};
use crate::configuration::{Configuration, DATABASE, ISSUER};
use crate::durward::{Durward, User, free_address};
use crate::machine;
use crate::report::table;
use crate::revocation_rows;
use crate::role::{Role, RoleProcess};
use crate::scratch::Scratch;
use crate::statistics::percentile;

/// Requests of a user before the ban: the connection is open on both sides and the proof is cached.
const WARM_UP: usize = 3;
/// Requests after an acknowledgement before a ban is given up on.
const MOST_ACCEPTED: usize = 10_000;
/// What a user asks for.
const PATH: &str = "/api/items/4711";
/// The longest that a cut may take.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// One way to ban somebody: it returns when the ban is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// `PUT /auth/admin/users/{id}/ban` through the gateway.
    Http,
    /// The control socket, which `durward ban` uses.
    Control,
}

/// Runs it all and prints what came of it.
pub fn run(options: &Options) -> Fallible<()> {
    println!("{}\n", machine::description());
    let scratch = Scratch::new("ban-latency")?;
    let mut backend = RoleProcess::start("backend", &Role::Backend(BackendRole { body_bytes: 512 }), None)?;
    let backend_address = backend.hear::<Listening>()?.address;
    let folder = scratch.path();

    let first = start(options, folder, backend_address)?;
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

    let durward = start(options, folder, backend_address)?;
    eprintln!("logging {} users in", names.len());
    let users = durward.log_in(&names, &ids)?;
    let [admin] = durward
        .log_in(&["root-admin".into()], &admin)?
        .try_into()
        .map_err(|_| "no admin")?;
    let (banned, watched) = users.split_at(options.bans);
    let (by_http, by_control) = banned.split_at(banned.len().div_ceil(2));

    let mut operator = Operator::new(&durward, &admin)?;
    let mut rows = Vec::new();
    for (door, victims) in [(Door::Http, by_http), (Door::Control, by_control)] {
        let bans = victims
            .iter()
            .map(|user| operator.ban_and_ask(durward.edge, door, user));
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
        .map(|user| operator.ban_and_watch(durward.edge, user));
    println!("{}", cut_table(&cuts.collect::<Fallible<Vec<_>>>()?));
    durward.stop()?;
    Ok(())
}

fn start(options: &Options, folder: &Path, backend: SocketAddr) -> Fallible<Durward> {
    let configuration = Configuration {
        listen: free_address()?,
        admin: free_address()?,
        auth: free_address()?,
        backend,
        workers: thread::available_parallelism()?.get(),
        upstream_keepalive_pool: 256,
        access_log: true,
    };
    Durward::start(&options.durward, folder, &configuration, None)
}

fn time_starts(options: &Options, folder: &Path, backend: SocketAddr) -> Fallible<Vec<u64>> {
    let mut times = Vec::new();
    for _ in 0..options.starts {
        let durward = start(options, folder, backend)?;
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

/// Who bans, over connections that stay open.
struct Operator {
    edge: Connection,
    authorization: String,
    control: Connection<std::os::unix::net::UnixStream>,
}

/// One ban.
struct Ban {
    /// From sending it to its acknowledgement.
    acknowledged: Duration,
    /// From the acknowledgement to the first refusal, request included.
    refused: Duration,
    /// Requests that were sent after the acknowledgement and accepted.
    accepted: usize,
}

/// One cut of an open WebSocket.
struct Cut {
    /// From sending the ban.
    since_sent: Duration,
    /// How long after the acknowledgement; before it where `early`.
    from_acknowledged: Duration,
    early: bool,
}

impl Operator {
    fn new(durward: &Durward, admin: &User) -> Fallible<Self> {
        Ok(Self {
            edge: Connection::open(durward.edge)?,
            authorization: admin.authorization(),
            control: durward.control()?,
        })
    }

    fn ban(&mut self, door: Door, user: &User) -> Fallible<()> {
        let reason = json!({ "reason": "benchmark" });
        let answer = match door {
            Door::Http => {
                let path = format!("/auth/admin/users/{}/ban", user.id);
                let fields = [("Authorization", self.authorization.as_str())];
                self.edge.ask("PUT", &path, &fields, Some(&reason))?
            }
            Door::Control => {
                self.control
                    .ask("PUT", &format!("/users/{}/ban", user.name), &[], Some(&reason))?
            }
        };
        match answer.status {
            200..300 => Ok(()),
            _ => answer.json(200).map(drop),
        }
    }

    /// Bans a user, and asks in their name as soon as that is acknowledged, on a connection that has
    /// just been used.
    fn ban_and_ask(&mut self, edge: SocketAddr, door: Door, user: &User) -> Fallible<Ban> {
        let mut victim = Connection::open(edge)?;
        let request = victim.request("GET", PATH, &[("Authorization", &user.authorization())], None);
        for _ in 0..WARM_UP {
            victim.send(request.as_bytes())?;
            let answer = victim.receive()?;
            if answer.status != 200 {
                return Err(format!("{} got {} before the ban", user.name, answer.status).into());
            }
        }
        let sent = Instant::now();
        self.ban(door, user)?;
        let acknowledged = Instant::now();
        for accepted in 0..MOST_ACCEPTED {
            victim.send(request.as_bytes())?;
            let answer = victim.receive()?;
            if answer.status != 200 {
                let refused = acknowledged.elapsed();
                expect_revoked(&answer)?;
                return Ok(Ban {
                    acknowledged: acknowledged - sent,
                    refused,
                    accepted,
                });
            }
        }
        Err(format!("{} was never refused", user.name).into())
    }

    /// Bans a user who has a WebSocket open.
    fn ban_and_watch(&mut self, edge: SocketAddr, user: &User) -> Fallible<Cut> {
        let stream = open_web_socket(edge, user)?;
        let watcher = thread::spawn(move || wait_for_end(stream));
        let sent = Instant::now();
        self.ban(Door::Http, user)?;
        let acknowledged = Instant::now();
        let ended = watcher.join().map_err(|_| "the watcher has panicked")??;
        let early = ended < acknowledged;
        let from_acknowledged = if early {
            acknowledged - ended
        } else {
            ended - acknowledged
        };
        Ok(Cut {
            since_sent: ended.saturating_duration_since(sent),
            from_acknowledged,
            early,
        })
    }
}

fn expect_revoked(answer: &Answer) -> Fallible<()> {
    let reason = answer.json(401)?["reason"].clone();
    if reason == "revoked" {
        Ok(())
    } else {
        Err(format!("refused for {reason}, not for the ban").into())
    }
}

fn open_web_socket(edge: SocketAddr, user: &User) -> Fallible<TcpStream> {
    let mut connection = Connection::open(edge)?;
    let authorization = user.authorization();
    let fields = [
        ("Authorization", authorization.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = connection.ask("GET", "/api/chat", &fields, None)?;
    if answer.status != 101 {
        return Err(format!("the WebSocket was answered with {}", answer.status).into());
    }
    Ok(connection.into_stream())
}

/// When the other side ended it.
fn wait_for_end(mut stream: TcpStream) -> Fallible<Instant> {
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.read(&mut [0; 64]) {
        Ok(0) => Ok(Instant::now()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Instant::now()),
        other => Err(format!("the WebSocket was not cut: {other:?}").into()),
    }
}

fn ban_rows(door: Door, bans: &[Ban]) -> Vec<Vec<String>> {
    let accepted: usize = bans.iter().map(|ban| ban.accepted).sum();
    let name = match door {
        Door::Http => "HTTP",
        Door::Control => "control socket",
    };
    let row = |what: &str, accepted: String, figure: fn(&Ban) -> Duration| {
        let mut times: Vec<_> = bans.iter().map(|ban| nanos(figure(ban))).collect();
        times.sort_unstable();
        let mut row = vec![format!("{name}: {what}"), bans.len().to_string(), accepted];
        row.extend([0.5, 0.99, 1.0].map(|share| format!("{:.0}", percentile(&times, share) as f64 / 1e3)));
        row
    };
    vec![
        row("sent to acknowledged", String::new(), |ban| ban.acknowledged),
        row("acknowledged to refused", accepted.to_string(), |ban| ban.refused),
    ]
}

fn cut_table(cuts: &[Cut]) -> String {
    let row = |what: &str, mut times: Vec<u64>| {
        times.sort_unstable();
        let mut row = vec![what.to_owned(), times.len().to_string()];
        row.extend([0.5, 0.99, 1.0].map(|share| format!("{:.0}", percentile(&times, share) as f64 / 1e3)));
        row
    };
    let late = cuts.iter().filter(|cut| !cut.early);
    let rows = [
        row(
            "ban sent to cut",
            cuts.iter().map(|cut| nanos(cut.since_sent)).collect(),
        ),
        row(
            "acknowledged to cut, of those cut later",
            late.map(|cut| nanos(cut.from_acknowledged)).collect(),
        ),
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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
