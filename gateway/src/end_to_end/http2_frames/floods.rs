//! Floods of frames: each is given up after a bounded number, and others are served meanwhile.

use std::collections::BTreeSet;
use std::time::Instant;

use durward_testing::http2::{Frame, Http2, Outcome, flag, frame_type, literal, setting};

use super::{GET, PATIENCE, POST, block, open, told, works};
use crate::end_to_end::edge::Edge;

/// Frames of a flood. Far more than any limit, few enough for a test.
const MANY: usize = 20_000;

/// Sends until the other side hangs up; how many frames it took, and whether it did hang up.
fn flood(connection: &mut Http2, mut frames: impl FnMut(usize, &mut Http2) -> Vec<u8>) -> (usize, bool) {
    for number in 0..MANY {
        let bytes = frames(number, connection);
        if connection.send_bytes(&bytes).is_err() {
            return (number, true);
        }
    }
    (MANY, false)
}

/// Whether the other side has given the connection up: it hung up, or says goodbye.
fn given_up(connection: &mut Http2) -> bool {
    // A stream that nobody opened: only the connection's end is an outcome of it.
    matches!(
        connection.outcome(u32::MAX >> 1),
        Ok(Outcome::Closed | Outcome::GoneAway(_))
    )
}

#[test]
fn streams_that_are_opened_and_reset_end_with_the_connection() {
    println!("case rapid reset");
    let edge = Edge::start("");
    let mut connection = open(&edge);
    let start = Instant::now();
    let (sent, hung_up) = flood(&mut connection, |_, connection| {
        let stream = connection.new_stream();
        [
            Frame::headers(stream, block(&GET), true).bytes(),
            Frame::reset(stream, 8).bytes(),
        ]
        .concat()
    });
    assert!(hung_up || given_up(&mut connection), "{sent} were taken");
    assert_bounded(&edge, start);
    assert!(works(&mut open(&edge)));
}

#[test]
fn streams_that_are_reset_once_they_were_accepted_end_with_the_connection() {
    println!("case rapid reset, one by one");
    let edge = Edge::start("");
    let mut connection = open(&edge);
    let start = Instant::now();
    let (sent, hung_up) = flood(&mut connection, |_, connection| {
        let stream = connection.new_stream();
        let request = Frame::headers(stream, block(&GET), true);
        // What answers the PING has accepted the stream before it.
        let ping = Frame::new(frame_type::PING, flag::NONE, 0, [1; 8]);
        let _ = connection.send_bytes(&[request.bytes(), ping.bytes()].concat());
        while let Ok(Some(frame)) = connection.next_frame() {
            if frame.kind == frame_type::PING {
                break;
            }
        }
        Frame::reset(stream, 8).bytes()
    });
    assert!(hung_up || given_up(&mut connection), "{sent} were taken");
    assert!(sent >= 500, "{sent}: too few for a client that means well");
    told(&edge, "durward_connections_ended_total{limit=\"http2_resets\"} 1");
    assert_bounded(&edge, start);
    assert!(works(&mut open(&edge)));
}

/// No more streams were worth a request to the backend than may be reset.
fn assert_bounded(edge: &Edge, start: Instant) {
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let most = 500 + 50 * seconds + 100;
    assert!(edge.backend.count() <= most, "{} of {most}", edge.backend.count());
}

#[test]
fn a_browser_that_leaves_its_pages_is_served() {
    println!("case a hundred requests that are given up, four times");
    let edge = Edge::start("");
    let mut connection = open(&edge);
    let authorization = format!("Bearer {}", edge.token("alice"));
    let path = (":path", "/api/stream");
    let fields = [GET[0], GET[1], GET[2], path, ("authorization", &authorization)];
    for _ in 0..4 {
        let streams: Vec<u32> = (0..100).map(|_| connection.new_stream()).collect();
        for stream in &streams {
            connection
                .send(&Frame::headers(*stream, block(&fields), true))
                .unwrap();
        }
        let mut waiting: BTreeSet<u32> = streams.iter().copied().collect();
        while !waiting.is_empty() {
            let frame = connection.next_frame().unwrap().unwrap();
            waiting.remove(&frame.stream);
        }
        for stream in &streams {
            connection.send(&Frame::reset(*stream, 8)).unwrap();
        }
    }
    assert!(works(&mut connection));
}

#[test]
fn streams_that_the_server_is_made_to_reset_end_with_the_connection() {
    let edge = Edge::start("");
    for (what, wrong) in [
        (
            "a window of 0 more",
            &(|stream| Frame::window_update(stream, 0)) as &dyn Fn(u32) -> Frame,
        ),
        ("a window beyond its end", &|stream| {
            Frame::window_update(stream, u32::MAX >> 1)
        }),
        ("DATA after the end", &|stream| Frame::data(stream, "x", true)),
    ] {
        println!("case made you reset: {what}");
        let mut connection = open(&edge);
        let (sent, hung_up) = flood(&mut connection, |_, connection| {
            let stream = connection.new_stream();
            let ends = what.starts_with("DATA");
            [
                Frame::headers(stream, block(&GET), ends).bytes(),
                wrong(stream).bytes(),
            ]
            .concat()
        });
        assert!(hung_up || given_up(&mut connection), "{what}: {sent} were taken");
        assert!(works(&mut open(&edge)), "{what}");
    }
}

#[test]
fn a_header_block_without_an_end_is_given_up() {
    println!("case CONTINUATION flood");
    let edge = Edge::start("");
    let mut connection = open(&edge);
    connection
        .send(&Frame::new(frame_type::HEADERS, flag::END_STREAM, 1, block(&GET)))
        .unwrap();
    let (sent, hung_up) = flood(&mut connection, |number, _| {
        let field = literal(format!("x-{number}").as_bytes(), b"a");
        Frame::new(frame_type::CONTINUATION, flag::NONE, 1, field).bytes()
    });
    assert!(hung_up || given_up(&mut connection), "{sent} were taken");
    println!("case empty CONTINUATION flood");
    let mut connection = open(&edge);
    connection
        .send(&Frame::new(frame_type::HEADERS, flag::END_STREAM, 1, block(&GET)))
        .unwrap();
    let (sent, hung_up) = flood(&mut connection, |_, _| {
        Frame::new(frame_type::CONTINUATION, flag::NONE, 1, []).bytes()
    });
    assert!(hung_up || given_up(&mut connection), "{sent} were taken");
    assert_eq!(edge.backend.count(), 0);
    assert!(works(&mut open(&edge)));
}

#[test]
fn a_small_block_that_is_large_once_it_is_read_is_refused() {
    println!("case HPACK bomb");
    let edge = Edge::start("");
    let mut connection =
        Http2::open_with(edge.address, PATIENCE, &[(setting::INITIAL_WINDOW_SIZE, 0)]).unwrap();
    // One entry of 4,000 bytes in the dynamic table, then a byte for each time that it is meant.
    let entry = [&[0x40][..], &literal(b"x-bomb", &[b'a'; 3_900])[1..]].concat();
    for _ in 0..50 {
        let stream = connection.new_stream();
        let bomb = [&block(&GET)[..], &entry, &[0xbe; 8_000]].concat();
        if connection.send(&Frame::headers(stream, bomb, true)).is_err() {
            break;
        }
    }
    let outcome = connection.outcome(1).unwrap();
    let refused = matches!(
        outcome,
        Outcome::Response { status: 431, .. } | Outcome::Reset(_) | Outcome::GoneAway(_) | Outcome::Closed
    );
    assert!(refused, "{outcome:?}");
    assert_eq!(edge.backend.count(), 0);
    assert!(works(&mut open(&edge)));
}

#[test]
fn frames_that_bring_nothing_are_given_up() {
    let edge = Edge::start("");
    for (ended, (what, frame)) in [
        ("PING", Frame::new(frame_type::PING, flag::NONE, 0, [0; 8])),
        ("SETTINGS", Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)])),
        ("WINDOW_UPDATE", Frame::window_update(0, 1)),
        (
            "PRIORITY",
            Frame::new(frame_type::PRIORITY, flag::NONE, 1, [0, 0, 0, 0, 1]),
        ),
        ("unknown", Frame::new(0x77, flag::NONE, 0, [0; 8])),
    ]
    .into_iter()
    .enumerate()
    {
        println!("case {what} flood");
        let mut connection = open(&edge);
        // Their answers are never read.
        let (sent, hung_up) = flood(&mut connection, |_, _| frame.bytes().repeat(100));
        println!("    given up within {sent}00 frames");
        assert!(hung_up, "{what}");
        let line = format!(
            "durward_connections_ended_total{{limit=\"http2_frames\"}} {}",
            ended + 1
        );
        told(&edge, &line);
        assert!(works(&mut open(&edge)), "{what}");
    }
    println!("case fewer than that");
    let mut connection = open(&edge);
    let ping = Frame::new(frame_type::PING, flag::NONE, 0, [0; 8]);
    connection.send_bytes(&ping.bytes().repeat(10_000)).unwrap();
    assert!(works(&mut connection));
}

#[test]
fn pieces_of_nothing_are_given_up() {
    println!("case empty DATA flood");
    let edge = Edge::start("");
    let mut connection = open(&edge);
    let stream = connection.new_stream();
    connection
        .send(&Frame::headers(stream, block(&POST), false))
        .unwrap();
    let (sent, hung_up) = flood(&mut connection, |_, _| Frame::data(stream, [], false).bytes());
    assert!(hung_up || given_up(&mut connection), "{sent} were taken");
    assert!(works(&mut open(&edge)));
}
