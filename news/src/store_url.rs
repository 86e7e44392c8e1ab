//! `store:` taken apart: which servers, and how they stand to each other.
//!
//! Written by hand because a list of hosts is no URL that a URL library would read.

use std::fmt;

/// Most sentinels, or seeds of a cluster.
const MAX_ENDPOINTS: usize = 32;
/// The highest database number.
const MAX_DATABASE: i64 = 65_535;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A server's name or address, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the servers stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server.
    Single(Endpoint),
    /// Sentinels, which know where the master of that name is.
    Sentinel {
        sentinels: Vec<Endpoint>,
        master: String,
    },
    /// Some nodes of a cluster, which know all of them.
    Cluster(Vec<Endpoint>),
}

/// What a `store:` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    pub topology: Topology,
    pub tls: bool,
    pub database: i64,
}

/// What is wrong with it, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UrlFault {
    pub message: &'static str,
    pub advice: &'static str,
    /// Whether it may hold a password.
    pub secret: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

const FORMS: &str = "write redis://HOST:6379/0, redis+sentinel://HOST:26379,HOST:26379/MASTER or \
                     redis+cluster://HOST:6379,HOST:6379; rediss for TLS";

/// Whether this is meant to be a Redis at all.
pub(crate) fn is_redis(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| kind(scheme).is_some())
}

/// Takes a `store:` apart.
pub(crate) fn parse(text: &str) -> Result<StoreUrl, UrlFault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return fault("the store is no Redis", FORMS);
    };
    let Some((kind, tls)) = kind(scheme) else {
        return Err(UrlFault {
            message: "the store has a scheme that is not known",
            advice: FORMS,
            secret: rest.contains('@'),
        });
    };
    if rest.contains('@') {
        return Err(UrlFault {
            message: "a user name or password must not stand in the store's URL",
            advice: "write `redis: { username: NAME, password: { file: PATH } }` beside `store`",
            secret: true,
        });
    }
    if rest.contains(['?', '#', '%']) {
        return fault(
            "the store's URL takes no options",
            "put them into `redis:` beside `store`",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.strip_suffix('/').unwrap_or(path);
    let port = match kind {
        Kind::Sentinel => SENTINEL_PORT,
        Kind::Single | Kind::Cluster => REDIS_PORT,
    };
    let endpoints = authority
        .split(',')
        .map(|text| endpoint(text, port))
        .collect::<Result<Vec<_>, _>>()?;
    if endpoints.len() > MAX_ENDPOINTS {
        return fault("the store names more than 32 servers", "name some of them");
    }
    let (topology, database) = match kind {
        Kind::Single => (single(endpoints)?, database(path)?),
        Kind::Sentinel => sentinel(endpoints, path)?,
        Kind::Cluster if path.is_empty() || path == "0" => (Topology::Cluster(endpoints), 0),
        Kind::Cluster => {
            return fault("a cluster has no databases", "remove what follows the servers");
        }
    };
    Ok(StoreUrl {
        topology,
        tls,
        database,
    })
}

fn kind(scheme: &str) -> Option<(Kind, bool)> {
    Some(match scheme {
        "redis" => (Kind::Single, false),
        "rediss" => (Kind::Single, true),
        "redis+sentinel" => (Kind::Sentinel, false),
        "rediss+sentinel" => (Kind::Sentinel, true),
        "redis+cluster" => (Kind::Cluster, false),
        "rediss+cluster" => (Kind::Cluster, true),
        _ => return None,
    })
}

fn single(mut endpoints: Vec<Endpoint>) -> Result<Topology, UrlFault> {
    match (endpoints.pop(), endpoints.is_empty()) {
        (Some(endpoint), true) => Ok(Topology::Single(endpoint)),
        _ => fault(
            "the store names several servers",
            "write redis+sentinel:// or redis+cluster:// for several, or name one",
        ),
    }
}

fn sentinel(sentinels: Vec<Endpoint>, path: &str) -> Result<(Topology, i64), UrlFault> {
    let (master, number) = path.split_once('/').unwrap_or((path, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if master.is_empty() || master.len() > 128 || !master.bytes().all(plain) {
        return fault(
            "the store does not say which master",
            "write redis+sentinel://HOST:26379,HOST:26379/MASTER with the name that the sentinels know",
        );
    }
    let master = master.to_owned();
    Ok((Topology::Sentinel { sentinels, master }, database(number)?))
}

fn database(text: &str) -> Result<i64, UrlFault> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse() {
        Ok(number) if (0..=MAX_DATABASE).contains(&number) && !text.starts_with('+') => Ok(number),
        _ => fault(
            "the store's database is not a number",
            "write redis://HOST:6379/0, or nothing after the port",
        ),
    }
}

fn endpoint(text: &str, default_port: u16) -> Result<Endpoint, UrlFault> {
    const ADVICE: &str = "write HOST, HOST:PORT or [IPV6]:PORT";
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return fault("an IPv6 address of the store is not closed with `]`", ADVICE);
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return fault("the store has brackets around what is no IPv6 address", ADVICE);
        }
        match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if port.is_empty() => (host, None),
            None => return fault("the store has something between `]` and the port", ADVICE),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return fault("an IPv6 address of the store needs brackets", ADVICE);
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return fault("the store has a server without a proper name", ADVICE);
    }
    let port = match port {
        None => default_port,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return fault("a port of the store is out of range", ADVICE),
        },
        Some(_) => return fault("a port of the store is not a number", ADVICE),
    };
    let host = host.to_ascii_lowercase();
    Ok(Endpoint { host, port })
}

fn fault<T>(message: &'static str, advice: &'static str) -> Result<T, UrlFault> {
    Err(UrlFault {
        message,
        advice,
        secret: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn each_form_is_taken_apart() {
        let single = |text: &str, endpoint, tls, database| {
            let topology = Topology::Single(endpoint);
            let expected = StoreUrl {
                topology,
                tls,
                database,
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        };
        single("redis://10.0.0.1", at("10.0.0.1", 6379), false, 0);
        single(
            "redis://Cache.Example:7000/3",
            at("cache.example", 7000),
            false,
            3,
        );
        single("rediss://[::1]:7000/", at("::1", 7000), true, 0);
        single("redis://[fe80::1]", at("fe80::1", 6379), false, 0);
        let sentinel = parse("redis+sentinel://a,b:1,[::2]/main/2").unwrap();
        assert_eq!(
            sentinel.topology,
            Topology::Sentinel {
                sentinels: vec![at("a", 26379), at("b", 1), at("::2", 26379)],
                master: "main".into()
            }
        );
        assert_eq!(sentinel.database, 2);
        let cluster = parse("rediss+cluster://a:1,b:2").unwrap();
        assert_eq!(cluster.topology, Topology::Cluster(vec![at("a", 1), at("b", 2)]));
        assert!(cluster.tls);
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        for text in [
            "",
            "redis:",
            "redis://",
            "redis://:1",
            "http://a",
            "redis://a:0",
            "redis://a:65536",
            "redis://a:+1",
            "redis://a:",
            "redis://a,b",
            "redis://::1",
            "redis://[::1",
            "redis://[::1]1",
            "redis://[a]",
            "redis://a b",
            "redis://a/x",
            "redis://a/-1",
            "redis://a/1/2",
            "redis://a?db=1",
            "redis://a%20",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/m x",
            "redis+cluster://a/1",
            "redis+cluster://a,,b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_an_error_that_conceals_them() {
        for text in [
            "redis://:hunter2@a",
            "redis://u:p@a/0",
            "http://u:p@a",
            "redis+sentinel://u:p@a/m",
        ] {
            assert!(parse(text).unwrap_err().secret, "{text}");
        }
    }
}
