//! The comparison of the gateway with the same Pingora without it: rounds, then figures.

use std::time::{Duration, Instant};

use crate::Fallible;
use crate::contender::{Contender, Field, FieldOptions, Requests, name};
use crate::load::{LoadReport, LoadRole};
use crate::machine;
use crate::process_cpu::resident_bytes;
use crate::report::table;
use crate::role::{Role, RoleProcess, Under};
use crate::rounds::{Series, order};

/// What to run and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What runs besides the load.
    pub field: FieldOptions,
    /// Rounds.
    pub rounds: usize,
    /// Before each measurement, the same load that is not counted.
    pub warm_up: Duration,
    /// Each measurement.
    pub measured: Duration,
    /// Connections of the load.
    pub connections: usize,
    /// Requests a second; closed loop where there is none.
    pub rate: Option<f64>,
}

/// Runs it all and prints what came of it.
pub fn run(options: &Options) -> Fallible<()> {
    let start = Instant::now();
    println!("{}\n", machine::description());
    let field = Field::start(&options.field, |what| eprintln!("{what}"))?;
    describe(options, &field)?;
    for contender in &field.contenders {
        field.check(contender)?;
    }
    println!(
        "checked: 200 with the right X-User-Id and without the credential; 401 for none, a malformed and a forged one\n"
    );

    let loads = [Requests::Permitted, Requests::Public].map(|requests| (requests, field.requests(requests)));
    let mut series: Vec<_> = field
        .contenders
        .iter()
        .map(|contender| Series {
            name: contender.name.into(),
            rounds: Vec::new(),
        })
        .collect();
    let mut logged = 0;
    for round in 0..options.rounds {
        for index in order(field.contenders.len(), round) {
            let contender = &field.contenders[index];
            let requests = loads
                .iter()
                .find(|(kind, _)| *kind == contender.requests)
                .map(|(_, load)| load.clone());
            let report = measure(contender, requests.unwrap_or_default(), options)?;
            field.check_round(contender, report.sent)?;
            if contender.name == name::FULL {
                logged += report.sent;
            }
            eprintln!(
                "round {} of {}: {}",
                round + 1,
                options.rounds,
                line(contender, &report)
            );
            series[index].rounds.push(report);
        }
    }
    println!("{}\n", figures(&series));
    println!("{}\n", costs(&series));
    finish(field, logged)?;
    println!("took {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn describe(options: &Options, field: &Field) -> Fallible<()> {
    let load = options
        .rate
        .map_or_else(|| "closed loop".into(), |rate| format!("{rate} requests/s"));
    println!(
        "{} rounds of {:?} after {:?} of warm-up; {} keep-alive connections, {load}; {} workers; {} users",
        options.rounds,
        options.measured,
        options.warm_up,
        options.connections,
        options.field.workers,
        options.field.users
    );
    match (&options.field.proxies_under, &options.field.others_under) {
        (Some(Under::Processors(proxies)), Some(Under::Processors(others))) => {
            println!("proxies on processors {proxies}, backend and load on {others}")
        }
        _ => println!("every process on every processor"),
    }
    let Some(gateways) = &field.gateways else {
        return Ok(());
    };
    let entries = gateways.logging.metric("durward_revocation_entries")?;
    if entries < options.field.entries as f64 {
        return Err(format!(
            "the mirror holds {entries} entries instead of {}",
            options.field.entries
        )
        .into());
    }
    println!(
        "durward: {entries} entries in the mirror, ready after {:?}, resident {} MiB",
        gateways.logging.ready_after,
        resident_bytes(gateways.logging.pid())? >> 20
    );
    Ok(())
}

fn measure(contender: &Contender, requests: Vec<String>, options: &Options) -> Fallible<LoadReport> {
    let role = Role::Load(LoadRole {
        target: contender.address,
        watched_pid: contender.pid,
        connections: options.connections,
        rate: options.rate,
        warm_up: options.warm_up,
        measured: options.measured,
        repeat: false,
        requests,
        expected_status: 200,
    });
    RoleProcess::start("load generator", &role, options.field.others_under.as_ref())?.hear()
}

fn line(contender: &Contender, report: &LoadReport) -> String {
    format!(
        "{}: {:.0}/s, {:.2} us",
        contender.name,
        report.rate(),
        report.cpu_micros_per_answer()
    )
}

fn figures(series: &[Series]) -> String {
    let header = [
        "median over rounds",
        "requests/s",
        "cpu us/request",
        "p50 us",
        "p99 us",
        "cpus",
        "ratio",
        "lowest",
        "highest",
    ];
    let rows: Vec<_> = series
        .iter()
        .map(|variant| {
            let (medians, ratio) = (variant.medians(), variant.cpu_ratio(&series[0]));
            vec![
                variant.name.clone(),
                format!("{:.0}", medians.rate),
                format!("{:.2}", medians.cpu_micros),
                format!("{:.0}", medians.p50),
                format!("{:.0}", medians.p99),
                format!("{:.2}", medians.processors),
                format!("{:.3}", ratio.median),
                format!("{:.3}", ratio.lowest),
                format!("{:.3}", ratio.highest),
            ]
        })
        .collect();
    table(&header, &rows)
}

/// What each part adds, as medians of the differences within rounds.
fn costs(series: &[Series]) -> String {
    let of = |name: &str| series.iter().find(|variant| variant.name == name);
    let row = |what: &str, with: &str, without: &str| {
        let (with, without) = (of(with)?, of(without)?);
        let (beyond, ratio) = (with.cpu_beyond(without), with.cpu_ratio(without));
        Some(vec![
            what.to_owned(),
            format!("{beyond:+.2}"),
            format!("{:.3}", ratio.median),
        ])
    };
    let rows: Vec<_> = [
        row("noise (bare again, over bare)", name::CONTROL, name::BARE),
        row("mimalloc (on the bare proxy)", name::MIMALLOC, name::BARE),
        row("metrics (on the bare proxy)", name::METERED, name::BARE),
        row(
            "gateway without authentication or log (public route)",
            name::PUBLIC,
            name::BARE,
        ),
        row(
            "authentication (over the bare proxy with metrics)",
            name::QUIET,
            name::METERED,
        ),
        row(
            "authentication proper (over the public route)",
            name::QUIET,
            name::PUBLIC,
        ),
        row("access log", name::FULL, name::QUIET),
        row("everything, over bare", name::FULL, name::BARE),
        row("everything, over bare on mimalloc", name::FULL, name::MIMALLOC),
    ]
    .into_iter()
    .flatten()
    .collect();
    table(&["what it adds", "cpu us/request", "ratio"], &rows)
}

fn finish(field: Field, logged: u64) -> Fallible<()> {
    let Some(gateways) = field.gateways else {
        return Ok(());
    };
    let dropped = gateways.logging.metric("durward_access_log_dropped_total")?;
    let lines = gateways.stop_and_count_log_lines()?;
    if dropped != 0.0 || lines < logged {
        return Err(format!("{logged} requests were logged in {lines} lines, {dropped} dropped").into());
    }
    println!("access log: {lines} lines, {dropped} dropped");
    Ok(())
}
