//! What is not a clean HTTP request is refused, and not a byte of it reaches a backend.

use crate::harness::{Answer, Backend, FOREIGN, Key, Service, Setup, get, post};

struct Stand {
    backend: Backend,
    service: Service,
}

fn stand() -> Stand {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .append("  - { path: /read/**, upstream: api, access: public, methods: [GET] }\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    Stand { backend, service }
}

impl Stand {
    /// Sends a request in which `@` stands for the Host field's line.
    fn send(&self, request: &[u8]) -> Vec<Answer> {
        let host = format!("Host: {}\r\n", self.service.edge);
        let parts: Vec<&[u8]> = request.splitn(2, |byte| *byte == b'@').collect();
        let request = parts.join(host.as_bytes());
        self.service.raw(&request)
    }

    /// Asserts one refusal with one of these statuses, the end of the connection, and a backend that
    /// saw nothing.
    #[track_caller]
    fn assert_refused(&self, request: &[u8], statuses: &[u16]) {
        let told = request[..request.len().min(200)].escape_ascii().to_string();
        println!("case {told}");
        let answers = self.send(request);
        let got: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(got.len() == 1 && statuses.contains(&got[0]), "{told}: {got:?}");
        let seen = self.backend.take();
        assert!(seen.is_empty(), "{told}: {seen:?}");
    }
}

#[test]
fn a_clean_request_goes_through() {
    let stand = stand();
    for request in [
        &b"GET /public/x HTTP/1.1\r\n@\r\n"[..],
        b"get /public/x HTTP/1.1\r\n@\r\n",
        b"GET /public/x HTTP/1.1\r\nX-A:b\r\n@X-C:  d  \r\n\r\n",
        b"OPTIONS /public/x HTTP/1.1\r\n@\r\n",
        b"POST /public/x HTTP/1.1\r\n@Content-Length: 3\r\n\r\nabc",
        b"POST /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /public/x HTTP/1.1\r\n@Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /public/x HTTP/1.1\r\n@Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /public/x HTTP/1.1\r\n@Content-Length: 0\r\n\r\n",
        b"GET /public/x HTTP/1.0\r\n@\r\n",
    ] {
        let told = request.escape_ascii().to_string();
        println!("case {told}");
        let answers = stand.send(request);
        // A lower-case method is another method, which a public route without a list carries or not.
        if request.starts_with(b"get") && answers[0].status != 200 {
            assert!(matches!(answers[0].status, 400 | 405 | 501), "{told}");
            continue;
        }
        assert_eq!(answers.len(), 1, "{told}");
        assert_eq!(answers[0].status, 200, "{told}: {}", answers[0].text());
        let seen = stand.backend.take_one();
        let body = seen.body.windows(3).any(|window| window == b"abc");
        assert_eq!(body, told.contains("abc"), "{told}: {seen:?}");
    }
}

#[test]
fn a_host_is_asked_for_and_must_be_one() {
    let stand = stand();
    let host = stand.service.edge;
    for lines in [
        String::new(),
        format!("Host: {host}\r\nHost: {host}\r\n"),
        format!("Host: {host}\r\nHost: other.test\r\n"),
        format!("Host: {host}, other.test\r\n"),
        format!("Host: {host}/x\r\n"),
        format!("Host: user@{host}\r\n"),
        "Host:\r\n".into(),
        "Host: a b\r\n".into(),
        "Host: gw.test:abc\r\n".into(),
        "Host: gw.test:99999\r\n".into(),
        "Host: gw.test\\x\r\n".into(),
        "Host: [::1\r\n".into(),
        "Host: gw.test?x\r\n".into(),
        "Host: gw.test#x\r\n".into(),
        "Host: gw_%zz.test\r\n".into(),
        "Host: \x0bgw.test\r\n".into(),
    ] {
        stand.assert_refused(
            format!("GET /public/x HTTP/1.1\r\n{lines}\r\n").as_bytes(),
            &[400],
        );
    }
}

#[test]
fn a_request_line_is_three_words() {
    let stand = stand();
    for (request, statuses) in [
        (&b"GET  /public/x HTTP/1.1\r\n@\r\n"[..], &[400][..]),
        (b" GET /public/x HTTP/1.1\r\n@\r\n", &[400]),
        (b"GET /public/x HTTP/1.1 \r\n@\r\n", &[400]),
        (b"GET\t/public/x HTTP/1.1\r\n@\r\n", &[400]),
        (b"GET /public/x\r\n@\r\n", &[400]),
        (b"GET HTTP/1.1\r\n@\r\n", &[400]),
        (b"/public/x HTTP/1.1\r\n@\r\n", &[400]),
        (b"GET /public/x http/1.1\r\n@\r\n", &[400, 505]),
        (b"GET /public/x HTTP/1.2\r\n@\r\n", &[400, 505]),
        (b"GET /public/x HTTP/0.9\r\n@\r\n", &[400, 505]),
        (b"GET /public/x HTTP/2.0\r\n@\r\n", &[400, 505]),
        (b"GET /public/x HTTP/3.0\r\n@\r\n", &[400, 505]),
        (b"GET /public/x HTTP/11\r\n@\r\n", &[400, 505]),
        (b"G\x00T /public/x HTTP/1.1\r\n@\r\n", &[400]),
        (b"G(T /public/x HTTP/1.1\r\n@\r\n", &[400]),
        (b"TRACE /public/x HTTP/1.1\r\n@\r\n", &[405, 501]),
        (b"CONNECT other.test:443 HTTP/1.1\r\n@\r\n", &[400, 405, 501]),
    ] {
        stand.assert_refused(request, statuses);
    }
}

/// Pingora would escape it and go on; `checked_stream.rs` sees to it that it is refused.
#[test]
fn what_no_target_may_hold_is_refused() {
    let stand = stand();
    for target in [
        "/public/x ",
        "/public/ /admin/x",
        "/public/x HTTP/1.1",
        "/public/<x>",
        "/public/\"x\"",
        "/public/x\tHTTP/1.1",
        "/public/x?a b",
        "/public/../admin/ x",
        "/public /../admin/x",
        "/admin /x",
        "/public/x /../../admin/x",
    ] {
        stand.assert_refused(format!("GET {target} HTTP/1.1\r\n@\r\n").as_bytes(), &[400]);
    }
    // On a connection that was used before, too, and behind a body.
    let mut connection = stand.service.connect();
    for _ in 0..2 {
        connection
            .ask(&post("/public/x").body(*b"GET /public/a b HTTP/1.1\r\n"))
            .expect(200);
        assert_eq!(stand.backend.take_one().line(), "POST /public/x HTTP/1.1");
    }
    connection.send(b"GET /public/a b HTTP/1.1\r\nHost: x\r\n\r\n");
    connection.answer().unwrap().expect_refusal(400, "bad_target");
    assert!(stand.backend.take().is_empty());
}

#[test]
fn a_method_that_the_route_does_not_list_is_refused() {
    let stand = stand();
    for method in ["POST", "DELETE", "HEAD", "OPTIONS", "get", "Get", "GETX", "FOO"] {
        println!("case {method}");
        let answers = stand.send(format!("{method} /read/x HTTP/1.1\r\n@\r\n").as_bytes());
        assert!(
            matches!(answers[0].status, 400 | 405 | 501),
            "{method}: {}",
            answers[0].status
        );
        if answers[0].status == 405 {
            assert_eq!(answers[0].header("allow"), "GET", "{method}");
        }
        assert!(stand.backend.take().is_empty(), "{method}");
    }
    // The override that some frameworks know is the backend's affair, and changes nothing here.
    let overridden =
        stand.send(b"POST /read/x HTTP/1.1\r\n@X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        (overridden[0].status, overridden[0].reason().as_str()),
        (405, "method_not_allowed")
    );
}

#[test]
fn a_bodys_length_is_beyond_doubt() {
    let stand = stand();
    let smuggled = "GET /admin/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5, 50\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: five\r\n",
        "Content-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ] {
        let request = format!("POST /public/x HTTP/1.1\r\n@{lines}\r\n0\r\n\r\n{smuggled}");
        println!("case {lines:?}");
        let answers = stand.send(request.as_bytes());
        assert!(
            matches!(answers[0].status, 400 | 413 | 501),
            "{lines:?}: {}",
            answers[0].status
        );
        assert_eq!(answers.len(), 1, "{lines:?}: {answers:?}");
        let seen = stand.backend.take();
        assert!(seen.is_empty(), "{lines:?}: {seen:?}");
    }
    stand.assert_refused(
        format!("POST /public/x HTTP/1.0\r\n@Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")
            .as_bytes(),
        &[400, 501],
    );
}

#[test]
fn a_malformed_chunk_never_becomes_a_request() {
    let stand = stand();
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for body in [
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3;ext=\"a\r\nb\"\r\nabc\r\n0\r\n\r\n",
        "z\r\nabc\r\n0\r\n\r\n",
        "3\r\nab",
    ] {
        let request =
            format!("POST /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n{body}{smuggled}");
        println!("case {body:?}");
        let answers = stand.send(request.as_bytes());
        assert!(answers.len() <= 1, "{body:?}: {answers:?}");
        let seen = stand.backend.take();
        assert!(seen.len() <= 1, "{body:?}: {seen:?}");
        assert!(
            seen.iter()
                .all(|request| request.line().starts_with("POST /public/x ")),
            "{body:?}: {seen:?}"
        );
    }
}

#[test]
fn pipelined_requests_are_judged_one_by_one() {
    let stand = stand();
    let request =
        b"POST /public/a HTTP/1.1\r\n@Content-Length: 3\r\n\r\nabcGET /admin/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = stand.send(request);
    assert_eq!(answers[0].status, 200);
    assert!(
        answers[1..].iter().all(|answer| answer.status == 401),
        "{answers:?}"
    );
    assert_eq!(stand.backend.take_one().line(), "POST /public/a HTTP/1.1");
}

#[test]
fn header_lines_are_what_they_look_like() {
    let stand = stand();
    for lines in [
        &b"X-A : b\r\n"[..],
        b"X-A\t: b\r\n",
        b" X-A: b\r\n",
        b"X-A: b\r\n folded\r\n",
        b"X-A: b\r\n\tX-User-Id: root\r\n",
        b"X-A: b\nX-B: c\r\n",
        b"X-A: b\r\nX-B: c\n",
        b"X-A: b\rX-B: c\r\n",
        b"X-A: b\x00c\r\n",
        b"X-A\x00: b\r\n",
        b"X(A): b\r\n",
        b"X-A\r\n",
        b": b\r\n",
        b"X A: b\r\n",
        "X-\u{e9}: b\r\n".as_bytes(),
    ] {
        stand.assert_refused(&[b"GET /public/x HTTP/1.1\r\n@", lines, b"\r\n"].concat(), &[400]);
    }
    stand.assert_refused(b"GET /public/x HTTP/1.1\n@\r\n", &[400]);
    stand.assert_refused(b"GET /public/x HTTP/1.1\r\n@\n", &[400]);
    stand.assert_refused(b"GET /public/x HTTP/1.1\r\n@Expect: 200-ok\r\n\r\n", &[417]);
}

#[test]
fn too_much_of_a_header_is_refused() {
    let stand = stand();
    let many = "X-A: b\r\n".repeat(2000);
    stand.assert_refused(
        format!("GET /public/x HTTP/1.1\r\n@{many}\r\n").as_bytes(),
        &[431],
    );
    // One byte more than Pingora buffers, and none that nobody reads.
    let host = format!("Host: {}\r\n", stand.service.edge).len() - 1;
    let mut endless = b"GET /public/x HTTP/1.1\r\n@X-A: ".to_vec();
    endless.resize(1_048_576 - host, b'a');
    stand.assert_refused(&endless, &[431]);
    let large = format!("X-A: {}\r\n", "a".repeat(200_000));
    stand.assert_refused(
        format!("GET /public/x HTTP/1.1\r\n@{large}\r\n").as_bytes(),
        &[431],
    );
    let token = format!("Authorization: Bearer {}\r\n", "a.".repeat(100_000));
    stand.assert_refused(
        format!("GET /api/x HTTP/1.1\r\n@{token}\r\n").as_bytes(),
        &[401, 431],
    );
}

#[test]
fn a_header_that_never_ends_is_given_up() {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .append("header_timeout: 200ms\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    let mut connection = service.connect();
    connection.send(b"GET /public/x HTTP/1.1\r\nHost: x\r\nX-Slow");
    // The other side ends it, with or without a word.
    if let Some(answer) = connection.answer() {
        assert_eq!(answer.status, 408);
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn credentials_are_one_and_of_one_kind() {
    let stand = stand();
    for (lines, status, reason) in [
        ("", 401, "no_credential"),
        (
            "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n",
            400,
            "several_credentials",
        ),
        (
            "Authorization: Basic dTpw\r\nAuthorization: Bearer a\r\n",
            400,
            "several_credentials",
        ),
        (
            "Authorization: Bearer a, Bearer b\r\n",
            401,
            "malformed_credential",
        ),
        ("Authorization: Bearer a b\r\n", 401, "malformed_credential"),
        ("Authorization: Bearer\r\n", 401, "malformed_credential"),
        ("Authorization: Bearer \"a\"\r\n", 401, "malformed_credential"),
        ("Authorization:\r\n", 401, "malformed_credential"),
        ("Authorization: Basic dTpw\r\n", 401, "unsupported_scheme"),
        ("Authorization: Token a\r\n", 401, "unsupported_scheme"),
        ("Authorization: Bearer null\r\n", 401, "token_malformed"),
    ] {
        println!("case {lines:?}");
        let answers = stand.send(format!("GET /api/x HTTP/1.1\r\n@{lines}\r\n").as_bytes());
        assert_eq!(
            (answers[0].status, answers[0].reason().as_str()),
            (status, reason),
            "{lines:?}"
        );
        if status == 401 {
            assert!(
                answers[0].header("www-authenticate").starts_with("Bearer"),
                "{lines:?}"
            );
        }
    }
    let in_query = stand.send(b"GET /api/x?access_token=a HTTP/1.1\r\n@\r\n");
    assert_eq!(
        (in_query[0].status, in_query[0].reason().as_str()),
        (401, "credential_in_query")
    );
    let both = stand.send(b"GET /api/x?access_token=a HTTP/1.1\r\n@Authorization: Bearer a\r\n\r\n");
    assert_eq!(
        (both[0].status, both[0].reason().as_str()),
        (400, "several_credentials")
    );
    assert!(stand.backend.requests().is_empty());
}

#[test]
fn the_trace_context_is_passed_on_as_it_came() {
    let stand = stand();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ask = get("/public/x")
        .header("traceparent", parent)
        .header("tracestate", "a=1,b=2")
        .header("baggage", "user=1");
    stand.service.ask(&ask).expect(200);
    let seen = stand.backend.take_one();
    assert_eq!(seen.values("traceparent"), [parent]);
    assert_eq!(seen.values("tracestate"), ["a=1,b=2"]);
    assert_eq!(seen.values("baggage"), ["user=1"]);
}
