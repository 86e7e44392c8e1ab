//! What was seen of bans in a fleet, as tables and as a plot.

use std::time::Duration;

use serde_json::Value;

use crate::Fallible;
use crate::fleet_cpu::CpuUse;
use crate::load::LoadReport;
use crate::plot::{Line, Plot, Target};
use crate::report::{spread_micros, table};
use crate::statistics::median;
use crate::victim::{Cut, Refusal};

/// From the acknowledgement to the refusal on all gateways, for 99 of 100 bans, with processors to
/// spare.
const TARGET: Duration = Duration::from_millis(5);

/// Everything under one load.
pub(crate) struct Measured {
    pub name: &'static str,
    pub bans: Vec<FleetBan>,
    pub waits: Vec<Waited>,
    pub cuts: Vec<Cuts>,
    pub cpu: CpuUse,
}

/// One ban, and what each gateway said after its acknowledgement.
pub(crate) struct FleetBan {
    pub acknowledged: Duration,
    pub refusals: Vec<Refusal>,
}

/// The cuts of one user's WebSockets, one on each gateway.
pub(crate) type Cuts = Vec<Cut>;

/// One ban that waited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waited {
    /// From sending it to the answer.
    pub answered: Duration,
    /// How long the gateways took, as the answer says.
    pub took: Duration,
    /// How many gateways refuse, as the answer says.
    pub refusing: u64,
    /// Of how many.
    pub of: u64,
    /// Requests that were sent after the answer and accepted.
    pub accepted: usize,
}

impl Waited {
    /// From the member `reach` of the answer.
    pub fn read(reach: &Value, answered: Duration, accepted: usize) -> Fallible<Self> {
        let missing = || format!("the answer says nothing of its reach: {reach}");
        let number = |name: &str| reach[name].as_u64().ok_or_else(missing);
        let took_ms = reach["took_ms"].as_f64().ok_or_else(missing)?;
        Ok(Self {
            answered,
            took: Duration::try_from_secs_f64(took_ms / 1e3)?,
            refusing: number("refusing")?,
            of: number("of")?,
            accepted,
        })
    }

    fn reached(&self, gateways: usize) -> bool {
        self.refusing == self.of && self.of == gateways as u64
    }
}

impl Measured {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            bans: Vec::new(),
            waits: Vec::new(),
            cuts: Vec::new(),
            cpu: CpuUse::default(),
        }
    }

    fn gateways(&self) -> usize {
        self.bans.first().map_or(0, |ban| ban.refusals.len())
    }

    /// Of each ban, the gateway that was last to refuse.
    fn refused_on_all(&self) -> Vec<Duration> {
        let slowest = |ban: &FleetBan| ban.refusals.iter().map(|refusal| refusal.refused).max();
        self.bans.iter().filter_map(slowest).collect()
    }

    /// Of each user, the WebSocket that was cut last, from the acknowledgement; zero where it was
    /// gone by then.
    fn cut_on_all(&self) -> Vec<Duration> {
        let last = |cuts: &Cuts| {
            let since = cuts.iter().map(|cut| cut.since_acknowledged.unwrap_or_default());
            since.max()
        };
        self.cuts.iter().filter_map(last).collect()
    }
}

/// The load, as its generators saw it.
pub(crate) fn load_line(name: &str, reports: &[Vec<LoadReport>]) -> String {
    let rate: f64 = reports
        .iter()
        .map(|windows| median(&windows.iter().map(LoadReport::rate).collect::<Vec<_>>()))
        .sum();
    let windows = || reports.iter().flatten();
    let micros = |figure: fn(&LoadReport) -> Duration| {
        median(
            &windows()
                .map(|window| figure(window).as_secs_f64() * 1e6)
                .collect::<Vec<_>>(),
        )
    };
    format!(
        "{name}: {rate:.0} requests/s over all gateways, all answered by the backend; p50 {:.0} us, p99 {:.0} us (medians over seconds)",
        micros(|window| window.p50),
        micros(|window| window.p99)
    )
}

/// The tables of one load.
pub(crate) fn tables(measured: &Measured) -> String {
    [ban_table(measured), wait_table(measured), cut_table(measured)].join("\n\n")
}

const SPREAD: [&str; 5] = ["", "number", "p50 us", "p99 us", "max us"];

fn header<'h>(first: &'h str) -> [&'h str; 5] {
    let mut header: [&'h str; 5] = SPREAD;
    header[0] = first;
    header
}

fn row(what: &str, times: Vec<Duration>) -> Vec<String> {
    let mut row = vec![what.to_owned(), times.len().to_string()];
    row.extend(spread_micros(times));
    row
}

fn ban_table(measured: &Measured) -> String {
    let bans = &measured.bans;
    let refusals = || bans.iter().flat_map(|ban| &ban.refusals);
    let accepted: usize = refusals().map(|refusal| refusal.accepted).sum();
    let cut_off = refusals().filter(|refusal| refusal.cut_off).count();
    let rows = [
        row(
            "sent to acknowledged",
            bans.iter().map(|ban| ban.acknowledged).collect(),
        ),
        row(
            "acknowledged to refused, each gateway",
            refusals().map(|refusal| refusal.refused).collect(),
        ),
        row(
            &format!("acknowledged to refused on all {}", measured.gateways()),
            measured.refused_on_all(),
        ),
        row(
            "acknowledged to the last accepted request sent, where there was one",
            refusals().filter_map(|refusal| refusal.last_accepted).collect(),
        ),
    ];
    let title = format!("bans, {}", measured.name);
    format!(
        "{}\n{accepted} requests were accepted between acknowledgement and refusal; {cut_off} refusals cut a request off that was under way",
        table(&header(&title), &rows)
    )
}

fn wait_table(measured: &Measured) -> String {
    let gateways = measured.gateways();
    let reached = || measured.waits.iter().filter(|wait| wait.reached(gateways));
    let accepted: usize = reached().map(|wait| wait.accepted).sum();
    let rows = [
        row("sent to answered", reached().map(|wait| wait.answered).collect()),
        row(
            "of it until the gateways had applied it (took_ms)",
            reached().map(|wait| wait.took).collect(),
        ),
    ];
    let title = format!("bans with ?wait, {}", measured.name);
    let mut text = format!(
        "{}\n{accepted} requests were accepted after an answer that said refused on {gateways} of {gateways}",
        table(&header(&title), &rows)
    );
    let others: Vec<_> = measured
        .waits
        .iter()
        .filter(|wait| !wait.reached(gateways))
        .map(|wait| format!("{} of {}", wait.refusing, wait.of))
        .collect();
    if !others.is_empty() {
        text += &format!("\n{} answers said otherwise: {}", others.len(), others.join(", "));
    }
    text
}

fn cut_table(measured: &Measured) -> String {
    let cuts = || measured.cuts.iter().flatten();
    let early = cuts().filter(|cut| cut.since_acknowledged.is_none()).count();
    let all = measured.gateways();
    let rows = [
        row(
            "ban sent to cut, each",
            cuts().map(|cut| cut.since_sent).collect(),
        ),
        row(
            &format!("ban sent to cut on all {all}"),
            measured
                .cuts
                .iter()
                .filter_map(|cuts| cuts.iter().map(|cut| cut.since_sent).max())
                .collect(),
        ),
        row(
            "acknowledged to cut, each",
            cuts()
                .map(|cut| cut.since_acknowledged.unwrap_or_default())
                .collect(),
        ),
        row(
            &format!("acknowledged to cut on all {all}"),
            measured.cut_on_all(),
        ),
    ];
    let title = format!("open WebSockets, {}", measured.name);
    format!(
        "{}\n{early} were cut before the acknowledgement had arrived, and count as 0",
        table(&header(&title), &rows)
    )
}

/// What is drawn: refusals and cuts on all gateways, under each load.
pub(crate) fn plot_of(measured: &[Measured], gateways: usize) -> Plot {
    let lines = measured.iter().flat_map(|one| {
        [
            Line {
                name: format!("refused, {}", one.name),
                dashed: false,
                times: one.refused_on_all(),
            },
            Line {
                name: format!("WebSockets cut, {}", one.name),
                dashed: true,
                times: one.cut_on_all(),
            },
        ]
    });
    Plot {
        title: format!("From a ban's acknowledgement until it bites on all {gateways} gateways"),
        x_axis: "time after the acknowledgement, the last gateway's".into(),
        y_axis: "share of bans".into(),
        target: Some(Target {
            at: TARGET,
            name: "target: p99 of refusals, unsaturated, at most 5 ms".into(),
        }),
        lines: lines.filter(|line| !line.times.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(micros: u64, accepted: usize) -> Refusal {
        Refusal {
            refused: Duration::from_micros(micros),
            accepted,
            cut_off: accepted > 0,
            last_accepted: (accepted > 0).then_some(Duration::from_micros(micros / 2)),
        }
    }

    #[test]
    fn the_slowest_gateway_counts() {
        let mut measured = Measured::new("unsaturated");
        for slowest in [900, 1100] {
            measured.bans.push(FleetBan {
                acknowledged: Duration::from_millis(2),
                refusals: vec![refusal(100, 0), refusal(slowest, 2), refusal(200, 0)],
            });
        }
        let text = ban_table(&measured);
        let line = text.lines().find(|line| line.contains("on all 3")).unwrap();
        assert_eq!(
            line.split_whitespace().skip(6).collect::<Vec<_>>(),
            ["2", "900", "1100", "1100"]
        );
        assert!(
            text.contains("4 requests were accepted between acknowledgement and refusal; 2 refusals"),
            "{text}"
        );
    }

    #[test]
    fn only_what_was_said_to_refuse_everywhere_has_to() {
        let reach = |refusing: u64| json!({ "refusing": refusing, "of": 3, "took_ms": 1.5 });
        let mut measured = Measured::new("unsaturated");
        measured.bans.push(FleetBan {
            acknowledged: Duration::ZERO,
            refusals: vec![refusal(1, 0); 3],
        });
        for (refusing, accepted) in [(3, 0), (2, 5), (3, 1)] {
            let waited = Waited::read(&reach(refusing), Duration::from_millis(2), accepted);
            measured.waits.push(waited.unwrap());
        }
        let text = wait_table(&measured);
        assert!(text.contains("\n1 requests were accepted after"), "{text}");
        assert!(text.ends_with("1 answers said otherwise: 2 of 3"), "{text}");
        assert!(Waited::read(&Value::Null, Duration::ZERO, 0).is_err());
    }

    #[test]
    fn a_socket_that_was_gone_by_the_acknowledgement_took_no_time_after_it() {
        let mut measured = Measured::new("saturated");
        let cut = |after: Option<u64>| Cut {
            since_sent: Duration::from_millis(3),
            since_acknowledged: after.map(Duration::from_micros),
        };
        measured.cuts = vec![vec![cut(None), cut(Some(70))], vec![cut(None), cut(None)]];
        assert_eq!(measured.cut_on_all(), [Duration::from_micros(70), Duration::ZERO]);
        assert!(
            cut_table(&measured)
                .ends_with("3 were cut before the acknowledgement had arrived, and count as 0")
        );
    }
}
