//! The configuration file that the measured processes run with: everything on, 20 routes, rules.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The `iss` of its tokens.
pub const ISSUER: &str = "http://gateway.bench.example";
/// Routes in the file.
pub const ROUTES: usize = 20;

/// More than the 10,000 idle ones of `memory`; the gateway's own bound is half of the descriptors.
const MAX_CONNECTIONS: usize = 12_000;

/// What differs from file to file.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The edge.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    /// The auth service.
    pub auth: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// Worker threads.
    pub workers: usize,
    /// Idle upstream connections that are kept.
    pub upstream_keepalive_pool: usize,
    /// Whether there is an access log, in the file [`ACCESS_LOG`].
    pub access_log: bool,
    /// What the processes of a fleet share; nothing where one process is everything.
    pub shared: Option<Shared>,
}

/// What auth replicas and gateways in processes of their own have in common.
#[derive(Clone, Debug)]
pub struct Shared {
    /// All auth replicas; the gateways fetch their keys from the first.
    pub replicas: Vec<SocketAddr>,
    /// The value of `database`.
    pub database: String,
    /// The folder of the replicas' keys.
    pub keys: PathBuf,
    /// The URL of the Redis that carries the news.
    pub store: String,
}

/// The access log's file, in the folder of the configuration file.
pub const ACCESS_LOG: &str = "access.jsonl";
/// The control socket, in the same folder.
pub const CONTROL: &str = "control.sock";
/// The database, in the same folder.
pub const DATABASE: &str = "data/auth.db";

impl Configuration {
    /// The file's text.
    pub fn text(&self) -> String {
        let Self {
            listen,
            admin,
            auth,
            backend,
            workers,
            upstream_keepalive_pool,
            access_log,
            shared,
        } = self;
        let (replicas, database, keys, issuer, store) = match shared {
            None => (
                auth.to_string(),
                format!("sqlite:{DATABASE}"),
                "data/keys".into(),
                "use: auth".into(),
                "embedded",
            ),
            Some(shared) => {
                let replicas: Vec<_> = shared.replicas.iter().map(SocketAddr::to_string).collect();
                (
                    replicas.join(", "),
                    shared.database.clone(),
                    shared.keys.display().to_string(),
                    format!(
                        "{{ use: auth, jwks: http://{}/.well-known/jwks.json }}",
                        replicas.first().map_or("", String::as_str)
                    ),
                    shared.store.as_str(),
                )
            }
        };
        let log = if *access_log {
            format!("{{ file: {ACCESS_LOG} }}")
        } else {
            "off".into()
        };
        let mut text = format!(
            "listen: {listen}\n\
             admin: {admin}\n\
             control: {CONTROL}\n\
             access_log: {log}\n\
             workers: {workers}\n\
             max_connections: {MAX_CONNECTIONS}\n\
             upstream_keepalive_pool: {upstream_keepalive_pool}\n\
             auth:\n  \
               listen: {auth}\n  \
               issuer: {ISSUER}\n  \
               audience: bench\n  \
               access_token_ttl: 1h\n  \
               database: {database}\n  \
               keys: {keys}\n  \
               trusted_proxies: [127.0.0.1]\n\
             issuers:\n  \
               - {issuer}\n\
             revocations:\n  \
               store: {store}\n  \
               max_staleness: 5s\n  \
               when_unknown: refuse\n\
             identity_headers:\n  \
               X-User-Id: sub\n  \
               X-User-Roles: roles\n\
             upstreams:\n  \
               auth: {{ servers: [{replicas}] }}\n  \
               backend: {{ servers: [{backend}] }}\n\
             routes:\n",
        );
        for route in routes() {
            let _ = writeln!(text, "  - {{ {route} }}");
        }
        text
    }
}

/// As a real file has them: public ones, overlapping ones, parameters, methods, and rules of every
/// kind.
fn routes() -> [&'static str; ROUTES] {
    [
        "path: /auth/**, upstream: auth, access: public, forward_credentials: true",
        "path: /.well-known/**, upstream: auth, access: public",
        "path: /public/**, upstream: backend, access: public",
        "path: /docs/**, upstream: backend, access: public, methods: [GET, HEAD]",
        "path: /api/**, upstream: backend",
        "path: /api/admin/**, upstream: backend, require: { roles: admin }",
        "path: /api/items, upstream: backend, methods: [GET, POST]",
        "path: '/api/items/{item}', upstream: backend, methods: [GET, PUT, DELETE], require: { roles: [customer, admin] }",
        "path: '/api/items/{item}/reviews/**', upstream: backend",
        "path: '/api/users/{user}', upstream: backend, require: { sub: '{user}' }",
        "path: '/api/users/{user}/orders/**', upstream: backend, require: { sub: '{user}', roles: customer }",
        "path: '/api/users/{user}/orders/{order}/invoice', upstream: backend, methods: [GET], require: { sub: '{user}' }",
        "path: /api/search, upstream: backend, methods: [GET]",
        "path: /api/reports/**, upstream: backend, require: { any: [{ roles: admin }, { roles: auditor }] }",
        "path: /api/chat, upstream: backend",
        "path: /api/events, upstream: backend",
        "path: '/images/{owner}/**', upstream: backend, methods: [GET, HEAD, PUT], require: { sub: '{owner}' }",
        "path: '/images/{owner}/public/**', upstream: backend, methods: [GET, HEAD]",
        "path: /v2/api/**, upstream: backend, require: { any: [{ roles: customer }, { roles: admin }] }",
        "path: /v2/api/admin/**, upstream: backend, require: { roles: admin }",
    ]
}

/// Paths that a user with the role `customer` may ask for, one for each kind of rule.
pub fn permitted_paths(user_id: &str) -> [String; 6] {
    [
        "/api/items/4711".into(),
        format!("/api/users/{user_id}"),
        format!("/api/users/{user_id}/orders/17/invoice?format=pdf"),
        format!("/images/{user_id}/holidays/cat.png"),
        "/api/search?q=grey+cat&page=2".into(),
        "/v2/api/basket".into(),
    ]
}

/// Paths of the same lengths that anybody may ask for.
pub fn public_paths(user_id: &str) -> [String; 6] {
    const START: &str = "/public/";
    permitted_paths(user_id).map(|path| format!("{START}{}", &path[START.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_loads_differ_in_nothing_but_their_routes() {
        for (permitted, public) in permitted_paths("u_1").iter().zip(public_paths("u_1")) {
            assert_eq!(permitted.len(), public.len());
            assert!(public.starts_with("/public/") && !permitted.starts_with("/public/"));
        }
    }
}
