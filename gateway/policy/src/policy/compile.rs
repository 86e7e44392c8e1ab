//! From sections to [`Policy`]; every error is reported before any is returned.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Value};
use http::HeaderName;

use super::{DEFAULT_MAX_STALENESS, Policy, PolicySections, RevocationsMode};
use crate::forwarded_request::IdentityNames;
use crate::identity_headers::{IdentityPlan, ServiceHeaders, StripSet, extra_names};
use crate::issuer::Issuers;
use crate::lookup::{Surroundings, lookup_section, refuse_allowance};
use crate::rate_limit;
use crate::revocation::DigestKey;
use crate::revocation_store::RevocationStore;
use crate::route::{Access, Route, WhenUnknown};
use crate::route_table::{RouteContext, RouteTable};

const STALENESS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// The gateway's own credentials.
const CREDENTIALS: [&str; 2] = ["authorization", "x-api-key"];

pub(super) fn policy(
    sections: PolicySections<'_>,
    digest_key: DigestKey,
    diagnostics: &mut Diagnostics,
) -> Option<Policy> {
    let PolicySections {
        issuers,
        identity_headers,
        service_headers,
        strip,
        routes,
        revocations,
        rate_limits: rate_limits_node,
        upstream_names,
        own_issuer,
        auth_in_process,
        file_place,
    } = sections;
    let mut found = Diagnostics::default();
    let issuers = Issuers::compile(issuers, own_issuer.as_ref(), file_place, &mut found);
    let identity = IdentityPlan::compile(identity_headers, &mut found);
    if identity.names().next().is_some() {
        issuers.check_prefixes(&mut found);
    }
    let strip = extra_names(strip, &mut found);
    let around = Surroundings {
        auth_in_process,
        own_issuer: own_issuer.is_some(),
        issuers: issuers.len(),
    };
    let news = revocations_section(revocations, around, file_place, &mut found);
    let rate_limits = rate_limit::rate_limits(rate_limits_node, &mut found);
    let context = RouteContext {
        upstream_names,
        rate_limits: &rate_limits,
        issuers: &issuers,
        when_unknown: news.when_unknown,
    };
    let routes = match routes {
        Some(node) => RouteTable::compile(node, &context, &mut found),
        None => RouteTable::default(),
    };
    if routes.iter().next().is_none() && !found.has_errors() {
        let advice = "write `routes:` with at least one; no route, no access";
        found.error(file_place, "there are no routes", advice);
    }
    let services = routes.iter().find(|route| route.credentials.services());
    let service_headers = ServiceHeaders::compile(
        service_headers,
        &identity,
        services.is_some(),
        file_place,
        &mut found,
    );
    if let Some(route) = services {
        check_grants_arrive(route, &news.mode, &mut found);
    }
    check_issuers_are_there(&routes, &issuers, &mut found);
    if let RevocationsMode::Lookup(_) = &news.mode {
        refuse_allowances(&routes, &mut found);
    }
    let limited = routes.iter().map(|route| &route.rate_limits);
    rate_limit::warn_of_unused(&rate_limits, limited, &mut found);
    warn_of_silence(&routes, &identity, file_place, &mut found);
    if let (Some(node), RevocationsMode::None, true) = (revocations, &news.mode, auth_in_process) {
        let advice = "write `revocations: { store: embedded }`: a ban of the auth service would bite at the token's end only";
        found.warning(node.place, "`revocations: none` beside an auth service", advice);
    }
    let strips = strip_sets(&routes, &identity, &service_headers, &strip);
    let identity_names = identity
        .iter()
        .map(|(name, ..)| name)
        .chain(service_headers.header_names());
    let identity_names = IdentityNames::new(identity_names);
    let broken = found.has_errors();
    diagnostics.append(found);
    let limits_on_arrival = routes
        .iter()
        .any(|route| !route.rate_limits.on_arrival.is_empty());
    (!broken).then_some(Policy {
        rate_limits,
        limits_on_arrival,
        issuers,
        identity,
        service_headers: Arc::new(service_headers),
        identity_names,
        routes,
        strips,
        upstream_names: upstream_names.iter().map(|(name, _)| name.clone()).collect(),
        revocations: news.mode,
        max_staleness: news.max_staleness,
        digest_key,
    })
}

/// What `revocations` may not say in lookup mode, no route may.
fn refuse_allowances(routes: &RouteTable, diagnostics: &mut Diagnostics) {
    for route in routes.iter().filter(|route| route.access != Access::Public) {
        if let WhenUnknown::AllowFor(_) = route.when_unknown {
            refuse_allowance(route.place, diagnostics);
        }
    }
}

/// Without identity headers a client's own `X-User-Id` is a header like any other.
fn warn_of_silence(
    routes: &RouteTable,
    identity: &IdentityPlan,
    file_place: Place,
    diagnostics: &mut Diagnostics,
) {
    let guarded = routes.iter().any(|route| route.credentials.bearer);
    if guarded && identity.names().next().is_none() {
        let advice =
            "write `identity_headers: { X-User-Id: sub }`: none is set, and a client's own is not stripped";
        diagnostics.warning(file_place, "there are no `identity_headers`", advice);
    }
}

/// Keys are known from the news alone: without it no key would ever be accepted.
fn check_grants_arrive(route: &Route, mode: &RevocationsMode, diagnostics: &mut Diagnostics) {
    match mode {
        RevocationsMode::Embedded | RevocationsMode::Redis => {}
        RevocationsMode::None => {
            let message = "the route accepts services, and there is no news of their grants";
            let advice = "write `revocations: { store: embedded }`, or leave `bearer` alone in `credentials`";
            diagnostics.error(route.place, message, advice);
        }
        RevocationsMode::Lookup(_) => {
            let message =
                "the route accepts services, and in `mode: lookup` there is no news of their grants";
            let advice = "write `mode: mirror` with the auth service's store, or leave `bearer` alone in `credentials`";
            diagnostics.error(route.place, message, advice);
        }
    }
}

/// A route that asks for a credential which nobody can have is a mistake.
fn check_issuers_are_there(routes: &RouteTable, issuers: &Issuers, diagnostics: &mut Diagnostics) {
    if !issuers.is_empty() {
        return;
    }
    if let Some(route) = routes.iter().find(|route| route.credentials.bearer) {
        let advice = "write `issuers:` with whose tokens are accepted, or `access: public` on the route";
        diagnostics.error(
            route.place,
            "the route asks for a credential and no issuer is configured",
            advice,
        );
    }
}

/// What each route strips; routes that strip the same share it.
fn strip_sets(
    routes: &RouteTable,
    identity: &IdentityPlan,
    services: &ServiceHeaders,
    strip: &[HeaderName],
) -> Vec<Arc<StripSet>> {
    let mut sets: Vec<Arc<StripSet>> = Vec::new();
    for route in routes.iter() {
        let set = strip_set(route, identity, services, strip);
        let shared = sets.iter().find(|known| ***known == set).cloned();
        sets.push(shared.unwrap_or_else(|| Arc::new(set)));
    }
    sets
}

fn strip_set(
    route: &Route,
    identity: &IdentityPlan,
    services: &ServiceHeaders,
    strip: &[HeaderName],
) -> StripSet {
    let extra = strip.iter().chain(&route.strip).map(HeaderName::as_str);
    let credentials = CREDENTIALS.iter().copied().filter(|_| !route.forward_credentials);
    let said = identity.names().chain(services.names());
    StripSet::new(said.chain(extra).chain(credentials))
}

/// Whether an auth service that runs alone is to publish its log to the store that `revocations:`
/// names. The section is judged as for a gateway, so that no misspelling has the service write to a
/// store that is another's. The one of `mode: lookup` is the application's own; what else is said
/// there is the gateway's to judge.
pub fn publishes_revocations(node: &Node, diagnostics: &mut Diagnostics) -> bool {
    let ignored = &mut Diagnostics::default();
    let mode = node
        .section("`revocations`", ignored)
        .and_then(|mut section| section.optional("mode")?.text("`mode`", ignored));
    if mode == Some("lookup") {
        return false;
    }
    let around = Surroundings {
        auth_in_process: true,
        own_issuer: true,
        issuers: 1,
    };
    let news = revocations_section(Some(node), around, node.place, diagnostics);
    news.mode == RevocationsMode::Redis
}

struct News {
    mode: RevocationsMode,
    max_staleness: Duration,
    when_unknown: WhenUnknown,
}

/// `revocations: none`, `{ store, max_staleness, when_unknown }`, or what [`lookup_section`] reads.
fn revocations_section(
    node: Option<&Node>,
    around: Surroundings,
    file_place: Place,
    diagnostics: &mut Diagnostics,
) -> News {
    let mut news = News {
        mode: RevocationsMode::None,
        max_staleness: DEFAULT_MAX_STALENESS,
        when_unknown: WhenUnknown::Refuse,
    };
    const ADVICE: &str = "write `revocations: { store: embedded }`, or `revocations: none` to do without";
    let Some(node) = node else {
        diagnostics.error(file_place, "`revocations` is missing", ADVICE);
        return news;
    };
    if node.value == Value::Text("none".to_owned()) {
        return news;
    }
    if !matches!(node.value, Value::Map(_)) {
        diagnostics.error(
            node.place,
            format!("`revocations` cannot be {}", node.value.kind()),
            ADVICE,
        );
        return news;
    }
    let Some(mut section) = node.section("`revocations`", diagnostics) else {
        return news;
    };
    let mode = section.optional("mode");
    let mode = mode.and_then(|node| node.one_of("`mode`", &["mirror", "lookup"], diagnostics));
    if mode == Some("lookup") {
        if let Some(lookup) = lookup_section(&mut section, around, diagnostics) {
            news.mode = RevocationsMode::Lookup(lookup);
        }
        section.finish(diagnostics);
        return news;
    }
    if let Some(store) = section.required("store", "write `store: embedded`", diagnostics) {
        let kind = mirror_mode(store, around.auth_in_process, diagnostics);
        news.mode = kind.unwrap_or(RevocationsMode::Embedded);
    }
    let options = section.optional("redis");
    if let (Some(options), RevocationsMode::Embedded) = (options, &news.mode) {
        let advice = "remove it, or write `store: redis://HOST:PORT`";
        diagnostics.error(
            options.place,
            "`redis` says how to reach a store that is not there",
            advice,
        );
    }
    for key in ["keys", "deadline", "recheck", "ignore_own_bans"] {
        if let Some(node) = section.optional(key) {
            let message = format!("`{key}` belongs to `mode: lookup`");
            diagnostics.error(node.place, message, "write `mode: lookup`, or remove it");
        }
    }
    if let Some(node) = section.optional("max_staleness") {
        let staleness = node.duration("`max_staleness`", STALENESS, diagnostics);
        news.max_staleness = staleness.unwrap_or(DEFAULT_MAX_STALENESS);
    }
    if let Some(node) = section.optional("when_unknown") {
        news.when_unknown = WhenUnknown::compile(node, diagnostics).unwrap_or(WhenUnknown::Refuse);
    }
    section.finish(diagnostics);
    news
}

/// Where the mirror's news comes from.
fn mirror_mode(
    store: &Node,
    auth_in_process: bool,
    diagnostics: &mut Diagnostics,
) -> Option<RevocationsMode> {
    match RevocationStore::compile(store, diagnostics)? {
        RevocationStore::Redis => Some(RevocationsMode::Redis),
        RevocationStore::Embedded if auth_in_process => Some(RevocationsMode::Embedded),
        RevocationStore::Embedded => {
            diagnostics.error(
                store.place,
                "`store: embedded` needs the auth service in the same process",
                "run `durward up` with an `auth` section, write `store: redis://HOST:PORT`, or write `revocations: none` to do without",
            );
            None
        }
    }
}
