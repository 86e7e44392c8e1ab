//! Reading `routes:`.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Section};

use super::{Access, HostPattern, PathPattern, Route, RouteId, UpstreamId, WhenUnknown};
use crate::identity_headers::extra_names;
use crate::rate_limit;
use crate::request_facts::MethodSet;
use crate::{
    AcceptedIssuers, Cors, CredentialKinds, ForwardLimits, Issuers, RateLimit, Requirement, ResponseHeaders,
    Rewrite,
};

/// The most routes of a file.
pub const MAX_ROUTES: usize = 10_000;
/// For how long a route may accept what it does not know.
const ALLOW_FOR: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
/// Keys of the design that this version does not have.
const NOT_BUILT: [&str; 2] = ["mode", "headers"];
/// Keys that say something about credentials, which a public route does not look at.
const OF_CREDENTIALS: [&str; 4] = ["require", "issuers", "when_unknown", "credentials"];

/// What compiling routes needs to know of the rest of the file.
#[derive(Clone, Copy, Debug)]
pub struct RouteContext<'c> {
    /// The upstreams' names, in the order of the file.
    pub upstream_names: &'c [(String, Place)],
    /// The issuers.
    pub issuers: &'c Issuers,
    /// What routes do that do not say it themselves.
    pub when_unknown: WhenUnknown,
    /// The rate limits that routes may name.
    pub rate_limits: &'c [RateLimit],
}

/// Every route that can be read; the others are reported.
pub(crate) fn routes(node: &Node, context: &RouteContext<'_>, diagnostics: &mut Diagnostics) -> Vec<Route> {
    let items = node.list("`routes`", diagnostics).unwrap_or_default();
    if items.len() > MAX_ROUTES {
        diagnostics.error(
            node.place,
            format!("more than {MAX_ROUTES} routes"),
            "write fewer, with wider patterns",
        );
        return Vec::new();
    }
    let mut routes = Vec::with_capacity(items.len());
    for item in items {
        let id = RouteId(u32::try_from(routes.len()).unwrap_or(u32::MAX));
        routes.extend(route(id, item, context, diagnostics));
    }
    routes
}

fn route(
    id: RouteId,
    node: &Node,
    context: &RouteContext<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Route> {
    let mut section = node.section("a route", diagnostics)?;
    let host = HostPattern::compile(section.optional("host"), diagnostics);
    let path = section
        .required("path", "write `path: /api/**`", diagnostics)
        .and_then(|node| PathPattern::compile(node, diagnostics));
    let methods = section.optional("methods").map(|node| methods(node, diagnostics));
    let upstream = section
        .required(
            "upstream",
            "write `upstream:` with a name of `upstreams`",
            diagnostics,
        )
        .and_then(|node| upstream(node, context, diagnostics));
    let access = access(section.optional("access"), diagnostics);
    let demands = Demands::compile(&mut section, access, path.as_ref(), context, diagnostics);
    let forward_credentials = section.optional("forward_credentials").is_some_and(|node| {
        node.boolean("`forward_credentials`", diagnostics)
            .unwrap_or(false)
    });
    let strip = extra_names(section.optional("strip"), diagnostics);
    let limits = ForwardLimits::compile(&mut section, diagnostics);
    let [strip_prefix, rewrite] = [section.optional("strip_prefix"), section.optional("rewrite")];
    let rewrite = match &path {
        Some(path) => Rewrite::compile(strip_prefix, rewrite, path, diagnostics),
        None => None,
    };
    let rate_limits = rate_limit::of_route(
        section.optional("rate_limit"),
        context.rate_limits,
        access,
        demands.as_ref().map(|demands| demands.credentials),
        diagnostics,
    );
    let cors = section.optional("cors");
    let response_headers =
        ResponseHeaders::compile(section.optional("response_headers"), cors.is_some(), diagnostics);
    let cors = Cors::compile(cors, methods.flatten(), diagnostics);
    NOT_BUILT
        .iter()
        .for_each(|key| section.not_built(key, diagnostics));
    section.finish(diagnostics);
    let (host, path, demands) = (host?, path?, demands?);
    Some(Route {
        id,
        name: format!("{host}{}", path.text()),
        place: node.place,
        methods: match methods {
            Some(listed) => Some(listed?),
            None => None,
        },
        upstream: upstream?,
        access: access?,
        credentials: demands.credentials,
        requirement: demands.requirement,
        issuers: demands.issuers,
        when_unknown: demands.when_unknown,
        forward_credentials,
        strip,
        limits,
        rewrite: rewrite?,
        response_headers,
        rate_limits,
        cors: cors?,
        host,
        path,
    })
}

fn methods(node: &Node, diagnostics: &mut Diagnostics) -> Option<MethodSet> {
    let mut set = MethodSet::default();
    for (name, item) in node.texts("a method", diagnostics) {
        match MethodSet::named(name) {
            Some(method) if set.intersects(method) => {
                diagnostics.error(item.place, format!("`{name}` is listed twice"), "list it once");
            }
            Some(method) => set = set.union(method),
            None => {
                let advice = format!("write some of: {}", MethodSet::names().join(", "));
                diagnostics.error(
                    item.place,
                    format!("`{name}` is no method that is proxied"),
                    advice,
                );
            }
        }
    }
    if node.one_or_many().is_empty() {
        diagnostics.error(
            node.place,
            "`methods` is empty",
            "list the methods, or remove it to take every one",
        );
    }
    (set != MethodSet::default()).then_some(set)
}

fn upstream(node: &Node, context: &RouteContext<'_>, diagnostics: &mut Diagnostics) -> Option<UpstreamId> {
    let names: Vec<&str> = context
        .upstream_names
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    if names.is_empty() {
        let name = node.text("`upstream`", diagnostics)?;
        diagnostics.error(
            node.place,
            format!("there is no upstream `{name}`"),
            "write it under `upstreams:`",
        );
        return None;
    }
    let name = node.one_of("`upstream`", &names, diagnostics)?;
    let index = names.iter().position(|known| *known == name)?;
    u32::try_from(index).ok().map(UpstreamId)
}

fn access(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Option<Access> {
    let Some(node) = node else {
        return Some(Access::Authenticated);
    };
    let words = ["public", "optional", "authenticated"];
    Some(match node.one_of("`access`", &words, diagnostics)? {
        "public" => Access::Public,
        "optional" => Access::Optional,
        _ => Access::Authenticated,
    })
}

/// What a route asks of credentials.
struct Demands {
    credentials: CredentialKinds,
    requirement: Requirement,
    issuers: AcceptedIssuers,
    when_unknown: WhenUnknown,
}

impl Demands {
    fn compile(
        section: &mut Section<'_>,
        access: Option<Access>,
        path: Option<&PathPattern>,
        context: &RouteContext<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let [require, issuers, when_unknown, credentials] = OF_CREDENTIALS.map(|key| section.optional(key));
        if access == Some(Access::Public) {
            for (key, node) in OF_CREDENTIALS
                .iter()
                .zip([require, issuers, when_unknown, credentials])
            {
                if let Some(node) = node {
                    let message = format!("a public route does not look at credentials, and has `{key}`");
                    diagnostics.error(node.place, message, "remove it, or `access: public`");
                }
            }
            return Some(Self {
                credentials: CredentialKinds::default(),
                requirement: Requirement::default(),
                issuers: AcceptedIssuers::default(),
                when_unknown: context.when_unknown,
            });
        }
        if let (Some(Access::Optional), Some(node)) = (access, require) {
            let message =
                "an anonymous request never meets `require`, so `access: optional` lets none through";
            diagnostics.warning(node.place, message, "remove `require`, or `access: optional`");
        }
        // Where the path is wrong its parameters are not known, and every `{param}` would be an error.
        let names = path.map(PathPattern::param_names);
        let requirement = match (require, names) {
            (Some(node), Some(names)) => Requirement::compile(node, names, diagnostics),
            _ => Some(Requirement::default()),
        };
        let credentials = match credentials {
            Some(node) => CredentialKinds::compile(node, diagnostics),
            None => Some(CredentialKinds::BEARER),
        };
        if let (Some(CredentialKinds { bearer: false, .. }), Some(node), Some(requirement)) =
            (credentials, require, &requirement)
            && !requirement.can_be_met_by_scopes()
        {
            let message = "no API key meets `require`: a key has no claim but `scope`";
            diagnostics.warning(node.place, message, "write `require: { scope: ... }`");
        }
        let issuers = match (credentials, issuers) {
            (Some(CredentialKinds { bearer: false, .. }), Some(node)) => {
                let message = "the route accepts no tokens, and has `issuers`";
                diagnostics.error(node.place, message, "remove it, or add `bearer` to `credentials`");
                AcceptedIssuers::default()
            }
            (Some(CredentialKinds { bearer: false, .. }), None) => AcceptedIssuers::default(),
            (_, issuers) => context.issuers.accepted(issuers, section.place(), diagnostics),
        };
        if let (Some(node), Some(requirement)) = (require, &requirement)
            && issuers.iter().nth(1).is_some()
            && requirement.binds_users_of_any_issuer()
        {
            let message = "`sub` is compared with a part of the path, and the route accepts several issuers: user 42 of one is another than user 42 of the other";
            let advice = "write `iss` beside `sub`, for each issuer in `any`, or a route for each of them";
            diagnostics.error(node.place, message, advice);
        }
        let when_unknown = match when_unknown {
            Some(node) => WhenUnknown::compile(node, diagnostics),
            None => Some(context.when_unknown),
        };
        Some(Self {
            credentials: credentials?,
            requirement: requirement?,
            issuers,
            when_unknown: when_unknown?,
        })
    }
}

impl CredentialKinds {
    /// Reads `[bearer, api_key, client_certificate]`.
    pub(crate) fn compile(node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut kinds = Self::default();
        let mut whole = true;
        for item in node.one_or_many() {
            let words = ["bearer", "api_key", "client_certificate"];
            let kind = match item.one_of("a kind of credential", &words, diagnostics) {
                Some("bearer") => &mut kinds.bearer,
                Some("api_key") => &mut kinds.api_key,
                Some(_) => &mut kinds.client_certificate,
                None => {
                    whole = false;
                    continue;
                }
            };
            if std::mem::replace(kind, true) {
                diagnostics.error(item.place, "a kind of credential is listed twice", "list it once");
            }
        }
        if node.one_or_many().is_empty() {
            diagnostics.error(
                node.place,
                "`credentials` is empty",
                "list `bearer`, `api_key` or `client_certificate`, or write `access: public`",
            );
        }
        (whole && kinds != Self::default()).then_some(kinds)
    }
}

impl WhenUnknown {
    /// Reads `refuse`, or `{ allow_for: 60s }`.
    pub(crate) fn compile(node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        if matches!(node.value, durward_config::Value::Text(_)) {
            return node
                .one_of("`when_unknown`", &["refuse"], diagnostics)
                .map(|_| Self::Refuse);
        }
        let mut section = node.section("`when_unknown`", diagnostics)?;
        let allow_for = section
            .required(
                "allow_for",
                "write `refuse`, or `{ allow_for: 60s }`",
                diagnostics,
            )
            .and_then(|node| node.duration("`allow_for`", ALLOW_FOR, diagnostics));
        section.finish(diagnostics);
        allow_for.map(Self::AllowFor)
    }
}

#[cfg(test)]
mod tests;
