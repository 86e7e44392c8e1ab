//! Which HTTP/2 messages become requests, and what of them a backend of HTTP/1.1 is sent: RFC 9113
//! section 8, and the attacks that live off the difference between the two.

use durward_testing::http2::error_code::{CANCEL, PROTOCOL_ERROR};
use durward_testing::http2::{Frame, Outcome, flag, frame_type};

use super::{Case, GET, POST, Want, block, open, run};
use crate::end_to_end::edge::Edge;

type Fields<'f> = Vec<(&'f str, &'f str)>;

const MALFORMED: Want = Want::StreamError(&[PROTOCOL_ERROR]);

fn with<'f>(fields: &[(&'f str, &'f str)], more: &[(&'f str, &'f str)]) -> Fields<'f> {
    [fields, more].concat()
}

/// The usual fields with another value of one.
fn changed<'f>(name: &str, value: &'f str) -> Fields<'f> {
    GET.iter()
        .map(|(its, had)| if *its == name { (*its, value) } else { (*its, *had) })
        .collect()
}

fn without(name: &str) -> Fields<'static> {
    GET.into_iter().filter(|(its, _)| *its != name).collect()
}

fn head(what: &'static str, section: &'static str, fields: &Fields<'_>, want: Want) -> Case {
    let send = vec![Frame::headers(1, block(fields), true)];
    Case {
        section,
        what,
        send,
        want,
    }
}

fn message(
    what: &'static str,
    section: &'static str,
    fields: &Fields<'_>,
    rest: &[Frame],
    want: Want,
) -> Case {
    let send = [&[Frame::headers(1, block(fields), false)], rest].concat();
    Case {
        section,
        what,
        send,
        want,
    }
}

#[test]
fn fields_are_those_of_a_request() {
    let edge = Edge::start("");
    let more = |name, value| with(&GET, &[(name, value)]);
    let first: Fields<'_> = with(&[("x-a", "b")], &GET);
    run(
        &edge,
        &[
            head(
                "an upper-case name",
                "8.2.1",
                &more("X-User-Id", "mallory"),
                MALFORMED,
            ),
            head(
                "a name with a space",
                "8.2.1",
                &more("x-user-id ", "mallory"),
                MALFORMED,
            ),
            head(
                "a name with a colon",
                "8.2.1",
                &more("x-user:id", "mallory"),
                MALFORMED,
            ),
            head(
                "a name with a line feed",
                "8.2.1",
                &more("x-a\nx-user-id", "mallory"),
                MALFORMED,
            ),
            head(
                "a name with a byte beyond ASCII",
                "8.2.1",
                &more("x-\u{e9}", "mallory"),
                MALFORMED,
            ),
            head("an empty name", "8.2.1", &more("", "mallory"), MALFORMED),
            head(
                "a value with CR LF",
                "8.2.1",
                &more("x-a", "b\r\nx-user-id: mallory"),
                MALFORMED,
            ),
            head(
                "a value with LF",
                "8.2.1",
                &more("x-a", "b\nx-user-id: mallory"),
                MALFORMED,
            ),
            head("a value with CR", "8.2.1", &more("x-a", "b\rc"), MALFORMED),
            head("a value with NUL", "8.2.1", &more("x-a", "b\0c"), MALFORMED),
            head(
                "Connection",
                "8.2.2",
                &more("connection", "keep-alive"),
                MALFORMED,
            ),
            head(
                "Connection that names the identity",
                "8.2.2",
                &more("connection", "x-user-id"),
                MALFORMED,
            ),
            head(
                "Proxy-Connection",
                "8.2.2",
                &more("proxy-connection", "keep-alive"),
                MALFORMED,
            ),
            head("Keep-Alive", "8.2.2", &more("keep-alive", "5"), MALFORMED),
            head("Upgrade", "8.2.2", &more("upgrade", "websocket"), MALFORMED),
            head(
                "Transfer-Encoding",
                "8.2.2",
                &more("transfer-encoding", "chunked"),
                MALFORMED,
            ),
            head(
                "TE of more than trailers",
                "8.2.2",
                &more("te", "trailers, deflate"),
                MALFORMED,
            ),
            head(
                "TE: trailers",
                "8.2.2",
                &more("te", "trailers"),
                Want::Status(200),
            ),
            head("an unknown pseudo-header", "8.3", &more(":foo", "x"), MALFORMED),
            head(
                "a pseudo-header of responses",
                "8.3",
                &more(":status", "200"),
                MALFORMED,
            ),
            head("a pseudo-header after a field", "8.3", &first, MALFORMED),
            head("two :method", "8.3.1", &more(":method", "POST"), MALFORMED),
            head("two :path", "8.3.1", &more(":path", "/api/x"), MALFORMED),
            head("two :scheme", "8.3.1", &more(":scheme", "https"), MALFORMED),
            head(
                "two :authority",
                "8.3.1",
                &more(":authority", "edge.example"),
                MALFORMED,
            ),
            head("no :method", "8.3.1", &without(":method"), MALFORMED),
            head("no :scheme", "8.3.1", &without(":scheme"), MALFORMED),
            head("no :path", "8.3.1", &without(":path"), MALFORMED),
            head("an empty :path", "8.3.1", &changed(":path", ""), MALFORMED),
            head(
                "Host beside the same :authority",
                "8.3.1",
                &more("host", "edge.example"),
                Want::Status(200),
            ),
            head(
                "Host beside another :authority",
                "8.3.1",
                &more("host", "other.example"),
                Want::Status(400),
            ),
            head(
                "userinfo in :authority",
                "8.3.1",
                &changed(":authority", "mallory@edge.example"),
                Want::Status(400),
            ),
            head(
                "CONNECT with a :path",
                "8.5",
                &changed(":method", "CONNECT"),
                MALFORMED,
            ),
        ],
    );
    // What was refused was not forwarded; what was forwarded is one request each, and the last one.
    assert_eq!(edge.backend.count(), 3);
}

#[test]
fn a_message_is_as_long_as_it_says() {
    let edge = Edge::start("");
    let length = |value| with(&POST, &[("content-length", value)]);
    let data = |text: &str, end| Frame::data(1, text, end);
    let trailers = |fields: &[(&str, &str)], end| {
        let end = if end { flag::END_STREAM } else { flag::NONE };
        Frame::new(frame_type::HEADERS, flag::END_HEADERS | end, 1, block(fields))
    };
    let smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";
    // Where the head has been forwarded already, the end of the body is what is missing.
    let cut = Want::StreamError(&[PROTOCOL_ERROR, CANCEL]);
    run(
        &edge,
        &[
            message(
                "a body that is too short",
                "8.1.1",
                &length("5"),
                &[data("abc", true)],
                cut,
            ),
            message(
                "a body that is too long",
                "8.1.1",
                &length("1"),
                &[data("abc", true)],
                cut,
            ),
            message(
                "two pieces that are too long together",
                "8.1.1",
                &length("3"),
                &[data("ab", false), data("cd", true)],
                cut,
            ),
            message(
                "a length that is none",
                "8.1.1",
                &length("three"),
                &[data("abc", true)],
                MALFORMED,
            ),
            message(
                "two lengths",
                "8.1.1",
                &with(&length("3"), &[("content-length", "4")]),
                &[data("abc", true)],
                MALFORMED,
            ),
            message(
                "a body as long as it says",
                "8.1.1",
                &length("3"),
                &[data("abc", true)],
                Want::Status(200),
            ),
            message(
                "trailers",
                "8.1",
                &POST.to_vec(),
                &[data("abc", false), trailers(&[("x-trailer", "a")], true)],
                Want::Status(200),
            ),
            message(
                "a second head that does not end the stream",
                "8.1",
                &POST.to_vec(),
                &[trailers(&[("x-trailer", "a")], false)],
                cut,
            ),
            // Trailers end at the gateway, whatever they say: docs/CONFORMANCE.md.
            message(
                "a pseudo-header in trailers",
                "8.1",
                &POST.to_vec(),
                &[data("abc", false), trailers(&[(":method", "GET")], true)],
                Want::Status(200),
            ),
            message(
                "a body that looks like a request",
                "8.1",
                &POST.to_vec(),
                &[data(smuggled, true)],
                Want::Status(200),
            ),
            message(
                "a body of GET that looks like a request",
                "8.1",
                &GET.to_vec(),
                &[data(smuggled, true)],
                Want::Status(200),
            ),
        ],
    );
    let heads = edge.backend.heads();
    assert!(
        heads.iter().all(|head| head.contains(" /public/x HTTP/1.1\r\n")),
        "{heads:?}"
    );
    assert!(heads.iter().all(|head| !head.contains("x-trailer")), "{heads:?}");
}

#[test]
fn paths_and_methods_are_judged_as_in_http1() {
    let edge = Edge::start("");
    for (fields, status) in [
        (changed(":path", "*"), 400),
        (changed(":path", "http://evil.example/public/x"), 400),
        (changed(":path", "public/x"), 400),
        (changed(":path", "/public /api/x"), 400),
        (
            changed(":path", "/public/x HTTP/1.1\r\nX-User-Id: mallory\r\n\r\n"),
            400,
        ),
        (changed(":path", "/public\\..\\api\\x"), 400),
        (changed(":path", "/public/../api/x"), 400),
        (changed(":path", "/public/%2e%2e/api/x"), 400),
        (changed(":path", "//api/x"), 400),
        // The library cuts a fragment off before anybody sees it: docs/CONFORMANCE.md.
        (changed(":path", "/public/x#y"), 200),
        (changed(":path", "/nowhere"), 404),
        (changed(":path", "/api/x"), 401),
        (changed(":method", "TRACE"), 405),
        (changed(":method", "get"), 405),
        (changed(":scheme", "https"), 200),
        (changed(":authority", "edge.example:8080"), 200),
        (changed(":authority", "edge.example:x"), 400),
        (changed(":authority", "a b"), 400),
        (changed(":authority", ""), 400),
        (without(":authority"), 400),
        (with(&without(":authority"), &[("host", "edge.example")]), 200),
        (with(&GET, &[("cookie", "a=b"), ("cookie", "c=d")]), 200),
    ] {
        println!("case {fields:?}");
        let before = edge.backend.count();
        let outcome = open(&edge).ask(&fields, None).unwrap();
        let forwarded = edge.backend.count() - before;
        match outcome {
            Outcome::Response { status: got, .. } => {
                let fits = got == status || (status == 405 && [400, 501].contains(&got));
                assert!(fits, "{fields:?}: {got}");
                assert_eq!(forwarded, usize::from(got == 200), "{fields:?}");
                let heads = edge.backend.heads();
                let line = heads.last().map_or("", String::as_str);
                assert!(
                    forwarded == 0 || line.starts_with("GET /public/x HTTP/1.1\r\n"),
                    "{line}"
                );
            }
            // What no field value may hold is refused before it is a request.
            Outcome::Reset(PROTOCOL_ERROR) | Outcome::GoneAway(PROTOCOL_ERROR) => {
                assert!(status == 400 && forwarded == 0, "{fields:?}");
            }
            outcome => panic!("{fields:?}: {outcome:?}"),
        }
    }
    // RFC 9113 section 8.2.3.
    let head = edge.backend.last();
    assert!(head.contains("\r\ncookie: a=b; c=d\r\n"), "{head}");
}

#[test]
fn an_identity_is_set_once_under_one_name() {
    let edge = Edge::start("");
    let token = format!("Bearer {}", edge.token("alice"));
    let api = || with(&changed(":path", "/api/x"), &[("authorization", &*token)]);
    for alias in ["x-user-id", "x_user_id", "x.user.id", "x-user_id", "x~user~id"] {
        println!("case {alias}");
        let fields = with(&api(), &[(alias, "mallory"), (alias, "root")]);
        let outcome = open(&edge).ask(&fields, None).unwrap();
        assert!(
            matches!(outcome, Outcome::Response { status: 200, .. }),
            "{outcome:?}"
        );
        let head = edge.backend.last();
        assert!(!head.contains("mallory") && !head.contains("root"), "{head}");
        assert_eq!(
            head.to_lowercase().matches("user-id: alice\r\n").count(),
            1,
            "{head}"
        );
    }
    println!("case two credentials");
    let fields = with(&api(), &[("authorization", &*token)]);
    let outcome = open(&edge).ask(&fields, None).unwrap();
    assert!(
        matches!(outcome, Outcome::Response { status: 400, .. }),
        "{outcome:?}"
    );
}

#[test]
fn a_header_that_is_too_large_is_refused() {
    let edge = Edge::start("");
    let large = "a".repeat(70_000);
    println!("case a field of 70,000 bytes");
    let fields = block(&with(&GET, &[("x-a", &*large)]));
    let mut connection = open(&edge);
    let pieces: Vec<&[u8]> = fields.chunks(16_000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let end = if at + 1 == pieces.len() {
            flag::END_HEADERS
        } else {
            flag::NONE
        };
        let frame = if at == 0 {
            Frame::new(frame_type::HEADERS, end | flag::END_STREAM, 1, *piece)
        } else {
            Frame::new(frame_type::CONTINUATION, end, 1, *piece)
        };
        if connection.send(&frame).is_err() {
            break;
        }
    }
    let outcome = connection.outcome(1).unwrap();
    let refused = matches!(
        outcome,
        Outcome::Response { status: 431, .. } | Outcome::Closed | Outcome::Reset(_) | Outcome::GoneAway(_)
    );
    assert!(refused, "{outcome:?}");
    assert_eq!(edge.backend.count(), 0);
    println!("case 300 fields");
    let names: Vec<String> = (0..300).map(|number| format!("x-{number}")).collect();
    let many: Fields<'_> = names.iter().map(|name| (&**name, "a")).collect();
    let outcome = open(&edge).ask(&with(&GET, &many), None).unwrap();
    let refused = matches!(
        outcome,
        Outcome::Response {
            status: 400 | 431,
            ..
        } | Outcome::Reset(_)
    );
    assert!(refused, "{outcome:?}");
    assert_eq!(edge.backend.count(), 0);
}
