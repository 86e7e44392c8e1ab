//! Configurations to begin from. `@edge`, `@admin`, `@auth` are addresses that the service is given;
//! `@api` and the like are what a test [sets](super::Setup::set).

/// The issuer of [`FOREIGN`].
pub const FOREIGN_ISSUER: &str = "https://login.example.test";

/// Auth service and gateway in one process, in front of the backend `@api`.
pub const OWN: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: { file: access.log }
auth:
  listen: "@auth"
  issuer: http://@edge
  audience: example
  database: sqlite:data/auth.db
  keys: data/keys
  trusted_proxies: [127.0.0.1]
issuers:
  - use: auth
revocations:
  store: embedded
identity_headers:
  X-User-Id: sub
  X-User-Roles: roles
upstreams:
  auth: { servers: ["@auth"] }
  api: { servers: ["@api"] }
routes:
  - { path: /auth/**, upstream: auth, access: public, forward_credentials: true }
  - { path: /.well-known/**, upstream: auth, access: public }
  - { path: /public/**, upstream: api, access: public }
  - { path: /maybe/**, upstream: api, access: optional }
  - { path: /api/**, upstream: api }
  - { path: /api/admin/**, upstream: api, require: { roles: admin } }
  - { path: "/images/{owner}/**", upstream: api, methods: [GET, HEAD, PUT], require: { sub: "{owner}" } }
"#;

/// The gateway alone, for tokens that another issuer signs with the keys of `jwks.json`.
pub const FOREIGN: &str = r#"
listen: "@edge"
admin: "@admin"
control: control.sock
access_log: { file: access.log }
issuers:
  - issuer: https://login.example.test
    jwks: jwks.json
    audience: gateway
    algorithms: [ES256, RS256, EdDSA]
    required_claims: [jti]
    leeway: 0s
revocations: none
identity_headers:
  X-User-Id: sub
upstreams:
  api: { servers: ["@api"] }
routes:
  - { path: /public/**, upstream: api, access: public }
  - { path: /maybe/**, upstream: api, access: optional }
  - { path: /api/**, upstream: api }
  - { path: /api/kept/**, upstream: api, forward_credentials: true }
  - { path: /api/read/**, upstream: api, require: { scope: read } }
  - { path: /admin/**, upstream: api, require: { role: admin } }
  - { path: "/users/{id}/**", upstream: api, require: { sub: "{id}" } }
"#;

/// The configuration that is shipped, with addresses to be set: `@api`, `@images` and `@thumbnails`
/// are those of the demo backends.
pub fn shipped() -> String {
    let places = [
        ("127.0.0.1:8080", "@edge"),
        ("127.0.0.1:9090", "@admin"),
        ("127.0.0.1:8081", "@auth"),
        ("127.0.0.1:8101", "@api"),
        ("127.0.0.1:8102", "@images"),
        ("127.0.0.1:8103", "@thumbnails"),
    ];
    places.iter().fold(
        include_str!("../../../config.yaml").to_owned(),
        |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in config.yaml");
            // `@` cannot begin a word in YAML, and these may stand at the beginning of one.
            text.replace(&format!("http://{from}"), &format!("http://{to}"))
                .replace(from, &format!("\"{to}\""))
        },
    )
}
