//! The end of the header section before the first frame.

/// The code of the response that frames follow.
const SWITCHING_PROTOCOLS: &[u8] = b"101";
/// Where it stands in the status line.
const CODE: std::ops::Range<usize> = 9..12;
const END: &[u8] = b"\r\n\r\n";

/// Follows the responses that are written to a client, up to the end of the header section of a 101.
/// Others of the 1xx may come before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    /// Bytes of the current header section.
    at: usize,
    matched_code: usize,
    matched_end: usize,
    done: bool,
}

impl Head {
    /// Whether the frames have begun.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Follows what is of a header section, and yields the rest.
    pub(super) fn follow<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.done {
            return bytes;
        }
        for (index, byte) in bytes.iter().enumerate() {
            if CODE.contains(&self.at) && SWITCHING_PROTOCOLS[self.at - CODE.start] == *byte {
                self.matched_code += 1;
            }
            self.at += 1;
            self.matched_end = match (END[self.matched_end] == *byte, *byte) {
                (true, _) => self.matched_end + 1,
                (false, b'\r') => 1,
                (false, _) => 0,
            };
            if self.matched_end == END.len() {
                let is_last = self.matched_code == SWITCHING_PROTOCOLS.len();
                *self = Self {
                    done: is_last,
                    ..Self::default()
                };
                if is_last {
                    return &bytes[index + 1..];
                }
            }
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_after_the_head_of_a_101() {
        let text =
            b"HTTP/1.1 103 Early Hints\r\nLink: 101\r\n\r\nHTTP/1.1 101 Switching\r\nA: b\r\r\n\r\nframes";
        for piece in 1..text.len() {
            let (mut head, mut rest) = (Head::default(), Vec::new());
            for bytes in text.chunks(piece) {
                rest.extend_from_slice(head.follow(bytes));
            }
            assert!(head.is_done());
            assert_eq!(rest, b"frames", "{piece}");
        }
        let mut head = Head::default();
        assert_eq!(head.follow(b"HTTP/1.1 200 OK\r\n\r\n1\r\n\r\n"), b"");
        assert!(!head.is_done());
    }
}
