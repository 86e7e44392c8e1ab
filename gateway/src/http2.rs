//! What a connection of HTTP/2 may do (RFC 9113 section 10.5). The limits that Pingora and h2 have by
//! themselves are kept, and those that matter are named here.

use std::time::Duration;

use pingora::protocols::http::v2::server::{H2Options, default_h2_options};

/// Requests at once on a connection.
const MAX_CONCURRENT_STREAMS: u32 = 100;
/// Streams that a client opened and reset before they were looked at; one more ends the connection
/// (CVE-2023-44487).
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that were reset here because of what the client sent on them; one more ends the connection.
const MAX_ERRORS: usize = 128;
/// Bytes of a response that wait for a client that takes none, for each stream.
const MAX_SEND_BUFFER: usize = 128 << 10;
/// How long a connection without a request may stay.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The options of a connection. `max_header_bytes` counts a field's name and value and 32 bytes
/// (RFC 9113 section 6.5.2), over all frames of a header section.
pub(crate) fn options(max_header_bytes: usize) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    options.max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX));
    options.max_pending_accept_reset_streams(MAX_UNSEEN_RESETS);
    options.max_local_error_reset_streams(Some(MAX_ERRORS));
    options.max_send_buffer_size(MAX_SEND_BUFFER);
    options
}
