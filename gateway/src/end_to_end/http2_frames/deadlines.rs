//! Header sections that do not end, and connections that do not begin: both have `header_timeout`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use durward_testing::http2::{Frame, Http2, Outcome, PREFACE, flag, frame_type};

use super::{GET, PATIENCE, block, open, told, works};
use crate::end_to_end::edge::Edge;

/// Between two bytes of whoever trickles; much less than any limit here.
const DRIP: Duration = Duration::from_millis(20);

/// Sends byte by byte until the other side hangs up.
fn drip(connection: &mut Http2, bytes: &[u8]) {
    let start = Instant::now();
    for byte in bytes.iter().chain(std::iter::repeat(&0)) {
        if connection.send_bytes(&[*byte]).is_err() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it is still taken");
        std::thread::sleep(DRIP);
    }
}

/// A request whose response does not end, so that the connection is in use.
fn begin_stream(edge: &Edge, connection: &mut Http2) {
    let stream = connection.new_stream();
    let authorization = format!("Bearer {}", edge.token("alice"));
    let fields = [
        GET[0],
        GET[1],
        GET[2],
        (":path", "/api/stream"),
        ("authorization", &authorization),
    ];
    connection
        .send(&Frame::headers(stream, block(&fields), true))
        .unwrap();
    while connection.next_frame().unwrap().unwrap().stream != stream {}
}

#[test]
fn a_header_section_that_trickles_is_cut_at_its_deadline() {
    let edge = Edge::start("header_timeout: 400ms");
    let begin = |end: u8| Frame::new(frame_type::HEADERS, end, 3, block(&GET)).bytes();
    let long = |kind: u8| Frame::new(kind, flag::NONE, 3, [0; 10_000]).bytes();
    for (cuts, (what, bytes)) in [
        ("HEADERS that trickle", long(frame_type::HEADERS)),
        (
            "HEADERS, and a CONTINUATION that trickles",
            [begin(flag::END_STREAM), long(frame_type::CONTINUATION)].concat(),
        ),
        (
            "trailers that trickle",
            [begin(flag::END_HEADERS), long(frame_type::HEADERS)].concat(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        println!("case {what}");
        let mut connection = open(&edge);
        begin_stream(&edge, &mut connection);
        drip(&mut connection, &bytes);
        let line = format!(
            "durward_streams_cut_total{{cause=\"header_timeout\"}} {}",
            cuts + 1
        );
        told(&edge, &line);
    }
    println!("case HEADERS without an end, and silence");
    let mut connection = open(&edge);
    begin_stream(&edge, &mut connection);
    connection.send_bytes(&begin(flag::END_STREAM)).unwrap();
    assert_eq!(connection.outcome(3).unwrap(), Outcome::Closed);
    told(&edge, "durward_streams_cut_total{cause=\"header_timeout\"} 4");
    assert!(works(&mut open(&edge)));
}

#[test]
fn a_header_section_that_is_slow_and_in_time_is_served_and_an_idle_connection_is_kept() {
    let edge = Edge::start("header_timeout: 8s");
    println!("case a section in pieces");
    let mut connection = open(&edge);
    let fields = block(&GET);
    let (first, rest) = fields.split_at(7);
    let (second, third) = rest.split_at(11);
    let bytes = [
        Frame::new(frame_type::HEADERS, flag::END_STREAM, 1, first).bytes(),
        Frame::new(frame_type::CONTINUATION, flag::NONE, 1, second).bytes(),
        Frame::new(frame_type::CONTINUATION, flag::END_HEADERS, 1, third).bytes(),
    ]
    .concat();
    for piece in bytes.chunks(5) {
        connection.send_bytes(piece).unwrap();
        std::thread::sleep(DRIP);
    }
    let outcome = connection.outcome(1).unwrap();
    assert!(
        matches!(outcome, Outcome::Response { status: 200, .. }),
        "{outcome:?}"
    );

    let edge = Edge::start("header_timeout: 300ms");
    println!("case a connection that is idle for longer than the deadline");
    let mut connection = open(&edge);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(700));
        assert!(works(&mut connection));
    }
    println!("case a response that takes longer than the deadline");
    begin_stream(&edge, &mut connection);
    std::thread::sleep(Duration::from_millis(700));
    connection
        .send(&Frame::new(frame_type::PING, flag::NONE, 0, [7; 8]))
        .unwrap();
    while connection.next_frame().unwrap().unwrap().kind != frame_type::PING {}
    assert!(
        !edge
            .admin("/metrics")
            .body
            .contains("cause=\"header_timeout\"} 1")
    );
}

#[test]
fn a_connection_that_does_not_begin_is_cut_at_the_deadline() {
    let edge = Edge::start("header_timeout: 400ms");
    drop(edge.connect());
    for (cuts, (what, bytes)) in [
        ("silence", &[][..]),
        ("a preface that stops", &PREFACE[..1]),
        ("a preface that stops later", &PREFACE[..20]),
        ("a preface without settings", PREFACE),
        ("the first letter of a method", b"P"),
    ]
    .into_iter()
    .enumerate()
    {
        println!("case {what}");
        let mut stream = edge.connect();
        stream.write_all(bytes).unwrap();
        // The server's settings may come before the end.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let line = format!(
            "durward_streams_cut_total{{cause=\"header_timeout\"}} {}",
            cuts + 1
        );
        told(&edge, &line);
    }
    println!("case a preface that trickles, settings and all");
    let mut connection = Http2::bare(edge.address, PATIENCE).unwrap();
    let settings = Frame::settings(&[(3, 1); 2_000]).bytes();
    drip(&mut connection, &[PREFACE, &settings].concat());
    told(&edge, "durward_streams_cut_total{cause=\"header_timeout\"} 6");
    println!("case a request of HTTP/1 that is shorter than the preface");
    let answer = edge.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(works(&mut open(&edge)));
}
