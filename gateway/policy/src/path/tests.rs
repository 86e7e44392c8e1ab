use std::collections::BTreeSet;

use proptest::prelude::*;

use super::readings::{MAX_READING_BYTES, MAX_READINGS, TooManyReadings, successors};
use super::{JudgedPath, decoded_value, fold, folds, judge_query, readings};

fn read(path: &str) -> BTreeSet<String> {
    let text = |reading: readings::Reading| reading.bytes.escape_ascii().to_string();
    readings(path.as_bytes()).unwrap().into_iter().map(text).collect()
}

#[test]
fn what_no_path_has_is_refused() {
    for path in [
        "",
        "a",
        "*",
        "a/b",
        " /a",
        "/a b",
        "/a ",
        "/a\tb",
        "/a\0",
        "/a\rb",
        "/a\nb",
        "/a\x7f",
        "/a#b",
        "/a#",
        "/\u{e9}",
        "/%",
        "/%4",
        "/%zz",
        "/%4g",
        "/%g4",
        "/a%",
        "/%+41",
        "/% 41",
        "/%u0041",
        // Controls, escaped once and twice.
        "/a%00",
        "/a%0a",
        "/a%0D",
        "/a%1f",
        "/a%7f",
        "/a%7F/b",
        "/a%09b",
        "/a%2500",
        "/a%250a",
        "/a%25%30%30",
        "/a%257f",
        "/%2%35%30%30",
    ] {
        assert!(JudgedPath::judge(path.as_bytes()).is_err(), "{path:?}");
    }
    assert!(JudgedPath::judge(b"/\xff").is_err());
}

#[test]
fn what_some_backend_wants_passes() {
    for path in [
        "/",
        "//",
        "/a",
        "/a/",
        "/.well-known/x",
        "/a.b/..c/...",
        "/a%20b",
        "/a%2Fb",
        "/caf%C3%A9",
        "/100%25",
        "/100%25%20",
        "/a;v=1/b",
        "/a\\b",
        "/a:b@c!$&'()*+,=~-_",
        "/{a}|b^c`d\"<>",
        "/%252500",
    ] {
        assert!(JudgedPath::judge(path.as_bytes()).is_ok(), "{path:?}");
    }
}

#[test]
fn a_query_is_judged_for_raw_bytes_only() {
    for query in ["", "a=b", "q=100%", "a=%00", "a=/../&b=//;?", "a=\"<>\\^`{|}"] {
        assert!(judge_query(query.as_bytes()).is_ok(), "{query:?}");
    }
    for query in [" ", "a b", "a#b", "\0", "\t", "\x7f", "\u{e9}"] {
        assert!(judge_query(query.as_bytes()).is_err(), "{query:?}");
    }
}

#[test]
fn only_what_can_be_read_otherwise_is_special() {
    for (path, special) in [
        ("/", false),
        ("/api/v1/notes", false),
        ("/API/notes/", false),
        ("/.well-known/jwks.json", false),
        ("/a/..b/c..", false),
        ("/a/...", false),
        ("//", true),
        ("/a//b", true),
        ("/a/./b", true),
        ("/a/..", true),
        ("/.", true),
        ("/a%41", true),
        ("/a;b", true),
        ("/a\\b", true),
    ] {
        let judged = JudgedPath::judge(path.as_bytes()).unwrap();
        assert_eq!(judged.is_special(), special, "{path}");
        assert_eq!(judged.bytes(), path.as_bytes());
    }
}

#[test]
fn readings_are_what_backends_make_of_a_path() {
    for (path, reading) in [
        ("/public/../admin", "/admin"),
        ("/public/./x", "/public/x"),
        ("/a/..", "/"),
        ("/../../a", "/a"),
        ("/a/b/.", "/a/b/"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/public/.%2E/admin", "/admin"),
        ("/public/%252e%252e/admin", "/admin"),
        ("/public/..%2fadmin", "/admin"),
        ("/public/..%5cadmin", "/admin"),
        ("/public\\..\\admin", "/admin"),
        ("/public/..;/admin", "/admin"),
        ("/public/..;a=b/admin", "/admin"),
        ("/public/%2e%2e;x/admin", "/admin"),
        ("/public/..%3bx/admin", "/admin"),
        ("//admin", "/admin"),
        ("/%2fadmin", "/admin"),
        ("/;/admin", "/admin"),
        ("/admin/", "/admin"),
        ("/admin//", "/admin"),
        ("/admin;x=1", "/admin"),
        ("/admin%3Fx", "/admin"),
        ("/admin%23x", "/admin"),
        ("/admin%253fx", "/admin"),
        ("/%61dmin", "/admin"),
        ("/%2561dmin", "/admin"),
        ("/a%2fb%2f..%2f..%2fadmin", "/admin"),
        ("/admin%c0%afx", "/admin/x"),
        ("/public/%c0%ae%e0%80%ae/admin", "/admin"),
        // Split at raw slashes first, each segment decoded then.
        ("/a%2Fb/%73ecret", "/a%2Fb/secret"),
        ("/a%5Cb%25/%2561", "/a%5Cb%/%61"),
        // Escaped dots resolved while an escaped slash is not, and decoded only then.
        ("/a/%2e%2e/admin%2f..%2fa/x", "/admin/../a/x"),
    ] {
        assert!(read(path).contains(reading), "{path}: {:?}", read(path));
    }
    assert_eq!(read("/a/b"), BTreeSet::from(["/a/b".to_owned()]));
    assert_eq!(read("/"), BTreeSet::from(["/".to_owned()]));
    // Three decodings are no reading.
    assert!(!read("/%252561dmin").contains("/admin"));
}

#[test]
fn readings_are_bounded() {
    let slashes = |count: usize| format!("/a{}", "/".repeat(count));
    assert_eq!(
        readings(slashes(MAX_READINGS - 1).as_bytes()).unwrap().len(),
        MAX_READINGS
    );
    assert_eq!(readings(slashes(MAX_READINGS).as_bytes()), Err(TooManyReadings));
    // Each has four: two by a trailing slash, two by a backslash.
    let long = |bytes: usize| format!("/a\\{}/", "x".repeat(bytes - 4));
    let quarter = MAX_READING_BYTES / 4;
    assert_eq!(readings(long(quarter).as_bytes()).unwrap().len(), 4);
    assert_eq!(readings(long(quarter + 1).as_bytes()), Err(TooManyReadings));
}

#[test]
fn folding_knows_the_letters_beyond_ascii() {
    assert_eq!(fold("/AdMiN/\u{212a}ey\u{17f}".as_bytes()), b"/admin/keys");
    assert!(folds(b"/A") && folds("/\u{212a}".as_bytes()) && folds("/\u{17f}".as_bytes()));
    assert!(!folds("/a/\u{e9}".as_bytes()));
}

/// Paths made of what is special about paths.
fn tricky_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", "a", "B", ".", "..", "%2e", "%2F", "%5c", "%25", "2f", "2e", ";", ";x", "\\", "%3f", "%23",
        "%c0%af", "%252e", "admin",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn readings_are_closed(path in tricky_path()) {
        if let Ok(all) = readings(path.as_bytes()) {
            prop_assert_eq!(&all[0].bytes, path.as_bytes());
            prop_assert!(all.len() <= MAX_READINGS);
            for reading in &all {
                prop_assert_eq!(reading.bytes[0], b'/');
                for next in successors(reading) {
                    prop_assert!(all.iter().any(|known| known.covers(&next)), "{:?}", next);
                }
            }
        }
    }

    #[test]
    fn a_path_that_is_not_special_has_no_reading_but_the_two(path in tricky_path()) {
        if let Ok(judged) = JudgedPath::judge(path.as_bytes()) {
            if judged.is_special() {
                return Ok(());
            }
            for reading in readings(path.as_bytes()).unwrap() {
                let known = reading.bytes == judged.bytes() || Some(&*reading.bytes) == judged.without_trailing_slash();
                prop_assert!(known, "{:?}", reading);
            }
            prop_assert_eq!(judged.has_upper(), folds(judged.bytes()));
        }
    }

    #[test]
    fn judging_never_changes_a_path_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(judged) = JudgedPath::judge(&bytes) {
            prop_assert_eq!(judged.bytes(), &*bytes);
        }
        let mut path = vec![b'/'];
        path.extend(&bytes);
        let _ = readings(&path);
    }

    #[test]
    fn no_reading_of_a_judged_path_has_a_control(path in tricky_path(), byte in 0..=u8::MAX) {
        let path = format!("{path}%{byte:02x}");
        if JudgedPath::judge(path.as_bytes()).is_ok() {
            for reading in readings(path.as_bytes()).unwrap_or_default() {
                prop_assert!(!reading.bytes.iter().any(u8::is_ascii_control), "{:?}", reading);
            }
        }
    }

    #[test]
    fn folding_is_idempotent(path in tricky_path()) {
        let folded = fold(path.as_bytes());
        prop_assert!(!folds(&folded));
        prop_assert_eq!(fold(&folded), folded);
    }

    #[test]
    fn a_value_is_decoded_once(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        let escaped: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(&*decoded_value(escaped.as_bytes()), &*bytes);
    }
}
