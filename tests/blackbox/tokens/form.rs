//! What is no token, or no whole one.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{encoded, stand};
use crate::harness::{claims, mint, sign};

#[test]
fn no_signature_but_a_whole_one() {
    let stand = stand();
    let good = mint(&stand.es256, &claims("alice"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let flipped: Vec<u8> = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if at == 7 { byte ^ 1 } else { *byte })
        .collect();
    let doubled = [&bytes[..], &bytes[..]].concat();
    let zero_s = [&bytes[..32], &[0; 32]].concat();
    let padded = [&[0][..], &bytes[..32], &[0], &bytes[32..]].concat();
    for (told, signature) in [
        ("empty", &[][..]),
        ("one byte", &[1]),
        ("zeros", &[0; 64]),
        ("ones", &[255; 64]),
        ("half", &bytes[..32]),
        ("flipped", &flipped),
        ("doubled", &doubled),
        ("s of zero", &zero_s),
        ("66 bytes", &padded),
    ] {
        stand.assert_refused(&with(signature), &["bad_signature", "token_malformed"], told);
    }
    let (header, _) = signed.split_once('.').unwrap();
    let other = format!("{header}.{}.{signature}", encoded(&claims("root")));
    stand.assert_refused(&other, &["bad_signature"], "another payload");
}

#[test]
fn no_shape_but_that_of_a_token() {
    let stand = stand();
    let good = mint(&stand.es256, &claims("alice"));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let shape = &[
        "token_malformed",
        "malformed_credential",
        "bad_signature",
        "token_too_large",
    ][..];
    let mut last = signature.to_owned();
    // The last of 86 characters holds four bits that count and two that must be zero.
    let end = last.pop().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    last.push(alphabet.chars().nth(alphabet.find(end).unwrap() + 1).unwrap());
    let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(payload).unwrap());
    for (told, token) in [
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        (
            "five parts",
            format!("{header}..{payload}.{signature}.{signature}"),
        ),
        ("leading dot", format!(".{good}")),
        ("trailing dot", format!("{good}.")),
        ("no header", format!(".{payload}.{signature}")),
        ("no payload", format!("{header}..{signature}")),
        ("padding", format!("{good}==")),
        ("padding inside", format!("{header}=.{payload}.{signature}")),
        (
            "other alphabet",
            format!("{header}.{}.{signature}", standard.replace('-', "+")),
        ),
        ("plus", format!("{good}+")),
        ("not canonical", format!("{header}.{payload}.{last}")),
        ("percent", format!("{header}%2E{payload}.{signature}")),
        ("one character more", format!("{good}A")),
        ("words", "null".to_owned()),
        ("large", format!("{header}.{}.{signature}", "A".repeat(20_000))),
    ] {
        stand.assert_refused(&token, shape, told);
    }
    for (told, payload) in [
        ("a list", b"[1]".to_vec()),
        ("a text", b"\"x\"".to_vec()),
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("trailing", format!("{}{{}}", claims("alice")).into_bytes()),
        (
            "a byte order mark",
            format!("\u{feff}{}", claims("alice")).into_bytes(),
        ),
        ("half", claims("alice").to_string().into_bytes()[..40].to_vec()),
        (
            "not UTF-8",
            claims("alice")
                .to_string()
                .replace("alice", "al\u{0}ce")
                .into_bytes()
                .iter()
                .map(|byte| if *byte == 0 { 255 } else { *byte })
                .collect(),
        ),
        (
            "a lone surrogate",
            claims("alice")
                .to_string()
                .replace("alice", "al\\ud800ice")
                .into_bytes(),
        ),
        (
            "depth",
            format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000)).into_bytes(),
        ),
        (
            "a comment",
            claims("alice").to_string().replacen('{', "{/**/", 1).into_bytes(),
        ),
        (
            "a trailing comma",
            claims("alice").to_string().replace('}', ",}").into_bytes(),
        ),
    ] {
        stand.assert_refused(
            &stand.with_payload(payload),
            &["token_malformed", "token_too_large"],
            told,
        );
    }
}

#[test]
fn nothing_is_said_twice() {
    let stand = stand();
    let text = claims("alice").to_string();
    for member in [
        "\"sub\":\"root\"",
        "\"sub\":\"alice\"",
        "\"s\\u0075b\":\"root\"",
        "\"exp\":4102444800",
        "\"aud\":\"gateway\"",
        "\"iss\":\"https://other.example.test\"",
        "\"x\":1,\"x\":2",
        "\"x\":{\"y\":1,\"y\":2}",
    ] {
        for payload in [
            text.replacen('{', &format!("{{{member},"), 1),
            text.replace('}', &format!(",{member}}}")),
        ] {
            stand.assert_refused(&stand.with_payload(payload), &["token_malformed"], member);
        }
    }
    for header in [
        r#"{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"zz","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"JWT","t\u0079p":"at+jwt","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"e1","foo":1,"foo":2}"#,
    ] {
        let token = sign(&stand.es256, header.as_bytes(), text.as_bytes());
        stand.assert_refused(&token, &["token_malformed"], header);
    }
}
