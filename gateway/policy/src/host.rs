//! Canonical hosts (RFC 9110 section 7.2, RFC 9112 section 3.2, RFC 3986 section 3.2.2).

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest host name that is read, in bytes and without a trailing dot (RFC 1035 section 2.3.4).
pub(crate) const MAX_HOST_BYTES: usize = 253;

/// A host and port as `Host` or `:authority` carry them. The name is in the one form that is compared:
/// lower case, without a trailing dot, IPv6 addresses in brackets and in their shortest form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host<'r> {
    name: Cow<'r, str>,
    port: Option<u16>,
}

impl<'r> Host<'r> {
    /// Reads `host[:port]`. User information, lists, empty hosts, empty ports and everything that is
    /// no name or address is refused, with what is wrong.
    pub(crate) fn parse(bytes: &'r [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the host is not ASCII")?;
        if text.is_empty() {
            return Err("the host is empty");
        }
        let (host, port) = split_port(text)?;
        let name = match host.strip_prefix('[') {
            Some(rest) => Cow::Owned(ipv6(rest)?),
            None => canonical(host)?,
        };
        Ok(Self {
            name,
            port: port.map(parse_port).transpose()?,
        })
    }

    /// The host in canonical spelling.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The port, where one is written.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether both name the same place; an absent port is the scheme's own.
    pub(crate) fn is_same(&self, other: &Host<'_>, default_port: u16) -> bool {
        let port = |host: &Host<'_>| host.port.unwrap_or(default_port);
        self.name == other.name && port(self) == port(other)
    }

    /// The name alone.
    pub(crate) fn into_name(self) -> Cow<'r, str> {
        self.name
    }
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let end_of_host = if text.starts_with('[') {
        text.find(']').ok_or("the address is not closed")? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(end_of_host);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err("the host is malformed"),
    }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the port is malformed");
    }
    port.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or("the port is out of range")
}

fn ipv6(rest: &str) -> Result<String, &'static str> {
    let address = rest.strip_suffix(']').ok_or("the address is not closed")?;
    let address: Ipv6Addr = address.parse().map_err(|_| "the address is malformed")?;
    Ok(format!("[{address}]"))
}

/// A host name in canonical spelling.
pub(crate) fn canonical_name(host: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    canonical(std::str::from_utf8(host).map_err(|_| "the host is not ASCII")?)
}

fn canonical(host: &str) -> Result<Cow<'_, str>, &'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > MAX_HOST_BYTES {
        return Err("the host's length is impossible");
    }
    let mut upper_case = false;
    let mut before = b'.';
    for byte in host.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper_case = true,
            b'.' if before != b'.' => {}
            _ => return Err("the host is malformed"),
        }
        before = byte;
    }
    if before == b'.' {
        return Err("the host is malformed");
    }
    Ok(if upper_case {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_is_one() {
        for (text, host, port) in [
            ("api.example", "api.example", None),
            ("API.Example.:8080", "api.example", Some(8080)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]", Some(443)),
            ("a_b-c", "a_b-c", None),
        ] {
            let authority = Host::parse(text.as_bytes()).unwrap();
            assert_eq!((authority.name(), authority.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(MAX_HOST_BYTES + 1);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a..:80",
            "a b",
            "a,b",
            "a, b",
            "a/b",
            "u@a",
            "a:",
            "a:x",
            "a:65536",
            "a:-1",
            "a:1:2",
            "[]",
            "[::1%25eth0]",
            "[v1.a]",
            "*.a",
            "a\u{b}",
            "a\0",
            "a:0",
            "http://a",
            "a;b",
            "[::1",
            "[::1]x",
            "[::g]",
            "::1",
            "a%41",
            "a?b",
            "a#b",
            "a\\b",
            "ä",
            "a\t",
            &long,
        ] {
            assert!(Host::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Host::parse("a".repeat(MAX_HOST_BYTES).as_bytes()).is_ok());
    }

    #[test]
    fn the_default_port_may_be_written_or_not() {
        let parse = |text: &'static str| Host::parse(text.as_bytes()).unwrap();
        assert!(parse("a").is_same(&parse("A:80"), 80));
        assert!(!parse("a").is_same(&parse("a:81"), 80));
        assert!(!parse("a").is_same(&parse("b"), 80));
    }
}
