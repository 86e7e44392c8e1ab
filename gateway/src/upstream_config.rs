//! `upstreams:` compiled: servers, limits, and the headers that a backend is always given.

use std::path::Path;
use std::time::Duration;

use durward_config::{Diagnostics, Entry, Node, Place};
use durward_policy::ForwardLimits;
use http::{HeaderName, HeaderValue};

use crate::config::duration;
use crate::secret::{describe, read_secret};

mod health;
mod servers;
mod tls;

pub(crate) use health::MAX_ATTEMPTS;
pub use health::{EjectionConfig, HealthCheckConfig, RetryConfig};
pub use servers::{Balance, ServerConfig};
pub use tls::{ClientCertificate, UpstreamTls};

const MAX_FIXED_HEADERS: usize = 32;
const HOUR: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_millis(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Names that a fixed header cannot have: they frame or route the request.
const RESERVED: [&str; 14] = [
    "connection",
    "content-length",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-real-ip",
];

/// A header that is set on every request to an upstream, after the strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value, marked sensitive.
    pub value: HeaderValue,
}

/// How the servers of an upstream are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    H2,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Its name in the file.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// Its servers.
    pub servers: Vec<ServerConfig>,
    /// Which of them a request goes to.
    pub balance: Balance,
    /// How they are spoken to.
    pub protocol: Protocol,
    /// How they prove who they are; nothing where they are spoken to without TLS.
    pub tls: Option<UpstreamTls>,
    /// Whether they are asked if they are well.
    pub health_check: Option<HealthCheckConfig>,
    /// Whether those whose requests fail are left out.
    pub ejection: Option<EjectionConfig>,
    /// How often a request is offered to another.
    pub retries: RetryConfig,
    /// What is set on every request to it.
    pub headers: Vec<FixedHeader>,
    /// Whether it is given the gateway's signed assertion of who asks.
    pub assertion: bool,
    /// How long its requests may take, and how large they may be.
    pub limits: ForwardLimits,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
}

impl UpstreamConfig {
    /// Whether the file says the same of it, wherever it stands: what is known of its servers then
    /// holds on.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let here = Self {
            place: other.place,
            ..self.clone()
        };
        here == *other
    }
}

pub(crate) fn compile_upstreams(
    node: Option<&Node>,
    place: Place,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Vec<UpstreamConfig> {
    let Some(node) = node else {
        let advice = "write `upstreams:` with a line such as `  api: { servers: [127.0.0.1:8101] }`";
        diagnostics.error(place, "`upstreams` is missing", advice);
        return Vec::new();
    };
    let entries = node.entries("upstreams", diagnostics).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| compile_upstream(entry, base, diagnostics))
        .collect()
}

fn compile_upstream(entry: &Entry, base: &Path, diagnostics: &mut Diagnostics) -> Option<UpstreamConfig> {
    let what = format!("upstream `{}`", entry.key);
    let mut section = entry.node.section(&what, diagnostics)?;
    let servers = section.required("servers", "write `servers: [127.0.0.1:8101]`", diagnostics);
    let headers = section.optional("headers");
    let assertion = section.optional("assertion");
    let limits = ForwardLimits::compile(&mut section, diagnostics);
    let idle = section.optional("idle_timeout");
    let idle_timeout = duration(idle, "idle_timeout", SHORTEST..=HOUR, IDLE_TIMEOUT, diagnostics);
    let balance = Balance::compile(section.optional("balance"), diagnostics);
    let protocol = compile_protocol(section.optional("protocol"), diagnostics);
    let tls = section.optional("tls");
    let health_check = section.optional("health_check");
    let ejection = EjectionConfig::compile(section.optional("ejection"), diagnostics);
    let retries = RetryConfig::compile(section.optional("retries"), diagnostics);
    section.finish(diagnostics);
    Some(UpstreamConfig {
        name: entry.key.clone(),
        place: entry.place,
        servers: servers
            .map(|node| servers::compile_servers(&what, node, diagnostics))
            .unwrap_or_default(),
        balance,
        protocol,
        // Where it cannot be read the error stands, and nothing is built of this.
        tls: tls.and_then(|node| UpstreamTls::compile(node, base, diagnostics)),
        health_check: health_check.and_then(|node| HealthCheckConfig::compile(node, diagnostics)),
        ejection,
        retries,
        headers: headers
            .map(|node| compile_headers(node, base, diagnostics))
            .unwrap_or_default(),
        limits,
        idle_timeout,
        assertion: assertion
            .and_then(|node| node.boolean("assertion", diagnostics))
            .unwrap_or(false),
    })
}

fn compile_protocol(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Protocol {
    match node.and_then(|node| node.one_of("protocol", &["h1", "h2"], diagnostics)) {
        Some("h2") => Protocol::H2,
        _ => Protocol::H1,
    }
}

fn compile_headers(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Vec<FixedHeader> {
    let entries = node.entries("headers", diagnostics).unwrap_or_default();
    if entries.len() > MAX_FIXED_HEADERS {
        let message = format!("there are more than {MAX_FIXED_HEADERS} fixed headers");
        diagnostics.error(node.place, message, "remove some");
    }
    let headers: Vec<_> = entries
        .iter()
        .filter_map(|entry| compile_header(entry, base, diagnostics))
        .collect();
    for (index, header) in headers.iter().enumerate() {
        if headers[..index].iter().any(|earlier| earlier.name == header.name) {
            diagnostics.error(
                node.place,
                format!("the header {} is set twice", header.name),
                "remove one of them",
            );
        }
    }
    headers
}

fn compile_header(entry: &Entry, base: &Path, diagnostics: &mut Diagnostics) -> Option<FixedHeader> {
    let name = HeaderName::from_bytes(entry.key.as_bytes()).ok();
    if name.as_ref().is_none_or(|name| RESERVED.contains(&name.as_str())) {
        let message = format!("`{}` cannot be a fixed header", entry.key);
        diagnostics.error(
            entry.place,
            message,
            "write the name of a header of the backend's own, such as X-Api-Key",
        );
    }
    let reference = entry
        .node
        .secret(&format!("the value of {}", entry.key), diagnostics)?;
    let value = read_secret(&reference, base).and_then(|bytes| header_value(&bytes, &describe(&reference)));
    match (name, value) {
        (Some(name), Ok(value)) => Some(FixedHeader { name, value }),
        (_, Err(message)) => {
            diagnostics.error(
                entry.node.place,
                message,
                "put the value there, without line breaks or spaces around it",
            );
            None
        }
        (None, Ok(_)) => None,
    }
}

fn header_value(bytes: &[u8], place: &str) -> Result<HeaderValue, String> {
    let plain = bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) && bytes.trim_ascii() == bytes;
    let value = plain.then(|| HeaderValue::from_bytes(bytes).ok()).flatten();
    let mut value = value.ok_or_else(|| format!("{place} does not hold a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str, base: &Path) -> (Vec<UpstreamConfig>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let upstreams = compile_upstreams(Some(document.root()), Place::default(), base, &mut diagnostics);
        (upstreams, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn fixed_headers_are_read_at_start_and_checked() {
        let folder = std::env::temp_dir().join(format!("durward-fixed-headers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in [
            ("key", "s3cret\n"),
            ("empty", ""),
            ("newline", "\n"),
            ("two", "a\nb\n"),
            ("blank", " x"),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let header = |name: &str, file: &str| {
            compile(
                &format!("a:\n  servers: 127.0.0.1:1\n  headers: {{ {name}: {{ file: {file} }} }}\n"),
                &folder,
            )
        };
        let (upstreams, text) = header("X-Api-Key", "key");
        assert_eq!(text, "");
        assert_eq!(upstreams[0].headers[0].value, "s3cret");
        assert!(upstreams[0].headers[0].value.is_sensitive());
        for (name, file, expected) in [
            ("X-Api-Key", "empty", "is empty"),
            ("X-Api-Key", "newline", "is empty"),
            ("X-Api-Key", "two", "does not hold a header value"),
            ("X-Api-Key", "blank", "does not hold a header value"),
            ("X-Api-Key", "absent", "cannot read"),
            ("Host", "key", "`Host` cannot be a fixed header"),
            ("'X Api'", "key", "`X Api` cannot be a fixed header"),
        ] {
            let (_, text) = header(name, file);
            assert!(text.contains(expected), "{name} {file}: {text}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_secret_in_the_file_is_an_error_and_limits_are_what_is_said() {
        let (_, text) = compile(
            "a:\n  servers: 127.0.0.1:1\n  headers: { X-Api-Key: hunter2 }\n",
            Path::new("."),
        );
        assert!(text.contains("must not stand in the file itself"), "{text}");
        let (upstreams, text) = compile("a: { servers: 127.0.0.1:1, read_timeout: 5s }\n", Path::new("."));
        assert_eq!(text, "");
        assert_eq!(upstreams[0].limits.read, Some(Duration::from_secs(5)));
        assert_eq!(upstreams[0].limits.connect, None);
        assert_eq!(upstreams[0].idle_timeout, Duration::from_secs(60));
    }

    #[test]
    fn what_an_upstream_says_is_compared_without_its_place() {
        let of = |text: &str| compile(text, Path::new(".")).0.remove(0);
        let upstream = of("a: { servers: 127.0.0.1:1 }\n");
        assert!(upstream.says_the_same(&of("\n\na:\n  servers: [127.0.0.1:1]\n")));
        assert!(!upstream.says_the_same(&of("a: { servers: 127.0.0.1:1, read_timeout: 5s }\n")));
        assert!(!upstream.says_the_same(&of("a: { servers: { address: 127.0.0.1:1, weight: 2 } }\n")));
    }

    #[test]
    fn servers_have_weights_and_stand_once() {
        let (upstreams, text) = compile(
            "a: { servers: [127.0.0.1:1, { address: 127.0.0.1:2, weight: 3 }], balance: user_hash }\n",
            Path::new("."),
        );
        assert_eq!(text, "");
        let weights: Vec<_> = upstreams[0].servers.iter().map(|server| server.weight).collect();
        assert_eq!(weights, [1, 3]);
        assert_eq!(upstreams[0].balance, Balance::UserHash);
        for (keys, expected) in [
            ("servers: [127.0.0.1:1, 127.0.0.1:1]", "names 127.0.0.1:1 twice"),
            (
                "servers: [{ address: 127.0.0.1:1, weight: 0 }]",
                "weight is out of range",
            ),
            ("servers: [{ weight: 1 }]", "address"),
            (
                "servers: 127.0.0.1:1, balance: random",
                "balance cannot be `random`",
            ),
            ("servers: 127.0.0.1:1, protocol: h3", "protocol cannot be `h3`"),
            ("servers: 127.0.0.1:1, ejection: on", "ejection cannot be"),
            (
                "servers: 127.0.0.1:1, ejection: { for: 10s, at_most: 1s }",
                "`at_most` is shorter",
            ),
            (
                "servers: 127.0.0.1:1, retries: { attempts: 9 }",
                "attempts is out of range",
            ),
            ("servers: 127.0.0.1:1, health_check: {}", "path"),
            (
                "servers: 127.0.0.1:1, health_check: { path: health }",
                "no path that can be asked for",
            ),
            (
                "servers: 127.0.0.1:1, health_check: { path: /h, timeout: 9s }",
                "longer than its interval",
            ),
            (
                "servers: 127.0.0.1:1, health_check: { path: /h, status: [] }",
                "`status` lists 0",
            ),
            ("servers: 127.0.0.1:1, tls: true", "`tls` is a mapping"),
            ("servers: 127.0.0.1:1, tls: {}", "server_name"),
            (
                "servers: 127.0.0.1:1, tls: { server_name: a_b }",
                "no name that a certificate",
            ),
            (
                "servers: 127.0.0.1:1, tls: { server_name: a, ca: absent }",
                "cannot read",
            ),
            (
                "servers: 127.0.0.1:1, tls: { server_name: a, verify: false }",
                "unknown key `verify`",
            ),
            (
                "servers: 127.0.0.1:1, tls: { server_name: a, client_key: x }",
                "has two files",
            ),
        ] {
            let (_, text) = compile(&format!("a: {{ {keys} }}\n"), Path::new("."));
            assert!(text.contains(expected), "{keys}: {text}");
        }
    }
}
