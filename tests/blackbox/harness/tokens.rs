//! Tokens, good and bad.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::FOREIGN_ISSUER;
use super::clock::now;
use super::keys::Key;

/// The claims of a good token of the foreign issuer, for five minutes from now.
pub fn claims(subject: &str) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    json!({
        "iss": FOREIGN_ISSUER,
        "sub": subject,
        "aud": "gateway",
        "iat": now(),
        "exp": now() + 300,
        "jti": format!("token-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        "client_id": "web",
    })
}

/// An access token with these claims.
pub fn mint(key: &Key, claims: &Value) -> String {
    let header = json!({ "alg": key.algorithm(), "typ": "at+jwt", "kid": key.kid() });
    mint_with(key, &header, claims)
}

/// A token with these claims under this header.
pub fn mint_with(key: &Key, header: &Value, claims: &Value) -> String {
    sign(key, header.to_string().as_bytes(), claims.to_string().as_bytes())
}

/// A signature over these bytes, whatever they are.
pub fn sign(key: &Key, header: &[u8], payload: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}
