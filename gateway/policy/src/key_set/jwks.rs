//! Reading a JSON Web Key Set (RFC 7517).

use std::collections::BTreeSet;

use super::{Key, KeySetError, MAX_KEY_SET_BYTES, MAX_KEYS, MAX_KID_BYTES, material};
use crate::base64url;
use crate::issuer::{Algorithm, KeyType};
use crate::json::{self, Json, JsonErrorKind, Limits, Object};

/// Members that only a private key has (RFC 7518 section 6).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// What became of one key of the set.
enum Reading {
    Usable(Key),
    Ignored(&'static str),
}

/// The keys that can be used, and why each other was ignored.
pub(super) fn read(bytes: &[u8], algorithms: &[Algorithm]) -> Result<(Vec<Key>, Vec<String>), KeySetError> {
    let set = json::parse_object(bytes, Limits::KEY_SET).map_err(|error| match error.kind {
        JsonErrorKind::TooLong => KeySetError::TooLong,
        _ => KeySetError::NotAKeySet(error.to_string()),
    })?;
    debug_assert!(bytes.len() <= MAX_KEY_SET_BYTES);
    let Some(Json::List(items)) = set.get("keys") else {
        return Err(KeySetError::NotAKeySet("it has no list `keys`".to_owned()));
    };
    if items.len() > MAX_KEYS {
        return Err(KeySetError::TooManyKeys);
    }
    let mut keys = Vec::new();
    let mut ignored = Vec::new();
    let mut kids = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let Json::Object(jwk) = item else {
            return Err(KeySetError::NotAKeySet("a key is not an object".to_owned()));
        };
        let kid = kid(jwk, index)?;
        if let Some(kid) = kid
            && !kids.insert(kid)
        {
            return Err(KeySetError::DuplicateKid(kid.to_owned()));
        }
        let name = kid.map_or_else(|| format!("number {index}"), |kid| format!("{kid:?}"));
        match key(jwk, kid, &name, algorithms)? {
            Reading::Usable(key) => keys.push(key),
            Reading::Ignored(why) => ignored.push(format!("key {name} ignored: {why}")),
        }
    }
    Ok((keys, ignored))
}

fn kid(jwk: &Object, index: usize) -> Result<Option<&str>, KeySetError> {
    match jwk.get("kid") {
        None => Ok(None),
        Some(Json::Text(kid)) if !kid.is_empty() && kid.len() <= MAX_KID_BYTES => Ok(Some(kid)),
        Some(_) => Err(KeySetError::Malformed {
            key: format!("number {index}"),
            problem: "its kid is not a string of 1 to 256 bytes",
        }),
    }
}

fn key(
    jwk: &Object,
    kid: Option<&str>,
    name: &str,
    algorithms: &[Algorithm],
) -> Result<Reading, KeySetError> {
    let text = |member: &str| match jwk.get(member) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(malformed(name, "a member that must be a string is none")),
    };
    let Some(kty) = text("kty")? else {
        return Err(malformed(name, "it has no kty"));
    };
    if kty == "oct" || PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some()) {
        return Err(KeySetError::NotPublic(name.to_owned()));
    }
    let key_type = match (kty, text("crv")?) {
        ("RSA", _) => KeyType::Rsa,
        ("EC", Some("P-256")) => KeyType::P256,
        ("EC", Some("P-384")) => KeyType::P384,
        ("OKP", Some("Ed25519")) => KeyType::Ed25519,
        ("EC" | "OKP", None) => return Err(malformed(name, "it has no crv")),
        // RFC 7517 section 5: what is not understood is ignored.
        _ => return Ok(Reading::Ignored("its type is not supported")),
    };
    if !is_for_signatures(jwk, text("use")?, name)? {
        return Ok(Reading::Ignored("it is not for verifying signatures"));
    }
    let Some(algorithm) = bound_algorithm(text("alg")?, key_type, name, algorithms)? else {
        return Ok(Reading::Ignored("the issuer's algorithms do not include its own"));
    };
    let bytes = |member: &str| {
        let text = text(member)?.ok_or_else(|| malformed(name, "a member of its type is missing"))?;
        base64url::decode(text).ok_or_else(|| malformed(name, "a member is not base64url"))
    };
    let material = match key_type {
        KeyType::Rsa => material::rsa(name, &bytes("n")?, &bytes("e")?)?,
        KeyType::P256 | KeyType::P384 => material::ec(name, key_type, &bytes("x")?, &bytes("y")?)?,
        KeyType::Ed25519 => material::ed25519(name, &bytes("x")?)?,
        KeyType::Secret(_) => return Err(KeySetError::NotPublic(name.to_owned())),
    };
    Ok(Reading::Usable(Key {
        kid: kid.map(str::to_owned),
        algorithm,
        material,
    }))
}

/// RFC 7517 sections 4.2 and 4.3.
fn is_for_signatures(jwk: &Object, used: Option<&str>, name: &str) -> Result<bool, KeySetError> {
    let operations = match jwk.get("key_ops") {
        None => true,
        Some(Json::List(operations)) => operations
            .iter()
            .any(|operation| operation.as_text() == Some("verify")),
        Some(_) => return Err(malformed(name, "its key_ops is not a list")),
    };
    Ok(operations && used.is_none_or(|used| used == "sig"))
}

/// The one algorithm that the key is for: its `alg`, or the one of the issuer's that it fits.
fn bound_algorithm(
    alg: Option<&str>,
    key_type: KeyType,
    name: &str,
    algorithms: &[Algorithm],
) -> Result<Option<Algorithm>, KeySetError> {
    if let Some(alg) = alg {
        let Some(algorithm) = Algorithm::of_name(alg) else {
            return Ok(None);
        };
        if algorithm.key_type() != key_type {
            return Err(malformed(name, "its alg does not go with its kty and crv"));
        }
        return Ok(algorithms.contains(&algorithm).then_some(algorithm));
    }
    let fits: Vec<_> = algorithms
        .iter()
        .copied()
        .filter(|fit| fit.key_type() == key_type)
        .collect();
    match fits.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => Err(KeySetError::Ambiguous {
            key: name.to_owned(),
            fits: several
                .iter()
                .map(|fit| fit.name())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn malformed(key: &str, problem: &'static str) -> KeySetError {
    KeySetError::Malformed {
        key: key.to_owned(),
        problem,
    }
}
