//! Reading `issuers:`.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Section};
use durward_contract::{MAX_LEEWAY, claim};

use super::key_source::key_source;
use super::{Algorithm, Issuer, IssuerId, Issuers, KeySource, MAX_ISSUERS, OwnIssuer, TokenType};

const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const MAX_LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(36_525 * 24 * 3600);
const MAX_PREFIX_BYTES: usize = 64;

/// The claims that tokens of the own auth service always carry, beyond those of every issuer.
const OWN_CLAIMS: [&str; 4] = [claim::TOKEN_ID, claim::CLIENT_ID, claim::SESSION_ID, claim::EPOCH];

pub(super) fn issuers(
    node: Option<&Node>,
    own: Option<&OwnIssuer>,
    file_place: Place,
    diagnostics: &mut Diagnostics,
) -> Issuers {
    let Some(node) = node else {
        return Issuers::default();
    };
    let Some(items) = node.list("`issuers`", diagnostics) else {
        return Issuers::default();
    };
    if items.len() > MAX_ISSUERS {
        diagnostics.error(
            node.place,
            format!("more than {MAX_ISSUERS} issuers"),
            "configure fewer",
        );
        return Issuers::default();
    }
    let mut issuers = Issuers::default();
    for item in items {
        let Some(mut issuer) = issuer(item, own, diagnostics) else {
            continue;
        };
        if let Some(earlier) = issuers.by_issuer(&issuer.issuer) {
            let message = format!("issuer `{}` stands here for the second time", issuer.issuer);
            let advice = format!("keep one of the two; the other is at {}", earlier.place);
            diagnostics.error(item.place, message, advice);
            continue;
        }
        issuer.id = IssuerId(u16::try_from(issuers.list.len()).unwrap_or(u16::MAX));
        issuers.list.push(issuer);
    }
    if items.is_empty() {
        let place = if node.place.line == 0 {
            file_place
        } else {
            node.place
        };
        diagnostics.error(place, "`issuers` is empty", "name an issuer, or remove the key");
    }
    issuers
}

fn issuer(node: &Node, own: Option<&OwnIssuer>, diagnostics: &mut Diagnostics) -> Option<Issuer> {
    let mut section = node.section("an issuer", diagnostics)?;
    let issuer = match section.optional("use") {
        Some(used) => own_issuer(used, &mut section, own, diagnostics),
        None => foreign_issuer(&mut section, diagnostics),
    };
    section.finish(diagnostics);
    issuer
}

fn own_issuer(
    used: &Node,
    section: &mut Section<'_>,
    own: Option<&OwnIssuer>,
    diagnostics: &mut Diagnostics,
) -> Option<Issuer> {
    used.one_of("`use`", &[super::OWN_ISSUER_NAME], diagnostics)?;
    let terms = Terms::read(section, diagnostics);
    let Some(own) = own else {
        diagnostics.error(
            used.place,
            "`use: auth` needs an `auth` section",
            "add one, or write the issuer out with `issuer`, `jwks`, `audience` and `algorithms`",
        );
        return None;
    };
    let keys = own_keys(used, section, own, diagnostics)?;
    Some(terms.issuer(
        section.place(),
        own.issuer.clone(),
        vec![own.audience.clone()],
        vec![own.algorithm],
        vec![TokenType::AccessToken],
        OWN_CLAIMS.map(str::to_owned).to_vec(),
        keys,
        true,
    ))
}

/// In one process the keys are handed over, and `jwks` is for the gateways elsewhere that share the
/// file; those need it.
fn own_keys(
    used: &Node,
    section: &mut Section<'_>,
    own: &OwnIssuer,
    diagnostics: &mut Diagnostics,
) -> Option<KeySource> {
    let elsewhere = match section.optional("jwks").is_some() {
        true => Some(key_source(section, diagnostics)?),
        false => None,
    };
    if let Some(KeySource::JwksUrl { refresh, .. }) = elsewhere
        && refresh >= own.key_announce
    {
        diagnostics.warning(
            used.place,
            "a new key signs before it is read: `jwks_refresh` is not below `auth.signing_key_announce`",
            "write a `jwks_refresh` of less than half of it",
        );
    }
    if own.in_process {
        return Some(KeySource::Own);
    }
    if elsewhere.is_none() {
        diagnostics.error(
            used.place,
            "the auth service runs in another process: its keys have to be read",
            "add `jwks: https://AUTH_SERVICE/.well-known/jwks.json`, or run `durward up`",
        );
    }
    elsewhere
}

fn foreign_issuer(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<Issuer> {
    let advice =
        "write `use: auth` for the own auth service, or `issuer: https://...` as its tokens spell it";
    let issuer = section.required("issuer", advice, diagnostics);
    let issuer = issuer.and_then(|node| {
        let text = node.text("`issuer`", diagnostics)?;
        if text == super::OWN_ISSUER_NAME {
            diagnostics.error(
                node.place,
                "`auth` is the name of the own auth service",
                "write `use: auth`",
            );
            return None;
        }
        Some(text)
    });
    let keys = key_source(section, diagnostics);
    let algorithms = algorithms(section, keys.as_ref(), diagnostics);
    let audience = audience(section, diagnostics);
    let token_types = token_types(section, diagnostics);
    let required = required_claims(section, token_types.as_deref(), diagnostics);
    let terms = Terms::read(section, diagnostics);
    Some(terms.issuer(
        section.place(),
        issuer?.to_owned(),
        audience?,
        algorithms?,
        token_types?,
        required,
        keys?,
        false,
    ))
}

/// Beyond the five that every token must have. An issuer whose tokens are all `at+jwt` has promised a
/// `jti` (RFC 9068 section 2.2), without which a single token could not be revoked; a list in the
/// file, the empty one too, replaces that.
fn required_claims(
    section: &mut Section<'_>,
    token_types: Option<&[TokenType]>,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    match section.optional("required_claims") {
        Some(node) => node
            .texts("`required_claims`", diagnostics)
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect(),
        None if token_types == Some(&[TokenType::AccessToken]) => vec![claim::TOKEN_ID.to_owned()],
        None => Vec::new(),
    }
}

/// What may be said of every issuer.
struct Terms {
    leeway: Duration,
    max_lifetime: Duration,
    identity_prefix: Option<String>,
}

impl Terms {
    fn read(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Self {
        let leeway = section.optional("leeway");
        let lifetime = section.optional("max_lifetime");
        let prefix = section.optional("identity_prefix");
        Self {
            leeway: duration(
                leeway,
                "`leeway`",
                Duration::ZERO..=MAX_LEEWAY,
                DEFAULT_LEEWAY,
                diagnostics,
            ),
            max_lifetime: duration(
                lifetime,
                "`max_lifetime`",
                MAX_LIFETIMES,
                DEFAULT_MAX_LIFETIME,
                diagnostics,
            ),
            identity_prefix: prefix.and_then(|node| identity_prefix(node, diagnostics)),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two kinds of issuer meet here, field by field"
    )]
    fn issuer(
        self,
        place: Place,
        issuer: String,
        audience: Vec<String>,
        algorithms: Vec<Algorithm>,
        token_types: Vec<TokenType>,
        required_claims: Vec<String>,
        keys: KeySource,
        own: bool,
    ) -> Issuer {
        let Self {
            leeway,
            max_lifetime,
            identity_prefix,
        } = self;
        Issuer {
            id: IssuerId(u16::MAX),
            place,
            issuer,
            audience,
            algorithms,
            token_types,
            required_claims,
            leeway,
            max_lifetime,
            identity_prefix,
            own,
            keys,
        }
    }
}

pub(super) fn duration(
    node: Option<&Node>,
    what: &str,
    range: RangeInclusive<Duration>,
    default: Duration,
    diagnostics: &mut Diagnostics,
) -> Duration {
    node.and_then(|node| node.duration(what, range, diagnostics))
        .unwrap_or(default)
}

fn identity_prefix(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let prefix = node.text("`identity_prefix`", diagnostics)?;
    let fits = prefix.len() <= MAX_PREFIX_BYTES
        && prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if !fits {
        let message = format!("`identity_prefix` cannot be `{prefix}`");
        diagnostics.error(
            node.place,
            message,
            "write a short word without space and comma, such as `partner:`",
        );
        return None;
    }
    Some(prefix.to_owned())
}

/// A user of one issuer is never a user of another: with several, each value says whose it is, and
/// no prefix begins another, so that no issuer can speak in another's name.
pub(super) fn check_prefixes(issuers: &Issuers, diagnostics: &mut Diagnostics) {
    if issuers.len() < 2 {
        return;
    }
    for issuer in issuers.iter() {
        let Some(prefix) = &issuer.identity_prefix else {
            diagnostics.error(
                issuer.place,
                format!(
                    "issuer `{}` shares the identity headers with others and has no prefix",
                    issuer.name()
                ),
                "write `identity_prefix: some-word:`, so that its user 42 is not another's user 42",
            );
            continue;
        };
        let begins_another = |other: &&Issuer| {
            other.id != issuer.id
                && other
                    .identity_prefix
                    .as_ref()
                    .is_some_and(|its| its.starts_with(prefix.as_str()))
        };
        if let Some(other) = issuers.iter().find(begins_another) {
            let message = format!(
                "`identity_prefix: {prefix}` also begins what `{}` writes",
                other.name()
            );
            diagnostics.error(
                issuer.place,
                message,
                "write prefixes of which none begins another",
            );
        }
    }
}

fn audience(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    let advice = "write what its tokens for this gateway carry in `aud`";
    let node = section.required("audience", advice, diagnostics)?;
    let audience: Vec<_> = node
        .texts("`audience`", diagnostics)
        .into_iter()
        .map(|(text, _)| text.to_owned())
        .collect();
    if node.one_or_many().is_empty() {
        diagnostics.error(node.place, "`audience` is empty", advice);
    }
    (!audience.is_empty()).then_some(audience)
}

fn token_types(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<TokenType>> {
    let Some(node) = section.optional("typ") else {
        return Some(vec![TokenType::AccessToken]);
    };
    let mut types = Vec::new();
    for item in node.one_or_many() {
        match item.one_of("`typ`", &["at+jwt", "JWT"], diagnostics)? {
            "JWT" => types.push(TokenType::Jwt),
            _ => types.push(TokenType::AccessToken),
        }
    }
    if types.is_empty() {
        diagnostics.error(
            node.place,
            "`typ` is empty",
            "write `at+jwt`, or `JWT` where the issuer knows no better",
        );
        return None;
    }
    Some(types)
}

fn algorithms(
    section: &mut Section<'_>,
    keys: Option<&KeySource>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<Algorithm>> {
    let node = section.optional("algorithms");
    let Some(node) = node else {
        return match keys {
            Some(KeySource::Pem { algorithm, .. } | KeySource::Secret { algorithm, .. }) => {
                Some(vec![*algorithm])
            }
            Some(_) => {
                let advice = "write those that it signs with, such as `algorithms: [ES256]`";
                diagnostics.error(section.place(), "`algorithms` is missing", advice);
                None
            }
            None => None,
        };
    };
    let mut found = Vec::new();
    for item in node.one_or_many() {
        let algorithm = algorithm(item, diagnostics)?;
        if !found.contains(&algorithm) {
            found.push(algorithm);
        }
    }
    match keys {
        _ if found.is_empty() => {
            diagnostics.error(
                node.place,
                "`algorithms` is empty",
                "write at least one, such as ES256",
            );
            None
        }
        Some(KeySource::JwksUrl { .. } | KeySource::JwksFile(_))
            if found.iter().any(|one| one.is_symmetric()) =>
        {
            let advice = "use `secret: { file: PATH }` for HS256; a key set holds public keys";
            diagnostics.error(
                node.place,
                "a key set cannot hold the secret of an HS algorithm",
                advice,
            );
            None
        }
        Some(KeySource::Pem { algorithm, .. } | KeySource::Secret { algorithm, .. })
            if found != [*algorithm] =>
        {
            let advice = format!("write `algorithms: [{algorithm}]`, or leave it out");
            diagnostics.error(
                node.place,
                format!("the key is for {algorithm} and for nothing else"),
                advice,
            );
            None
        }
        _ => Some(found),
    }
}

pub(super) fn algorithm(node: &Node, diagnostics: &mut Diagnostics) -> Option<Algorithm> {
    let names = Algorithm::ALL.map(Algorithm::name);
    node.one_of("an algorithm", &names, diagnostics)
        .and_then(Algorithm::of_name)
}
