//! Which sessions an operator means: by client address, user agent, times, role, user and client.
//!
//! Kinds are combined with AND, the values of one kind with OR. What cannot be read is an error, never
//! a filter that matches less than was meant.

use std::net::IpAddr;

use durward_contract::UnixSeconds;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::client_address::MAX_USER_AGENT_BYTES;
use crate::problem::{Problem, Reason};

/// Most values of one kind.
pub(crate) const MAX_FILTER_VALUES: usize = 256;
/// Longest value, in bytes.
const MAX_VALUE_BYTES: usize = MAX_USER_AGENT_BYTES;
/// Bits of `::ffff:0:0/96`, under which IPv6 writes IPv4 addresses (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A filter as it is written, in requests and in the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FilterForm {
    /// Networks or single addresses.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_values")]
    pub ip: Vec<String>,
    /// Patterns with `*` and `?`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_values")]
    pub user_agent: Vec<String>,
    /// The newest tokens are from before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// The newest tokens are from this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_after: Option<i64>,
    /// The login was before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<i64>,
    /// The login was at this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<i64>,
    /// Roles that the user has now.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_values")]
    pub role: Vec<String>,
    /// User names.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_values")]
    pub user: Vec<String>,
    /// Clients.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_values")]
    pub client: Vec<String>,
}

/// What SQL cannot tell of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFilter {
    networks: Vec<IpNet>,
    user_agents: Vec<Glob>,
}

/// What SQL can. An empty list does not restrict.
#[derive(Clone, Debug, Default)]
pub(crate) struct Criteria {
    pub session: Option<String>,
    pub user_ids: Vec<String>,
    pub roles: Vec<String>,
    pub clients: Vec<String>,
    pub issued_before: Option<UnixSeconds>,
    pub issued_after: Option<UnixSeconds>,
    pub created_before: Option<UnixSeconds>,
    pub created_after: Option<UnixSeconds>,
}

impl FilterForm {
    /// Whether it restricts nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whatever is not right in it, except for the names of users.
    pub fn check(&self) -> Result<(), Problem> {
        let lists = [&self.ip, &self.user_agent, &self.role, &self.user, &self.client];
        for list in lists {
            if list.len() > MAX_FILTER_VALUES {
                return Err(invalid(format!(
                    "a filter has at most {MAX_FILTER_VALUES} values of a kind"
                )));
            }
            if list.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
                return Err(invalid(format!(
                    "a value of a filter has at most {MAX_VALUE_BYTES} bytes"
                )));
            }
        }
        // PostgreSQL has no text with a NUL in it.
        if self.client.iter().any(|client| client.contains('\0')) {
            return Err(invalid("no client has a NUL in its name"));
        }
        let ranges = [
            ("issued", self.issued_after, self.issued_before),
            ("created", self.created_after, self.created_before),
        ];
        for (what, after, before) in ranges {
            if let (Some(after), Some(before)) = (after, before)
                && after >= before
            {
                return Err(invalid(format!("no instant is {what}_after and {what}_before")));
            }
        }
        Ok(())
    }

    /// The part that is compared here.
    pub fn client_filter(&self) -> Result<ClientFilter, Problem> {
        Ok(ClientFilter {
            networks: self
                .ip
                .iter()
                .map(|text| network(text))
                .collect::<Result<_, _>>()?,
            user_agents: self.user_agent.iter().map(|text| Glob::new(text)).collect(),
        })
    }

    /// The part that SQL compares, for users of these ids.
    pub fn criteria(&self, user_ids: Vec<String>) -> Criteria {
        Criteria {
            session: None,
            user_ids,
            roles: self.role.clone(),
            clients: self.client.clone(),
            issued_before: self.issued_before.map(UnixSeconds),
            issued_after: self.issued_after.map(UnixSeconds),
            created_before: self.created_before.map(UnixSeconds),
            created_after: self.created_after.map(UnixSeconds),
        }
    }
}

impl ClientFilter {
    /// Whether a session with these facts is meant.
    pub fn matches(&self, client_address: &str, user_agent: &str) -> bool {
        let network = self.networks.is_empty()
            || match client_address.parse::<IpAddr>() {
                Ok(address) => {
                    let address = address.to_canonical();
                    self.networks.iter().any(|network| network.contains(&address))
                }
                // Nothing writes such an address. A session of unknown origin is rather ended.
                Err(_) => true,
            };
        let agent =
            self.user_agents.is_empty() || self.user_agents.iter().any(|glob| glob.matches(user_agent));
        network && agent
    }
}

/// A list that is written has values: an empty one would not restrict, whatever was meant by it.
fn some_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = Vec::<String>::deserialize(deserializer)?;
    if values.is_empty() {
        return Err(de::Error::custom("an empty list"));
    }
    Ok(values)
}

fn invalid(detail: impl Into<String>) -> Problem {
    let detail: String = detail.into();
    Problem::with_detail(Reason::InvalidRevocation, format!("{}.", capitalised(&detail)))
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

/// A network, or a single address. A network that is written with bits beyond its prefix may be a slip
/// for a single address, so it is not guessed at.
fn network(text: &str) -> Result<IpNet, Problem> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => {
                return Err(invalid(format!(
                    "`{text}` is neither an address nor a network such as 203.0.113.0/24"
                )));
            }
        },
    };
    if network.trunc() != network {
        return Err(invalid(format!(
            "`{text}` has bits beyond its prefix: write {} for the network, or {} for the address",
            network.trunc(),
            network.addr()
        )));
    }
    Ok(unmapped(network))
}

/// Addresses are kept in their canonical form, so networks of IPv4 addresses in IPv6 clothes become
/// IPv4 networks. Wider ones (`::/0`) mean IPv6 clients.
fn unmapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= MAPPED_BITS
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(address, v6.prefix_len() - MAPPED_BITS)
    {
        return IpNet::V4(v4);
    }
    network
}

/// A pattern for a whole text: `*` is any number of characters, `?` is one. Letters of ASCII match in
/// either case, since nobody remembers how a client writes its name.
#[derive(Clone, Debug)]
struct Glob(Vec<char>);

impl Glob {
    fn new(pattern: &str) -> Self {
        Self(pattern.chars().map(|c| c.to_ascii_lowercase()).collect())
    }

    /// Goes back to the last star only, so the work is bounded by the product of both lengths.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (
            &self.0,
            text.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>(),
        );
        let (mut p, mut t) = (0, 0);
        let mut star = None;
        while t < text.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p + 1, t));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((after, from)) = star else { return false };
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ip: &str, address: &str) -> bool {
        let form = FilterForm {
            ip: vec![ip.to_owned()],
            ..FilterForm::default()
        };
        form.client_filter().unwrap().matches(address, "")
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        for (ip, address, expected) in [
            ("203.0.113.0/24", "203.0.113.0", true),
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.0/24", "203.0.112.255", false),
            ("203.0.113.0/24", "203.0.114.0", false),
            ("203.0.113.0/24", "203.0.11.3", false),
            ("203.0.113.1", "203.0.113.1", true),
            ("203.0.113.1", "203.0.113.10", false),
            ("203.0.113.1/32", "203.0.113.10", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("2001:0DB8::1", "2001:db8:0::1", true),
            ("::ffff:203.0.113.0/120", "203.0.113.7", true),
            ("::ffff:203.0.113.0/120", "::ffff:203.0.113.7", true),
            ("::ffff:203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "::ffff:203.0.113.7", true),
            ("::ffff:0:0/96", "203.0.113.7", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
            ("203.0.113.0/24", "not an address", true),
        ] {
            assert_eq!(hits(ip, address), expected, "{ip} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            " ",
            "203.0.113",
            "203.0.113.0/33",
            "203.0.113.0/",
            "203.0.113.0/24 ",
            "203.0.113.*",
            "203.0.113.5/24",
            "2001:db8::1/32",
            "fe80::1%eth0",
            "::ffff:203.0.113.5/120",
            "example.com",
            "010.0.0.1",
        ] {
            let form = FilterForm {
                ip: vec![bad.to_owned()],
                ..FilterForm::default()
            };
            let refused = form.client_filter().unwrap_err();
            assert_eq!(refused.code(), "invalid_revocation", "{bad}");
        }
    }

    #[test]
    fn globs_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("curl*", "curl/8.5.0", true),
            ("curl*", "curl", true),
            ("curl*", "libcurl/8", false),
            ("curl", "curl/8", false),
            ("CURL/?", "curl/8", true),
            ("curl/?", "curl/", false),
            ("curl/?", "curl/88", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("?", "", false),
            ("?", "é", true),
            ("*bot*", "Googlebot/2.1", true),
            ("*a*b*c", "aXbXbXc", true),
            ("*a*b*c", "aXbXcX", false),
            ("**", "anything", true),
            ("*??", "a", false),
            ("[a-z]*", "b", false),
            ("[a-z]*", "[a-z]!", true),
            ("%", "x", false),
            ("_", "x", false),
            ("\\*", "*", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
        let slow = Glob::new(&format!("{}b", "*a".repeat(127)));
        assert!(!slow.matches(&"a".repeat(MAX_USER_AGENT_BYTES)));
    }

    #[test]
    fn kinds_are_combined_with_and_and_values_with_or() {
        let form = FilterForm {
            ip: vec!["192.0.2.1".into(), "198.51.100.0/24".into()],
            user_agent: vec!["curl*".into(), "wget*".into()],
            ..FilterForm::default()
        };
        let filter = form.client_filter().unwrap();
        for (address, agent, expected) in [
            ("192.0.2.1", "curl/8", true),
            ("198.51.100.9", "Wget/1", true),
            ("192.0.2.1", "Firefox", false),
            ("192.0.2.2", "curl/8", false),
        ] {
            assert_eq!(filter.matches(address, agent), expected, "{address} {agent}");
        }
        assert!(ClientFilter::default().matches("192.0.2.1", ""));
    }

    #[test]
    fn a_filter_has_bounds() {
        let many = FilterForm {
            client: vec!["c".into(); MAX_FILTER_VALUES + 1],
            ..FilterForm::default()
        };
        let long = FilterForm {
            user_agent: vec!["x".repeat(MAX_VALUE_BYTES + 1)],
            ..FilterForm::default()
        };
        let nothing = FilterForm {
            issued_after: Some(5),
            issued_before: Some(5),
            ..FilterForm::default()
        };
        for bad in [many, long, nothing] {
            assert!(bad.check().is_err());
        }
        assert!(FilterForm::default().is_empty());
    }
}
