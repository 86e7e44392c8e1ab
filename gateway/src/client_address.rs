//! Whose request it is: the peer's, or that of whom a trusted proxy in front of the gateway names.
//!
//! The one place that reads forwarding headers. Limits, the log and what the upstream is told go by
//! what is found here.

use std::net::{IpAddr, SocketAddr};

use durward_config::{Diagnostics, Node, Value};
use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

use crate::networks::{compile_networks, contains};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Most proxies that a request is followed through; beyond them the last one found counts.
const MAX_HOPS: usize = 16;

/// `trusted_proxies`: whose word about a request's origin is taken, and in which header they give it.
/// The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// Where they write it. What stands in another header may be a client's invention.
    pub header: ForwardingHeader,
}

/// A header that says where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) client: IpAddr,
    /// Whether the client spoke TLS, as far as a trusted proxy says it.
    pub(crate) is_secure: Option<bool>,
}

pub(crate) fn compile_trusted_proxies(node: Option<&Node>, diagnostics: &mut Diagnostics) -> TrustedProxies {
    const BECAUSE: &str = "write the addresses of the proxies in front: anybody else could say to be anybody";
    let Some(node) = node else {
        return TrustedProxies::default();
    };
    if !matches!(node.value, Value::Map(_)) {
        return TrustedProxies {
            networks: compile_networks(node, "trusted_proxies", BECAUSE, diagnostics),
            header: ForwardingHeader::default(),
        };
    }
    let Some(mut section) = node.section("trusted_proxies", diagnostics) else {
        return TrustedProxies::default();
    };
    let networks = section.required("networks", "write `networks: [10.0.0.0/24]`", diagnostics);
    let header = section.optional("header");
    section.finish(diagnostics);
    let words = ["x-forwarded-for", "forwarded"];
    let header = header.and_then(|node| node.one_of("trusted_proxies.header", &words, diagnostics));
    TrustedProxies {
        networks: networks
            .map(|node| compile_networks(node, "trusted_proxies.networks", BECAUSE, diagnostics))
            .unwrap_or_default(),
        header: match header {
            Some("forwarded") => ForwardingHeader::Forwarded,
            _ => ForwardingHeader::XForwardedFor,
        },
    }
}

impl TrustedProxies {
    /// Where a request of `peer` comes from: the last address that is not a trusted proxy's, read from
    /// the right, since everything left of it is what a stranger said.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let mut origin = Origin {
            client: peer.to_canonical(),
            is_secure: None,
        };
        if self.networks.is_empty() || !contains(&self.networks, peer) {
            return origin;
        }
        match self.header {
            ForwardingHeader::XForwardedFor => {
                let named = list(headers, X_FORWARDED_FOR).map(node_address);
                origin.client = self.follow(origin.client, named);
                origin.is_secure = list(headers, X_FORWARDED_PROTO).next().and_then(is_secure);
            }
            ForwardingHeader::Forwarded => {
                let named = elements(headers).map(|element| node_address(parameter(element?, b"for")?));
                origin.client = self.follow(origin.client, named);
                let last = elements(headers).next().flatten();
                origin.is_secure = last.and_then(|element| is_secure(parameter(element, b"proto")?));
            }
        }
        origin
    }

    /// Whose request a proxy asks about, that may ask: the last address of X-Forwarded-For, and on
    /// from there as above. One that names nobody asks for itself.
    pub(crate) fn asked_for(&self, asking: IpAddr, headers: &HeaderMap) -> IpAddr {
        let named = list(headers, X_FORWARDED_FOR).map(node_address);
        self.follow(asking.to_canonical(), named)
    }

    /// From proxy to proxy, as long as they are trusted and name somebody.
    fn follow(&self, peer: IpAddr, named: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for address in named.take(MAX_HOPS) {
            let Some(address) = address else {
                return client;
            };
            client = address;
            if !contains(&self.networks, client) {
                return client;
            }
        }
        client
    }
}

/// The items of all fields of a name, the last first. These headers know no quotes: whoever appends to
/// them puts a comma there, whatever the client has opened before it.
fn list<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(name).iter().rev();
    fields.flat_map(|field| {
        let items = field.as_bytes().rsplit(|byte| *byte == b',');
        items.map(<[u8]>::trim_ascii)
    })
}

/// The elements of `Forwarded` (RFC 7239 section 4), the last first. A field that is not of its form
/// yields nothing to go by: what a proxy has appended cannot be told from what the client wrote.
fn elements(headers: &HeaderMap) -> impl Iterator<Item = Option<&[u8]>> {
    let fields = headers.get_all(FORWARDED).iter().rev();
    fields.flat_map(|field| {
        let mut items = match split(field.as_bytes(), b',') {
            Some(items) => items.into_iter().map(Some).collect(),
            None => vec![None],
        };
        items.reverse();
        items
    })
}

/// What stands between separators, where one within a quoted string (RFC 9110 section 5.6.4) is none.
/// Nothing where a quoted string does not begin a value, has no end, or has anything but a separator
/// after it.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at = quoted_end(text, at)?;
                let rest = text[at..].trim_ascii_start();
                if !matches!(rest.first(), None | Some(b',' | b';')) {
                    return None;
                }
                continue;
            }
            byte if byte == separator => {
                items.push(text[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    items.push(text[start..].trim_ascii());
    Some(items)
}

/// Where the quoted string that begins at `open` has ended.
fn quoted_end(text: &[u8], open: usize) -> Option<usize> {
    if open == 0 || text[open - 1] != b'=' {
        return None;
    }
    let mut at = open + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The one value of a parameter of an element of `Forwarded`, without its quotes.
fn parameter<'e>(element: &'e [u8], name: &[u8]) -> Option<&'e [u8]> {
    let mut found = split(element, b';')?.into_iter().filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (its, value) = (&pair[..equals], &pair[equals + 1..]);
        its.eq_ignore_ascii_case(name).then_some(value)
    });
    let (first, second) = (found.next()?, found.next());
    if second.is_some() {
        return None;
    }
    match first {
        [b'"', value @ .., b'"'] => Some(value),
        value => Some(value),
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(in_brackets).or_else(with_port);
    address.map(|address: IpAddr| address.to_canonical())
}

fn is_secure(scheme: &[u8]) -> Option<bool> {
    if scheme.eq_ignore_ascii_case(b"https") {
        Some(true)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use durward_config::Document;
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn origin(header: ForwardingHeader, peer: &str, fields: &[(&'static str, &'static str)]) -> Origin {
        let trusted = TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()],
            header,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        trusted.origin(peer.parse().unwrap(), &headers)
    }

    #[test]
    fn a_stranger_is_taken_for_nobody_else() {
        let fields = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "https"),
        ];
        for peer in ["192.0.2.1", "::1", "11.0.0.1"] {
            let found = origin(ForwardingHeader::XForwardedFor, peer, &fields);
            assert_eq!((found.client, found.is_secure), (peer.parse().unwrap(), None));
        }
        let nobody = TrustedProxies::default();
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("198.51.100.1"),
        )]);
        let peer = "127.0.0.1".parse().unwrap();
        assert_eq!(nobody.origin(peer, &headers).client, peer);
    }

    #[test]
    fn the_last_one_who_is_no_trusted_proxy_is_the_client() {
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&["198.51.100.1"], "198.51.100.1"),
            (&["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            (&["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (&["6.6.6.6", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["2001:db8::1, [2001:db8:1::2]:80"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
            // Who names nobody is as far as it goes.
            (&["198.51.100.1, unknown"], "10.0.0.1"),
            (&["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.1,"], "10.0.0.1"),
            (&["198.51.100.1 10.0.0.2"], "10.0.0.1"),
            // A client's quotes hold nothing of what a proxy has appended.
            (&["6.6.6.6, \", 198.51.100.1"], "198.51.100.1"),
            (&["\"6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (&["\"6.6.6.6\""], "10.0.0.1"),
        ] {
            let fields: Vec<_> = fields.iter().map(|value| ("x-forwarded-for", *value)).collect();
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                let found = origin(ForwardingHeader::XForwardedFor, peer, &fields);
                assert_eq!(found.client.to_string(), expected, "{fields:?}");
            }
        }
        let long = [("x-forwarded-for", "6.6.6.6"); 1]
            .into_iter()
            .chain([("x-forwarded-for", "10.0.0.9"); 100])
            .collect::<Vec<_>>();
        let found = origin(ForwardingHeader::XForwardedFor, "10.0.0.1", &long);
        assert_eq!(found.client.to_string(), "10.0.0.9");
    }

    #[test]
    fn a_question_is_about_the_client_that_the_asking_proxy_saw() {
        let trusted = TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            header: ForwardingHeader::Forwarded,
        };
        for (fields, expected) in [
            (&["6.6.6.6, 192.0.2.1"][..], "192.0.2.1"),
            (&["6.6.6.6", "2001:db8::1"], "2001:db8::1"),
            (&["6.6.6.6, 192.0.2.1, 10.0.0.1"], "192.0.2.1"),
            (&["unknown"], "192.0.2.254"),
            (&[], "192.0.2.254"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(field));
            }
            headers.append(FORWARDED, HeaderValue::from_static("for=6.6.6.6"));
            let client = trusted.asked_for("::ffff:192.0.2.254".parse().unwrap(), &headers);
            assert_eq!(client.to_string(), expected, "{fields:?}");
        }
    }

    #[test]
    fn forwarded_is_read_where_it_is_asked_for() {
        let both = [
            (
                "forwarded",
                "for=6.6.6.6, for=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1",
            ),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "http"),
        ];
        let found = origin(ForwardingHeader::Forwarded, "10.0.0.1", &both);
        assert_eq!(
            (found.client.to_string().as_str(), found.is_secure),
            ("2001:db8::1", Some(true))
        );
        let found = origin(ForwardingHeader::XForwardedFor, "10.0.0.1", &both);
        assert_eq!(
            (found.client.to_string().as_str(), found.is_secure),
            ("7.7.7.7", Some(false))
        );
        for (value, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            ("For=198.51.100.1; Proto=http", "198.51.100.1"),
            ("for=\"198.51.100.1:80\"", "198.51.100.1"),
            ("for=\"a,for=6.6.6.6\"", "10.0.0.1"),
            ("for=\"a\\\",for=6.6.6.6\"", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=6.6.6.6;for=198.51.100.1", "10.0.0.1"),
            ("by=198.51.100.1", "10.0.0.1"),
            ("for=6.6.6.6, for=198.51.100.1, for=10.0.0.2", "198.51.100.1"),
            ("for=\"[2001:db8::1]\" ; proto=http", "2001:db8::1"),
            // What a client has opened, a proxy's word does not close.
            ("for=6.6.6.6;x=\", for=198.51.100.1", "10.0.0.1"),
            ("for=\"6.6.6.6, for=198.51.100.1", "10.0.0.1"),
            ("for=6.6.6.6;x=\", for=\"[2001:db8::1]\"", "10.0.0.1"),
            ("for=6.6.6.6;x=\"\\\", for=\"198.51.100.1\"", "10.0.0.1"),
            ("for=\"6.6.6.6\"x, for=198.51.100.1", "10.0.0.1"),
            ("for=6.6.6.6\", for=198.51.100.1", "10.0.0.1"),
            ("\"for=6.6.6.6\", for=198.51.100.1", "10.0.0.1"),
            ("for=\"6.6.6.6\\", "10.0.0.1"),
        ] {
            let found = origin(ForwardingHeader::Forwarded, "10.0.0.1", &[("forwarded", value)]);
            assert_eq!(found.client.to_string(), expected, "{value}");
        }
    }

    #[test]
    fn trusted_proxies_are_named_and_are_not_everybody() {
        let compile = |yaml: &str| {
            let document = Document::parse("c.yaml", yaml).unwrap();
            let mut diagnostics = Diagnostics::default();
            let trusted = compile_trusted_proxies(Some(document.root()), &mut diagnostics);
            (trusted, diagnostics.located_in(&document).to_string())
        };
        let (trusted, text) = compile("[10.0.0.1, 192.0.2.0/24]");
        assert_eq!((trusted.networks.len(), text.as_str()), (2, ""));
        let (trusted, text) = compile("{ networks: 10.0.0.1, header: forwarded }");
        assert_eq!((trusted.header, text.as_str()), (ForwardingHeader::Forwarded, ""));
        for (yaml, expected) in [
            ("[]", "has 0 entries"),
            ("0.0.0.0/0", "is everybody"),
            ("['::/0']", "is everybody"),
            ("localhost", "no address or network"),
            (
                "{ networks: 10.0.0.1, header: x-real-ip }",
                "cannot be `x-real-ip`",
            ),
            ("{ header: forwarded }", "`networks` is missing"),
            ("{ networks: 10.0.0.1, heder: forwarded }", "unknown key `heder`"),
        ] {
            let (_, text) = compile(yaml);
            assert!(text.contains(expected), "{yaml}: {expected} is not in\n{text}");
        }
    }
}
