//! Load on several gateways at once for as long as something else is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Fallible;
use crate::durward::Durward;
use crate::load::{LoadReport, LoadRole};
use crate::role::{Role, RoleProcess};

/// How often each generator reports.
const WINDOW: Duration = Duration::from_secs(1);

/// One load generator for each gateway, in processes of their own.
pub(crate) struct BackgroundLoad {
    stopping: Arc<AtomicBool>,
    pids: Vec<u32>,
    generators: Vec<JoinHandle<Fallible<Vec<LoadReport>>>>,
}

impl BackgroundLoad {
    /// Starts them; `rate` is of all together, and a closed loop where there is none.
    pub fn start(
        gateways: &[Durward],
        requests: &[String],
        connections: usize,
        rate: Option<f64>,
    ) -> Fallible<Self> {
        let mut load = Self {
            stopping: Arc::default(),
            pids: Vec::new(),
            generators: Vec::new(),
        };
        for gateway in gateways {
            let role = Role::Load(LoadRole {
                target: gateway.edge,
                watched_pid: gateway.pid(),
                connections,
                rate: rate.map(|rate| rate / gateways.len() as f64),
                warm_up: Duration::ZERO,
                measured: WINDOW,
                repeat: true,
                requests: requests.to_vec(),
                expected_status: 200,
            });
            let generator = RoleProcess::start("load generator", &role, None)?;
            load.pids.push(generator.pid());
            let stopping = Arc::clone(&load.stopping);
            load.generators
                .push(thread::spawn(move || listen(generator, &stopping)));
        }
        Ok(load)
    }

    /// The generators' process ids.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Ends them; returns what each reported. An answer that was not the backend's is an error.
    pub fn stop(self) -> Fallible<Vec<Vec<LoadReport>>> {
        self.stopping.store(true, Ordering::Relaxed);
        let generators = self.generators.into_iter();
        generators
            .map(|generator| generator.join().map_err(|_| "a thread has panicked")?)
            .collect()
    }
}

fn listen(mut generator: RoleProcess, stopping: &AtomicBool) -> Fallible<Vec<LoadReport>> {
    let mut reports = Vec::new();
    while !stopping.load(Ordering::Relaxed) {
        reports.push(generator.hear()?);
    }
    Ok(reports)
}
