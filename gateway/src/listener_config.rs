//! `listen:` compiled: where users talk to the gateway, and how.

use std::net::SocketAddr;
use std::path::Path;

use durward_config::{Diagnostics, Node, Place, Value};

use crate::listener_tls::{ListenerTls, compile_tls};

/// Largest number of listening addresses.
const MAX_LISTENERS: usize = 32;
/// Where browsers expect HTTPS.
const HTTPS_PORT: u16 = 443;

/// An address of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it is.
    pub address: SocketAddr,
    /// How it speaks TLS; it does not if absent.
    pub tls: Option<ListenerTls>,
    /// Whether it speaks HTTP/2 too: offered by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    /// Where it does nothing but to send clients to HTTPS: the port that they are sent to.
    pub redirect_to: Option<u16>,
}

impl ListenerConfig {
    /// One that speaks plain HTTP/1.1.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            http2: false,
            redirect_to: None,
        }
    }

    /// The scheme of its URLs.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

pub(crate) fn compile_listen(
    node: Option<&Node>,
    place: Place,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Vec<ListenerConfig> {
    let Some(node) = node else {
        diagnostics.error(place, "`listen` is missing", "write `listen: 127.0.0.1:8080`");
        return Vec::new();
    };
    let items = node.one_or_many();
    if items.is_empty() || items.len() > MAX_LISTENERS {
        let message = format!("`listen` has {} addresses", items.len());
        let advice = format!("write from 1 to {MAX_LISTENERS} addresses");
        diagnostics.error(node.place, message, advice);
    }
    let listeners: Vec<_> = items
        .iter()
        .filter_map(|item| compile_listener(item, base, diagnostics))
        .collect();
    check_together(node, &listeners, diagnostics);
    listeners
}

fn compile_listener(item: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<ListenerConfig> {
    if !matches!(item.value, Value::Map(_)) {
        return item
            .socket_address("listen", diagnostics)
            .map(ListenerConfig::plain);
    }
    let mut section = item.section("listen", diagnostics)?;
    let advice = "write `address: 0.0.0.0:443`";
    let address = section.required("address", advice, diagnostics);
    let tls = section.optional("tls");
    let http2 = section.optional("http2");
    let redirect = section.optional("redirect_to_https");
    section.finish(diagnostics);
    let address = address.and_then(|node| node.socket_address("listen.address", diagnostics));
    let redirect_to = redirect.and_then(|node| compile_redirect(node, diagnostics));
    if let (Some(node), true) = (
        redirect,
        redirect_to.is_some() && (tls.is_some() || http2.is_some()),
    ) {
        let message = "a listener that redirects to HTTPS does nothing else";
        let advice = "remove `tls` and `http2` here; give TLS an address of its own";
        diagnostics.error(node.place, message, advice);
    }
    let http2 = match http2 {
        Some(node) => node.boolean("listen.http2", diagnostics)?,
        None => tls.is_some(),
    };
    let tls = match tls {
        Some(node) => Some(compile_tls(node, base, diagnostics)?),
        None => None,
    };
    Some(ListenerConfig {
        address: address?,
        tls,
        http2,
        redirect_to,
    })
}

fn compile_redirect(node: &Node, diagnostics: &mut Diagnostics) -> Option<u16> {
    match node.value {
        Value::Bool(true) => Some(HTTPS_PORT),
        Value::Bool(false) => None,
        Value::Integer(port) if (1..=i64::from(u16::MAX)).contains(&port) => u16::try_from(port).ok(),
        _ => {
            let message = "redirect_to_https is no port";
            let advice = "write `true` for port 443, or the port that users reach TLS at";
            diagnostics.error(node.place, message, advice);
            None
        }
    }
}

/// Whether whoever listens at `other` has `address`, too; a port of 0 is another each time.
pub(crate) fn is_taken_by(address: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, one: SocketAddr| {
        // Where the system has it so, and most do, `[::]` is for IPv4 as well.
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    address.port() != 0
        && address.port() == other.port()
        && (address.ip() == other.ip() || covers(address, other) || covers(other, address))
}

/// What no listener can say alone.
fn check_together(node: &Node, listeners: &[ListenerConfig], diagnostics: &mut Diagnostics) {
    for (index, listener) in listeners.iter().enumerate() {
        let address = listener.address;
        let taken = listeners[..index]
            .iter()
            .find(|other| is_taken_by(address, other.address));
        if let Some(taken) = taken {
            let message = match taken.address == address {
                true => format!("`listen` names {address} twice"),
                false => format!("`listen` names {address}, which {} has too", taken.address),
            };
            diagnostics.error(node.place, message, "remove one of them");
        }
    }
    let mut authorities = listeners.iter().filter_map(|listener| {
        let clients = listener.tls.as_ref()?.clients.as_ref()?;
        Some(&clients.ca)
    });
    if let Some(first) = authorities.next()
        && let Some(other) = authorities.find(|ca| *ca != first)
    {
        let message = format!(
            "`client_certificates` names two authorities, {} and {}: a grant is of a name, whichever of them signed it",
            first.display(),
            other.display()
        );
        let advice = "name one file everywhere; with both authorities in it, each vouches for all names";
        diagnostics.error(node.place, message, advice);
    }
    let redirects = listeners.iter().any(|listener| listener.redirect_to.is_some());
    if redirects && !listeners.iter().any(|listener| listener.tls.is_some()) {
        let message = "`redirect_to_https` where no listener speaks TLS";
        let advice = "add `{ address: ..., tls: ... }`: only hosts of its certificates are redirected";
        diagnostics.error(node.place, message, advice);
    }
    if !listeners.is_empty() && listeners.iter().all(|listener| listener.redirect_to.is_some()) {
        let message = "every address of `listen` redirects: nothing is served";
        diagnostics.error(node.place, message, "add an address that serves");
    }
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (Vec<ListenerConfig>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let root = document.root();
        let listeners = compile_listen(Some(root), root.place, Path::new("/nowhere"), &mut diagnostics);
        (listeners, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn a_listener_is_an_address_or_more() {
        let (listeners, text) = compile("[127.0.0.1:1, { address: '127.0.0.1:2', http2: true }]");
        assert_eq!(text, "");
        assert!(!listeners[0].http2 && listeners[1].http2);
        assert_eq!(
            listeners[0],
            ListenerConfig::plain("127.0.0.1:1".parse().unwrap())
        );
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (yaml, expected) in [
            ("{ http2: true }", "`address` is missing"),
            ("[]", "has 0 addresses"),
            ("[127.0.0.1:1, 127.0.0.1:1]", "names 127.0.0.1:1 twice"),
            ("{ address: '127.0.0.1:1', http2: maybe }", "http2"),
            ("{ address: '127.0.0.1:1', tsl: {} }", "unknown key `tsl`"),
            (
                "{ address: '127.0.0.1:1', redirect_to_https: true }",
                "where no listener speaks TLS",
            ),
            (
                "{ address: '127.0.0.1:1', redirect_to_https: 443 }",
                "nothing is served",
            ),
            (
                "{ address: '127.0.0.1:1', redirect_to_https: 70000 }",
                "is no port",
            ),
            (
                "{ address: '127.0.0.1:1', redirect_to_https: true, http2: true }",
                "does nothing else",
            ),
            ("{ address: '127.0.0.1:1', tls: {} }", "`certificates` is missing"),
            (
                "{ address: '127.0.0.1:1', tls: { certificates: [] } }",
                "has 0 entries",
            ),
            (
                "{ address: '127.0.0.1:1', tls: { certificates: { certificate: a.pem, key: a.key } } }",
                "cannot read /nowhere/a.pem",
            ),
        ] {
            let (_, text) = compile(yaml);
            assert!(text.contains(expected), "{yaml}: {expected} is not in\n{text}");
        }
    }
}
