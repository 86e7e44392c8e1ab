//! Public keys: their shape, their strength, and that they are points where they say so.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;

use super::KeySetError;
use crate::issuer::{Algorithm, KeyType};

/// RFC 7518 section 3.3.
const MIN_RSA_BITS: usize = 2048;
/// What the verifier takes; also a bound on the work that a token can cause.
const MAX_RSA_BITS: usize = 8192;
/// What the verifier takes.
const MAX_RSA_EXPONENT_BITS: usize = 33;

/// SubjectPublicKeyInfo up to the point (RFC 5480 section 2): id-ecPublicKey, prime256v1.
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// id-ecPublicKey, secp384r1.
const P384_INFO: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// id-Ed25519 (RFC 8410 section 4).
const ED25519_INFO: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// An RSA key from its numbers, big-endian.
pub(super) fn rsa(key: &str, modulus: &[u8], exponent: &[u8]) -> Result<DecodingKey, KeySetError> {
    let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
    let bits = bit_length(modulus);
    let weak = |problem: String| KeySetError::Weak {
        key: key.to_owned(),
        problem,
    };
    if bits < MIN_RSA_BITS {
        return Err(weak(format!(
            "the RSA modulus has {bits} bits, and {MIN_RSA_BITS} are needed"
        )));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !is_odd(modulus) {
        return Err(weak("the RSA modulus is even".to_owned()));
    }
    if !is_odd(exponent) || exponent == [1] {
        return Err(weak("the RSA exponent is not an odd number from 3 up".to_owned()));
    }
    if has_roca_fingerprint(modulus) {
        return Err(weak(
            "the RSA modulus has the fingerprint of CVE-2017-15361".to_owned(),
        ));
    }
    if bits > MAX_RSA_BITS || bit_length(exponent) > MAX_RSA_EXPONENT_BITS {
        return Err(malformed(key, "the RSA key is larger than any that is used"));
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// Whether a modulus was made by the generator of CVE-2017-15361 (ROCA): modulo each of these primes
/// it is a power of 65537, which of other moduli about one in 2^27 is.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
        103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    const GENERATOR: u32 = 65537;
    PRIMES.into_iter().all(|prime| {
        let remainder = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * GENERATOR % prime));
        powers.take(prime as usize).any(|power| power == remainder)
    })
}

/// A point on a curve, from its coordinates (RFC 7518 section 6.2.1: full length, no fewer octets).
pub(super) fn ec(key: &str, key_type: KeyType, x: &[u8], y: &[u8]) -> Result<DecodingKey, KeySetError> {
    let (size, verifier): (usize, &'static dyn VerificationAlgorithm) = match key_type {
        KeyType::P256 => (32, &ECDSA_P256_SHA256_FIXED),
        KeyType::P384 => (48, &ECDSA_P384_SHA384_FIXED),
        KeyType::Secret(_) | KeyType::Rsa | KeyType::Ed25519 => {
            return Err(malformed(key, "it has no curve"));
        }
    };
    if x.len() != size || y.len() != size {
        return Err(malformed(key, "a coordinate has not the length of the curve's"));
    }
    let point = [&[4], x, y].concat();
    if ParsedPublicKey::new(verifier, &point).is_err() {
        return Err(malformed(key, "the point is not on its curve"));
    }
    Ok(DecodingKey::from_ec_der(&point))
}

/// An Ed25519 key (RFC 8037 section 2).
pub(super) fn ed25519(key: &str, public: &[u8]) -> Result<DecodingKey, KeySetError> {
    if public.len() != 32 || ParsedPublicKey::new(&ED25519, public).is_err() {
        return Err(malformed(key, "it is not an Ed25519 public key"));
    }
    Ok(DecodingKey::from_ed_der(public))
}

/// One public key of a PEM file, for one algorithm.
pub(super) fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<DecodingKey, KeySetError> {
    const KEY: &str = "of the PEM";
    let der = pem_block(pem).map_err(|problem| malformed(KEY, problem))?;
    let wrong = || malformed(KEY, "it is not a public key for the configured algorithm");
    match algorithm.key_type() {
        KeyType::Secret(_) => Err(wrong()),
        KeyType::Rsa => {
            let public = aws_lc_rs::rsa::PublicKey::from_der(&der).map_err(|_| wrong())?;
            let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(&public);
            rsa(KEY, &numbers.n, &numbers.e)
        }
        KeyType::Ed25519 => ed25519(KEY, der.strip_prefix(ED25519_INFO).ok_or_else(wrong)?),
        curve @ (KeyType::P256 | KeyType::P384) => {
            let info = if curve == KeyType::P256 {
                P256_INFO
            } else {
                P384_INFO
            };
            // An uncompressed point: 4, then both coordinates.
            match der.strip_prefix(info) {
                Some([4, point @ ..]) if point.len().is_multiple_of(2) => {
                    let (x, y) = point.split_at(point.len() / 2);
                    ec(KEY, curve, x, y)
                }
                _ => Err(wrong()),
            }
        }
    }
}

/// The one block of a PEM file (RFC 7468), if it is a public key's.
fn pem_block(pem: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not text")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key; only the public one belongs here");
    }
    if text.matches("-----BEGIN ").count() != 1 {
        return Err("it must hold exactly one public key");
    }
    let labels = ["PUBLIC KEY", "RSA PUBLIC KEY"];
    let body = labels.iter().find_map(|label| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        rest.split_once(&format!("-----END {label}-----"))
            .map(|(body, _)| body)
    });
    let body = body.ok_or("it is not a PUBLIC KEY in PEM form")?;
    let packed: String = body
        .chars()
        .filter(|character| !character.is_ascii_whitespace())
        .collect();
    STANDARD.decode(packed).map_err(|_| "its base64 is broken")
}

fn malformed(key: &str, problem: &'static str) -> KeySetError {
    KeySetError::Malformed {
        key: key.to_owned(),
        problem,
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Of a number without leading zeros.
fn bit_length(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - leading
}
