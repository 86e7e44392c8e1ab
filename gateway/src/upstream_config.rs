//! `upstreams:` compiled: servers, timeouts, and the headers that a backend is always given.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use durward_config::{Diagnostics, Entry, Node, Place};
use http::{HeaderName, HeaderValue};

use crate::config::duration;
use crate::secret::{describe, read_secret};

const MAX_SERVERS: usize = 256;
const MAX_FIXED_HEADERS: usize = 32;
const HOUR: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_millis(10);

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
#[derive(Clone, Debug)]
pub struct FixedHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value, marked sensitive.
    pub value: HeaderValue,
}

/// How long an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// Between two pieces of a response.
    pub read: Duration,
    /// To take a piece of a request.
    pub write: Duration,
    /// That an unused connection is kept.
    pub idle: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Its name in the file.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// Its servers; requests go round them.
    pub servers: Vec<SocketAddr>,
    /// What is set on every request to it.
    pub headers: Vec<FixedHeader>,
    /// Its timeouts.
    pub timeouts: UpstreamTimeouts,
    /// Whether it is given the gateway's signed assertion of who asks.
    pub assertion: bool,
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
    let defaults = UpstreamTimeouts::default();
    let timeouts = UpstreamTimeouts {
        connect: timeout(
            section.optional("connect_timeout"),
            "connect_timeout",
            defaults.connect,
            diagnostics,
        ),
        read: timeout(
            section.optional("read_timeout"),
            "read_timeout",
            defaults.read,
            diagnostics,
        ),
        write: timeout(
            section.optional("write_timeout"),
            "write_timeout",
            defaults.write,
            diagnostics,
        ),
        idle: timeout(
            section.optional("idle_timeout"),
            "idle_timeout",
            defaults.idle,
            diagnostics,
        ),
    };
    section.not_built("tls", diagnostics);
    section.not_built("health_check", diagnostics);
    section.finish(diagnostics);
    Some(UpstreamConfig {
        name: entry.key.clone(),
        place: entry.place,
        servers: servers
            .map(|node| compile_servers(&what, node, diagnostics))
            .unwrap_or_default(),
        headers: headers
            .map(|node| compile_headers(node, base, diagnostics))
            .unwrap_or_default(),
        timeouts,
        assertion: assertion
            .and_then(|node| node.boolean("assertion", diagnostics))
            .unwrap_or(false),
    })
}

fn compile_servers(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<SocketAddr> {
    let items = node.one_or_many();
    if items.is_empty() {
        diagnostics.error(
            node.place,
            format!("{what} has no servers"),
            "write `servers: [127.0.0.1:8101]`",
        );
    }
    if items.len() > MAX_SERVERS {
        let message = format!("{what} has more than {MAX_SERVERS} servers");
        diagnostics.error(node.place, message, "put a load balancer before them");
    }
    items
        .iter()
        .filter_map(|item| item.socket_address(&format!("a server of {what}"), diagnostics))
        .collect()
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

fn timeout(node: Option<&Node>, what: &str, default: Duration, diagnostics: &mut Diagnostics) -> Duration {
    duration(node, what, SHORTEST..=HOUR, default, diagnostics)
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
    fn a_secret_in_the_file_is_an_error_and_timeouts_have_defaults() {
        let (_, text) = compile(
            "a:\n  servers: 127.0.0.1:1\n  headers: { X-Api-Key: hunter2 }\n",
            Path::new("."),
        );
        assert!(text.contains("must not stand in the file itself"), "{text}");
        let (upstreams, text) = compile("a: { servers: 127.0.0.1:1, read_timeout: 5s }\n", Path::new("."));
        assert_eq!(text, "");
        assert_eq!(upstreams[0].timeouts.read, Duration::from_secs(5));
        assert_eq!(upstreams[0].timeouts.connect, Duration::from_secs(2));
        let (_, text) = compile("a: { servers: 127.0.0.1:1, tls: true }\n", Path::new("."));
        assert!(text.contains("`tls` is not supported by this version"), "{text}");
    }
}
