//! Frames, streams and connections: RFC 9113 sections 3 to 6.

use std::io::ErrorKind;

use durward_testing::http2::error_code::{
    ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED,
};
use durward_testing::http2::{Frame, Http2, Outcome, flag, frame_type, setting};

use super::{Case, GET, PATIENCE, POST, Want, block, open, run, works};
use crate::end_to_end::edge::Edge;

const PROTOCOL: Want = Want::ConnectionError(&[PROTOCOL_ERROR]);
// The library says PROTOCOL_ERROR of most: docs/CONFORMANCE.md.
const SIZE: Want = Want::ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);

fn case(section: &'static str, what: &'static str, send: &[Frame], want: Want) -> Case {
    Case {
        section,
        what,
        send: send.to_vec(),
        want,
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
    Frame::new(kind, flags, stream, payload)
}

fn request(stream: u32) -> Frame {
    Frame::headers(stream, block(&GET), true)
}

/// A request whose body is still to come.
fn open_request(stream: u32) -> Frame {
    Frame::headers(stream, block(&POST), false)
}

#[test]
fn what_frames_must_be_like() {
    let edge = Edge::start("");
    let large = vec![0; 16_385];
    let (data, headers, priority) = (frame_type::DATA, frame_type::HEADERS, frame_type::PRIORITY);
    let (none, end_headers, end_stream) = (flag::NONE, flag::END_HEADERS, flag::END_STREAM);
    let padded = |pad: u8| [&[pad][..], &block(&GET)].concat();
    run(
        &edge,
        &[
            case(
                "4.1",
                "a frame of an unknown type",
                &[frame(0x16, none, 0, b"ignored")],
                Want::Ignored,
            ),
            case(
                "4.1",
                "flags that mean nothing",
                &[frame(frame_type::PING, 0x16, 0, &[0; 8])],
                Want::Ignored,
            ),
            case(
                "4.1",
                "a reserved bit",
                &[frame(frame_type::PING, none, 1 << 31, &[0; 8])],
                Want::Ignored,
            ),
            case(
                "4.2",
                "DATA larger than the largest frame",
                &[open_request(1), frame(data, none, 1, &large)],
                Want::StreamError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
            ),
            case(
                "4.2",
                "HEADERS larger than the largest frame",
                &[frame(headers, end_headers | end_stream, 1, &large)],
                SIZE,
            ),
            case(
                "4.2",
                "SETTINGS larger than the largest frame",
                &[frame(frame_type::SETTINGS, none, 0, &[0; 16_386])],
                SIZE,
            ),
            case(
                "4.3",
                "another frame within a header block",
                &[
                    frame(headers, end_stream, 1, &block(&GET)),
                    frame(priority, none, 1, &[0, 0, 0, 0, 1]),
                ],
                PROTOCOL,
            ),
            case(
                "4.3",
                "another stream's block within a header block",
                &[frame(headers, end_stream, 1, &block(&GET)), request(3)],
                PROTOCOL,
            ),
            case(
                "5.5",
                "a frame of an unknown type within a header block",
                &[
                    frame(headers, end_stream, 1, &block(&GET)),
                    frame(0x16, none, 0, b"x"),
                ],
                PROTOCOL,
            ),
            case(
                "6.1",
                "DATA on stream 0",
                &[frame(data, end_stream, 0, b"x")],
                PROTOCOL,
            ),
            case(
                "6.1",
                "padding longer than DATA",
                &[
                    open_request(1),
                    frame(data, flag::PADDED | end_stream, 1, &[6, b'x', b'y']),
                ],
                PROTOCOL,
            ),
            case(
                "6.1",
                "padded DATA",
                &[
                    open_request(1),
                    frame(data, flag::PADDED | end_stream, 1, &[2, b'x', 0, 0]),
                ],
                Want::Status(200),
            ),
            case("6.2", "HEADERS on stream 0", &[request(0)], PROTOCOL),
            case(
                "6.2",
                "padding longer than HEADERS",
                &[frame(
                    headers,
                    flag::PADDED | end_headers | end_stream,
                    1,
                    &padded(255),
                )],
                PROTOCOL,
            ),
            case(
                "6.2",
                "padded HEADERS",
                &[frame(
                    headers,
                    flag::PADDED | end_headers | end_stream,
                    1,
                    &[padded(2), vec![0, 0]].concat(),
                )],
                Want::Status(200),
            ),
            case(
                "6.2",
                "HEADERS with a priority",
                &[frame(
                    headers,
                    flag::PRIORITY | end_headers | end_stream,
                    1,
                    &[&[0, 0, 0, 0, 15][..], &block(&GET)].concat(),
                )],
                Want::Status(200),
            ),
            case(
                "6.3",
                "PRIORITY on stream 0",
                &[frame(priority, none, 0, &[0, 0, 0, 1, 1])],
                PROTOCOL,
            ),
            case(
                "6.3",
                "PRIORITY of another length",
                &[open_request(1), frame(priority, none, 1, &[0, 0, 0, 1])],
                Want::StreamError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
            ),
            case("6.4", "RST_STREAM on stream 0", &[Frame::reset(0, 8)], PROTOCOL),
            case(
                "6.4",
                "RST_STREAM of an idle stream",
                &[Frame::reset(1, 8)],
                PROTOCOL,
            ),
            case(
                "6.4",
                "RST_STREAM of another length",
                &[
                    open_request(1),
                    frame(frame_type::RST_STREAM, none, 1, &[0, 0, 0]),
                ],
                SIZE,
            ),
            case(
                "6.6",
                "PUSH_PROMISE from a client",
                &[
                    open_request(1),
                    frame(
                        frame_type::PUSH_PROMISE,
                        end_headers,
                        1,
                        &[&[0, 0, 0, 2][..], &block(&GET)].concat(),
                    ),
                ],
                PROTOCOL,
            ),
            case(
                "6.7",
                "PING on a stream",
                &[frame(frame_type::PING, none, 1, &[0; 8])],
                PROTOCOL,
            ),
            case(
                "6.7",
                "PING of another length",
                &[frame(frame_type::PING, none, 0, &[0; 6])],
                SIZE,
            ),
            case(
                "6.7",
                "an acknowledgement of no PING",
                &[frame(frame_type::PING, flag::ACK, 0, b"nobodys!")],
                Want::Ignored,
            ),
            case(
                "6.8",
                "GOAWAY on a stream",
                &[frame(frame_type::GOAWAY, none, 1, &[0; 8])],
                PROTOCOL,
            ),
            case(
                "6.10",
                "CONTINUATION on stream 0",
                &[
                    frame(headers, end_stream, 1, &block(&GET)),
                    frame(frame_type::CONTINUATION, end_headers, 0, b""),
                ],
                PROTOCOL,
            ),
            case(
                "6.10",
                "CONTINUATION after the end of the block",
                &[
                    open_request(1),
                    frame(frame_type::CONTINUATION, end_headers, 1, &block(&[("x-a", "b")])),
                ],
                PROTOCOL,
            ),
            case(
                "6.10",
                "CONTINUATION after DATA",
                &[
                    open_request(1),
                    frame(data, none, 1, b"x"),
                    frame(frame_type::CONTINUATION, end_headers, 1, b""),
                ],
                PROTOCOL,
            ),
            case(
                "6.10",
                "a block in three frames",
                &[
                    frame(headers, end_stream, 1, &block(&GET)),
                    frame(frame_type::CONTINUATION, none, 1, &block(&[("x-a", "b")])),
                    frame(frame_type::CONTINUATION, end_headers, 1, &block(&[("x-c", "d")])),
                ],
                Want::Status(200),
            ),
        ],
    );
}

#[test]
fn streams_go_from_state_to_state() {
    let edge = Edge::start("");
    let closed = Want::StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    let data = Frame::data(1, "x", true);
    run(
        &edge,
        &[
            case(
                "5.1",
                "DATA on an idle stream",
                std::slice::from_ref(&data),
                PROTOCOL,
            ),
            case(
                "5.1",
                "WINDOW_UPDATE on an idle stream",
                &[Frame::window_update(1, 1)],
                PROTOCOL,
            ),
            case(
                "5.1",
                "CONTINUATION on an idle stream",
                &[frame(
                    frame_type::CONTINUATION,
                    flag::END_HEADERS,
                    1,
                    &block(&GET),
                )],
                PROTOCOL,
            ),
            case(
                "5.1",
                "PRIORITY on an idle stream",
                &[frame(frame_type::PRIORITY, flag::NONE, 3, &[0, 0, 0, 0, 1])],
                Want::Ignored,
            ),
            case(
                "5.1",
                "DATA after the end of the stream",
                &[request(1), data.clone()],
                closed,
            ),
            case(
                "5.1",
                "HEADERS after the end of the stream",
                &[request(1), request(1)],
                Want::StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            ),
            case(
                "5.1",
                "DATA after a reset",
                &[open_request(1), Frame::reset(1, 8), data.clone()],
                Want::Ignored,
            ),
            case(
                "5.1",
                "PRIORITY after a reset",
                &[
                    open_request(1),
                    Frame::reset(1, 8),
                    frame(frame_type::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 1]),
                ],
                Want::Ignored,
            ),
            case("5.1.1", "an even stream", &[request(2)], PROTOCOL),
            case(
                "5.1.1",
                "a stream before an earlier one",
                &[request(5), request(1)],
                Want::StreamError(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            ),
            case(
                "5.3.1",
                "a stream that depends on itself",
                &[frame(
                    frame_type::HEADERS,
                    flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM,
                    1,
                    &[&[0, 0, 0, 1, 15][..], &block(&GET)].concat(),
                )],
                Want::StreamError(&[PROTOCOL_ERROR]),
            ),
        ],
    );
}

#[test]
fn settings_and_windows_are_kept_to() {
    let edge = Edge::start("");
    let settings = |id, value| Frame::settings(&[(id, value)]);
    let flow = Want::ConnectionError(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]);
    run(
        &edge,
        &[
            case(
                "6.5",
                "an acknowledgement with settings",
                &[frame(frame_type::SETTINGS, flag::ACK, 0, &[0; 6])],
                SIZE,
            ),
            case(
                "6.5",
                "SETTINGS on a stream",
                &[frame(frame_type::SETTINGS, flag::NONE, 1, &[0, 3, 0, 0, 0, 100])],
                PROTOCOL,
            ),
            case(
                "6.5",
                "SETTINGS of another length",
                &[frame(frame_type::SETTINGS, flag::NONE, 0, &[0, 3, 0])],
                SIZE,
            ),
            case(
                "6.5.2",
                "ENABLE_PUSH of 2",
                &[settings(setting::ENABLE_PUSH, 2)],
                PROTOCOL,
            ),
            case(
                "6.5.2",
                "a window of 2^31",
                &[settings(setting::INITIAL_WINDOW_SIZE, 1 << 31)],
                flow,
            ),
            case(
                "6.5.2",
                "frames of less than 2^14",
                &[settings(setting::MAX_FRAME_SIZE, (1 << 14) - 1)],
                PROTOCOL,
            ),
            case(
                "6.5.2",
                "frames of 2^24",
                &[settings(setting::MAX_FRAME_SIZE, 1 << 24)],
                PROTOCOL,
            ),
            case("6.5.2", "an unknown setting", &[settings(0xff, 1)], Want::Ignored),
            case(
                "6.9",
                "an update of the connection's window by 0",
                &[Frame::window_update(0, 0)],
                PROTOCOL,
            ),
            case(
                "6.9",
                "an update of a stream's window by 0",
                &[open_request(1), Frame::window_update(1, 0)],
                Want::StreamError(&[PROTOCOL_ERROR]),
            ),
            case(
                "6.9",
                "WINDOW_UPDATE of another length",
                &[frame(frame_type::WINDOW_UPDATE, flag::NONE, 0, &[0, 0, 1])],
                SIZE,
            ),
            case(
                "6.9.1",
                "the connection's window over 2^31 - 1",
                &[
                    Frame::window_update(0, u32::MAX >> 1),
                    Frame::window_update(0, u32::MAX >> 1),
                ],
                flow,
            ),
            case(
                "6.9.1",
                "a stream's window over 2^31 - 1",
                &[
                    open_request(1),
                    Frame::window_update(1, u32::MAX >> 1),
                    Frame::window_update(1, u32::MAX >> 1),
                ],
                Want::StreamError(&[FLOW_CONTROL_ERROR]),
            ),
            case(
                "6.9.2",
                "a setting that takes a stream's window over 2^31 - 1",
                &[
                    open_request(1),
                    Frame::window_update(1, (1 << 31) - 1 - 65_535),
                    settings(setting::INITIAL_WINDOW_SIZE, (1 << 31) - 1),
                ],
                Want::StreamError(&[FLOW_CONTROL_ERROR]),
            ),
        ],
    );
}

#[test]
fn a_connection_begins_with_the_preface() {
    let edge = Edge::start("");
    drop(edge.connect());
    for preface in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        println!("case 3.4 {}", preface.escape_ascii());
        let mut connection = Http2::bare(edge.address, PATIENCE).unwrap();
        connection.send_bytes(preface).unwrap();
        assert!(
            matches!(
                connection.outcome(1),
                Ok(Outcome::Closed | Outcome::GoneAway(PROTOCOL_ERROR | FRAME_SIZE_ERROR))
            ),
            "{}",
            preface.escape_ascii()
        );
    }
    assert_eq!(edge.backend.count(), 0);
}

#[test]
fn pings_and_settings_are_answered() {
    let edge = Edge::start("");
    let mut connection = open(&edge);
    println!("case 6.7 PING");
    connection
        .send(&frame(frame_type::PING, flag::NONE, 0, b"durward!"))
        .unwrap();
    let answer = frame(frame_type::PING, flag::ACK, 0, b"durward!");
    while connection.next_frame().unwrap().expect("an answer to the ping") != answer {}
    println!("case 6.5.3 SETTINGS");
    connection.send(&Frame::settings(&[])).unwrap();
    let answer = frame(frame_type::SETTINGS, flag::ACK, 0, b"");
    while connection.next_frame().unwrap().expect("an acknowledgement") != answer {}
}

#[test]
fn no_byte_is_sent_beyond_the_window() {
    let edge = Edge::start("");
    println!("case 6.9.2 a window of 1");
    drop(edge.connect());
    let mut connection =
        Http2::open_with(edge.address, PATIENCE, &[(setting::INITIAL_WINDOW_SIZE, 1)]).unwrap();
    connection.send(&request(1)).unwrap();
    let data = |connection: &mut Http2| loop {
        let frame = connection.next_frame().unwrap().expect("the connection goes on");
        if frame.kind == frame_type::DATA {
            return (frame.payload, frame.flags & flag::END_STREAM != 0);
        }
    };
    assert_eq!(data(&mut connection), (b"o".to_vec(), false));
    println!("case 6.9.1 a window of one more");
    connection.send(&Frame::window_update(1, 1)).unwrap();
    assert_eq!(data(&mut connection).0, b"k");
    println!("case 6.9.2 a window below zero");
    connection
        .send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]))
        .unwrap();
    connection.send(&request(3)).unwrap();
    connection.send(&Frame::window_update(3, 2)).unwrap();
    let outcome = connection.outcome(3).unwrap();
    assert_eq!(
        outcome,
        Outcome::Response {
            status: 200,
            body: b"ok".to_vec()
        }
    );
}

#[test]
fn streams_at_once_are_bounded() {
    let edge = Edge::start("");
    let mut connection = open(&edge);
    println!("case 5.1.2 more streams than MAX_CONCURRENT_STREAMS");
    let most = 1_000;
    for _ in 0..most {
        let stream = connection.new_stream();
        if connection.send(&open_request(stream)).is_err() {
            break;
        }
    }
    // The first one beyond is refused, and those within go on: or the whole connection is given up.
    let mut refused = 0;
    loop {
        match connection.next_frame() {
            Ok(Some(frame)) if frame.kind == frame_type::RST_STREAM => refused += 1,
            Ok(Some(frame)) if frame.kind == frame_type::GOAWAY => {
                let code = u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
                assert!([PROTOCOL_ERROR, ENHANCE_YOUR_CALM].contains(&code), "{code}");
                break;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset),
                    "{error}"
                );
                break;
            }
        }
        if refused > 0 {
            break;
        }
    }
    assert!(edge.backend.count() < most);
    assert!(works(&mut open(&edge)));
}
