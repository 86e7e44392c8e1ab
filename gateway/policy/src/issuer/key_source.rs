//! Reading where an issuer's keys are: exactly one of `jwks`, `pem` and `secret`.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Section, Value};

use super::compile::{algorithm, duration};
use super::{Algorithm, KeySource};

const DEFAULT_REFRESH: Duration = Duration::from_secs(300);
const REFRESHES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(30);
const COOLDOWNS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(24 * 3600);
const MAX_STALES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);

pub(super) fn key_source(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<KeySource> {
    let jwks = section.optional("jwks");
    let pem = section.optional("pem");
    let secret = section.optional("secret");
    let refresh = section.optional("jwks_refresh");
    let cooldown = section.optional("jwks_cooldown");
    let max_stale = section.optional("jwks_max_stale");
    let is_url = jwks.is_some_and(|node| matches!(&node.value, Value::Text(text) if is_url(text)));
    for node in [refresh, cooldown, max_stale]
        .into_iter()
        .flatten()
        .filter(|_| !is_url)
    {
        diagnostics.error(node.place, "there is no `jwks` URL to be read again", "remove it");
    }
    match (jwks, pem, secret) {
        (Some(node), None, None) if is_url => {
            let url = node.text("`jwks`", diagnostics)?;
            let uri = url.parse::<http::Uri>().ok();
            let authority = uri.as_ref().and_then(http::Uri::authority);
            if authority.is_some_and(|authority| authority.as_str().contains('@')) {
                diagnostics.error(
                    node.place,
                    "`jwks` has a user name or a password in it, which are not sent",
                    "write https://HOST/PATH",
                );
                return None;
            }
            if authority.is_none_or(|authority| authority.host().is_empty()) {
                diagnostics.error(
                    node.place,
                    format!("`jwks` is not a URL: `{url}`"),
                    "write https://HOST/PATH",
                );
                return None;
            }
            warn_of_plain_http(url, node.place, diagnostics);
            let refresh = duration(refresh, "`jwks_refresh`", REFRESHES, DEFAULT_REFRESH, diagnostics);
            let stale = duration(
                max_stale,
                "`jwks_max_stale`",
                MAX_STALES,
                DEFAULT_MAX_STALE.max(refresh * 3),
                diagnostics,
            );
            if let Some(written) = max_stale
                && stale <= refresh
            {
                diagnostics.error(
                    written.place,
                    "`jwks_max_stale` is not above `jwks_refresh`: keys would be given up before they are read again",
                    "write several times `jwks_refresh`",
                );
            }
            Some(KeySource::JwksUrl {
                url: url.to_owned(),
                refresh,
                max_stale: stale,
                cooldown: duration(
                    cooldown,
                    "`jwks_cooldown`",
                    COOLDOWNS,
                    DEFAULT_COOLDOWN,
                    diagnostics,
                ),
            })
        }
        (Some(node), None, None) => jwks_file(node, diagnostics),
        (None, Some(node), None) => pem_key(node, diagnostics),
        (None, None, Some(node)) => shared_secret(node, section, diagnostics),
        _ => {
            let advice =
                "write exactly one of `jwks: URL or PATH`, `pem: { file, algorithm }` and `secret: { file }`";
            diagnostics.error(
                section.place(),
                "an issuer needs exactly one source of keys",
                advice,
            );
            None
        }
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

fn warn_of_plain_http(url: &str, place: Place, diagnostics: &mut Diagnostics) {
    let Some(rest) = url.strip_prefix("http://") else {
        return;
    };
    let local = ["127.0.0.1", "[::1]", "localhost"].iter().any(|host| {
        rest.strip_prefix(host)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    if !local {
        let message = "whoever is on the way can replace keys that are read without TLS";
        diagnostics.warning(place, message, "write https://");
    }
}

fn jwks_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<KeySource> {
    let path = node.text("`jwks`", diagnostics)?;
    if path.contains("://") {
        let message = format!("`jwks` cannot be read from `{path}`");
        diagnostics.error(node.place, message, "write an https:// URL or the path of a file");
        return None;
    }
    Some(KeySource::JwksFile(path.into()))
}

fn pem_key(node: &Node, diagnostics: &mut Diagnostics) -> Option<KeySource> {
    let mut section = node.section("`pem`", diagnostics)?;
    let path = section.required("file", "write the path of the PEM file", diagnostics);
    let named = section.required(
        "algorithm",
        "write the one that the key is for, such as RS256",
        diagnostics,
    );
    section.finish(diagnostics);
    let path = path?.text("`file`", diagnostics)?;
    let named = named?;
    let algorithm = algorithm(named, diagnostics)?;
    if algorithm.is_symmetric() {
        let message = format!("a public key cannot be for {algorithm}");
        diagnostics.error(
            named.place,
            message,
            "write the algorithm of a public key, or use `secret`",
        );
        return None;
    }
    Some(KeySource::Pem {
        path: path.into(),
        algorithm,
    })
}

fn shared_secret(node: &Node, section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<KeySource> {
    let secret = node.secret("`secret`", diagnostics)?;
    let Some(named) = section.optional("algorithms") else {
        return Some(KeySource::Secret {
            secret,
            algorithm: Algorithm::HS256,
        });
    };
    let [item] = named.one_or_many() else {
        diagnostics.error(
            named.place,
            "a secret is for exactly one algorithm",
            "write `algorithms: [HS256]`",
        );
        return None;
    };
    let algorithm = algorithm(item, diagnostics)?;
    if !algorithm.is_symmetric() {
        let message = format!("a shared secret cannot be for {algorithm}");
        diagnostics.error(
            item.place,
            message,
            "write HS256, HS384 or HS512, or use `jwks` or `pem`",
        );
        return None;
    }
    Some(KeySource::Secret { secret, algorithm })
}
