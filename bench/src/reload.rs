//! Requests under reloads of the configuration and upgrades of the binary: how many are lost, and what
//! the others notice of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::backend::{BackendRole, Listening};
use crate::client::Connection;
use crate::configuration::permitted_paths;
use crate::durward::Durward;
use crate::machine;
use crate::role::{Role, RoleProcess};
use crate::scratch::Scratch;
use crate::statistics::{nanos, percentile};
use crate::victim::open_web_socket;

mod timeline;

use timeline::{Mark, Timeline};

/// Clients that keep their connection, and as many that open one for each request.
const CLIENTS: usize = 2;
/// Between two requests of a client: the processors are shared with what is measured.
const PAUSE: Duration = Duration::from_millis(2);
/// WebSockets that are open while reloads go on.
const WEB_SOCKETS: usize = 8;
/// Before the first change and after the last.
const QUIET: Duration = Duration::from_secs(3);
/// Between two changes.
const BETWEEN: Duration = Duration::from_millis(200);
/// The longest that a reload or an upgrade may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The route that comes and goes.
const ROUTE: &str = "  - { path: /extra/**, upstream: backend, access: public }\n";

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway's binary.
    pub durward: PathBuf,
    /// Reloads, half of which add a route and half of which remove it.
    pub reloads: usize,
    /// Upgrades to the same binary, spread over the reloads.
    pub upgrades: usize,
    /// Where the picture goes.
    pub plot: PathBuf,
}

/// One request: when it was sent, since the start, and how long its answer took.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    took: Duration,
    answered: bool,
}

/// Runs it all, prints what came of it, and fails where a request was lost.
pub fn run(options: &Options) -> Fallible<()> {
    let scratch = Scratch::new("reload-load")?;
    let mut backend = RoleProcess::start("backend", &Role::Backend(BackendRole { body_bytes: 512 }), None)?;
    let address = backend.hear::<Listening>()?.address;
    let durward = Durward::whole(&options.durward, scratch.path(), address)?;
    let ids = durward.add_users(&["alice".into()], &["customer"])?;
    let users = durward.log_in(&["alice".into()], &ids)?;
    let user = users.first().ok_or("no user")?;
    let sockets: Vec<_> = (0..WEB_SOCKETS)
        .map(|_| open_web_socket(durward.edge, user))
        .collect::<Fallible<_>>()?;

    let (start, done) = (Instant::now(), AtomicBool::new(false));
    let edge = durward.edge;
    let [path, ..] = permitted_paths(&user.id);
    let authorization = user.authorization();
    let (samples, (marks, pid)) = thread::scope(|scope| -> Fallible<_> {
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|client| {
                let (path, authorization, done) = (path.as_str(), authorization.as_str(), &done);
                let keeps = client % 2 == 0;
                scope.spawn(move || ask_until(done, start, edge, path, authorization, keeps))
            })
            .collect();
        let changed = change(options, &durward, start);
        done.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for client in clients {
            samples.extend(client.join().map_err(|_| "a client has panicked")?);
        }
        Ok((samples, changed?))
    })?;
    // Not before the last request was answered: one on its way to a process that ends is lost.
    signal(pid, "TERM")?;
    drop(sockets);
    let timeline = Timeline {
        samples: samples.iter().map(|sample| (sample.at, sample.took)).collect(),
        marks,
        length: start.elapsed(),
    };
    fs::write(&options.plot, timeline.svg())?;
    report(options, &samples, start.elapsed())
}

fn report(options: &Options, samples: &[Sample], length: Duration) -> Fallible<()> {
    let lost = samples.iter().filter(|sample| !sample.answered).count();
    let mut times: Vec<u64> = samples.iter().map(|sample| nanos(sample.took)).collect();
    times.sort_unstable();
    let millis = |share| percentile(&times, share) as f64 / 1e6;
    println!(
        "{}\n{} reloads and {} upgrades in {:.1} s: {} requests, {lost} lost; p50 {:.2} ms, p99 {:.2} ms, max {:.0} ms; {}",
        machine::description(),
        options.reloads,
        options.upgrades,
        length.as_secs_f64(),
        samples.len(),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        options.plot.display(),
    );
    match lost {
        0 => Ok(()),
        _ => Err(format!("{lost} requests were lost").into()),
    }
}

/// Asks again and again. A request is lost where it gets no answer, or another than 200.
fn ask_until(
    done: &AtomicBool,
    start: Instant,
    edge: SocketAddr,
    path: &str,
    authorization: &str,
    keeps: bool,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut kept: Option<Connection> = None;
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = kept
            .take()
            .map_or_else(|| Connection::open(edge), Ok)
            .and_then(|mut connection| {
                let answer = connection.ask("GET", path, &[("Authorization", authorization)], None)?;
                Ok((connection, answer))
            });
        let answered = match answer {
            Ok((connection, answer)) => {
                let ends = answer.head.to_ascii_lowercase().contains("connection: close");
                kept = (keeps && !ends).then_some(connection);
                answer.status == 200
            }
            Err(error) => {
                eprintln!("lost after {:?}: {error}", start.elapsed());
                false
            }
        };
        samples.push(Sample {
            at: began - start,
            took: began.elapsed(),
            answered,
        });
        thread::sleep(PAUSE);
    }
    samples
}

/// Makes all changes, one after the other. Beside when, the process that serves after the last.
fn change(options: &Options, durward: &Durward, start: Instant) -> Fallible<(Vec<Mark>, u32)> {
    let file = durward.folder().join("config.yaml");
    let plain = format!("{}\nreload: {{ watch: false }}\n", fs::read_to_string(&file)?);
    let with_route = plain.replace("routes:\n", &format!("routes:\n{ROUTE}"));
    let mut marks = Vec::new();
    let mut pid = durward.pid();
    let mut generation = 1.0;
    let mut upgraded = 0;
    thread::sleep(QUIET);
    for reload in 0..options.reloads {
        write(&file, if reload % 2 == 0 { &with_route } else { &plain })?;
        marks.push(Mark::reload(start.elapsed()));
        signal(pid, "HUP")?;
        generation += 1.0;
        wait_until("the reload", || {
            Ok(durward.metric("durward_config_generation").ok() == Some(generation))
        })?;
        thread::sleep(BETWEEN);
        if upgraded < (reload + 1) * options.upgrades / options.reloads {
            marks.push(Mark::upgrade(start.elapsed()));
            signal(pid, "USR2")?;
            upgraded += 1;
            wait_until("the upgrade", || {
                let found = successor(durward.folder(), upgraded)?;
                pid = found.unwrap_or(pid);
                Ok(found.is_some())
            })?;
            generation = 1.0;
            thread::sleep(BETWEEN);
        }
    }
    thread::sleep(QUIET);
    Ok((marks, pid))
}

/// In one step, as editors do.
fn write(file: &Path, text: &str) -> Fallible<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

/// The process of the upgrade of this number, once it serves.
fn successor(folder: &Path, number: usize) -> Fallible<Option<u32>> {
    let log = String::from_utf8_lossy(&fs::read(folder.join("durward.log"))?).into_owned();
    let mut told = log
        .lines()
        .filter(|line| line.contains("upgraded: the successor serves"));
    let Some(line) = told.nth(number - 1) else {
        return Ok(None);
    };
    let pid = line
        .split("pid=")
        .nth(1)
        .and_then(|pid| pid.split_whitespace().next());
    Ok(pid.map(str::parse).transpose()?)
}

fn signal(pid: u32, name: &str) -> Fallible<()> {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("kill -{name} {pid}: {status}").into()),
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> Fallible<bool>) -> Fallible<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            return Err(format!("{what} took longer than {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
