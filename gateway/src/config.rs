//! The gateway's part of the configuration file, compiled.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Section, Value};

use crate::assertion::{AssertionConfig, compile_assertion};
use crate::client_address::{TrustedProxies, compile_trusted_proxies};
use crate::client_limits::{ClientLimitNodes, ClientLimits};
use crate::forward_auth::{ForwardAuthConfig, compile_forward_auth};
use crate::listener_config::{ListenerConfig, compile_listen, is_taken_by};
use crate::rate_limits::{RateLimitStore, compile_rate_limit_store};
use crate::secret::resolve;
use crate::upstream_config::{UpstreamConfig, compile_upstreams};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
const DEFAULT_PROOF_CACHE: u64 = 64 << 20;
const DEFAULT_HEADER_BYTES: u64 = 32 << 10;
const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_KEEPALIVE_POOL: usize = 256;

/// The top-level keys of the configuration file that are the gateway's.
#[derive(Clone, Copy, Debug, Default)]
pub struct GatewaySections<'a> {
    /// `listen`: the edge.
    pub listen: Option<&'a Node>,
    /// `admin`: metrics and health.
    pub admin: Option<&'a Node>,
    /// `forward_auth`: where other proxies ask.
    pub forward_auth: Option<&'a Node>,
    /// `assertion`: how the gateway signs who asks.
    pub assertion: Option<&'a Node>,
    /// `upstreams`.
    pub upstreams: Option<&'a Node>,
    /// `shutdown_grace`: how long open requests may take to end.
    pub shutdown_grace: Option<&'a Node>,
    /// `access_log`: `stdout`, `off` or `{ file: PATH }`.
    pub access_log: Option<&'a Node>,
    /// `proof_cache`: bytes.
    pub proof_cache: Option<&'a Node>,
    /// `workers`: threads.
    pub workers: Option<&'a Node>,
    /// `upstream_keepalive_pool`: idle connections kept per worker.
    pub upstream_keepalive_pool: Option<&'a Node>,
    /// `max_header_bytes`: of a request.
    pub max_header_bytes: Option<&'a Node>,
    /// `header_timeout`: from the first byte of a request to the end of its header section.
    pub header_timeout: Option<&'a Node>,
    /// `trusted_proxies`: whose word about the client is taken.
    pub trusted_proxies: Option<&'a Node>,
    /// What clients may take.
    pub client_limits: ClientLimitNodes<'a>,
    /// `rate_limit_store`: where gateways count together.
    pub rate_limit_store: Option<&'a Node>,
    /// Where the file begins: the place of what is missing.
    pub place: Place,
}

impl<'a> GatewaySections<'a> {
    /// Takes the gateway's keys out of the file's top-level mapping.
    pub fn take(section: &mut Section<'a>) -> Self {
        Self {
            listen: section.optional("listen"),
            admin: section.optional("admin"),
            forward_auth: section.optional("forward_auth"),
            assertion: section.optional("assertion"),
            upstreams: section.optional("upstreams"),
            shutdown_grace: section.optional("shutdown_grace"),
            access_log: section.optional("access_log"),
            proof_cache: section.optional("proof_cache"),
            workers: section.optional("workers"),
            upstream_keepalive_pool: section.optional("upstream_keepalive_pool"),
            max_header_bytes: section.optional("max_header_bytes"),
            header_timeout: section.optional("header_timeout"),
            trusted_proxies: section.optional("trusted_proxies"),
            client_limits: ClientLimitNodes::take(section),
            rate_limit_store: section.optional("rate_limit_store"),
            place: section.place(),
        }
    }
}

/// Where access log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to a file.
    File(PathBuf),
}

/// The gateway's configuration, checked.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The configuration file's folder, to which the policy's paths are relative.
    pub base: PathBuf,
    /// Where users talk to it; at least one.
    pub listen: Vec<ListenerConfig>,
    /// Where metrics and health are; nowhere if absent.
    pub admin: Option<SocketAddr>,
    /// Where other proxies ask; nowhere if absent.
    pub forward_auth: Option<ForwardAuthConfig>,
    /// How the gateway signs who asks; it does not if absent.
    pub assertion: Option<AssertionConfig>,
    /// The upstreams, in file order: a route's upstream id is an index into them.
    pub upstreams: Vec<UpstreamConfig>,
    /// How long open requests may take to end at shutdown.
    pub shutdown_grace: Duration,
    /// Where access log lines go.
    pub access_log: AccessLogTarget,
    /// Most bytes that remembered proofs may take.
    pub proof_cache_bytes: u64,
    /// Worker threads.
    pub workers: usize,
    /// Idle upstream connections that are kept.
    pub upstream_keepalive_pool: usize,
    /// Most bytes of a request's header section.
    pub max_header_bytes: usize,
    /// From the first byte of a request to the end of its header section.
    pub header_timeout: Duration,
    /// Whose word about the client is taken.
    pub trusted_proxies: TrustedProxies,
    /// What clients may take.
    pub client_limits: ClientLimits,
    /// Where gateways count together; nowhere if absent.
    pub rate_limit_store: Option<RateLimitStore>,
}

impl GatewayConfig {
    /// Compiles the sections; relative paths are relative to `base`, the file's folder. Reports
    /// every error and yields nothing where there is one.
    pub fn compile(
        sections: GatewaySections<'_>,
        base: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let GatewaySections {
            listen,
            admin,
            forward_auth,
            assertion,
            upstreams,
            shutdown_grace,
            access_log,
            proof_cache,
            workers,
            upstream_keepalive_pool,
            max_header_bytes,
            header_timeout,
            trusted_proxies,
            client_limits,
            rate_limit_store,
            place,
        } = sections;
        let mut found = Diagnostics::default();
        let d = &mut found;
        let config = Self {
            base: base.to_owned(),
            listen: compile_listen(listen, place, base, d),
            admin: admin.and_then(|node| node.socket_address("admin", d)),
            forward_auth: compile_forward_auth(forward_auth, d),
            assertion: compile_assertion(assertion, base, d),
            upstreams: compile_upstreams(upstreams, place, base, d),
            shutdown_grace: duration(
                shutdown_grace,
                "shutdown_grace",
                SECOND / 10..=HOUR,
                DEFAULT_SHUTDOWN_GRACE,
                d,
            ),
            access_log: compile_access_log(access_log, base, d),
            proof_cache_bytes: bytes(
                proof_cache,
                "proof_cache",
                1 << 16..=1 << 40,
                DEFAULT_PROOF_CACHE,
                d,
            ),
            workers: count(workers, "workers", 1..=1024, default_workers(), d),
            upstream_keepalive_pool: count(
                upstream_keepalive_pool,
                "upstream_keepalive_pool",
                1..=1 << 20,
                DEFAULT_KEEPALIVE_POOL,
                d,
            ),
            max_header_bytes: usize::try_from(bytes(
                max_header_bytes,
                "max_header_bytes",
                1 << 10..=1 << 20,
                DEFAULT_HEADER_BYTES,
                d,
            ))
            .unwrap_or(usize::MAX),
            header_timeout: duration(
                header_timeout,
                "header_timeout",
                SECOND / 10..=HOUR,
                DEFAULT_HEADER_TIMEOUT,
                d,
            ),
            trusted_proxies: compile_trusted_proxies(trusted_proxies, d),
            client_limits: ClientLimits::compile(client_limits, d),
            rate_limit_store: compile_rate_limit_store(rate_limit_store, base, d),
        };
        config.check_admin(admin, d);
        config.check_forward_auth(forward_auth, d);
        config.check_assertion(assertion, d);
        let failed = found.has_errors();
        diagnostics.append(found);
        (!failed).then_some(config)
    }

    /// The upstreams' names with their places, as the policy wants them.
    pub fn upstream_names(&self) -> Vec<(String, Place)> {
        let named = |upstream: &UpstreamConfig| (upstream.name.clone(), upstream.place);
        self.upstreams.iter().map(named).collect()
    }

    /// What an upstream is promised must be there to be given, and nothing else may be taken for it.
    fn check_assertion(&self, node: Option<&Node>, diagnostics: &mut Diagnostics) {
        for upstream in &self.upstreams {
            if upstream.assertion && node.is_none() {
                let message = format!("upstream `{}` asks for an assertion", upstream.name);
                let advice =
                    "write `assertion: { key: data/assertion.key, issuer: https://gateway.example.com }`";
                diagnostics.error(upstream.place, message, advice);
            }
            let fixed = upstream.headers.iter().find(|header| {
                self.assertion
                    .as_ref()
                    .is_some_and(|assertion| assertion.is_taken_for(header.name.as_str()))
            });
            if let Some(fixed) = fixed {
                let message = format!("the fixed header `{}` is the assertion's", fixed.name);
                diagnostics.error(upstream.place, message, "give the fixed header another name");
            }
        }
        if let (Some(node), false) = (node, self.upstreams.iter().any(|upstream| upstream.assertion)) {
            let advice = "write `assertion: true` at an upstream, or remove the section";
            diagnostics.warning(node.place, "no upstream is given the assertion", advice);
        }
    }

    fn check_forward_auth(&self, node: Option<&Node>, diagnostics: &mut Diagnostics) {
        let (Some(node), Some(forward_auth)) = (node, &self.forward_auth) else {
            return;
        };
        let address = forward_auth.listen;
        let is_admin = self.admin.is_some_and(|admin| is_taken_by(address, admin));
        if self.is_edge(address) || is_admin {
            let message = format!("`forward_auth` is on another listener's address {address}");
            diagnostics.error(
                node.place,
                message,
                "give it an address that only the proxies can reach",
            );
        }
    }

    fn check_admin(&self, admin: Option<&Node>, diagnostics: &mut Diagnostics) {
        if let (Some(node), Some(address)) = (admin, self.admin)
            && self.is_edge(address)
        {
            let message = format!("`admin` is on the edge listener {address}");
            diagnostics.error(node.place, message, "give it an address that users cannot reach");
        }
    }

    fn is_edge(&self, address: SocketAddr) -> bool {
        self.listen
            .iter()
            .any(|listener| is_taken_by(address, listener.address))
    }
}

fn compile_access_log(node: Option<&Node>, base: &Path, diagnostics: &mut Diagnostics) -> AccessLogTarget {
    let Some(node) = node else {
        return AccessLogTarget::default();
    };
    if !matches!(node.value, Value::Map(_)) {
        return match node.one_of("access_log", &["stdout", "off"], diagnostics) {
            Some("off") => AccessLogTarget::Off,
            _ => AccessLogTarget::Stdout,
        };
    }
    let Some(mut section) = node.section("access_log", diagnostics) else {
        return AccessLogTarget::default();
    };
    let file = section.required("file", "write `access_log: { file: PATH }`", diagnostics);
    section.finish(diagnostics);
    match file.and_then(|file| file.text("file", diagnostics)) {
        Some(path) => AccessLogTarget::File(resolve(base, Path::new(path))),
        None => AccessLogTarget::default(),
    }
}

pub(crate) fn duration(
    node: Option<&Node>,
    what: &str,
    range: std::ops::RangeInclusive<Duration>,
    default: Duration,
    diagnostics: &mut Diagnostics,
) -> Duration {
    node.and_then(|node| node.duration(what, range, diagnostics))
        .unwrap_or(default)
}

fn bytes(
    node: Option<&Node>,
    what: &str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
    diagnostics: &mut Diagnostics,
) -> u64 {
    node.and_then(|node| node.byte_size(what, range, diagnostics))
        .unwrap_or(default)
}

fn count(
    node: Option<&Node>,
    what: &str,
    range: std::ops::RangeInclusive<i64>,
    default: usize,
    diagnostics: &mut Diagnostics,
) -> usize {
    node.and_then(|node| node.integer(what, range, diagnostics))
        .and_then(|value| usize::try_from(value).ok())
        .unwrap_or(default)
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (Option<GatewayConfig>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        let sections = GatewaySections::take(&mut section);
        section.finish(&mut diagnostics);
        let config = GatewayConfig::compile(sections, Path::new("/etc/durward"), &mut diagnostics);
        (config, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn a_small_file_compiles_to_defaults() {
        let (config, text) =
            compile("listen: 127.0.0.1:8080\nupstreams:\n  api: { servers: [127.0.0.1:8101] }\n");
        let config = config.unwrap_or_else(|| panic!("{text}"));
        let address = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(config.listen, [ListenerConfig::plain(address)]);
        assert_eq!(config.shutdown_grace, Duration::from_secs(10));
        assert_eq!(config.proof_cache_bytes, 64 << 20);
        assert_eq!(config.access_log, AccessLogTarget::Stdout);
        assert_eq!(config.upstream_names()[0].0, "api");
    }

    #[test]
    fn the_access_log_can_be_off() {
        for off in ["off", "'off'"] {
            let (config, text) = compile(&format!(
                "listen: 127.0.0.1:1\naccess_log: {off}\nupstreams: {{ a: {{ servers: 127.0.0.1:3 }} }}\n"
            ));
            assert_eq!(
                config.unwrap_or_else(|| panic!("{text}")).access_log,
                AccessLogTarget::Off
            );
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let (config, text) = compile(
            "listen: [127.0.0.1:1, '[::1]:1']\naccess_log: { file: log/a.jsonl }\nupstreams:\n  a: { servers: 127.0.0.1:3 }\n",
        );
        let config = config.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            config.access_log,
            AccessLogTarget::File("/etc/durward/log/a.jsonl".into())
        );
        assert_eq!(config.listen.len(), 2);
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let (config, text) = compile(
            "listen:\n  - { address: 127.0.0.1:1, tls: x }\n  - localhost:80\nadmin: 9090\nshutdown_grace: 5\n\
             access_log: syslog\nproof_cache: 1\nworkers: 0\nmax_header_bytes: 10GiB\nheader_timout: 5s\n\
             upstreams:\n  a: { servers: [] }\n  b: { servers: [x], server: y }\n",
        );
        assert!(config.is_none());
        for expected in [
            "c.yaml:2:34: error: tls must be a mapping",
            "listen is not an address with a port: `localhost:80`",
            "admin must be text",
            "shutdown_grace must be a duration",
            "access_log cannot be `syslog`",
            "proof_cache is out of range",
            "workers is out of range: 0",
            "max_header_bytes is out of range",
            "unknown key `header_timout`",
            "did you mean `header_timeout`?",
            "upstream `a` has no servers",
            "is not an address with a port: `x`",
            "unknown key `server`",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn the_admin_listener_is_never_the_edge() {
        for (listen, admin) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "0.0.0.0:1"),
            ("'[::]:1'", "127.0.0.1:1"),
        ] {
            let (_, text) = compile(&format!(
                "listen: {listen}\nadmin: {admin}\nupstreams:\n  a: {{ servers: 127.0.0.1:3 }}\n"
            ));
            assert!(text.contains("`admin` is on the edge listener"), "{text}");
        }
        let (_, text) =
            compile("listen: '0.0.0.0:1'\nadmin: '[::1]:1'\nupstreams:\n  a: { servers: 127.0.0.1:3 }\n");
        assert!(!text.contains("`admin` is on"), "{text}");
        let (_, text) =
            compile("listen: ['0.0.0.0:1', '127.0.0.1:1']\nupstreams:\n  a: { servers: 127.0.0.1:3 }\n");
        assert!(text.contains("which 0.0.0.0:1 has too"), "{text}");
    }
}
