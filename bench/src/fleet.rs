//! Several gateways and auth replicas, one database, one Redis: each a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::Fallible;
use crate::backend::{BackendRole, Listening};
use crate::configuration::{Configuration, DATABASE, Shared, permitted_paths};
use crate::contender::whole_request;
use crate::durward::{Durward, Part, User, free_address, in_parallel};
use crate::operator::Operator;
use crate::postgres::Postgres;
use crate::process_cpu;
use crate::redis::Redis;
use crate::role::{Role, RoleProcess};
use crate::scratch::Scratch;

/// Bytes of the backend's one answer.
const BODY_BYTES: usize = 512;
const KEEPALIVE_POOL: usize = 256;

/// What is to run.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// The gateway's binary.
    pub durward: PathBuf,
    /// Gateways.
    pub gateways: usize,
    /// Auth replicas.
    pub replicas: usize,
    /// SQLite in place of PostgreSQL: one replica then.
    pub sqlite: bool,
}

/// All of it, running. What depends on something stands before it, and ends before it.
pub struct Fleet {
    /// The gateways.
    pub gateways: Vec<Durward>,
    /// The auth replicas.
    pub replicas: Vec<Durward>,
    /// The carrier of the news.
    pub redis: Redis,
    /// The database, where it is a server.
    pub postgres: Option<Postgres>,
    backend: RoleProcess,
    backend_address: SocketAddr,
    shared: Shared,
    binary: PathBuf,
    scratch: Scratch,
}

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub fn start(options: &FleetOptions) -> Fallible<Self> {
        let scratch = Scratch::new("fleet")?;
        let postgres = match options.sqlite {
            true => None,
            false => Some(Postgres::start()?),
        };
        let redis = Redis::start()?;
        let role = Role::Backend(BackendRole {
            body_bytes: BODY_BYTES,
        });
        let mut backend = RoleProcess::start("backend", &role, None)?;
        let backend_address = backend.hear::<Listening>()?.address;
        let replicas = if options.sqlite { 1 } else { options.replicas };
        let shared = Shared {
            replicas: (0..replicas).map(|_| free_address()).collect::<Fallible<_>>()?,
            database: postgres
                .as_ref()
                .map_or_else(|| format!("sqlite:{DATABASE}"), Postgres::url),
            keys: scratch.path().join("keys"),
            store: redis.url(),
        };
        let mut fleet = Self {
            gateways: Vec::new(),
            replicas: Vec::new(),
            redis,
            postgres,
            backend,
            backend_address,
            shared,
            binary: options.durward.clone(),
            scratch,
        };
        // One after the other: the first makes the keys and the tables.
        for (number, address) in fleet.shared.replicas.clone().into_iter().enumerate() {
            let replica = fleet.start_part(Part::Auth, &format!("auth-{}", number + 1), address)?;
            fleet.replicas.push(replica);
        }
        fleet.grow_to(options.gateways)?;
        Ok(fleet)
    }

    /// Starts gateways until there are so many.
    pub fn grow_to(&mut self, gateways: usize) -> Fallible<()> {
        while self.gateways.len() < gateways {
            let name = format!("gateway-{}", self.gateways.len() + 1);
            let gateway = self.start_part(Part::Gateway, &name, self.shared.replicas[0])?;
            self.gateways.push(gateway);
        }
        Ok(())
    }

    fn start_part(&self, part: Part, name: &str, auth: SocketAddr) -> Fallible<Durward> {
        let folder = self.scratch.path().join(name);
        fs::create_dir(&folder)?;
        let configuration = Configuration {
            listen: free_address()?,
            admin: free_address()?,
            auth,
            backend: self.backend_address,
            workers: thread::available_parallelism()?.get(),
            upstream_keepalive_pool: KEEPALIVE_POOL,
            access_log: true,
            shared: Some(self.shared.clone()),
        };
        Durward::start(part, &self.binary, &folder, &configuration, None)
            .map_err(|error| format!("{name}: {error}").into())
    }

    /// Users of these names, logged in.
    pub fn users(&self, names: &[String], roles: &[&str]) -> Fallible<Vec<User>> {
        in_parallel(&self.spread(names), |(replica, name)| {
            let id = replica.add_user(name, roles)?;
            replica.log_in_one(name, &id)
        })
    }

    /// Passwords are hashed by as many replicas as there are: the first share by the first one.
    fn spread<'f>(&'f self, names: &'f [String]) -> Vec<(&'f Durward, &'f String)> {
        let share = names.len().div_ceil(self.replicas.len()).max(1);
        let of = |position: usize| &self.replicas[position / share];
        names
            .iter()
            .enumerate()
            .map(|(position, name)| (of(position), name))
            .collect()
    }

    /// One operator for each replica.
    pub(crate) fn operators(&self) -> Fallible<Vec<Operator>> {
        self.several_operators(self.replicas.len())
    }

    /// So many operators, on the replicas in turn.
    pub(crate) fn several_operators(&self, number: usize) -> Fallible<Vec<Operator>> {
        let names = ["root-admin".to_owned()];
        let admin = self.users(&names, &["admin"])?.pop().ok_or("no admin")?;
        let replicas = self.replicas.iter().cycle().take(number);
        replicas
            .map(|replica| Operator::new(replica, replica.edge, &admin))
            .collect()
    }

    /// A load: each user's paths, users in turn.
    pub fn requests(&self, users: &[User]) -> Vec<String> {
        let kinds = permitted_paths("").len();
        (0..kinds)
            .flat_map(|kind| {
                users.iter().map(move |user| {
                    whole_request(&permitted_paths(&user.id)[kind], Some(&user.authorization()))
                })
            })
            .collect()
    }

    /// The processor time that each kind of process has used so far.
    pub fn cpu(&self) -> Fallible<BTreeMap<&'static str, Duration>> {
        let all = |parts: &[Durward], of: fn(u32) -> Fallible<Duration>| {
            parts
                .iter()
                .map(|part| of(part.pid()))
                .sum::<Fallible<Duration>>()
        };
        let mut cpu = BTreeMap::from([
            ("gateways", all(&self.gateways, process_cpu::of_live_threads)?),
            // Their threads that hash passwords end: only the process as a whole keeps count of those.
            ("auth replicas", all(&self.replicas, process_cpu::of)?),
            ("Redis", process_cpu::of_live_threads(self.redis.pid())?),
            ("backend", process_cpu::of_live_threads(self.backend.pid())?),
        ]);
        if let Some(postgres) = &self.postgres {
            cpu.insert("PostgreSQL", process_cpu::of_family(postgres.pid())?);
        }
        Ok(cpu)
    }

    /// What it is made of, in one line each.
    pub fn description(&self) -> Fallible<String> {
        let database = match &self.postgres {
            Some(postgres) => postgres.description()?,
            None => "SQLite".into(),
        };
        Ok(format!(
            "gateways    {}\nreplicas    {}\ndatabase    {database}\nnews        Redis {}",
            self.gateways.len(),
            self.replicas.len(),
            self.redis.version()?
        ))
    }

    /// Ends the gateways and the replicas as an operator does, then the rest.
    pub fn stop(self) -> Fallible<()> {
        for part in self.gateways.into_iter().chain(self.replicas) {
            part.stop()?;
        }
        Ok(())
    }
}
