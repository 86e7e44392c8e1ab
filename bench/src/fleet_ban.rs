//! How long a ban takes to bite on every gateway of a fleet, with processors to spare and without.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::background_load::BackgroundLoad;
use crate::durward::User;
use crate::fleet::{Fleet, FleetOptions};
use crate::fleet_cpu::FleetCpu;
use crate::fleet_report::{Cuts, FleetBan, Measured, Waited, load_line, plot_of, tables};
use crate::machine;
use crate::operator::{Door, Operator};
use crate::victim::{Cut, Victim, open_web_socket, wait_for_end};

use self::asker::Asker;

/// Load before anything is measured under it.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a ban that waits may wait.
const WAIT: &str = "5s";
/// Requests on each gateway after a ban was said to have reached it.
const ASKED_AFTER_REACH: usize = 3;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processes.
    pub fleet: FleetOptions,
    /// Bans under each load, each of another user, the replicas in turn.
    pub bans: usize,
    /// Bans under each load that wait until the gateways have applied them.
    pub waits: usize,
    /// Users under each load with a WebSocket open on every gateway who are banned.
    pub web_sockets: usize,
    /// Bans a second.
    pub bans_per_second: f64,
    /// The open loop's requests a second, over all gateways.
    pub rate: f64,
    /// Connections of the load to each gateway.
    pub connections: usize,
    /// Users whose tokens the load has.
    pub load_users: usize,
    /// Where the plot goes.
    pub plot: PathBuf,
}

/// The loads under which the same is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Open loop: a part of the processors is used.
    Unsaturated,
    /// Closed loop: all of them are.
    Saturated,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Unsaturated => "unsaturated",
            Self::Saturated => "saturated",
        }
    }
}

/// Runs it all, prints what came of it, and draws it.
pub fn run(options: &Options) -> Fallible<()> {
    println!("{}", machine::description());
    let fleet = Fleet::start(&options.fleet)?;
    println!("{}\n", fleet.description()?);
    let mut operators = fleet.operators()?;
    let load_users = fleet.users(&names("load", options.load_users), &["customer"])?;
    let requests = fleet.requests(&load_users);

    let mut measured = Vec::new();
    for load in [Load::Unsaturated, Load::Saturated] {
        let number = options.bans + options.waits + options.web_sockets;
        eprintln!("{}: adding {number} users and logging them in", load.name());
        let victims = fleet.users(&names(load.name(), number), &["customer"])?;
        let rate = (load == Load::Unsaturated).then_some(options.rate);
        let background = BackgroundLoad::start(&fleet.gateways, &requests, options.connections, rate)?;
        thread::sleep(WARM_UP);
        let outcome = measure(&fleet, &mut operators, &victims, options, &background, load)?;
        let reports = background.stop()?;
        println!("{}\n", load_line(load.name(), &reports));
        println!("{}\n", outcome.cpu);
        println!("{}\n", tables(&outcome));
        measured.push(outcome);
    }
    fs::write(&options.plot, plot_of(&measured, fleet.gateways.len()).svg())?;
    println!("drawn in {}", options.plot.display());
    fleet.stop()
}

fn names(kind: &str, number: usize) -> Vec<String> {
    (0..number).map(|user| format!("{kind}-{user}")).collect()
}

fn measure(
    fleet: &Fleet,
    operators: &mut [Operator],
    victims: &[User],
    options: &Options,
    background: &BackgroundLoad,
    load: Load,
) -> Fallible<Measured> {
    let (banned, others) = victims.split_at(options.bans);
    let (waited, watched) = others.split_at(options.waits);
    let askers: Vec<_> = fleet.gateways.iter().map(|_| Asker::start()).collect();
    let mut pace = Pace::new(options.bans_per_second);
    let before = FleetCpu::now(fleet, background.pids())?;
    let mut measured = Measured::new(load.name());
    for (number, user) in banned.iter().enumerate() {
        let operator = in_turn(operators, number);
        measured
            .bans
            .push(ban_and_ask(fleet, operator, &askers, user, &mut pace)?);
    }
    eprintln!("{}: {} bans", load.name(), banned.len());
    for (number, user) in waited.iter().enumerate() {
        let operator = in_turn(operators, number);
        measured
            .waits
            .push(ban_wait_and_ask(fleet, operator, user, &mut pace)?);
    }
    eprintln!("{}: {} bans with ?wait={WAIT}", load.name(), waited.len());
    for (number, user) in watched.iter().enumerate() {
        let operator = in_turn(operators, number);
        measured
            .cuts
            .push(ban_and_watch(fleet, operator, user, &mut pace)?);
    }
    eprintln!("{}: {} bans with open WebSockets", load.name(), watched.len());
    measured.cpu = FleetCpu::now(fleet, background.pids())?.since(&before);
    Ok(measured)
}

fn in_turn(operators: &mut [Operator], number: usize) -> &mut Operator {
    let replicas = operators.len();
    &mut operators[number % replicas]
}

/// Bans a user, and asks in their name on every gateway at once as soon as that is acknowledged, on
/// connections that have just been used.
fn ban_and_ask(
    fleet: &Fleet,
    operator: &mut Operator,
    askers: &[Asker],
    user: &User,
    pace: &mut Pace,
) -> Fallible<FleetBan> {
    pace.wait();
    let victims = warm(fleet, user)?;
    let sent = Instant::now();
    operator.ban(Door::Http, user)?;
    let acknowledged = Instant::now();
    for (asker, victim) in askers.iter().zip(victims) {
        asker.ask(victim, acknowledged)?;
    }
    Ok(FleetBan {
        acknowledged: acknowledged - sent,
        refusals: askers.iter().map(Asker::answer).collect::<Fallible<_>>()?,
    })
}

/// Bans a user, and asks in their name on every gateway once it is said that they all refuse.
fn ban_wait_and_ask(
    fleet: &Fleet,
    operator: &mut Operator,
    user: &User,
    pace: &mut Pace,
) -> Fallible<Waited> {
    pace.wait();
    let mut victims = warm(fleet, user)?;
    let sent = Instant::now();
    let answer = operator.ban_and_wait(Door::Http, user, WAIT)?;
    let answered = sent.elapsed();
    let mut accepted = 0;
    for _ in 0..ASKED_AFTER_REACH {
        for victim in &mut victims {
            accepted += usize::from(victim.is_accepted()?);
        }
    }
    Waited::read(&answer["reach"], answered, accepted)
}

/// Bans a user who has a WebSocket open on every gateway.
fn ban_and_watch(fleet: &Fleet, operator: &mut Operator, user: &User, pace: &mut Pace) -> Fallible<Cuts> {
    pace.wait();
    let watchers = fleet
        .gateways
        .iter()
        .map(|gateway| {
            let stream = open_web_socket(gateway.edge, user)?;
            Ok(thread::spawn(move || wait_for_end(stream)))
        })
        .collect::<Fallible<Vec<_>>>()?;
    let sent = Instant::now();
    operator.ban(Door::Http, user)?;
    let acknowledged = Instant::now();
    watchers
        .into_iter()
        .map(|watcher| {
            let ended = watcher.join().map_err(|_| "the watcher has panicked")??;
            Ok(Cut::new(sent, acknowledged, ended))
        })
        .collect()
}

fn warm(fleet: &Fleet, user: &User) -> Fallible<Vec<Victim>> {
    let gateways = fleet.gateways.iter();
    gateways.map(|gateway| Victim::warm(gateway.edge, user)).collect()
}

/// When bans are due. One that comes late does not make the next ones hurry.
struct Pace {
    due: Instant,
    interval: Duration,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Self {
            due: Instant::now(),
            interval: Duration::from_secs_f64(1.0 / per_second),
        }
    }

    fn wait(&mut self) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        self.due = Instant::now() + self.interval;
    }
}

mod asker {
    //! A thread that waits for an acknowledgement and then asks, so that all gateways are asked at
    //! the same time.

    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Instant;

    use crate::Fallible;
    use crate::victim::{Refusal, Victim};

    pub(super) struct Asker {
        orders: Sender<(Victim, Instant)>,
        answers: Receiver<Fallible<Refusal>>,
    }

    impl Asker {
        /// The thread ends with the value.
        pub fn start() -> Self {
            let (orders, ordered) = channel::<(Victim, Instant)>();
            let (answer, answers) = channel();
            thread::spawn(move || {
                for (mut victim, acknowledged) in ordered {
                    if answer.send(victim.ask_until_refused(acknowledged)).is_err() {
                        return;
                    }
                }
            });
            Self { orders, answers }
        }

        /// Asks until it is refused; the answer is to be [fetched](Self::answer).
        pub fn ask(&self, victim: Victim, acknowledged: Instant) -> Fallible<()> {
            let sent = self.orders.send((victim, acknowledged));
            sent.map_err(|_| "an asker has ended".into())
        }

        pub fn answer(&self) -> Fallible<Refusal> {
            self.answers.recv().map_err(|_| "an asker has panicked")?
        }
    }
}
