//! HTTP/2 frame by frame: what RFC 9113 asks of a server, what of HTTP/2 may become a request, and
//! floods. docs/CONFORMANCE.md says where the answers differ from the RFC's.

use std::time::Duration;

use durward_testing::http2::{Frame, Http2, Outcome, header_block};

use super::edge::Edge;

mod deadlines;
mod floods;
mod frames;
mod header_blocks;
mod requests;
mod windows;

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fields of a request that is let in.
const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "edge.example"),
    (":path", "/public/x"),
];
/// The same with a body.
const POST: [(&str, &str); 4] = [(":method", "POST"), GET[1], GET[2], GET[3]];

fn open(edge: &Edge) -> Http2 {
    drop(edge.connect());
    Http2::open(edge.address, PATIENCE).unwrap()
}

/// A good request is answered on this connection.
fn works(connection: &mut Http2) -> bool {
    let outcome = connection.ask(&GET, None);
    matches!(outcome, Ok(Outcome::Response { status: 200, .. }))
}

/// Waits until a metric has this line.
fn told(edge: &Edge, line: &str) {
    let start = std::time::Instant::now();
    while !edge.admin("/metrics").body.contains(line) {
        assert!(start.elapsed() < PATIENCE, "{line} is not in the metrics");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    header_block(fields)
}

/// What is sent after the settings, and what must come of it.
struct Case {
    /// Section of RFC 9113, or of RFC 7541 where it says HPACK.
    section: &'static str,
    what: &'static str,
    send: Vec<Frame>,
    want: Want,
}

/// An end that a client must be shown. A peer that gives up the connection may close it before its
/// last word is read, so a closed connection is as good as the error that it stands for.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// The connection is given up, for one of these reasons.
    ConnectionError(&'static [u32]),
    /// Stream 1 is reset, or the whole connection is given up, for one of these reasons.
    StreamError(&'static [u32]),
    /// Stream 1 gets a response with this status, and the connection goes on.
    Status(u16),
    /// Nothing comes of it: a request on stream 101 is answered.
    Ignored,
}

impl Case {
    fn run(&self, edge: &Edge) -> Result<(), String> {
        println!("case {} {}", self.section, self.what);
        let mut connection = open(edge);
        for frame in &self.send {
            // Whoever has given up already need not take the rest.
            if connection.send(frame).is_err() {
                break;
            }
        }
        let told =
            |outcome: &dyn std::fmt::Debug| Err(format!("{}: {}: {outcome:?}", self.section, self.what));
        if let Want::Ignored = self.want {
            let sent = connection.send(&Frame::headers(101, block(&GET), true));
            return match sent.and_then(|()| connection.outcome(101)) {
                Ok(Outcome::Response { status: 200, .. }) => Ok(()),
                outcome => told(&outcome),
            };
        }
        match (connection.outcome(1), self.want) {
            (Ok(Outcome::GoneAway(code)), Want::ConnectionError(codes) | Want::StreamError(codes))
            | (Ok(Outcome::Reset(code)), Want::StreamError(codes))
                if codes.contains(&code) =>
            {
                Ok(())
            }
            (Ok(Outcome::Closed), Want::ConnectionError(_) | Want::StreamError(_)) => Ok(()),
            (Ok(Outcome::Response { status, .. }), Want::Status(wanted)) if status == wanted => Ok(()),
            (outcome, _) => told(&outcome),
        }
    }
}

/// Tries all cases, and fails with all that went wrong.
fn run(edge: &Edge, cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.run(edge).err()).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(works(&mut open(edge)));
}
