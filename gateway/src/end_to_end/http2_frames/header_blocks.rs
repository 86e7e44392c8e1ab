//! HPACK (RFC 7541): blocks that cannot be read end the connection, since all that follow depend on
//! them.

use durward_testing::http2::error_code::{COMPRESSION_ERROR, PROTOCOL_ERROR};
use durward_testing::http2::{Frame, literal, write_integer};

use super::{Case, GET, Want, block, run};
use crate::end_to_end::edge::Edge;

// The library says PROTOCOL_ERROR: docs/CONFORMANCE.md.
const WRONG: Want = Want::ConnectionError(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);

/// A request whose block has `more` after its fields.
fn with(more: &[u8]) -> Vec<Frame> {
    vec![Frame::headers(1, [&block(&GET), more].concat(), true)]
}

/// A request whose block has `first` before its fields.
fn after(first: &[u8]) -> Vec<Frame> {
    vec![Frame::headers(1, [first, &block(&GET)].concat(), true)]
}

fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_integer(&mut bytes, first, bits, value);
    bytes
}

#[test]
fn blocks_that_cannot_be_read_end_the_connection() {
    let edge = Edge::start("");
    let case = |section, what, send, want| Case {
        section,
        what,
        send,
        want,
    };
    let huffman = |code: &[u8]| [&[0x00, 0x03, b'x', b'-', b'a', 0x80 | code.len() as u8][..], code].concat();
    let indexed = |name: &[u8], value: &[u8]| [&[0x40][..], &literal(name, value)[1..]].concat();
    run(
        &edge,
        &[
            case(
                "HPACK 2.3.3",
                "index 70 without a dynamic table",
                with(&[0xc6]),
                WRONG,
            ),
            case(
                "HPACK 2.3.3",
                "a name by index 70 without a dynamic table",
                with(&[0x7f, 7, 0]),
                WRONG,
            ),
            case(
                "HPACK 4.2",
                "a change of the table's size after fields",
                with(&[0x20]),
                WRONG,
            ),
            case(
                "HPACK 4.2",
                "a change of the table's size before fields",
                after(&[0x20]),
                Want::Status(200),
            ),
            case("HPACK 5.1", "an integer without an end", with(&[0xff; 12]), WRONG),
            case(
                "HPACK 5.2",
                "a string that ends too early",
                with(&[0x00, 0x05, b'x']),
                WRONG,
            ),
            case(
                "HPACK 5.2",
                "padding of more than 7 bits",
                with(&huffman(&[0x1f, 0xff])),
                WRONG,
            ),
            case("HPACK 5.2", "padding with zeroes", with(&huffman(&[0x18])), WRONG),
            case(
                "HPACK 5.2",
                "the end of strings within one",
                with(&huffman(&[0xff, 0xff, 0xff, 0xff])),
                WRONG,
            ),
            case(
                "HPACK 5.2",
                "a string in Huffman code",
                with(&huffman(&[0x1f])),
                Want::Status(200),
            ),
            case("HPACK 6.1", "index 0", with(&[0x80]), WRONG),
            case(
                "HPACK 6.3",
                "a table larger than the setting",
                after(&integer(0x20, 5, 4_097)),
                WRONG,
            ),
            case(
                "HPACK 2.3.2",
                "a field out of the dynamic table",
                with(&[&indexed(b"x-a", b"b")[..], &[0xbe]].concat()),
                Want::Status(200),
            ),
        ],
    );
}

#[test]
fn a_name_from_the_dynamic_table_is_stripped_like_any_other() {
    let edge = Edge::start("");
    let mut connection = super::open(&edge);
    let indexed = [&[0x40][..], &literal(b"x-user-id", b"mallory")[1..]].concat();
    for again in [&indexed[..], &[0xbe], &[0xbe, 0xbe]] {
        println!("case HPACK x-user-id, {}", again.escape_ascii());
        let stream = connection.new_stream();
        let block = [&block(&GET), again].concat();
        connection.send(&Frame::headers(stream, block, true)).unwrap();
        let outcome = connection.outcome(stream).unwrap();
        assert_eq!(
            outcome,
            super::Outcome::Response {
                status: 200,
                body: b"ok".to_vec()
            }
        );
        assert!(!edge.backend.last().contains("mallory"));
    }
    assert_eq!(edge.backend.count(), 3);
}
