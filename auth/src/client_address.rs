//! Who is at the other end: the peer, or whom a trusted proxy names.

use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use http::header::{HeaderMap, USER_AGENT};
use http::request::Parts;
use ipnet::IpNet;

use crate::problem::Problem;
use crate::service::AuthService;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// Proxies that are walked through at most.
const MAX_HOPS: usize = 32;
/// Longest user agent that is kept, in bytes.
pub const MAX_USER_AGENT_BYTES: usize = 256;

/// The address at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

/// What is known of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFacts {
    pub address: IpAddr,
    pub user_agent: String,
}

impl FromRequestParts<AuthService> for ClientFacts {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer
            .ok_or_else(|| Problem::internal("finding the peer", &"no connection"))?
            .0
            .ip();
        Ok(Self {
            address: client_address(peer, &parts.headers, &service.config().trusted_proxies),
            user_agent: user_agent(&parts.headers),
        })
    }
}

/// The right-most address that is not a trusted proxy's. Each proxy appends the address that it saw,
/// so what stands further left is only a claim.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    let lines: Vec<&[u8]> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(|value| value.as_bytes())
        .collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.take(MAX_HOPS) {
        if !trusted.iter().any(|network| network.contains(&address)) {
            break;
        }
        // Whoever wrote this was the last one that is known.
        let Some(next) = parse_hop(hop) else { break };
        address = next;
    }
    address
}

fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bracketed
        .parse::<IpAddr>()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// The User-Agent in a form that can be shown: bounded, and without control characters.
fn user_agent(headers: &HeaderMap) -> String {
    let Some(value) = headers.get(USER_AGENT) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut kept = String::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if kept.len() + c.len_utf8() > MAX_USER_AGENT_BYTES {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn address(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let (gateway, proxies) = ("127.0.0.1/32", "10.0.0.0/8");
        for (peer, lines, trusted, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], &[gateway], "192.0.2.1"),
            ("127.0.0.1", &["198.51.100.7"], &[gateway], "198.51.100.7"),
            (
                "127.0.0.1",
                &["203.0.113.9, 198.51.100.7"],
                &[gateway],
                "198.51.100.7",
            ),
            (
                "127.0.0.1",
                &["203.0.113.9, 10.1.1.1"],
                &[gateway, proxies],
                "203.0.113.9",
            ),
            (
                "127.0.0.1",
                &["203.0.113.9", "10.1.1.1"],
                &[gateway, proxies],
                "203.0.113.9",
            ),
            (
                "127.0.0.1",
                &["10.2.2.2, 10.1.1.1"],
                &[gateway, proxies],
                "10.2.2.2",
            ),
            ("127.0.0.1", &["203.0.113.9, nonsense"], &[gateway], "127.0.0.1"),
            (
                "127.0.0.1",
                &["203.0.113.9, nonsense, 10.1.1.1"],
                &[gateway, proxies],
                "10.1.1.1",
            ),
            ("127.0.0.1", &[], &[gateway], "127.0.0.1"),
            (
                "::ffff:127.0.0.1",
                &["198.51.100.7:4711"],
                &[gateway],
                "198.51.100.7",
            ),
            ("127.0.0.1", &["[2001:db8::1]:80"], &[gateway], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]"], &[gateway], "2001:db8::1"),
            ("127.0.0.1", &["::ffff:10.1.1.1"], &[gateway], "10.1.1.1"),
        ] {
            assert_eq!(
                address(peer, lines, trusted),
                expected,
                "{peer} {lines:?} {trusted:?}"
            );
        }
    }

    #[test]
    fn a_user_agent_is_bounded_and_shows_nothing_odd() {
        let mut headers = HeaderMap::new();
        assert_eq!(user_agent(&headers), "");
        headers.insert(USER_AGENT, HeaderValue::from_bytes(b"curl/8\tx\x9b[31m").unwrap());
        assert_eq!(user_agent(&headers), "curl/8?x\u{fffd}[31m");
        headers.insert(USER_AGENT, HeaderValue::from_str(&"é".repeat(1000)).unwrap());
        assert_eq!(user_agent(&headers).len(), MAX_USER_AGENT_BYTES);
    }
}
