//! HTTP/1.1 message by message: what RFC 9112 asks of a recipient. docs/CONFORMANCE.md names each place
//! where the gateway is stricter, or more lenient, than the RFC and says why.

use std::time::Duration;

use crate::harness::{Backend, FOREIGN, Key, Service, Setup};

/// What must come of a message.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// It is forwarded once, with this body without its framing, and answered with 200.
    Forwarded(&'static str),
    /// So many messages are forwarded, each answered.
    All(usize),
    /// It is refused with one of these statuses, and the connection ends.
    Refused(&'static [u16]),
    /// It never becomes a request: there is no answer, or a refusal.
    Nothing,
}

use Want::{All, Forwarded, Nothing, Refused};

/// Some messages wait for more that never comes.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Section of RFC 9112 (RFC 9110 where it says so), what it is, and its bytes: `@` is the Host line.
const CASES: [(&str, &str, &str, Want); 63] = [
    (
        "2.1",
        "a message",
        "GET /public/x HTTP/1.1\r\n@\r\n",
        Forwarded(""),
    ),
    (
        "2.1",
        "a body",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 3\r\n\r\nabc",
        Forwarded("abc"),
    ),
    (
        "2.1",
        "half a header section",
        "GET /public/x HTTP/1.1\r\n@X-A: b",
        Nothing,
    ),
    (
        "2.1",
        "half a body",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 10\r\n\r\nabc",
        Nothing,
    ),
    (
        "2.2",
        "an empty line before the request line",
        "\r\nGET /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "2.2",
        "bare line feeds",
        "GET /public/x HTTP/1.1\n@\n",
        Refused(&[400]),
    ),
    (
        "2.2",
        "a bare CR in the request line",
        "GET /public/x\rHTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "2.2",
        "whitespace before the first field",
        "GET /public/x HTTP/1.1\r\n X-A: b\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "2.3",
        "HTTP/1.0",
        "GET /public/x HTTP/1.0\r\n@\r\n",
        Forwarded(""),
    ),
    ("2.3", "HTTP/0.9", "GET /public/x\r\n\r\n", Refused(&[400])),
    (
        "2.3",
        "another minor version",
        "GET /public/x HTTP/1.9\r\n@\r\n",
        Refused(&[400, 505]),
    ),
    (
        "2.3",
        "another major version",
        "GET /public/x HTTP/4.2\r\n@\r\n",
        Refused(&[400, 505]),
    ),
    (
        "2.3",
        "a version in lower case",
        "GET /public/x http/1.1\r\n@\r\n",
        Refused(&[400, 505]),
    ),
    (
        "2.3",
        "another protocol",
        "GET /public/x RTSP/1.0\r\n@\r\n",
        Refused(&[400, 505]),
    ),
    (
        "2.3",
        "a version without digits",
        "GET /public/x HTTP/\r\n@\r\n",
        Refused(&[400, 505]),
    ),
    (
        "3",
        "two spaces before the target",
        "GET  /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3",
        "a space after the version",
        "GET /public/x HTTP/1.1 \r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.2",
        "a space in the target",
        "GET /public/a b HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.1",
        "an empty method",
        " /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.1",
        "a method that is no token",
        "GE{T /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.1",
        "a method that nobody knows",
        "MKA /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[501]),
    ),
    (
        "3.2",
        "no Host",
        "GET /public/x HTTP/1.1\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "3.2",
        "two Hosts",
        "GET /public/x HTTP/1.1\r\n@@\r\n",
        Refused(&[400]),
    ),
    (
        "3.2",
        "HTTP/1.0 without Host",
        "GET /public/x HTTP/1.0\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "3.2.1",
        "a query",
        "GET /public/x?a=b HTTP/1.1\r\n@\r\n",
        Forwarded(""),
    ),
    (
        "3.2.1",
        "a fragment",
        "GET /public/x#y HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.2.2",
        "another authority in the target",
        "GET http://other.test/public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.2.2",
        "a scheme without authority",
        "GET http:/public/x HTTP/1.1\r\n@\r\n",
        Refused(&[400]),
    ),
    (
        "3.2.3",
        "CONNECT",
        "CONNECT other.test:443 HTTP/1.1\r\n@\r\n",
        Refused(&[400, 405, 501]),
    ),
    (
        "3.2.4",
        "OPTIONS *",
        "OPTIONS * HTTP/1.1\r\n@\r\n",
        Refused(&[400, 404]),
    ),
    (
        "5",
        "a field without a colon",
        "GET /public/x HTTP/1.1\r\n@X-A\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "5",
        "a field without a name",
        "GET /public/x HTTP/1.1\r\n@: b\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "5",
        "an empty value",
        "GET /public/x HTTP/1.1\r\n@X-A:\r\n\r\n",
        Forwarded(""),
    ),
    (
        "5",
        "whitespace around a value",
        "GET /public/x HTTP/1.1\r\n@X-A: \t b \t\r\n\r\n",
        Forwarded(""),
    ),
    (
        "5.1",
        "a space before the colon",
        "GET /public/x HTTP/1.1\r\n@X-A : b\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "5.1",
        "a tab before the colon",
        "GET /public/x HTTP/1.1\r\n@X-A\t: b\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "5.2",
        "a folded field",
        "GET /public/x HTTP/1.1\r\n@X-A: b\r\n c\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "5.2",
        "a field folded by a tab",
        "GET /public/x HTTP/1.1\r\n@X-A: b\r\n\tc\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "6.1",
        "Transfer-Encoding and Content-Length",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "6.1",
        "a coding before chunked",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(&[501]),
    ),
    (
        "6.1",
        "an unknown coding",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: pigeon\r\n\r\n0\r\n\r\n",
        Refused(&[400, 501]),
    ),
    (
        "6.1",
        "chunked in HTTP/1.0",
        "PUT /public/x HTTP/1.0\r\n@Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "6.1",
        "an empty coding",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding:\r\n\r\n",
        Refused(&[400, 501]),
    ),
    (
        "6.2",
        "a length with zeroes before it",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 003\r\n\r\nabc",
        Refused(&[400]),
    ),
    (
        "6.2",
        "a length beyond all numbers",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 1000000000000000000000\r\n\r\n",
        Refused(&[400, 413]),
    ),
    (
        "6.2",
        "a length with a space within",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 4 2\r\n\r\nabcd",
        Refused(&[400]),
    ),
    (
        "6.3",
        "two lengths",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        Refused(&[400]),
    ),
    (
        "6.3",
        "the same length twice",
        "PUT /public/x HTTP/1.1\r\n@Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Refused(&[400]),
    ),
    (
        "6.3",
        "neither length nor coding",
        "PUT /public/x HTTP/1.1\r\n@\r\n",
        Forwarded(""),
    ),
    (
        "7.1",
        "chunks",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        Forwarded("abcde"),
    ),
    (
        "7.1",
        "a chunk's size in capitals and with zeroes",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n",
        Forwarded("0123456789"),
    ),
    (
        "7.1",
        "a size that is no number",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
        Nothing,
    ),
    (
        "7.1",
        "a size with a sign",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        Nothing,
    ),
    (
        "7.1",
        "a chunk that is longer than its size",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        Nothing,
    ),
    (
        "7.1.1",
        "extensions",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n",
        Forwarded("abc"),
    ),
    (
        "7.1.2",
        "trailers",
        "PUT /public/x HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-User-Id: mallory\r\n\r\n",
        Forwarded("abc"),
    ),
    (
        "9.3.2",
        "a request behind another",
        "GET /public/x HTTP/1.1\r\n@\r\nGET /public/x HTTP/1.1\r\n@\r\n",
        All(1),
    ),
    (
        "9.6",
        "Connection: close",
        "GET /public/x HTTP/1.1\r\n@Connection: close\r\n\r\nGET /public/x HTTP/1.1\r\n@\r\n",
        All(1),
    ),
    (
        "9110 7.8",
        "an upgrade to h2c",
        "GET /public/x HTTP/1.1\r\n@Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        Forwarded(""),
    ),
    (
        "9110 7.8",
        "an upgrade with a body",
        "PUT /public/x HTTP/1.1\r\n@Connection: Upgrade\r\nUpgrade: ws\r\nContent-Length: 4\r\n\r\nabcd",
        Forwarded("abcd"),
    ),
    (
        "9110 5.5",
        "NUL in a value",
        "GET /public/x HTTP/1.1\r\n@X-A: b\0c\r\n\r\n",
        Refused(&[400]),
    ),
    (
        "9110 10.1.1",
        "an unknown expectation",
        "GET /public/x HTTP/1.1\r\n@Expect: 200-maybe\r\n\r\n",
        Refused(&[417]),
    ),
    (
        "9110 9.3.8",
        "TRACE",
        "TRACE /public/x HTTP/1.1\r\n@\r\n",
        Refused(&[405, 501]),
    ),
];

#[test]
fn messages_are_read_as_the_rfc_has_it() {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .append("header_timeout: 500ms\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    let wrong: Vec<String> = CASES
        .iter()
        .filter_map(|(section, what, message, want)| {
            println!("case {section} {what}");
            let told = try_message(&service, &backend, message, *want).err()?;
            Some(format!("{section} {what}: {told}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn try_message(service: &Service, backend: &Backend, message: &str, want: Want) -> Result<(), String> {
    let message = message.replace('@', &format!("Host: {}\r\n", service.edge));
    let mut connection = service.connect();
    connection.set_patience(SILENCE);
    let answers = connection.raw(message.as_bytes());
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    // What was begun and given up may still be on its way to the backend; what matters is that no
    // other request is.
    let seen = backend.take();
    let strange = seen
        .iter()
        .any(|request| !request.line().contains(" /public/x") || !request.values("x-user-id").is_empty());
    let fits = match want {
        _ if strange => false,
        Forwarded(body) => statuses == [200] && seen.len() == 1 && unframed(&seen[0].body) == body,
        All(count) => seen.len() == count && statuses == vec![200; count],
        Refused(wanted) => seen.is_empty() && statuses.len() == 1 && wanted.contains(&statuses[0]),
        Nothing => seen.is_empty() && statuses.iter().all(|status| (400..500).contains(status)),
    };
    fits.then_some(())
        .ok_or_else(|| format!("{want:?}: answered {statuses:?}, forwarded {seen:?}"))
}

/// A body without the framing that the gateway gave it.
fn unframed(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    if !text.ends_with("\r\n") {
        return text;
    }
    // Sizes and pieces in turn.
    text.split("\r\n").skip(1).step_by(2).collect()
}
