//! Windows that stay shut (RFC 9113 section 5.2): a client that does not take its response is cut after
//! `send_timeout`, whichever window it is, and however little it opens.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durward_testing::http2::{Frame, Http2, Outcome, frame_type, setting};

use super::{GET, PATIENCE, block, open, told, works};
use crate::end_to_end::edge::Edge;

/// Short, and long enough for everything else.
const LIMIT: &str = "send_timeout: 500ms";

fn with_window(edge: &Edge, size: u32) -> Http2 {
    drop(edge.connect());
    Http2::open_with(edge.address, PATIENCE, &[(setting::INITIAL_WINDOW_SIZE, size)]).unwrap()
}

fn get(path: &'static str) -> [(&'static str, &'static str); 4] {
    [GET[0], GET[1], GET[2], (":path", path)]
}

/// The server's end of a large response is closed, too.
fn backend_is_free(edge: &Edge, count: usize) {
    let start = Instant::now();
    while edge.backend.closed.load(Ordering::SeqCst) != count {
        assert!(start.elapsed() < PATIENCE, "the backend still sends");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_stream_whose_window_stays_shut_is_cut() {
    let edge = Edge::start(LIMIT);
    let mut connection = with_window(&edge, 0);
    for (cut, path) in ["/public/x", "/public/large"].into_iter().enumerate() {
        println!("case a window of 0, {path}");
        let outcome = connection.ask(&get(path), None).unwrap();
        assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
        let line = format!("durward_streams_cut_total{{cause=\"send_timeout\"}} {}", cut + 1);
        told(&edge, &line);
    }
    backend_is_free(&edge, 1);
    println!("case a window of 0, a refusal");
    let outcome = connection.ask(&get("/api/x"), None).unwrap();
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    println!("case a window of 0 for a hundred");
    let streams: Vec<u32> = (0..100).map(|_| connection.new_stream()).collect();
    for stream in &streams {
        connection
            .send(&Frame::headers(*stream, block(&get("/public/x")), true))
            .unwrap();
    }
    let mut open: std::collections::BTreeSet<u32> = streams.into_iter().collect();
    while !open.is_empty() {
        let frame = connection.next_frame().unwrap().unwrap();
        assert_ne!(frame.kind, frame_type::DATA);
        if frame.kind == frame_type::RST_STREAM {
            open.remove(&frame.stream);
        }
    }
    assert!(works(&mut super::open(&edge)));
}

#[test]
fn a_connection_whose_window_stays_shut_has_its_streams_cut() {
    let edge = Edge::start(LIMIT);
    println!("case the connection's window is used up");
    let mut connection = with_window(&edge, u32::MAX >> 1);
    let outcome = connection.ask(&get("/public/large"), None).unwrap();
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    told(&edge, "durward_streams_cut_total{cause=\"send_timeout\"} 1");
    backend_is_free(&edge, 1);
    // The next one has no window either.
    let outcome = connection.ask(&get("/public/x"), None).unwrap();
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    told(&edge, "durward_streams_cut_total{cause=\"send_timeout\"} 2");
    assert!(works(&mut open(&edge)));
}

#[test]
fn a_window_that_opens_by_a_byte_at_a_time_does_not_help() {
    let edge = Edge::start(LIMIT);
    println!("case a window of one byte, and one more for each");
    let mut connection = with_window(&edge, 1);
    let stream = connection.new_stream();
    connection
        .send(&Frame::headers(stream, block(&get("/public/large")), true))
        .unwrap();
    let mut bytes = 0;
    loop {
        let frame = connection.next_frame().unwrap().unwrap();
        match frame.kind {
            frame_type::DATA => {
                bytes += frame.payload.len();
                assert!(bytes < 64 << 10, "it got a whole piece by bytes");
                std::thread::sleep(Duration::from_millis(10));
                for window in [stream, 0] {
                    connection.send(&Frame::window_update(window, 1)).unwrap();
                }
            }
            frame_type::RST_STREAM if frame.stream == stream => break,
            _ => {}
        }
    }
    println!("    {bytes} bytes were taken");
    told(&edge, "durward_streams_cut_total{cause=\"send_timeout\"} 1");
    backend_is_free(&edge, 1);
    assert!(works(&mut open(&edge)));
}

#[test]
fn a_client_that_reads_nothing_at_all_is_cut() {
    let edge = Edge::start(&format!("{LIMIT}\nkeepalive_timeout: 1s"));
    println!("case windows that are open and a socket that nobody reads");
    let mut connection = with_window(&edge, u32::MAX >> 1);
    connection
        .send(&Frame::window_update(0, (u32::MAX >> 1) - 65_535))
        .unwrap();
    let stream = connection.new_stream();
    connection
        .send(&Frame::headers(stream, block(&get("/public/large")), true))
        .unwrap();
    told(&edge, "durward_streams_cut_total{cause=\"send_timeout\"} 1");
    backend_is_free(&edge, 1);
    // The connection that carries nothing any more is closed as an idle one.
    told(&edge, "durward_connections 0");
}
