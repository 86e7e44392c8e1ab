//! What is not a clean HTTP request is refused, with its reason; what is clean is not changed.

use durward_policy::{MAX_TARGET_BYTES, RawRequest, Reason, RequestFacts};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;

struct Request<'a> {
    method: &'a str,
    target: &'a [u8],
    authority: Option<&'a str>,
    version: Version,
    fields: &'a [(&'a str, &'a str)],
}

const HOST: &[(&str, &str)] = &[("host", "shop.test")];

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            target: b"/",
            authority: None,
            version: Version::HTTP_11,
            fields: HOST,
        }
    }
}

impl Request<'_> {
    /// The host and the target that is forwarded.
    fn judge(&self) -> Result<(String, Vec<u8>), Reason> {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        let raw = RawRequest {
            method: &method,
            target: self.target,
            authority: self.authority,
            version: self.version,
            headers: &headers,
        };
        let facts = RequestFacts::judge(raw).map_err(|rejection| rejection.reason)?;
        assert_eq!(facts.target(), facts.forward_target());
        let query = facts
            .query()
            .map(|query| [b"?", query].concat())
            .unwrap_or_default();
        assert_eq!([facts.path(), &query].concat(), facts.target());
        Ok((facts.host().to_owned(), facts.forward_target().to_vec()))
    }

    fn reason(&self) -> Option<Reason> {
        self.judge().err()
    }
}

#[test]
fn versions() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(
            Request {
                version,
                ..Request::default()
            }
            .reason(),
            None,
            "{version:?}"
        );
    }
    for version in [Version::HTTP_09, Version::HTTP_3] {
        assert_eq!(
            Request {
                version,
                ..Request::default()
            }
            .reason(),
            Some(Reason::BadVersion),
            "{version:?}"
        );
    }
}

#[test]
fn methods_are_known_and_case_sensitive() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(
            Request {
                method,
                ..Request::default()
            }
            .reason(),
            None,
            "{method}"
        );
    }
    for method in ["get", "Delete", "TRACE", "TRACK", "CONNECT", "PROPFIND", "GETS"] {
        assert_eq!(
            Request {
                method,
                ..Request::default()
            }
            .reason(),
            Some(Reason::BadMethod),
            "{method}"
        );
    }
}

#[test]
fn a_request_names_one_host() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        for fields in [
            &[][..],
            &[("host", "")],
            &[("host", "a.test"), ("host", "a.test")],
            &[("host", "a.test"), ("host", "b.test")],
            &[("host", "a.test, b.test")],
            &[("host", "a.test/x")],
            &[("host", "a test")],
            &[("host", "user@a.test")],
            &[("host", "a.test:http")],
            &[("host", "a.test:99999")],
            &[("host", "http://a.test")],
        ] {
            assert_eq!(
                Request {
                    version,
                    fields,
                    ..Request::default()
                }
                .reason(),
                Some(Reason::BadHost),
                "{fields:?}"
            );
        }
    }
}

#[test]
fn authority_and_host_agree() {
    let judge = |authority, fields: &[(&str, &str)]| {
        Request {
            authority: Some(authority),
            fields,
            version: Version::HTTP_2,
            ..Request::default()
        }
        .judge()
    };
    assert_eq!(judge("Shop.test", &[]).unwrap().0, "shop.test");
    assert_eq!(judge("shop.test", HOST).unwrap().0, "shop.test");
    for authority in ["admin.test", "shop.test:81", "user@shop.test", "", "shop.test/x"] {
        assert_eq!(judge(authority, HOST), Err(Reason::BadHost), "{authority}");
    }
}

#[test]
fn targets_in_origin_form_pass_as_they_are() {
    for target in [
        "/", "/a/b?c=d", "/a%2Fb", "//a", "/a?", "/?a=/b", "/a/../b", "/~u/(x)", "/a?b?c",
    ] {
        let forwarded = Request {
            target: target.as_bytes(),
            ..Request::default()
        }
        .judge()
        .unwrap()
        .1;
        assert_eq!(forwarded, target.as_bytes());
    }
}

#[test]
fn targets_in_absolute_form_name_the_host() {
    let judge = |target: &str, version| {
        Request {
            target: target.as_bytes(),
            version,
            ..Request::default()
        }
        .judge()
    };
    for (target, forwarded) in [
        ("http://shop.test/a?b", "/a?b"),
        ("HTTPS://SHOP.test./a", "/a"),
        ("http://shop.test:80/a", "/a"),
        ("http://shop.test//a/../b", "//a/../b"),
    ] {
        assert_eq!(
            judge(target, Version::HTTP_11).unwrap().1,
            forwarded.as_bytes(),
            "{target}"
        );
        assert_eq!(judge(target, Version::HTTP_2), Err(Reason::BadTarget), "{target}");
    }
    for target in [
        "http://other.test/a",
        "http://shop.test:8080/a",
        "https://shop.test:80/a",
    ] {
        assert_eq!(judge(target, Version::HTTP_11), Err(Reason::BadHost), "{target}");
    }
    for target in [
        "http:///a",
        "http://u@shop.test/a",
        "http://shop.test@other.test/a",
        "http://shop.test?x=/a",
        "http://shop.test#/a",
        "http://shop.test\\@other/a",
        "ftp://shop.test/a",
        "http:/shop.test/a",
        "shop.test/a",
    ] {
        assert_eq!(
            judge(target, Version::HTTP_11),
            Err(Reason::BadTarget),
            "{target}"
        );
    }
}

#[test]
fn what_is_no_target_is_refused() {
    for target in [
        &b""[..],
        b"a/b",
        b" /a",
        b"/a b",
        b"/a#b",
        b"/a?b#c",
        b"/a?b c",
        b"/a\0",
        b"/a\tb",
        b"/a\x7f",
        b"/\xc3\xa9",
        b"/a?\xc3\xa9",
        b"/a%",
        b"/a%4",
        b"/a%zz",
        b"/a%00",
        b"/a%250d",
        b"?a",
        b"\\a",
        b"*",
        b"shop.test:443",
    ] {
        let reason = Request {
            target,
            ..Request::default()
        }
        .reason();
        assert_eq!(reason, Some(Reason::BadTarget), "{}", target.escape_ascii());
    }
    let asterisk = Request {
        method: "OPTIONS",
        target: b"*",
        ..Request::default()
    };
    assert_eq!(asterisk.reason(), Some(Reason::NoRoute));
}

#[test]
fn the_length_of_a_target_is_bounded() {
    let target = |length: usize| [b"/".as_slice(), &b"a".repeat(length - 1)].concat();
    assert_eq!(
        Request {
            target: &target(MAX_TARGET_BYTES),
            ..Request::default()
        }
        .reason(),
        None
    );
    let longer = target(MAX_TARGET_BYTES + 1);
    assert_eq!(
        Request {
            target: &longer,
            ..Request::default()
        }
        .reason(),
        Some(Reason::UriTooLong)
    );
}

#[test]
fn the_body_ends_where_all_agree() {
    for fields in [
        &[("content-length", "3"), ("transfer-encoding", "chunked")][..],
        &[("content-length", "3"), ("content-length", "3")],
        &[("content-length", "3, 3")],
        &[("content-length", "+3")],
        &[("Content_Length", "3")],
        &[("transfer-encoding", "chunked, chunked")],
        &[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "identity"),
        ],
    ] {
        let fields = [HOST, fields].concat();
        let reason = Request {
            method: "POST",
            fields: &fields,
            ..Request::default()
        }
        .reason();
        assert_eq!(reason, Some(Reason::BadFraming), "{fields:?}");
    }
}

proptest! {
    #[test]
    fn what_is_judged_is_what_came(target in "/[ -~]{0,40}") {
        let request = Request { target: target.as_bytes(), ..Request::default() };
        if let Ok((_, forwarded)) = request.judge() {
            prop_assert_eq!(forwarded, target.as_bytes());
        }
    }

    #[test]
    fn nothing_panics(
        target in prop::collection::vec(any::<u8>(), 0..60),
        authority in prop::option::of("\\PC{0,20}"),
        host in prop::collection::vec(32..=255_u8, 0..20),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_bytes(&host) {
            headers.insert(http::header::HOST, host);
        }
        let raw = RawRequest {
            method: &Method::GET,
            target: &target,
            authority: authority.as_deref(),
            version: Version::HTTP_11,
            headers: &headers,
        };
        let _ = RequestFacts::judge(raw);
    }
}
