//! Which keys are taken, which are ignored, and which refuse the whole set (RFC 7517, 7518, 8725).

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use durward_policy::{Algorithm, Issuer, KeySet, KeySetError};
use support::{base64url, es256_jwk, jwks, rsa_jwk};

fn issuer() -> Issuer {
    let policy = support::policy_of_routes("  - { path: /**, upstream: api }");
    policy.issuers().iter().next().unwrap().clone()
}

fn read(text: &str) -> Result<KeySet, KeySetError> {
    KeySet::from_jwks(text.as_bytes(), &issuer(), 7)
}

#[test]
fn a_good_set_is_read_whole() {
    let set = read(&support::usual_jwks()).unwrap();
    assert_eq!((set.len(), set.generation(), set.ignored().len()), (4, 7, 0));
    let bare = es256_jwk("a").replace(r#""alg":"ES256","use":"sig","#, "");
    assert_eq!(
        read(&jwks(&[bare])).unwrap().len(),
        1,
        "alg follows from the curve"
    );
    let verify = es256_jwk("a").replace(r#""use":"sig""#, r#""key_ops":["verify"]"#);
    assert_eq!(read(&jwks(&[verify])).unwrap().len(), 1);
}

#[test]
fn keys_for_something_else_are_ignored() {
    for other in [
        rsa_jwk("x", "RSA-OAEP"),
        rsa_jwk("x", "PS256"),
        rsa_jwk("x", "RS256").replace(r#""use":"sig""#, r#""use":"enc""#),
        es256_jwk("x").replace(r#""use":"sig""#, r#""key_ops":["sign"]"#),
        es256_jwk("x")
            .replace("P-256", "secp256k1")
            .replace("ES256", "ES256K"),
        r#"{"kty":"AKP","kid":"x","alg":"ML-DSA-44","pub":"AA"}"#.to_owned(),
        r#"{"kty":"OKP","crv":"X25519","kid":"x","x":"AA"}"#.to_owned(),
    ] {
        let set = read(&jwks(&[es256_jwk("a"), other.clone()])).unwrap();
        assert_eq!((set.len(), set.ignored().len()), (1, 1), "{other}");
        assert!(matches!(read(&jwks(&[other])), Err(KeySetError::NoKey { .. })));
    }
}

/// Modulo every prime it is a power of 65537: what the fingerprint looks for. Big-endian.
fn power_of_65537(exponent: usize) -> Vec<u8> {
    let times = |number: Vec<u16>| {
        let mut carry = 0;
        let shifted = std::iter::once(0).chain(number.iter().copied());
        let mut product: Vec<u16> = shifted
            .zip(number.iter().copied().chain([0]))
            .map(|(left, right)| {
                let sum = u32::from(left) + u32::from(right) + carry;
                carry = sum >> 16;
                (sum & 0xffff) as u16
            })
            .collect();
        product.push(carry as u16);
        product
    };
    let little_endian = (0..exponent).fold(vec![1], |number, _| times(number));
    little_endian
        .iter()
        .rev()
        .flat_map(|limb| limb.to_be_bytes())
        .collect()
}

#[test]
fn what_must_not_be_published_refuses_the_set() {
    let good = es256_jwk("a");
    let (n, _) = support::rsa_numbers();
    let with_modulus = |n: &[u8]| {
        format!(
            r#"{{"kty":"RSA","kid":"x","alg":"RS256","n":"{}","e":"AQAB"}}"#,
            base64url(n)
        )
    };
    let with_exponent = |e: &[u8]| {
        format!(
            r#"{{"kty":"RSA","kid":"x","alg":"RS256","n":"{}","e":"{}"}}"#,
            base64url(&n),
            base64url(e)
        )
    };
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let mut short = n.clone();
    short[0] = 0x7f;
    for (weak, problem) in [
        (with_modulus(&n[128..]), "bits"),
        (with_modulus(&short), "2047 bits"),
        (with_modulus(&[&[0, 0], &short[..]].concat()), "2047 bits"),
        (with_modulus(&even), "even"),
        (with_modulus(&power_of_65537(128)), "CVE-2017-15361"),
        (with_exponent(&[1]), "exponent"),
        (with_exponent(&[2]), "exponent"),
        (with_exponent(&[1, 0, 0]), "exponent"),
        (with_exponent(&[]), "exponent"),
    ] {
        let error = read(&jwks(&[good.clone(), weak])).unwrap_err();
        assert!(
            matches!(error, KeySetError::Weak { .. }) && error.to_string().contains(problem),
            "{error}"
        );
    }
    for (key, problem) in [
        (with_exponent(&[2, 0, 0, 0, 1]), "larger than any"),
        (es256_jwk("x").replace(r#""x":""#, r#""x":"*"#), "base64url"),
        (es256_jwk("x").replace(r#""crv":"P-256","#, ""), "no crv"),
        (es256_jwk("x").replace("P-256", "P-384"), "alg does not go"),
        (
            es256_jwk("x").replace(r#""kty":"EC""#, r#""kty":"RSA""#),
            "alg does not go",
        ),
        (es256_jwk("x").replace(r#""kty":"EC","#, ""), "no kty"),
        (es256_jwk("x").replace(r#""kid":"x""#, r#""kid":1"#), "kid"),
        (es256_jwk("x").replace(r#""kid":"x""#, r#""kid":"""#), "kid"),
        (
            es256_jwk("x").replace(r#""use":"sig""#, r#""use":1"#),
            "must be a string",
        ),
        (
            es256_jwk("x").replace(r#""use":"sig""#, r#""key_ops":"verify""#),
            "key_ops",
        ),
        (
            format!(
                r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#,
                base64url([1; 32])
            ),
            "not on its curve",
        ),
        (
            format!(
                r#"{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}"#,
                base64url([1; 31])
            ),
            "length",
        ),
        (
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, base64url([1; 31])),
            "Ed25519",
        ),
        (r#"{"kty":"RSA","alg":"RS256"}"#.to_owned(), "missing"),
    ] {
        let error = read(&jwks(&[good.clone(), key.clone()])).unwrap_err();
        assert!(
            matches!(error, KeySetError::Malformed { .. }) && error.to_string().contains(problem),
            "{key}: {error}"
        );
    }
    for private in [
        r#"{"kty":"oct","kid":"x","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#
            .to_owned(),
        es256_jwk("x").replace(r#""use":"sig""#, r#""d":"AA""#),
    ] {
        assert!(matches!(
            read(&jwks(&[good.clone(), private])),
            Err(KeySetError::NotPublic(_))
        ));
    }
    for twin in [
        es256_jwk("a"),
        rsa_jwk("a", "RS256"),
        r#"{"kty":"AKP","kid":"a"}"#.to_owned(),
    ] {
        let refused = read(&jwks(&[good.clone(), twin]));
        assert_eq!(refused.unwrap_err(), KeySetError::DuplicateKid("a".to_owned()));
    }
}

#[test]
fn what_is_no_set_is_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[],"keys":[]}"#,
        "<html>",
    ] {
        assert!(matches!(read(text), Err(KeySetError::NotAKeySet(_))), "{text}");
    }
    assert!(matches!(read(r#"{"keys":[]}"#), Err(KeySetError::NoKey { .. })));
    let many: Vec<_> = (0..65).map(|number| es256_jwk(&number.to_string())).collect();
    assert_eq!(read(&jwks(&many[..64])).unwrap().len(), 64);
    assert_eq!(read(&jwks(&many)).unwrap_err(), KeySetError::TooManyKeys);
    assert_eq!(
        read(&" ".repeat(durward_policy::MAX_KEY_SET_BYTES + 1)).unwrap_err(),
        KeySetError::TooLong
    );
}

#[test]
fn a_key_without_alg_needs_one_that_is_beyond_doubt() {
    let mut issuer = issuer();
    issuer.algorithms = vec![Algorithm::RS256, Algorithm::PS256];
    let bare = rsa_jwk("a", "RS256").replace(r#""alg":"RS256","#, "");
    let refused = KeySet::from_jwks(jwks(&[bare]).as_bytes(), &issuer, 0);
    assert!(matches!(refused, Err(KeySetError::Ambiguous { .. })));
}

#[test]
fn secrets_are_at_least_as_long_as_the_hash_and_no_padding() {
    for (algorithm, least) in [
        (Algorithm::HS256, 32),
        (Algorithm::HS384, 48),
        (Algorithm::HS512, 64),
    ] {
        let secret: Vec<u8> = (0..least).map(|at| at as u8).collect();
        assert!(KeySet::from_secret(&secret, algorithm, 0).is_ok());
        for weak in [&secret[1..], &vec![0; least], &vec![b'x'; least]] {
            let refused = KeySet::from_secret(weak, algorithm, 0);
            assert!(matches!(refused, Err(KeySetError::Weak { .. })), "{algorithm}");
        }
        assert!(KeySet::from_secret(&secret, Algorithm::ES256, 0).is_err());
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

#[test]
fn a_pem_is_one_public_key_for_the_configured_algorithm() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair;
    let signers = &*support::SIGNERS;
    let info = |der: PublicKeyX509Der<'_>| pem("PUBLIC KEY", der.as_ref());
    let ec = info(signers.es256.public_key().as_der().unwrap());
    let ec384 = info(signers.es384.public_key().as_der().unwrap());
    let ed = info(signers.eddsa.public_key().as_der().unwrap());
    let rsa = info(signers.rsa.public_key().as_der().unwrap());
    let pkcs1 = pem("RSA PUBLIC KEY", signers.rsa.public_key().as_ref());
    let fits = |pem: &str, algorithm| KeySet::from_pem(pem.as_bytes(), algorithm, 0).is_ok();
    for (pem, algorithm) in [
        (&ec, Algorithm::ES256),
        (&ec384, Algorithm::ES384),
        (&ed, Algorithm::EdDSA),
        (&ed, Algorithm::Ed25519),
        (&rsa, Algorithm::RS256),
        (&rsa, Algorithm::PS512),
        (&pkcs1, Algorithm::RS384),
    ] {
        assert!(fits(pem, algorithm), "{algorithm}");
        assert!(
            fits(&pem.replace('\n', "\r\n"), algorithm),
            "{algorithm} with CRLF"
        );
    }
    for (pem, algorithm) in [
        (&ec, Algorithm::ES384),
        (&ec384, Algorithm::ES256),
        (&ec, Algorithm::RS256),
        (&rsa, Algorithm::ES256),
        (&ed, Algorithm::ES256),
        (&ec, Algorithm::HS256),
        (&ec.replace("PUBLIC", "PRIVATE"), Algorithm::ES256),
        (&ec.replace("PUBLIC KEY", "CERTIFICATE"), Algorithm::ES256),
        (&format!("{ec}{rsa}"), Algorithm::ES256),
        (&ec.replace('=', "*"), Algorithm::ES256),
        (&String::new(), Algorithm::ES256),
    ] {
        assert!(!fits(pem, algorithm), "{algorithm} {pem}");
    }
}
