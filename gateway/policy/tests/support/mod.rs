//! Keys, tokens, policies and requests for the tests of this crate.
#![expect(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use durward_config::{Diagnostics, Document, Node, Place, Value};
use durward_contract::UnixSeconds;
use durward_policy::{
    Algorithm, DigestKey, GrantStanding, IssuerId, KeySet, Keys, OwnIssuer, Policy, PolicySections, Proofs,
    RawRequest, Rejection, RequestFacts, Revocations, Standing, VerifiedToken, prove,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// The moment at which the tests take place.
pub const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
/// The issuer of most tokens here.
pub const ISSUER: &str = "https://issuer.test";
/// The audience of most tokens here.
pub const AUDIENCE: &str = "durward-tests";
/// The secret of the HS256 issuer.
pub const SECRET: &[u8; 32] = b"\x9a\x17 thirty-two bytes of a secret\xf3";

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Private keys, made once per test binary.
pub struct Signers {
    pub es256: EcdsaKeyPair,
    pub other_es256: EcdsaKeyPair,
    pub es384: EcdsaKeyPair,
    pub eddsa: Ed25519KeyPair,
    pub rsa: RsaKeyPair,
}

pub static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    es256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    other_es256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    es384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
    eddsa: Ed25519KeyPair::generate().unwrap(),
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
});

/// Who signs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Es256,
    OtherEs256,
    Es384,
    EdDsa,
    Rs256,
    Rs512,
    Ps256,
    Hs256,
}

pub fn sign(by: By, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding: &'static dyn signature::RsaEncoding| {
        let mut signed = vec![0; SIGNERS.rsa.public_modulus_len()];
        SIGNERS.rsa.sign(encoding, &random, message, &mut signed).unwrap();
        signed
    };
    match by {
        By::Es256 => SIGNERS.es256.sign(&random, message).unwrap().as_ref().to_vec(),
        By::OtherEs256 => SIGNERS
            .other_es256
            .sign(&random, message)
            .unwrap()
            .as_ref()
            .to_vec(),
        By::Es384 => SIGNERS.es384.sign(&random, message).unwrap().as_ref().to_vec(),
        By::EdDsa => SIGNERS.eddsa.sign(message).as_ref().to_vec(),
        By::Rs256 => rsa(&RSA_PKCS1_SHA256),
        By::Rs512 => rsa(&RSA_PKCS1_SHA512),
        By::Ps256 => rsa(&RSA_PSS_SHA256),
        By::Hs256 => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message)
            .as_ref()
            .to_vec(),
    }
}

/// A token of exactly this header and these claims, whatever they say.
pub fn token(by: By, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = base64url(sign(by, message.as_bytes()));
    format!("{message}.{signature}")
}

/// A good header.
pub const HEADER: &str = r#"{"alg":"ES256","typ":"at+jwt","kid":"ec"}"#;

/// Good claims, then some members replaced or added (`name: raw JSON`), or removed (`name:` nothing).
pub fn claims(changes: &[(&str, &str)]) -> String {
    let (issued, expires) = (NOW.0.to_string(), (NOW.0 + 600).to_string());
    let (issuer, audience) = (format!("\"{ISSUER}\""), format!("\"{AUDIENCE}\""));
    let mut members: Vec<(&str, &str)> = vec![
        ("iss", &issuer),
        ("sub", r#""user-1""#),
        ("aud", &audience),
        ("iat", &issued),
        ("exp", &expires),
        ("jti", r#""token-1""#),
        ("client_id", r#""web""#),
        ("sid", r#""session-1""#),
        ("epoch", "3"),
        ("roles", r#"["user"]"#),
    ];
    for (name, value) in changes {
        members.retain(|(member, _)| member != name);
        if !value.is_empty() {
            members.push((name, value));
        }
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A good token with changed claims.
pub fn good_token(changes: &[(&str, &str)]) -> String {
    token(By::Es256, HEADER, claims(changes))
}

fn ec_jwk(kid: &str, curve: &str, alg: &str, pair: &EcdsaKeyPair) -> String {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let (x, y) = (base64url(x), base64url(y));
    format!(r#"{{"kty":"EC","crv":"{curve}","kid":"{kid}","alg":"{alg}","use":"sig","x":"{x}","y":"{y}"}}"#)
}

pub fn es256_jwk(kid: &str) -> String {
    ec_jwk(kid, "P-256", "ES256", &SIGNERS.es256)
}

pub fn es384_jwk(kid: &str) -> String {
    ec_jwk(kid, "P-384", "ES384", &SIGNERS.es384)
}

pub fn rsa_numbers() -> (Vec<u8>, Vec<u8>) {
    let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(SIGNERS.rsa.public_key());
    (numbers.n, numbers.e)
}

pub fn rsa_jwk(kid: &str, alg: &str) -> String {
    let (n, e) = rsa_numbers();
    let (n, e) = (base64url(n), base64url(e));
    format!(r#"{{"kty":"RSA","kid":"{kid}","alg":"{alg}","use":"sig","n":"{n}","e":"{e}"}}"#)
}

pub fn eddsa_jwk(kid: &str) -> String {
    let x = base64url(SIGNERS.eddsa.public_key().as_ref());
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","alg":"EdDSA","use":"sig","x":"{x}"}}"#)
}

pub fn jwks(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// The key set of the issuer of most tokens here.
pub fn usual_jwks() -> String {
    jwks(&[
        es256_jwk("ec"),
        es384_jwk("ec384"),
        rsa_jwk("rsa", "RS256"),
        eddsa_jwk("ed"),
    ])
}

/// The `issuers:` of most policies here.
pub const ISSUERS: &str = "
issuers:
  - issuer: https://issuer.test
    jwks: keys.json
    audience: durward-tests
    algorithms: [ES256, ES384, RS256, EdDSA]
    required_claims: [jti, client_id, sid]
";

/// What the tests' policies have beside what they are about.
pub const REST: &str = "
revocations: none
identity_headers: { X-User-Id: sub, X-User-Roles: roles }
";

fn section<'d>(document: &'d Document, key: &str) -> Option<&'d Node> {
    let Value::Map(entries) = &document.root().value else {
        return None;
    };
    entries
        .iter()
        .find(|entry| entry.key == key)
        .map(|entry| &entry.node)
}

/// Compiles a policy; the upstreams are `api` and `images`.
pub fn try_policy(yaml: &str, own: bool) -> Result<Policy, String> {
    compile(yaml, own, own)
}

/// With an auth service in the file, or not, that runs in the same process, or not.
pub fn compile(yaml: &str, own: bool, in_process: bool) -> Result<Policy, String> {
    let document = Document::parse("c.yaml", yaml).map_err(|diagnostics| diagnostics.to_string())?;
    let mut diagnostics = Diagnostics::default();
    let upstreams = ["api", "images"].map(|name| (name.to_owned(), Place::default()));
    let sections = PolicySections {
        issuers: section(&document, "issuers"),
        identity_headers: section(&document, "identity_headers"),
        service_headers: section(&document, "service_headers"),
        strip: section(&document, "strip"),
        routes: section(&document, "routes"),
        revocations: section(&document, "revocations"),
        rate_limits: section(&document, "rate_limits"),
        upstream_names: &upstreams,
        own_issuer: own.then(|| OwnIssuer {
            key_announce: Duration::from_secs(900),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            algorithm: Algorithm::ES256,
            in_process,
        }),
        auth_in_process: own && in_process,
        file_place: Place::default(),
    };
    let policy = Policy::compile(sections, DigestKey([1; 16]), &mut diagnostics);
    policy.ok_or_else(|| diagnostics.located_in(&document).to_string())
}

pub fn policy(yaml: &str) -> Policy {
    try_policy(yaml, false).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The policy of most tests here, with these routes.
pub fn policy_of_routes(routes: &str) -> Policy {
    policy(&format!("{ISSUERS}{REST}routes:\n{routes}\n"))
}

/// Key sets by issuer, and proofs without a cache.
#[derive(Default)]
pub struct FixedKeys(pub HashMap<IssuerId, Arc<KeySet>>);

impl FixedKeys {
    /// The usual set for every issuer of the policy.
    pub fn usual(policy: &Policy) -> Self {
        let jwks = usual_jwks();
        let read = |issuer| Arc::new(KeySet::from_jwks(jwks.as_bytes(), issuer, 1).unwrap());
        Self(
            policy
                .issuers()
                .iter()
                .map(|issuer| (issuer.id, read(issuer)))
                .collect(),
        )
    }
}

impl Keys for FixedKeys {
    fn key_set(&self, issuer: IssuerId) -> Option<Arc<KeySet>> {
        self.0.get(&issuer).cloned()
    }
}

impl Proofs for FixedKeys {
    fn prove(&self, policy: &Policy, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        prove(policy, token, self)
            .map(Arc::new)
            .map_err(|error| error.rejection)
    }
}

/// The same answer for every token.
pub struct Says(pub Standing);

impl Revocations for Says {
    fn standing(&self, _token: &VerifiedToken, _now: UnixSeconds) -> Standing {
        self.0
    }

    fn granted_key(&self, _digest: &durward_policy::KeyDigest) -> GrantStanding {
        GrantStanding::Unknown { stale_for: None }
    }

    fn key_standing(&self, _key: &durward_policy::GrantedKey) -> Standing {
        Standing::Unknown { stale_for: None }
    }
}

pub const LIVE: Says = Says(Standing::Live);

pub fn stale(seconds: u64) -> Says {
    Says(Standing::Unknown {
        stale_for: Some(Duration::from_secs(seconds)),
    })
}

/// A request of HTTP/1.1 to `gw.test`.
pub struct Request {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("gw.test"));
        Self {
            method: method.parse().unwrap(),
            target: target.to_owned(),
            headers,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(HeaderName::try_from(name).unwrap(), value);
        self
    }

    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts::judge(RawRequest {
            method: &self.method,
            target: self.target.as_bytes(),
            authority: None,
            version: Version::HTTP_11,
            headers: &self.headers,
        })
        .unwrap_or_else(|rejection| panic!("{rejection}"))
    }
}
