//! Where the frames of one direction of a WebSocket begin and end (RFC 6455 section 5.2), whatever the
//! pieces that they come in. Nothing of their payload is looked at.

/// The bytes of a header before a length that does not fit into seven bits.
const SHORT_HEADER: u8 = 2;
/// The bytes of the key that a client's payload is masked with.
const MASK: u8 = 4;
/// The longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;
const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0F;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;

/// Follows frames. What no endpoint may send (a control frame that is long or in pieces, a length over
/// 2^63, a mask that is missing or not wanted) has it lose the thread: there is no boundary any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Whether whoever sends them masks them: a client does, a server does not.
    masked: bool,
    /// How much of the current header was there, and how long it is as far as that is known.
    header: u8,
    header_length: u8,
    opcode: u8,
    length: u64,
    /// How much of the current payload is missing.
    left: u64,
    closing: bool,
    closed: bool,
    lost: bool,
}

impl Frames {
    /// Of a client.
    pub(super) fn of_client() -> Self {
        Self::new(true)
    }

    /// Of a server.
    pub(super) fn of_server() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self {
            masked,
            header: 0,
            header_length: SHORT_HEADER,
            opcode: 0,
            length: 0,
            left: 0,
            closing: false,
            closed: false,
            lost: false,
        }
    }

    /// Whether another frame may begin here.
    pub(super) fn at_boundary(&self) -> bool {
        !self.lost && self.header == 0
    }

    /// Whether a Close frame has begun: nothing may be sent after it (RFC 6455 section 5.5.1).
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a Close frame was there as a whole.
    pub(super) fn has_closed(&self) -> bool {
        self.closed
    }

    /// Follows all of it.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.follow_frame(bytes)..];
        }
    }

    /// Follows what is of the current frame, or of the next one where none has begun, and says how
    /// many bytes that was.
    pub(super) fn follow_frame(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.lost {
            if self.left == 0 {
                self.header_byte(bytes[used]);
                used += 1;
                if self.header < self.header_length || self.lost {
                    continue;
                }
                self.left = self.length;
            } else {
                let here = u64::try_from(bytes.len() - used)
                    .unwrap_or(u64::MAX)
                    .min(self.left);
                self.left -= here;
                used += usize::try_from(here).unwrap_or(usize::MAX);
            }
            if self.left == 0 {
                self.frame_ended();
                return used;
            }
        }
        bytes.len()
    }

    fn header_byte(&mut self, byte: u8) {
        match self.header {
            0 => {
                self.opcode = byte & OPCODE;
                self.closing |= self.opcode == CLOSE;
                self.lost |= self.opcode & CONTROL != 0 && byte & FIN == 0;
            }
            1 => {
                let (extended, length) = match byte & 0x7F {
                    126 => (2, 0),
                    127 => (8, 0),
                    length => (0, length.into()),
                };
                let mask = if self.masked { MASK } else { 0 };
                self.header_length = SHORT_HEADER + extended + mask;
                self.length = length;
                self.lost |= (byte & 0x80 != 0) != self.masked;
                self.lost |= self.opcode & CONTROL != 0 && (extended != 0 || length > MAX_CONTROL);
            }
            at if at < self.header_length - if self.masked { MASK } else { 0 } => {
                self.lost |= self.length >> 55 != 0;
                self.length = (self.length << 8) | u64::from(byte);
            }
            _ => {}
        }
        self.header += 1;
    }

    fn frame_ended(&mut self) {
        self.closed |= self.opcode == CLOSE;
        self.header = 0;
        self.header_length = SHORT_HEADER;
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A frame as somebody sends it.
    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        let mask = if masked { 0x80 } else { 0 };
        match payload {
            0..126 => bytes.push(mask | u8::try_from(payload).unwrap()),
            126..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([0x88, 0x00, 0x81, 0x7F]);
        }
        // What a header could be, so that a lost thread shows.
        bytes.extend([0x88, 0x7F].iter().cycle().take(payload));
        bytes
    }

    #[test]
    fn boundaries_are_between_frames_and_nowhere_else() {
        for masked in [false, true] {
            for payload in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000] {
                let bytes = frame(0x82, masked, payload);
                let mut frames = Frames::new(masked);
                assert!(frames.at_boundary());
                for (at, byte) in bytes.iter().enumerate() {
                    frames.follow(&[*byte]);
                    let is_last = at + 1 == bytes.len();
                    assert_eq!(frames.at_boundary(), is_last, "{masked} {payload} {at}");
                }
                assert!(!frames.is_closing());
            }
        }
    }

    #[test]
    fn a_close_frame_is_noticed_when_it_begins_and_when_it_ends() {
        for masked in [false, true] {
            let bytes = frame(0x88, masked, 2);
            let mut frames = Frames::new(masked);
            frames.follow(&bytes[..1]);
            assert!(frames.is_closing() && !frames.has_closed());
            frames.follow(&bytes[1..]);
            assert!(frames.is_closing() && frames.has_closed() && frames.at_boundary());
        }
        // An opcode in a payload is none.
        let mut frames = Frames::of_server();
        frames.follow(&frame(0x81, false, 300));
        assert!(!frames.is_closing());
    }

    #[test]
    fn what_no_endpoint_may_send_has_no_boundary_any_more() {
        let long_control = [0x89, 0x7E, 0, 126];
        for (bytes, masked) in [
            (&long_control[..], false),
            (&[0x08, 0x00], false),
            (&[0x81, 0x80, 0, 0, 0, 0], false),
            (&[0x81, 0x00], true),
            (&[0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0], false),
        ] {
            let mut frames = Frames::new(masked);
            frames.follow(bytes);
            frames.follow(&[0; 600]);
            assert!(!frames.at_boundary(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            sent in vec((prop::sample::select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0xC1, 0x89, 0x8A, 0x88]), 0_usize..400), 0..12),
            pieces in vec(1_usize..50, 1..40),
            masked: bool,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (first, payload) in &sent {
                let is_control = first & CONTROL != 0;
                bytes.extend(frame(*first, masked, if is_control { payload % 126 } else { *payload }));
                ends.push(bytes.len());
            }
            let (mut frames, mut at) = (Frames::new(masked), 0);
            for piece in pieces.iter().cycle() {
                if at == bytes.len() {
                    break;
                }
                let end = bytes.len().min(at + piece);
                frames.follow(&bytes[at..end]);
                at = end;
                prop_assert_eq!(frames.at_boundary(), ends.contains(&at));
            }
            let closes = sent.iter().any(|(first, _)| first & OPCODE == CLOSE);
            prop_assert_eq!(frames.has_closed(), closes);
            // And frame by frame.
            let (mut frames, mut at) = (Frames::new(masked), 0);
            for end in ends {
                at += frames.follow_frame(&bytes[at..]);
                prop_assert_eq!(at, end);
                prop_assert!(frames.at_boundary());
            }
        }

        #[test]
        fn anything_is_followed_to_its_end(bytes in vec(any::<u8>(), 0..600), masked: bool) {
            let mut whole = Frames::new(masked);
            whole.follow(&bytes);
            let mut single = Frames::new(masked);
            bytes.iter().for_each(|byte| single.follow(&[*byte]));
            prop_assert_eq!(whole, single);
        }
    }
}
