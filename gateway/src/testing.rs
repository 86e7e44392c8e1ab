//! What this crate's tests share: keys, tokens, policies, and a server of canned answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use durward_config::{Diagnostics, Document, Place, Section};
use durward_contract::{Bar, Grant, News, RevocationEntry, Sequence, Target, UnixSeconds};
use durward_policy::{
    Algorithm, DigestKey, GrantedKey, IssuerId, KeySet, Keys, OwnIssuer, Policy, PolicySections, Principal,
    VerifiedToken, prove,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::clock;

pub(crate) const DIGEST_KEY: DigestKey = DigestKey([9; 16]);
pub(crate) const ISSUER: &str = "http://issuer.example";
pub(crate) const AUDIENCE: &str = "example";

/// A policy of the own issuer with one route.
pub(crate) fn own_policy() -> Policy {
    policy("issuers: [{ use: auth }]\nrevocations: none\nroutes: [{ path: /api/**, upstream: api }]\n")
}

/// A policy of one foreign issuer, whose keys are where `keys` says.
pub(crate) fn foreign_policy(keys: &str) -> Policy {
    policy(&format!(
        "issuers: [{{ issuer: 'https://other.example', audience: api, algorithms: [ES256], {keys} }}]\n\
         revocations: none\nroutes: [{{ path: /api/**, upstream: api }}]\n"
    ))
}

/// Compiles the policy's sections of a file with the upstream `api`.
pub(crate) fn policy(text: &str) -> Policy {
    let document = Document::parse("test.yaml", text).unwrap();
    let mut diagnostics = Diagnostics::default();
    let mut section = document.root().section("the file", &mut diagnostics).unwrap();
    let policy = compile_policy(
        &mut section,
        &[("api".into(), Place::default())],
        &mut diagnostics,
    );
    section.finish(&mut diagnostics);
    policy.unwrap_or_else(|| panic!("{}", diagnostics.located_in(&document)))
}

pub(crate) fn compile_policy(
    section: &mut Section<'_>,
    upstream_names: &[(String, Place)],
    diagnostics: &mut Diagnostics,
) -> Option<Policy> {
    let sections = PolicySections {
        issuers: section.optional("issuers"),
        identity_headers: section.optional("identity_headers"),
        service_headers: section.optional("service_headers"),
        strip: section.optional("strip"),
        routes: section.optional("routes"),
        revocations: section.optional("revocations"),
        rate_limits: section.optional("rate_limits"),
        upstream_names,
        own_issuer: Some(OwnIssuer {
            key_announce: Duration::from_secs(900),
            issuer: ISSUER.into(),
            audience: AUDIENCE.into(),
            algorithm: Algorithm::ES256,
            in_process: true,
        }),
        auth_in_process: true,
        file_place: Place::default(),
    };
    Policy::compile(sections, DIGEST_KEY, diagnostics)
}

/// A key that signs.
pub(crate) struct SigningKey {
    kid: String,
    pair: EcdsaKeyPair,
}

pub(crate) fn signing_key(kid: &str) -> SigningKey {
    SigningKey {
        kid: kid.into(),
        pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    }
}

impl SigningKey {
    /// The JWKS with this key alone.
    pub(crate) fn jwks(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (part(&point[1..33]), part(&point[33..65]));
        let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y });
        json!({ "keys": [key] }).to_string().into_bytes()
    }
}

/// An own access token that is valid now; `changes` replace claims.
pub(crate) fn sign(key: &SigningKey, user: &str, changes: &[(&str, serde_json::Value)]) -> String {
    let now = clock::unix_seconds(clock::wall()).0;
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now - 1, "exp": now + 600,
        "jti": format!("j-{user}"), "sid": format!("s-{user}"), "client_id": "web", "epoch": 1, "roles": ["user"],
    });
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": key.kid });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = key.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

struct OneSet(Arc<KeySet>);

impl Keys for OneSet {
    fn key_set(&self, _issuer: IssuerId) -> Option<Arc<KeySet>> {
        Some(Arc::clone(&self.0))
    }
}

/// A proved token of a user.
pub(crate) fn token(user: &str) -> Arc<VerifiedToken> {
    static POLICY: LazyLock<Policy> = LazyLock::new(own_policy);
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| signing_key("shared"));
    let issuer = POLICY.issuers().iter().next().unwrap();
    let keys = OneSet(Arc::new(KeySet::from_jwks(&KEY.jwks(), issuer, 1).unwrap()));
    Arc::new(prove(&POLICY, &sign(&KEY, user, &[]), &keys).unwrap())
}

/// A user, by a proved token.
pub(crate) fn user(user: &str) -> Principal {
    Principal::User(token(user))
}

/// The grant of the API key with this id.
fn grant(sequence: u64, id: &str, expires_at: Option<i64>) -> Grant {
    let mut digest = [7; 32];
    digest[..id.len()].copy_from_slice(id.as_bytes());
    Grant {
        sequence: Sequence(sequence),
        issuer: ISSUER.into(),
        key: id.into(),
        digest,
        service: "billing".into(),
        scopes: vec!["read".into()],
        expires_at: expires_at.map(UnixSeconds),
    }
}

/// A grant of one and the same certificate's name. Its id is the number as text.
fn grant_of_name(sequence: u64) -> Grant {
    Grant {
        digest: [9; 32],
        ..grant(sequence, &sequence.to_string(), None)
    }
}

/// That this name is granted.
pub(crate) fn news_of_name(sequence: u64) -> News {
    News::Grant(grant_of_name(sequence))
}

/// The grant of this name as a table has it.
pub(crate) fn granted_name(sequence: u64) -> GrantedKey {
    GrantedKey::new(DIGEST_KEY, &grant_of_name(sequence)).unwrap()
}

/// That an API key is granted.
pub(crate) fn news_of_key(sequence: u64, id: &str) -> News {
    News::Grant(grant(sequence, id, None))
}

/// That the grant of an API key has ended.
pub(crate) fn end_of_key(sequence: u64, id: &str) -> News {
    News::Revocation(RevocationEntry {
        sequence: Sequence(sequence),
        issuer: ISSUER.into(),
        target: Target::ApiKey(id.into()),
        bar: Bar::Always,
        forget_at: None,
    })
}

/// An API key as a table has it.
pub(crate) fn granted_key(id: &str, expires_at: Option<i64>) -> GrantedKey {
    GrantedKey::new(DIGEST_KEY, &grant(1, id, expires_at)).unwrap()
}

/// A service, by the API key with this id.
pub(crate) fn service(id: &str) -> Principal {
    Principal::Service(Arc::new(granted_key(id, None)))
}

/// A server that answers the n-th connection by a function of n, and keeps what it was sent.
pub(crate) struct TinyServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TinyServer {
    pub(crate) fn start(answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let request = read_head(&mut stream);
                let count = seen.lock().len();
                seen.lock().push(request);
                let _ = stream.write_all(answer(count).as_bytes());
            }
        });
        Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

impl Drop for TinyServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads up to the end of a header section.
pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Waits until `condition` holds; panics after five seconds.
pub(crate) async fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
