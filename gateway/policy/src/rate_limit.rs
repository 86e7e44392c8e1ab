//! Rate limits: how many requests a client may make, and which routes count them. Data only: the shell
//! counts, by the arithmetic of [`crate::Quota`].

use durward_config::{Diagnostics, Entry, Node, Place, Section};

use crate::{Access, CredentialKinds, Quota};

/// The most definitions of a file; each has a table of its own.
pub const MAX_RATE_LIMITS: usize = 64;
/// The most that a route names.
pub const MAX_RATE_LIMITS_OF_ROUTE: usize = 4;
/// The longest name.
const MAX_NAME_BYTES: usize = 64;

/// A definition's index, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateLimitId(pub u32);

impl RateLimitId {
    /// Its index, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// Those of one address, or one /64 of IPv6; counted before anything of the credential is looked
    /// at.
    Address,
    /// Those of one user of one issuer, once permitted. Requests of nobody and of services are not
    /// counted.
    User,
    /// Those of one API key, or of one grant of a client certificate beside keys, once permitted.
    /// Requests of users and of nobody are not counted.
    ApiKey,
    /// Those of one service, once permitted, whichever of its keys and certificates it shows. Requests
    /// of users and of nobody are not counted.
    Service,
    /// All of one route, once permitted.
    Route,
}

/// One definition of `rate_limits`.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Its name, which the RateLimit fields and the metrics repeat: letters, digits, `-` and `_`.
    pub name: String,
    /// Where the file speaks of it.
    pub place: Place,
    /// Whose requests are counted together.
    pub by: LimitBy,
    /// How many there may be.
    pub quota: Quota,
    /// Whether gateways count together; each counts for itself if absent.
    pub shared: Option<SharedLimit>,
}

/// How gateways count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLimit {
    /// What to do where the store that has the counts does not answer.
    pub when_store_fails: WhenStoreFails,
}

/// What to do where the store of shared counts does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStoreFails {
    /// Each gateway counts for itself.
    #[default]
    Local,
    /// The request is refused.
    Refuse,
}

/// What a route counts, in the order in which it names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteRateLimits {
    /// By address: before the credential is looked at.
    pub on_arrival: Vec<RateLimitId>,
    /// All others: once the request is permitted.
    pub on_permit: Vec<RateLimitId>,
}

impl RouteRateLimits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.on_arrival.is_empty() && self.on_permit.is_empty()
    }

    /// Every one, those by address first.
    pub fn iter(&self) -> impl Iterator<Item = RateLimitId> {
        self.on_arrival.iter().chain(&self.on_permit).copied()
    }
}

/// Reads `rate_limits: { NAME: { by, rate, burst } }`.
pub(crate) fn rate_limits(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Vec<RateLimit> {
    let entries = node.and_then(|node| node.entries("`rate_limits`", diagnostics));
    let entries = entries.unwrap_or_default();
    if let (Some(node), true) = (node, entries.len() > MAX_RATE_LIMITS) {
        let message = format!("more than {MAX_RATE_LIMITS} rate limits");
        diagnostics.error(
            node.place,
            message,
            "write fewer: several routes may name the same one",
        );
        return Vec::new();
    }
    entries
        .iter()
        .filter_map(|entry| rate_limit(entry, diagnostics))
        .collect()
}

fn rate_limit(entry: &Entry, diagnostics: &mut Diagnostics) -> Option<RateLimit> {
    let name = &entry.key;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
        let advice = format!("write up to {MAX_NAME_BYTES} letters, digits, `-` and `_`");
        diagnostics.error(
            entry.place,
            format!("`{name}` is no name of a rate limit"),
            advice,
        );
        return None;
    }
    let what = format!("the rate limit `{name}`");
    let mut section = entry.node.section(&what, diagnostics)?;
    let by = section.required(
        "by",
        "write `by: address`, `user`, `service`, `api_key` or `route`",
        diagnostics,
    );
    let quota = Quota::compile(&mut section, diagnostics);
    let shared = shared(&mut section, diagnostics);
    section.finish(diagnostics);
    let words = ["address", "user", "service", "api_key", "route"];
    let by = match by?.one_of("`by`", &words, diagnostics)? {
        "address" => LimitBy::Address,
        "user" => LimitBy::User,
        "service" => LimitBy::Service,
        "api_key" => LimitBy::ApiKey,
        _ => LimitBy::Route,
    };
    Some(RateLimit {
        name: name.clone(),
        place: entry.place,
        by,
        quota: quota?,
        shared,
    })
}

/// Reads `shared: true` and `when_store_fails`.
fn shared(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<SharedLimit> {
    let shared = section.optional("shared");
    let fails = section.optional("when_store_fails");
    let shared = shared.is_some_and(|node| node.boolean("`shared`", diagnostics).unwrap_or(true));
    if let (Some(node), false) = (fails, shared) {
        let message = "`when_store_fails` is said of a rate limit that each gateway counts for itself";
        diagnostics.error(node.place, message, "write `shared: true`, or remove it");
    }
    let word = fails.and_then(|node| node.one_of("`when_store_fails`", &["local", "refuse"], diagnostics));
    shared.then_some(SharedLimit {
        when_store_fails: match word {
            Some("refuse") => WhenStoreFails::Refuse,
            _ => WhenStoreFails::Local,
        },
    })
}

/// Reads `rate_limit: NAME` or a list of names, on a route of this access and these credentials.
pub(crate) fn of_route(
    node: Option<&Node>,
    known: &[RateLimit],
    access: Option<Access>,
    credentials: Option<CredentialKinds>,
    diagnostics: &mut Diagnostics,
) -> RouteRateLimits {
    let mut limits = RouteRateLimits::default();
    let Some(node) = node else {
        return limits;
    };
    let items = node.one_or_many();
    if items.is_empty() || items.len() > MAX_RATE_LIMITS_OF_ROUTE {
        let message = format!("`rate_limit` has {} names", items.len());
        let advice = format!("write from 1 to {MAX_RATE_LIMITS_OF_ROUTE} names of `rate_limits`");
        diagnostics.error(node.place, message, advice);
        return limits;
    }
    let names: Vec<&str> = known.iter().map(|limit| limit.name.as_str()).collect();
    for item in items {
        let found = match names.is_empty() {
            true => item.text("`rate_limit`", diagnostics).and_then(|name| {
                let message = format!("there is no rate limit `{name}`");
                diagnostics.error(item.place, message, "write it under `rate_limits:`");
                None
            }),
            false => item.one_of("`rate_limit`", &names, diagnostics),
        };
        let index = found.and_then(|name| names.iter().position(|known| *known == name));
        let Some((index, limit)) = index.and_then(|index| Some((index, known.get(index)?))) else {
            continue;
        };
        check_it_counts(limit, item, access, credentials, diagnostics);
        let id = RateLimitId(u32::try_from(index).unwrap_or(u32::MAX));
        if limits.iter().any(|other| other == id) {
            let message = format!("the rate limit `{}` is named twice", limit.name);
            diagnostics.error(item.place, message, "name it once");
        } else if limit.by == LimitBy::Address {
            limits.on_arrival.push(id);
        } else {
            limits.on_permit.push(id);
        }
    }
    limits
}

/// A limit that never counts anything is a mistake.
fn check_it_counts(
    limit: &RateLimit,
    item: &Node,
    access: Option<Access>,
    credentials: Option<CredentialKinds>,
    diagnostics: &mut Diagnostics,
) {
    let (Some(access), Some(credentials)) = (access, credentials) else {
        return;
    };
    let accepts_services = credentials.api_key || credentials.client_certificate;
    let (by, counts) = match limit.by {
        LimitBy::Address | LimitBy::Route => return,
        LimitBy::User => ("user", credentials.bearer),
        LimitBy::Service => ("service", accepts_services),
        LimitBy::ApiKey => ("api_key", credentials.api_key),
    };
    if access == Access::Public || !counts {
        let message = format!(
            "the rate limit `{}` is `by: {by}`, and the route accepts no such credential",
            limit.name
        );
        let advice = match limit.by {
            LimitBy::ApiKey if access != Access::Public && accepts_services => {
                "name one that is `by: service`"
            }
            _ => "name one that is `by: address` or `by: route`",
        };
        diagnostics.error(item.place, message, advice);
    }
}

/// A definition that no route names limits nothing.
pub(crate) fn warn_of_unused<'r>(
    known: &[RateLimit],
    routes: impl Iterator<Item = &'r RouteRateLimits>,
    diagnostics: &mut Diagnostics,
) {
    let mut used = vec![false; known.len()];
    for id in routes.flat_map(RouteRateLimits::iter) {
        used[id.index()] = true;
    }
    for (limit, _) in known.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("no route names the rate limit `{}`", limit.name);
        let advice = format!("write `rate_limit: {}` on a route, or remove it", limit.name);
        diagnostics.warning(limit.place, message, advice);
    }
}
