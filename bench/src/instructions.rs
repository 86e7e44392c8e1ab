//! What a request costs in instructions, which are the same whatever else a machine does.
//!
//! Valgrind counts what a process executes in user space: neither the kernel's instructions, nor what
//! one that waits for memory costs. Its processor has no SHA extensions, so that a digest looks about
//! ten times dearer than it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;
use crate::client::Connection;
use crate::contender::{Contender, Field, FieldOptions, name};
use crate::report::table;
use crate::role::Under;
use crate::scratch::Scratch;

/// Names of callgrind's files, with its own letter for the process.
pub(crate) const FILES: &str = "callgrind.%p";
/// Connections that are kept.
const CONNECTIONS: u32 = 8;
/// Requests before those that are counted: what is made once has been made then.
const WARM_UP: u32 = 400;

/// Counts in every variant, and prints what came of it.
pub fn run(durward: Option<PathBuf>, requests: u32) -> Fallible<()> {
    let requests = requests.next_multiple_of(CONNECTIONS).max(CONNECTIONS);
    let scratch = Scratch::new("instructions")?;
    let field = Field::start(
        &FieldOptions {
            durward,
            entries: 2000,
            users: 8,
            workers: 1,
            proxies_under: Some(Under::Callgrind(scratch.path().to_owned())),
            others_under: None,
        },
        |what| eprintln!("{what}"),
    )?;
    let mut counts = Vec::new();
    for contender in &field.contenders {
        field.check(contender)?;
        let count = count(&field, contender, requests, scratch.path())?;
        eprintln!("{}: {count:.0}", contender.name);
        counts.push((contender.name, count));
    }
    println!("{}", figures(&counts));
    Ok(())
}

/// Instructions of one request.
fn count(field: &Field, contender: &Contender, requests: u32, folder: &Path) -> Fallible<f64> {
    let texts = field.requests(contender.requests);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(contender.address)?);
    }
    let mut asked = texts.iter().cycle();
    // All connections at once, as under load: one request at a time would pay for waking up each time.
    let mut ask = |requests: u32| -> Fallible<()> {
        for _ in 0..requests / CONNECTIONS {
            for (connection, text) in connections.iter_mut().zip(&mut asked) {
                connection.send(text.as_bytes())?;
            }
            for connection in &mut connections {
                let status = connection.receive()?.status;
                if status != 200 {
                    return Err(format!("{}: status {status}", contender.name).into());
                }
            }
        }
        Ok(())
    };
    ask(WARM_UP)?;
    control(contender.pid, "--instr=on")?;
    ask(requests)?;
    control(contender.pid, "--dump")?;
    control(contender.pid, "--instr=off")?;
    Ok(last_total(folder, contender.pid)? as f64 / f64::from(requests))
}

fn control(pid: u32, what: &str) -> Fallible<()> {
    let output = Command::new("callgrind_control")
        .args([what, &pid.to_string()])
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "callgrind_control {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into()),
    }
}

/// What the last dump of a process says. The gateway without a log is asked twice.
fn last_total(folder: &Path, pid: u32) -> Fallible<u64> {
    let dump = |number: u32| folder.join(format!("callgrind.{pid}.{number}"));
    let last = (1..).take_while(|number| dump(*number).exists()).last();
    total(&fs::read_to_string(dump(last.ok_or("no dump")?))?)
}

/// What a dump says of all that was counted.
fn total(dump: &str) -> Fallible<u64> {
    let line = |name| dump.lines().find_map(move |line| line.strip_prefix(name));
    let total = line("totals: ").or_else(|| line("summary: "));
    Ok(total.ok_or("a dump without totals")?.trim().parse()?)
}

fn figures(counts: &[(&str, f64)]) -> String {
    let bare = counts
        .iter()
        .find(|(name, _)| *name == name::BARE)
        .map_or(f64::NAN, |(_, count)| *count);
    let rows: Vec<_> = counts
        .iter()
        .map(|(name, count)| {
            vec![
                (*name).to_owned(),
                format!("{count:.0}"),
                format!("{:+.0}", count - bare),
                format!("{:.3}", count / bare),
            ]
        })
        .collect();
    table(&["", "instructions/request", "over bare", "ratio"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_says_its_total() {
        assert_eq!(total("events: Ir\nfn=x\n1 5\ntotals: 1234\n").unwrap(), 1234);
        assert!(total("events: Ir\n").is_err());
    }
}
