//! How far an entry has come: which gateways have applied it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use durward_contract::Sequence;
use parking_lot::Mutex;

use crate::dial::Node;
use crate::protocol::Keys;
use crate::roster::{self, Roster, Said};
use crate::store_error::StoreError;

/// Between two looks: short at first, because most answers come within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// How far an entry has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Every gateway that was heard of lately, by name.
    pub gateways: Vec<GatewayReach>,
    /// How long it took until all had it, or until nobody waited any longer.
    pub took: Duration,
}

/// Whether one gateway has an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayReach {
    /// The gateway's name.
    pub name: String,
    /// Whether it has applied the entry. One that has loaded nothing, or fell silent, has not.
    pub applied: bool,
    /// After how long that was seen.
    pub after: Option<Duration>,
}

impl GatewayReach {
    fn silent(name: String) -> Self {
        Self {
            name,
            applied: false,
            after: None,
        }
    }
}

impl Reach {
    /// Whether every gateway has it. True where there is none.
    pub fn is_complete(&self) -> bool {
        self.gateways.iter().all(|gateway| gateway.applied)
    }
}

/// Looks until all have applied `sequence` of this log, or for `timeout`. Who was heard of before
/// counts like who reports now.
pub(crate) async fn wait(
    node: &mut Node,
    keys: &Keys,
    roster: &Mutex<Roster>,
    log: &str,
    sequence: Sequence,
    timeout: Duration,
) -> Result<Reach, StoreError> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let silent = |(id, name)| (id, GatewayReach::silent(name));
    let mut seen: BTreeMap<String, GatewayReach> = roster.lock().names().into_iter().map(silent).collect();
    loop {
        let reports = roster::ask(node, keys).await?;
        roster.lock().hear(&reports);
        for (id, said) in reports.iter() {
            let Said::Report(report) = said else {
                seen.remove(id);
                continue;
            };
            let gateway = seen
                .entry(id.to_owned())
                .or_insert_with(|| GatewayReach::silent(report.name.clone()));
            let has_it = report.log.as_deref() == Some(log) && report.applied >= sequence;
            if has_it && !gateway.applied {
                gateway.applied = true;
                gateway.after = Some(start.elapsed());
            }
        }
        // Where nobody is known, nobody is known to have it.
        let missing = seen.is_empty() || seen.values().any(|gateway| !gateway.applied);
        let left = timeout.saturating_sub(start.elapsed());
        if !missing || left.is_zero() {
            let mut gateways: Vec<_> = seen.into_values().collect();
            gateways.sort_by(|a, b| a.name.cmp(&b.name));
            let took = start.elapsed();
            return Ok(Reach { gateways, took });
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
