//! What is compared: proxies that run, and what each is asked.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::backend::{BackendReport, BackendRole, Listening, REPORT_PATH};
use crate::bare_proxy::{BareProxyRole, METERED_PROXY, MIMALLOC_PROXY};
use crate::client::{Connection, request};
use crate::configuration::{ACCESS_LOG, Configuration, DATABASE, ISSUER, permitted_paths, public_paths};
use crate::durward::{Durward, Part, User, free_address};
use crate::revocation_rows;
use crate::role::{Role, RoleProcess, Under};
use crate::scratch::{Scratch, copy_folder};

/// Of the backend's answer.
const BODY_BYTES: usize = 512;
/// Idle upstream connections that every proxy keeps.
const KEEPALIVE_POOL: usize = 256;
/// The longest that a proxy of this crate may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The `Host` of every request.
const HOST: &str = "www.bench.example";

/// What to run.
#[derive(Clone, Debug)]
pub struct FieldOptions {
    /// The gateway's binary; without one, the bare proxy is compared with itself.
    pub durward: Option<PathBuf>,
    /// Entries of the mirror.
    pub entries: u64,
    /// Users, each with a token.
    pub users: usize,
    /// Worker threads of every proxy.
    pub workers: usize,
    /// What proxies are started under.
    pub proxies_under: Option<Under>,
    /// What the backend and the load are started under.
    pub others_under: Option<Under>,
}

/// A proxy and what it is asked.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in the tables.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// What it is asked.
    pub requests: Requests,
    /// Whether the backend must see the user in place of the credential.
    pub authenticates: bool,
}

/// One of the two loads. They differ in their paths only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// On routes that ask for a credential and have rules.
    Permitted,
    /// On a public route, with the same credential, which nobody looks at.
    Public,
}

/// The names of the contenders, in the order of the tables.
pub mod name {
    /// Pingora's proxy and nothing else.
    pub const BARE: &str = "bare Pingora";
    /// The same again: what differs is noise.
    pub const CONTROL: &str = "bare Pingora again";
    /// On the gateway's allocator.
    pub const MIMALLOC: &str = "bare Pingora on mimalloc";
    /// With the gateway's metrics.
    pub const METERED: &str = "bare Pingora + the metrics";
    /// The gateway on a route that asks for nothing.
    pub const PUBLIC: &str = "durward, public route, no log";
    /// The gateway with everything but the log.
    pub const QUIET: &str = "durward, authenticated, no log";
    /// The gateway with everything.
    pub const FULL: &str = "durward, everything on";
}

/// Everything that runs besides the load.
pub struct Field {
    /// What is compared, the bare proxy first.
    pub contenders: Vec<Contender>,
    /// The gateways, where there is a binary.
    pub gateways: Option<Gateways>,
    users: Vec<User>,
    backend_address: SocketAddr,
    roles: Vec<RoleProcess>,
    // Dropped last: the others write into it.
    scratch: Scratch,
}

/// The same gateway twice.
pub struct Gateways {
    /// Without an access log.
    pub quiet: Durward,
    /// With one.
    pub logging: Durward,
}

impl Field {
    /// Starts everything. `say` is told what takes long.
    pub fn start(options: &FieldOptions, say: impl Fn(&str)) -> Fallible<Self> {
        let scratch = Scratch::new("proxy-comparison")?;
        let role = Role::Backend(BackendRole {
            body_bytes: BODY_BYTES,
        });
        let mut backend = RoleProcess::start("backend", &role, options.others_under.as_ref())?;
        let backend_address = backend.hear::<Listening>()?.address;
        let mut field = Self {
            contenders: Vec::new(),
            gateways: None,
            users: vec![somebody()],
            backend_address,
            roles: vec![backend],
            scratch,
        };
        field.add_bare(name::BARE, None, options)?;
        field.add_bare(name::CONTROL, None, options)?;
        if let Some(binary) = &options.durward {
            for (name, program) in [(name::MIMALLOC, MIMALLOC_PROXY), (name::METERED, METERED_PROXY)] {
                let program = std::env::current_exe()?.with_file_name(program);
                field.add_bare(name, Some(&program), options)?;
            }
            field.add_gateways(binary, options, say)?;
        }
        Ok(field)
    }

    fn add_bare(
        &mut self,
        name: &'static str,
        program: Option<&Path>,
        options: &FieldOptions,
    ) -> Fallible<()> {
        let address = free_address()?;
        let role = Role::BareProxy(BareProxyRole {
            listen: address,
            upstream: self.backend_address,
            workers: options.workers,
            upstream_keepalive_pool: KEEPALIVE_POOL,
        });
        let under = options.proxies_under.as_ref();
        let process = match program {
            None => RoleProcess::start(name, &role, under)?,
            Some(program) => RoleProcess::start_program(program, name, &role, under)?,
        };
        let contender = Contender {
            name,
            address,
            pid: process.pid(),
            requests: Requests::Permitted,
            authenticates: false,
        };
        self.roles.push(process);
        wait_until_it_listens(address)?;
        self.contenders.push(contender);
        Ok(())
    }

    /// Two gateways with the same users, keys and revocations: set up once, then copied.
    fn add_gateways(&mut self, binary: &Path, options: &FieldOptions, say: impl Fn(&str)) -> Fallible<()> {
        let (quiet, logging) = (
            self.scratch.path().join("quiet"),
            self.scratch.path().join("logging"),
        );
        fs::create_dir(&quiet)?;
        fs::create_dir(&logging)?;
        let under = options.proxies_under.as_ref();
        let configure = |access_log| self.configuration(options, access_log);

        let first = Durward::start(Part::Whole, binary, &quiet, &configure(false)?, under)?;
        say(&format!("adding {} users", options.users));
        let names: Vec<_> = (0..options.users).map(|user| format!("user-{user}")).collect();
        let ids = first.add_users(&names, &["customer"])?;
        first.stop()?;

        say(&format!("writing {} revocations", options.entries));
        revocation_rows::append(&quiet.join(DATABASE), ISSUER, options.entries)?;
        copy_folder(&quiet.join("data"), &logging.join("data"))?;
        let quiet = Durward::start(Part::Whole, binary, &quiet, &configure(false)?, under)?;
        let logging = Durward::start(Part::Whole, binary, &logging, &configure(true)?, under)?;
        say("logging in");
        self.users = quiet.log_in(&names, &ids)?;

        let of = |name, gateway: &Durward, requests| Contender {
            name,
            address: gateway.edge,
            pid: gateway.pid(),
            requests,
            authenticates: requests == Requests::Permitted,
        };
        self.contenders.push(of(name::PUBLIC, &quiet, Requests::Public));
        self.contenders.push(of(name::QUIET, &quiet, Requests::Permitted));
        self.contenders
            .push(of(name::FULL, &logging, Requests::Permitted));
        self.gateways = Some(Gateways { quiet, logging });
        Ok(())
    }

    fn configuration(&self, options: &FieldOptions, access_log: bool) -> Fallible<Configuration> {
        Ok(Configuration {
            listen: free_address()?,
            admin: free_address()?,
            auth: free_address()?,
            backend: self.backend_address,
            workers: options.workers,
            upstream_keepalive_pool: KEEPALIVE_POOL,
            access_log,
            shared: None,
        })
    }

    /// A load: each user's paths, users in turn.
    pub fn requests(&self, requests: Requests) -> Vec<String> {
        let of_user =
            |user| paths(user, requests).map(|path| whole_request(&path, Some(&user.authorization())));
        let by_user: Vec<_> = self.users.iter().map(of_user).collect();
        let kinds = by_user.first().map_or(0, |requests| requests.len());
        // The n-th kind of path of every user in turn, so that no token follows itself.
        (0..kinds)
            .flat_map(|kind| by_user.iter().map(move |requests| requests[kind].clone()))
            .collect()
    }

    /// What arrived at the backend since this was last asked.
    pub fn backend_report(&self) -> Fallible<BackendReport> {
        let answer = Connection::open(self.backend_address)?.ask("GET", REPORT_PATH, &[], None)?;
        Ok(serde_json::from_value(answer.json(200)?)?)
    }

    /// That a contender does what it is measured for: every user's requests arrive with that user's
    /// id and without the credential, and requests without a good credential are refused.
    pub fn check(&self, contender: &Contender) -> Fallible<()> {
        self.backend_report()?;
        let mut connection = Connection::open(contender.address)?;
        for user in &self.users {
            for path in paths(user, contender.requests) {
                connection.send(whole_request(&path, Some(&user.authorization())).as_bytes())?;
                let status = connection.receive()?.status;
                expect(status == 200, contender, || format!("{path} got {status}"))?;
                let seen = self.backend_report()?;
                let wanted = contender.authenticates.then(|| user.id.clone());
                let arrived =
                    seen.requests == 1 && seen.last_user_id == wanted && seen.with_several_user_ids == 0;
                expect(arrived, contender, || {
                    format!("{path} of {wanted:?} arrived as {seen:?}")
                })?;
                let forwarded = contender.authenticates && seen.with_authorization > 0;
                expect(!forwarded, contender, || "the credential was forwarded".into())?;
            }
        }
        if contender.authenticates {
            self.check_refusals(contender)?;
        }
        Ok(())
    }

    fn check_refusals(&self, contender: &Contender) -> Fallible<()> {
        let user = self.users.first().ok_or("no users")?;
        let (message, signature) = user
            .access_token
            .rsplit_once('.')
            .ok_or("a token without a signature")?;
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("Bearer {message}.{other}{}", &signature[1..]);
        let path = &paths(user, contender.requests)[0];
        for authorization in [None, Some("Bearer x"), Some(&*forged)] {
            let mut connection = Connection::open(contender.address)?;
            connection.send(whole_request(path, authorization).as_bytes())?;
            let status = connection.receive()?.status;
            expect(status == 401, contender, || {
                format!("status {status} for a bad credential")
            })?;
        }
        let seen = self.backend_report()?;
        expect(seen.requests == 0, contender, || {
            "a refused request reached the backend".into()
        })
    }

    /// That what arrived in a round is what was sent.
    pub fn check_round(&self, contender: &Contender, sent: u64) -> Fallible<()> {
        let seen = self.backend_report()?;
        let with_user_id = if contender.authenticates { sent } else { 0 };
        let right =
            seen.requests == sent && seen.with_user_id == with_user_id && seen.with_several_user_ids == 0;
        expect(right, contender, || {
            format!("of {sent} requests there arrived {seen:?}")
        })
    }
}

impl Gateways {
    /// Lines of the access log; the gateway that writes it is stopped for that.
    pub fn stop_and_count_log_lines(self) -> Fallible<u64> {
        let log = self.logging.folder().join(ACCESS_LOG);
        self.logging.stop()?;
        self.quiet.stop()?;
        let text = fs::read(log)?;
        Ok(memchr::memchr_iter(b'\n', &text).count() as u64)
    }
}

fn expect(holds: bool, contender: &Contender, what: impl FnOnce() -> String) -> Fallible<()> {
    if holds {
        Ok(())
    } else {
        Err(format!("{}: {}", contender.name, what()).into())
    }
}

fn paths(user: &User, requests: Requests) -> [String; 6] {
    match requests {
        Requests::Permitted => permitted_paths(&user.id),
        Requests::Public => public_paths(&user.id),
    }
}

/// A whole request as a browser sends it.
pub(crate) fn whole_request(path: &str, authorization: Option<&str>) -> String {
    let mut fields = vec![
        (
            "User-Agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        ("Accept", "application/json, text/plain, */*"),
        ("Accept-Language", "en-GB,en;q=0.7"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ];
    fields.extend(authorization.map(|value| ("Authorization", value)));
    request(HOST, "GET", path, &fields, None)
}

/// For loads on proxies that do not ask who it is: a credential of the usual length.
fn somebody() -> User {
    let access_token = [("eyJ", 80), ("eyJ", 400), ("", 86)]
        .map(|(start, length)| format!("{start}{}", "x".repeat(length)))
        .join(".");
    User {
        name: "somebody".into(),
        id: "u_0123456789abcdef0123456789abcdef".into(),
        access_token,
    }
}

fn wait_until_it_listens(address: SocketAddr) -> Fallible<()> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if start.elapsed() > PATIENCE {
            return Err(format!("nobody listens on {address}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
