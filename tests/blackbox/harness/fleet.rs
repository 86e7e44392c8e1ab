//! Auth services and gateways in processes of their own, with Redis between them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::accounts::{Account, PASSWORD, Tokens, login};
use super::backend::Backend;
use super::folder::TestFolder;
use super::service::{Service, Setup};

/// What all processes of a fleet share. `@redis`, `@database`, `@keys` and `@authservice` are set by
/// [`FleetSetup`].
pub const FLEET: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: off
auth:
  listen: "@auth"
  issuer: http://issuer.example.test
  audience: example
  access_token_ttl: 1h
  database: @database
  keys: @keys
  trusted_proxies: [127.0.0.1]
issuers:
  - { use: auth, jwks: "http://@authservice/.well-known/jwks.json" }
revocations:
  store: redis://@redis
  max_staleness: 2s
identity_headers:
  X-User-Id: sub
upstreams:
  auth: { servers: ["@authservice"] }
  api: { servers: ["@api"] }
routes:
  - { path: /auth/**, upstream: auth, access: public, forward_credentials: true }
  - { path: /public/**, upstream: api, access: public }
  - { path: /api/**, upstream: api }
  - { path: /lax/**, upstream: api, when_unknown: { allow_for: 60s } }
"#;

/// What the processes of one fleet have in common.
#[derive(Debug)]
pub struct FleetSetup {
    /// Where signing keys, and the database where it is a file, are.
    shared: TestFolder,
    text: String,
    database: String,
}

impl FleetSetup {
    /// A fleet on SQLite, which one auth service may use, in front of `backend`.
    pub fn on_sqlite(backend: &Backend) -> Self {
        let shared = TestFolder::new();
        let database = format!("sqlite:{}", shared.join("auth.db").display());
        Self::new(shared, database, backend)
    }

    /// A fleet on another database, such as `postgres://...`.
    pub fn on(database: &str, backend: &Backend) -> Self {
        Self::new(TestFolder::new(), database.to_owned(), backend)
    }

    fn new(shared: TestFolder, database: String, backend: &Backend) -> Self {
        Self {
            shared,
            database,
            text: FLEET.replace("@api", &backend.address().to_string()),
        }
    }

    /// Changes the configuration of all that is made from now on.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from} is not in the configuration");
        self.text = self.text.replace(from, to);
        self
    }

    /// Another auth service, which publishes to the Redis at `redis`.
    pub fn auth(&self, redis: SocketAddr, environment: &[(&str, &str)]) -> Service {
        // It does not read the gateway's part of the file.
        let setup = self.filled(redis, redis);
        with_environment(Setup::auth(&setup), environment).listening(|service| service.auth)
    }

    /// Another gateway, which follows the Redis at `redis`.
    pub fn gateway(&self, redis: SocketAddr, auth: &Service, environment: &[(&str, &str)]) -> Service {
        with_environment(Setup::gateway(&self.filled(redis, auth.auth)), environment).start()
    }

    /// The same, with a configuration or files of its own.
    pub fn changed_gateway(
        &self,
        redis: SocketAddr,
        auth: &Service,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Service {
        change(Setup::gateway(&self.filled(redis, auth.auth))).start()
    }

    /// The same, which may never become ready.
    pub fn gateway_unready(&self, redis: SocketAddr, auth: &Service) -> Service {
        Setup::gateway(&self.filled(redis, auth.auth)).listening(|service| service.edge)
    }

    fn filled(&self, redis: SocketAddr, auth_service: SocketAddr) -> String {
        let keys: PathBuf = self.shared.join("keys");
        self.text
            .replace("@redis", &redis.to_string())
            .replace("@database", &self.database)
            .replace("@keys", &keys.display().to_string())
            .replace("@authservice", &auth_service.to_string())
    }
}

fn with_environment(setup: Setup, environment: &[(&str, &str)]) -> Setup {
    environment
        .iter()
        .fold(setup, |setup, (name, value)| setup.environment(name, value))
}

impl Service {
    /// A user of an auth service that runs alone: made over its control socket, logged in at its own
    /// address.
    #[track_caller]
    pub fn account_here(&self, name: &str, roles: &[&str]) -> Account {
        let mut arguments = vec!["user", "add", name, "--password-stdin", "--json"];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        let added = self.command_with_input(&arguments, PASSWORD);
        assert_eq!(added.code, 0, "{added:?}");
        let user: serde_json::Value = serde_json::from_str(&added.stdout).unwrap();
        Account {
            id: user["id"].as_str().unwrap().to_owned(),
            name: name.to_owned(),
            tokens: Tokens::of(&login(name, PASSWORD).send(self.auth)),
        }
    }
}
