//! The service under test: a configuration with addresses of its own, and the process that runs it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use super::backend::Backend;
use super::client::{Answer, Ask, Connection, get};
use super::clock::eventually;
use super::configuration::{FOREIGN, OWN, shipped};
use super::folder::TestFolder;
use super::keys::Key;
use super::ports::free_address;
use super::process::{Finished, Process};

/// How often another set of ports is tried.
const ATTEMPTS: usize = 5;

/// A service in the making.
#[derive(Debug)]
pub struct Setup {
    folder: TestFolder,
    configuration: String,
    command: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// `durward up` with this configuration.
    pub fn up(configuration: &str) -> Self {
        Self::new("up", configuration)
    }

    /// `durward gateway` with this configuration.
    pub fn gateway(configuration: &str) -> Self {
        Self::new("gateway", configuration)
    }

    /// `durward auth` with this configuration.
    pub fn auth(configuration: &str) -> Self {
        Self::new("auth", configuration)
    }

    /// Auth service and gateway in front of `backend`: [`OWN`].
    pub fn own(backend: &Backend) -> Self {
        Self::up(OWN).api(backend)
    }

    /// The gateway alone, for these keys of a foreign issuer, in front of `backend`: [`FOREIGN`].
    pub fn foreign(backend: &Backend, keys: &[&Key]) -> Self {
        Self::gateway(FOREIGN)
            .api(backend)
            .file("jwks.json", Key::set(keys))
    }

    /// What is shipped, demo and all, on addresses of its own.
    pub fn shipped() -> Self {
        let demo = ["api", "images", "thumbnails"];
        demo.into_iter().fold(Self::up(&shipped()), |setup, name| {
            setup.set(name, free_address())
        })
    }

    fn new(command: &str, configuration: &str) -> Self {
        Self {
            folder: TestFolder::new(),
            configuration: configuration.to_owned(),
            command: command.to_owned(),
            environment: Vec::new(),
        }
    }

    /// Puts an address in the place of `@name`.
    #[must_use]
    pub fn set(self, name: &str, address: SocketAddr) -> Self {
        self.replace(&format!("@{name}"), &address.to_string())
    }

    /// Puts `backend` in the place of `@api`.
    #[must_use]
    pub fn api(self, backend: &Backend) -> Self {
        self.set("api", backend.address())
    }

    /// Changes the configuration.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(
            self.configuration.contains(from),
            "{from} is not in the configuration"
        );
        self.configuration = self.configuration.replace(from, to);
        self
    }

    /// Appends to the configuration.
    #[must_use]
    pub fn append(mut self, text: &str) -> Self {
        self.configuration.push_str(text);
        self
    }

    /// Puts a file beside the configuration.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.folder.write(name, content);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Service {
        let mut service = Service::launch(self);
        for _ in 1..ATTEMPTS {
            match service.wait_until_ready() {
                Ok(()) => return service,
                Err(said) if said.contains("in use") => service = Service::launch(service.setup()),
                Err(said) => panic!("did not become ready: {said}"),
            }
        }
        panic!("found no free ports")
    }

    /// Starts it and waits only until it listens at one of its addresses.
    #[track_caller]
    pub fn listening(self, at: impl Fn(&Service) -> SocketAddr) -> Service {
        let service = Service::launch(self);
        eventually("the service listens", || TcpStream::connect(at(&service)).ok());
        service
    }

    /// Starts what is expected to refuse to start, and waits for its end.
    #[track_caller]
    pub fn fail(self) -> (Finished, [SocketAddr; 3]) {
        let Service {
            process,
            edge,
            admin,
            auth,
            folder,
            ..
        } = Service::launch(self);
        let finished = process.finish();
        drop(folder);
        (finished, [edge, admin, auth])
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    // The process is dropped before its folder.
    pub process: Process,
    pub edge: SocketAddr,
    pub admin: SocketAddr,
    pub auth: SocketAddr,
    pub folder: TestFolder,
    configuration: String,
    command: String,
    environment: Vec<(String, String)>,
}

impl Service {
    fn launch(setup: Setup) -> Self {
        let Setup {
            folder,
            configuration,
            command,
            environment,
        } = setup;
        let [edge, admin, auth] = [(); 3].map(|()| free_address());
        let text = configuration
            .replace("@edge", &edge.to_string())
            .replace("@admin", &admin.to_string())
            .replace("@auth", &auth.to_string());
        folder.write("config.yaml", text);
        let process = launch(&command, &folder, &environment);
        Self {
            process,
            edge,
            admin,
            auth,
            folder,
            configuration,
            command,
            environment,
        }
    }

    fn setup(self) -> Setup {
        let Self {
            process,
            folder,
            configuration,
            command,
            environment,
            ..
        } = self;
        drop(process);
        Setup {
            folder,
            configuration,
            command,
            environment,
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let admin = self.admin;
        let process = &mut self.process;
        eventually("the service is ready", || {
            if process.ended().is_some() {
                return Some(Err(process.stderr()));
            }
            let answer = get("/readyz").send_if_answered(admin);
            let ready = answer.is_some_and(|answer| answer.status == 200);
            ready.then_some(Ok(()))
        })
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    /// Sends a request to the edge on a connection of its own.
    #[track_caller]
    pub fn ask(&self, ask: &Ask) -> Answer {
        ask.send(self.edge)
    }

    /// Opens a connection to the edge.
    pub fn connect(&self) -> Connection {
        Connection::open(self.edge)
    }

    /// Sends bytes to the edge, and reads every answer until it hangs up.
    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Vec<Answer> {
        self.connect().raw(bytes)
    }

    /// Runs another command with the service's configuration.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Finished {
        self.command_with_input(arguments, "")
    }

    /// Runs another command that reads standard input.
    #[track_caller]
    pub fn command_with_input(&self, arguments: &[&str], input: &str) -> Finished {
        let file = self.file();
        let arguments = [arguments, &["--config", file.to_str().unwrap()]].concat();
        Process::start(&arguments, &self.folder, &[], input).finish()
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn told(&self, arguments: &[&str]) -> String {
        let finished = self.command(arguments);
        assert_eq!(finished.code, 0, "{arguments:?}: {finished:?}");
        finished.stdout
    }

    /// Asks it to stop, and asserts that it ends in order.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.process.signal("TERM");
        let finished = self.process.finish();
        assert_eq!(finished.code, 0, "{finished:?}");
        finished
    }

    /// Stops it and starts it again on the same addresses and data.
    #[track_caller]
    pub fn restart(self) -> Self {
        self.again("TERM", 0)
    }

    /// Kills it and starts it again on the same addresses and data.
    #[track_caller]
    pub fn crash(self) -> Self {
        self.again("KILL", -1)
    }

    #[track_caller]
    fn again(self, signal: &str, code: i32) -> Self {
        let Self {
            process,
            edge,
            admin,
            auth,
            folder,
            configuration,
            command,
            environment,
        } = self;
        process.signal(signal);
        let finished = process.finish();
        assert_eq!(finished.code, code, "{finished:?}");
        let process = launch(&command, &folder, &environment);
        let mut service = Self {
            process,
            edge,
            admin,
            auth,
            folder,
            configuration,
            command,
            environment,
        };
        service
            .wait_until_ready()
            .unwrap_or_else(|said| panic!("did not become ready again: {said}"));
        service
    }

    /// Kills it, and leaves it dead.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        eventually("the process is dead", || self.process.ended());
    }

    /// Starts it again on the same addresses and data, and does not wait for anything.
    pub fn start_again(&mut self) {
        self.process = launch(&self.command, &self.folder, &self.environment);
    }

    /// The text of `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> String {
        get("/metrics").send(self.admin).expect(200).text()
    }
}

fn launch(command: &str, folder: &TestFolder, environment: &[(String, String)]) -> Process {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let file = folder.join("config.yaml");
    Process::start(
        &[command, "--config", file.to_str().unwrap()],
        folder,
        &environment,
        "",
    )
}
