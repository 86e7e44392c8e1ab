//! Project Wycheproof's JWS and JWK vectors, from a folder outside of this repository:
//! `DURWARD_WYCHEPROOF=.../testvectors cargo test -p durward-policy -- --ignored wycheproof`.

use serde_json::Value;

use super::compact::Compact;
use crate::base64url;
use crate::issuer::{Algorithm, Issuer, IssuerId, KeySource, TokenType};
use crate::key_set::KeySet;

/// Where we are stricter on purpose, or the vector contradicts itself.
const EXPLAINED: [(&str, u64, &str); 9] = [
    (JWS, 346, "alg PS384 with a key that is for PS256"),
    (JWS, 350, "the same"),
    (JWS, 347, "ES512 is not supported"),
    (JWS, 351, "the same"),
    (JWS, 367, "the very bytes of a valid vector"),
    (JWS, 370, "the very bytes of a valid vector"),
    (JWS, 372, "a character that no JWT has"),
    (JWS, 373, "a character that no JWT has"),
    (JWK, 2, "secrets in a key set"),
];
const JWS: &str = "json_web_signature_test.json";
const JWK: &str = "json_web_key_test.json";

#[test]
#[ignore = "needs the vectors"]
fn wycheproof() {
    let folder = std::env::var("DURWARD_WYCHEPROOF").expect("the folder of the vectors");
    let (mut passed, mut failed) = (0, Vec::new());
    for file in [JWS, JWK] {
        let text = std::fs::read(format!("{folder}/{file}")).expect("the vectors");
        let vectors: Value = serde_json::from_slice(&text).unwrap();
        for group in vectors["testGroups"].as_array().unwrap() {
            let key = if group["public"].is_null() {
                &group["private"]
            } else {
                &group["public"]
            };
            for test in group["tests"].as_array().unwrap() {
                let jws = test["jws"]
                    .as_str()
                    .map(str::to_owned)
                    .unwrap_or_else(|| test["jws"].to_string());
                let verified = verifies(&jws, key);
                let number = test["tcId"].as_u64().unwrap();
                let explained = EXPLAINED.iter().any(|(its, id, _)| (*its, *id) == (file, number));
                match (verified == (test["result"] == "valid")) ^ explained {
                    true => passed += 1,
                    false => failed.push(format!("{file} {number} {}: {verified}", test["comment"])),
                }
            }
        }
    }
    assert!(
        failed.is_empty() && passed > 0,
        "{passed} as expected, but not\n{}",
        failed.join("\n")
    );
}

/// Reads the key as an issuer's, then the token's form, then its signature.
fn verifies(jws: &str, key: &Value) -> bool {
    let keys = match key["keys"].as_array() {
        Some(keys) => keys.clone(),
        None => vec![key.clone()],
    };
    let set = match keys.as_slice() {
        [only] if only["kty"] == "oct" => {
            let algorithm = only["alg"].as_str().and_then(Algorithm::of_name);
            let secret = base64url::decode(only["k"].as_str().unwrap_or_default());
            algorithm
                .zip(secret)
                .and_then(|(algorithm, secret)| KeySet::from_secret(&secret, algorithm, 0).ok())
        }
        _ => KeySet::from_jwks(
            serde_json::json!({ "keys": keys }).to_string().as_bytes(),
            &anybody(),
            0,
        )
        .ok(),
    };
    let (Some(set), Ok(compact)) = (set, Compact::parse(jws)) else {
        return false;
    };
    set.find(compact.kid()).is_some_and(|key| {
        key.algorithm() == compact.algorithm() && key.verifies(compact.message(), compact.signature())
    })
}

fn anybody() -> Issuer {
    let asymmetric = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| !algorithm.is_symmetric());
    Issuer {
        id: IssuerId(0),
        place: Default::default(),
        issuer: String::new(),
        audience: Vec::new(),
        algorithms: asymmetric.collect(),
        token_types: vec![TokenType::Jwt],
        required_claims: Vec::new(),
        leeway: Default::default(),
        max_lifetime: Default::default(),
        identity_prefix: None,
        own: false,
        keys: KeySource::JwksFile(Default::default()),
    }
}
