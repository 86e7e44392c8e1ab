//! The `auth` section of the configuration file, compiled.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use durward_config::{Diagnostics, Node, Value};
use durward_contract::MAX_ACCESS_TOKEN_TTL;
use ipnet::IpNet;

use crate::database_config::DatabaseConfig;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest that the grace window of a rotated refresh token may be.
pub const MAX_REFRESH_GRACE: Duration = MINUTE;
/// The longest that a new signing key may be announced before it signs.
pub const MAX_SIGNING_KEY_ANNOUNCE: Duration = Duration::from_secs(7 * 24 * 3600);
const LEAST_SIGNING_KEY_ANNOUNCE: Duration = Duration::from_secs(10);
/// The longest that a session may last.
pub const MAX_SESSION_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
const MAX_HASHING: i64 = 64;
const MAX_TRUSTED_PROXIES: usize = 256;
const MAX_NAME_BYTES: usize = 512;

/// How the auth service is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// `listen`: where the HTTP API listens.
    pub listen: SocketAddr,
    /// `admin`: where health and metrics are, for a service that runs alone; nowhere if absent.
    pub admin: Option<SocketAddr>,
    /// `issuer`: the `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// `audience`: the `aud` of its tokens.
    pub audience: String,
    /// `access_token_ttl`: 1m to 1h; 10m where it is not written.
    pub access_token_ttl: Duration,
    /// `refresh_token_ttl`: how long a refresh token may lie unused; 30d where it is not written.
    pub refresh_token_ttl: Duration,
    /// `session_ttl`: how long a session lasts, however often it is refreshed; 90d where it is not
    /// written.
    pub session_ttl: Duration,
    /// `refresh_grace`: 0s to 60s; 10s where it is not written. Zero means that any second use of a
    /// refresh token ends its session.
    pub refresh_grace: Duration,
    /// `database` and `database_password`.
    pub database: DatabaseConfig,
    /// `keys`: the folder of the signing key and of the key that refresh tokens are derived with.
    pub keys: PathBuf,
    /// `signing_algorithm`: ES256 where it is not written.
    pub signing_algorithm: SigningAlgorithm,
    /// `signing_key_announce`: how long a new key is published before it signs; 10s to 7d; 15m where
    /// it is not written, which is three times what gateways take to read the keys again.
    pub signing_key_announce: Duration,
    /// `trusted_proxies`: whose X-Forwarded-For is believed; nobody's where it is not written.
    pub trusted_proxies: Vec<IpNet>,
    /// `registration`: open where it is not written.
    pub registration: Registration,
    /// `password_hash_parallelism`: how many passwords are hashed at once; as many as there are
    /// cores where it is not written.
    pub password_hash_parallelism: NonZeroUsize,
}

/// How access tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519, under the name that RFC 8037 gave it.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 and a 2048-bit key.
    Rs256,
}

impl SigningAlgorithm {
    /// The `alg` of RFC 7518 and RFC 8037.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

/// Who may make accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Registration {
    /// Everyone, within the rate limits.
    Open,
    /// Only the operator.
    Closed,
}

impl AuthConfig {
    /// Reads the section. Relative paths are relative to `base`. Every error is reported; any error
    /// yields nothing.
    pub fn compile(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut section = node.section("auth", diagnostics)?;
        let listen = section.required(
            "listen",
            "write the address of the auth service: 127.0.0.1:8081",
            diagnostics,
        );
        let issuer = section.required(
            "issuer",
            "write the URL that users reach the gateway at",
            diagnostics,
        );
        let audience = section.required(
            "audience",
            "write a name for the services that accept the tokens",
            diagnostics,
        );
        let database = section.required(
            "database",
            "write sqlite:PATH, for example sqlite:data/auth.db",
            diagnostics,
        );
        let admin = section.optional("admin");
        let database_password = section.optional("database_password");
        let access_token_ttl = section.optional("access_token_ttl");
        let refresh_token_ttl = section.optional("refresh_token_ttl");
        let session_ttl = section.optional("session_ttl");
        let refresh_grace = section.optional("refresh_grace");
        let keys = section.optional("keys");
        let signing_algorithm = section.optional("signing_algorithm");
        let signing_key_announce = section.optional("signing_key_announce");
        let trusted_proxies = section.optional("trusted_proxies");
        let registration = section.optional("registration");
        let parallelism = section.optional("password_hash_parallelism");
        section.finish(diagnostics);

        let listen = listen.and_then(|node| node.socket_address("auth.listen", diagnostics));
        let admin = match admin {
            Some(node) => node.socket_address("auth.admin", diagnostics).map(Some),
            None => Some(None),
        };
        let issuer = issuer.and_then(|node| issuer_url(node, diagnostics));
        let audience = audience.and_then(|node| plain_name(node, "auth.audience", diagnostics));
        let database =
            database.and_then(|node| DatabaseConfig::compile(node, database_password, base, diagnostics));
        let mut duration = |node: Option<&Node>, what, range, default| match node {
            Some(node) => node.duration(what, range, diagnostics),
            None => Some(default),
        };
        let access = duration(
            access_token_ttl,
            "auth.access_token_ttl",
            MINUTE..=MAX_ACCESS_TOKEN_TTL,
            10 * MINUTE,
        );
        let refresh = duration(
            refresh_token_ttl,
            "auth.refresh_token_ttl",
            MINUTE..=MAX_SESSION_TTL,
            30 * DAY,
        );
        let session = duration(
            session_ttl,
            "auth.session_ttl",
            MINUTE..=MAX_SESSION_TTL,
            90 * DAY,
        );
        let grace = duration(
            refresh_grace,
            "auth.refresh_grace",
            Duration::ZERO..=MAX_REFRESH_GRACE,
            10 * SECOND,
        );
        let announce = duration(
            signing_key_announce,
            "auth.signing_key_announce",
            LEAST_SIGNING_KEY_ANNOUNCE..=MAX_SIGNING_KEY_ANNOUNCE,
            15 * MINUTE,
        );
        let keys = match keys {
            Some(node) => node.text("auth.keys", diagnostics).map(|path| base.join(path)),
            None => Some(base.join("data/keys")),
        };
        let algorithm = match signing_algorithm {
            Some(node) => algorithm_of(node, diagnostics),
            None => Some(SigningAlgorithm::Es256),
        };
        let proxies = trusted_proxies.map_or(Some(Vec::new()), |node| networks(node, diagnostics));
        let registration = match registration {
            Some(node) => registration_of(node, diagnostics),
            None => Some(Registration::Open),
        };
        let parallelism = match parallelism {
            Some(node) => node
                .integer("auth.password_hash_parallelism", 1..=MAX_HASHING, diagnostics)
                .and_then(|number| NonZeroUsize::new(usize::try_from(number).ok()?)),
            None => Some(all_cores_but_one()),
        };
        if let (Some(refresh), Some(session), Some(node)) = (refresh, session, refresh_token_ttl)
            && refresh > session
        {
            diagnostics.warning(
                node.place,
                "auth.refresh_token_ttl is longer than auth.session_ttl",
                "no refresh token outlives its session",
            );
        }
        Some(Self {
            listen: listen?,
            admin: admin?,
            issuer: issuer?,
            audience: audience?,
            access_token_ttl: access?,
            refresh_token_ttl: refresh?,
            session_ttl: session?,
            refresh_grace: grace?,
            database: database?,
            keys: keys?,
            signing_algorithm: algorithm?,
            signing_key_announce: announce?,
            trusted_proxies: proxies?,
            registration: registration?,
            password_hash_parallelism: parallelism?,
        })
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// One core is left to everything else, where there is more than one.
fn all_cores_but_one() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}

/// RFC 9068 section 4 has the issuer compared byte for byte, and RFC 8414 section 2 has it be a URL
/// without query and fragment.
fn issuer_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = plain_name(node, "auth.issuer", diagnostics)?;
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', '@'])) {
        let message = format!("auth.issuer is not a URL without query and fragment: `{text}`");
        diagnostics.error(
            node.place,
            message,
            "write http://HOST or https://HOST, with a path if need be",
        );
        return None;
    }
    Some(text)
}

fn plain_name(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = node.text(what, diagnostics)?;
    if text.len() > MAX_NAME_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message =
            format!("{what} has a character that cannot be in it, or is longer than {MAX_NAME_BYTES} bytes");
        diagnostics.error(node.place, message, "use printable ASCII without spaces");
        return None;
    }
    Some(text.to_owned())
}

fn algorithm_of(node: &Node, diagnostics: &mut Diagnostics) -> Option<SigningAlgorithm> {
    if node.value == Value::Text("HS256".to_owned()) {
        diagnostics.error(
            node.place,
            "auth.signing_algorithm cannot be HS256: whoever checks such a token could make one",
            "write ES256, EdDSA or RS256",
        );
        return None;
    }
    let all = [
        SigningAlgorithm::Es256,
        SigningAlgorithm::EdDsa,
        SigningAlgorithm::Rs256,
    ];
    let word = node.one_of(
        "auth.signing_algorithm",
        &all.map(SigningAlgorithm::name),
        diagnostics,
    )?;
    all.into_iter().find(|algorithm| algorithm.name() == word)
}

fn registration_of(node: &Node, diagnostics: &mut Diagnostics) -> Option<Registration> {
    let word = node.one_of("auth.registration", &["open", "closed"], diagnostics)?;
    Some(if word == "open" {
        Registration::Open
    } else {
        Registration::Closed
    })
}

fn networks(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<IpNet>> {
    let before = node.one_or_many();
    if before.len() > MAX_TRUSTED_PROXIES {
        let message = format!("auth.trusted_proxies has more than {MAX_TRUSTED_PROXIES} entries");
        diagnostics.error(
            node.place,
            message,
            "write networks (10.0.0.0/24) instead of single addresses",
        );
        return None;
    }
    let mut all = Some(Vec::new());
    for item in before {
        let network = item.text("auth.trusted_proxies", diagnostics).and_then(|text| {
            let network = network_of(text);
            if network.is_none() {
                let message =
                    format!("auth.trusted_proxies has something that is no address or network: `{text}`");
                diagnostics.error(item.place, message, "write 127.0.0.1 or 10.0.0.0/24");
            }
            network
        });
        match (network, &mut all) {
            (Some(network), Some(list)) => list.push(network),
            _ => all = None,
        }
    }
    all
}

fn network_of(text: &str) -> Option<IpNet> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    const LEAST: &str = "listen: 127.0.0.1:8081\nissuer: http://127.0.0.1:8080\naudience: example\ndatabase: sqlite:data/auth.db\n";

    fn compile(text: &str) -> Result<AuthConfig, String> {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let config = AuthConfig::compile(document.root(), Path::new("/base"), &mut diagnostics);
        match config {
            Some(config) if !diagnostics.has_errors() => Ok(config),
            _ => Err(diagnostics.located_in(&document).to_string()),
        }
    }

    #[test]
    fn the_least_that_must_be_written_gives_the_documented_defaults() {
        let config = compile(LEAST).unwrap();
        assert_eq!(config.access_token_ttl, 10 * MINUTE);
        assert_eq!(config.refresh_token_ttl, 30 * DAY);
        assert_eq!(config.session_ttl, 90 * DAY);
        assert_eq!(config.refresh_grace, 10 * SECOND);
        let database = DatabaseConfig::Sqlite("/base/data/auth.db".into());
        assert_eq!(config.database, database);
        assert_eq!(config.keys, Path::new("/base/data/keys"));
        assert_eq!(config.signing_algorithm, SigningAlgorithm::Es256);
        assert_eq!(config.signing_key_announce, 15 * MINUTE);
        assert_eq!(config.trusted_proxies, []);
        assert_eq!(config.registration, Registration::Open);
    }

    #[test]
    fn bad_values_are_errors_that_say_what_to_write() {
        for (line, said) in [
            ("access_token_ttl: 2h", "access_token_ttl is out of range"),
            ("access_token_ttl: 30s", "access_token_ttl is out of range"),
            ("refresh_grace: 61s", "refresh_grace is out of range"),
            ("signing_algorithm: HS256", "cannot be HS256"),
            ("signing_algorithm: none", "cannot be `none`"),
            ("signing_key_announce: 9s", "signing_key_announce is out of range"),
            ("signing_key_announce: 8d", "signing_key_announce is out of range"),
            ("trusted_proxies: [everyone]", "no address or network: `everyone`"),
            ("registration: maybe", "cannot be `maybe`"),
            ("password_hash_parallelism: 0", "out of range"),
            ("refresh_tokn_ttl: 1d", "did you mean `refresh_token_ttl`"),
        ] {
            let errors = compile(&format!("{LEAST}{line}\n")).unwrap_err();
            assert!(errors.contains(said), "{line}: {errors}");
        }
        for (from, to, said) in [
            (
                "sqlite:data/auth.db",
                "postgres://u:secret@h/d",
                "must not hold a password",
            ),
            ("http://127.0.0.1:8080", "ftp://x", "not a URL"),
            ("http://127.0.0.1:8080", "https://x/?a", "not a URL"),
        ] {
            let errors = compile(&LEAST.replace(from, to)).unwrap_err();
            assert!(errors.contains(said), "{to}: {errors}");
        }
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors = compile("listen: nowhere\nissuer: 5\nmystery: 1\n").unwrap_err();
        for said in [
            "auth.listen",
            "auth.issuer",
            "`audience` is missing",
            "`database` is missing",
            "mystery",
        ] {
            assert!(errors.contains(said), "{said}: {errors}");
        }
    }

    #[test]
    fn proxies_are_addresses_or_networks() {
        let config = compile(&format!(
            "{LEAST}trusted_proxies: [127.0.0.1, 10.0.0.0/8, \"::1\"]\n"
        ))
        .unwrap();
        assert_eq!(config.trusted_proxies.len(), 3);
        assert!(config.trusted_proxies[1].contains(&IpAddr::from([10, 9, 8, 7])));
    }
}
