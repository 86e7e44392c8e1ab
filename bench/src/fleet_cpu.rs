//! What of the machine's processors a fleet uses, and what else does.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::fleet::Fleet;
use crate::process_cpu::{self, MachineTime};

/// Processor time so far.
pub(crate) struct FleetCpu {
    at: Instant,
    machine: MachineTime,
    parts: BTreeMap<&'static str, Duration>,
}

impl FleetCpu {
    pub fn now(fleet: &Fleet, load: &[u32]) -> Fallible<Self> {
        let mut parts = fleet.cpu()?;
        let load = load.iter().map(|pid| process_cpu::of_live_threads(*pid));
        parts.insert("load generators", load.sum::<Fallible<_>>()?);
        // Its threads come and go.
        parts.insert("this benchmark", process_cpu::of(std::process::id())?);
        Ok(Self {
            at: Instant::now(),
            machine: MachineTime::now()?,
            parts,
        })
    }

    /// What one kind of process has spent between then and this.
    pub fn spent_since(&self, then: &Self, part: &str) -> Duration {
        let of = |cpu: &Self| cpu.parts.get(part).copied().unwrap_or_default();
        of(self).saturating_sub(of(then))
    }

    /// The use between then and this.
    pub fn since(&self, then: &Self) -> CpuUse {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let available = (self.at - then.at).as_secs_f64() * processors as f64;
        let share = |name: &&'static str| {
            let spent = self.spent_since(then, name);
            (*name, spent.as_secs_f64() / available)
        };
        CpuUse {
            machine: self.machine.share_since(then.machine),
            processors,
            parts: self.parts.keys().map(share).collect(),
        }
    }
}

/// Shares of all processors, 0 to 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuUse {
    machine: f64,
    processors: usize,
    parts: Vec<(&'static str, f64)>,
}

impl fmt::Display for CpuUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own: f64 = self.parts.iter().map(|(_, share)| share).sum();
        write!(
            f,
            "CPU of the {} processors: {:.1} % by the whole machine, {:.1} % by this run:",
            self.processors,
            self.machine * 100.0,
            own * 100.0
        )?;
        for (position, (name, share)) in self.parts.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            write!(f, "{separator} {name} {:.1} %", share * 100.0)?;
        }
        Ok(())
    }
}
