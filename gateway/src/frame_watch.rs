//! What a client's frames of HTTP/2 (RFC 9113 section 4.1) say before they are read: whether a header
//! section has begun and not ended, and whether there are too many frames of a kind that costs a client
//! nothing.
//!
//! Only the nine bytes before each frame are looked at. What is wrong with a frame is the library's to
//! say.

use std::time::Instant;

/// How many of something a connection may take: so many at once, and so many more each second.
#[derive(Debug)]
pub(crate) struct Allowance {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// Which allowance a client has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Streams that it reset (CVE-2023-44487).
    Resets,
    /// Frames that bring neither a request nor a piece of one.
    Frames,
}

/// What of an allowance is left.
///
/// The clock is not read before the burst is used up; what has come back since it was read last is at
/// most another burst.
#[derive(Debug)]
struct Left {
    of: &'static Allowance,
    count: u32,
    since: Instant,
}

impl Left {
    fn new(of: &'static Allowance, now: Instant) -> Self {
        Self {
            of,
            count: of.burst,
            since: now,
        }
    }

    /// Takes one; `false` where nothing is left.
    fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.count == 0 {
            let now = now();
            let passed = now.saturating_duration_since(self.since).as_millis();
            let back = passed.saturating_mul(u128::from(self.of.per_second)) / 1000;
            let back = u32::try_from(back).unwrap_or(u32::MAX).min(self.of.burst);
            if back == 0 {
                return false;
            }
            (self.count, self.since) = (back, now);
        }
        self.count -= 1;
        true
    }

    fn give(&mut self, count: u32) {
        self.count = self.count.saturating_add(count).min(self.of.burst);
    }
}

/// Bytes of the preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Bytes before the payload of each frame.
const HEAD: usize = 9;
/// Where in them the type stands.
const KIND: usize = 3;
/// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;
/// The flag of the last frame of a header section.
const END_HEADERS: u8 = 0x4;
/// A client that takes a response says so frame by frame: for so many bytes of it one comes back.
const BYTES_FOR_A_FRAME: usize = 1 << 10;
/// What a request brings back. A client may well say something about each, such as its priority.
const FRAMES_FOR_A_REQUEST: u32 = 4;

/// Which header section is open: one that begins later has another number. The preface counts as one,
/// with the settings that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section(u64);

/// How far the client has come.
#[derive(Debug)]
pub(crate) struct FrameWatch {
    /// The first bytes of the next frame.
    head: [u8; HEAD],
    /// How many of them have come.
    come: usize,
    /// Bytes to come of the frame, or of the preface.
    payload: usize,
    /// A frame or the preface is being read that ends a section with its last byte.
    ends: bool,
    /// A section has begun, and not ended.
    open: bool,
    /// How many have ended.
    ended: u64,
    resets: Left,
    frames: Left,
    /// Bytes that were sent, and brought nothing back yet.
    sent: usize,
}

impl FrameWatch {
    /// Of a connection that begins now.
    pub(crate) fn new(resets: &'static Allowance, frames: &'static Allowance, now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            come: 0,
            payload: PREFACE,
            ends: false,
            open: true,
            ended: 0,
            resets: Left::new(resets, now),
            frames: Left::new(frames, now),
            sent: 0,
        }
    }

    /// Looks at the next bytes of the client.
    pub(crate) fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let count = self.payload.min(bytes.len());
                self.payload -= count;
                bytes = &bytes[count..];
            } else {
                let count = (HEAD - self.come).min(bytes.len());
                self.head[self.come..self.come + count].copy_from_slice(&bytes[..count]);
                self.come += count;
                bytes = &bytes[count..];
                if self.come < HEAD {
                    return Ok(());
                }
                self.come = 0;
                self.begin_frame(&now)?;
            }
            if self.payload == 0 && self.ends {
                self.ends = false;
                self.open = false;
                self.ended += 1;
            }
        }
        Ok(())
    }

    /// So many bytes were sent to the client.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= BYTES_FOR_A_FRAME {
            let frames = u32::try_from(self.sent / BYTES_FOR_A_FRAME).unwrap_or(u32::MAX);
            self.frames.give(frames);
            self.sent %= BYTES_FOR_A_FRAME;
        }
    }

    /// The section that is open now, if one is.
    ///
    /// A frame whose type has not come yet is as good as none: its client is as idle as one that is
    /// silent, and has as long.
    pub(crate) fn open_section(&self) -> Option<Section> {
        let is_open = self.open || (self.come > KIND && self.head[KIND] == HEADERS);
        is_open.then_some(Section(self.ended))
    }

    /// The bytes before a frame are whole.
    fn begin_frame(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
        // The first frame is the settings, which belong to the preface.
        self.ends = self.open && self.ended == 0;
        match kind {
            HEADERS | CONTINUATION => {
                self.open = true;
                self.ends = flags & END_HEADERS != 0;
                if kind == HEADERS {
                    self.frames.give(FRAMES_FOR_A_REQUEST);
                }
                Ok(())
            }
            DATA if self.payload > 0 => {
                self.frames.give(1);
                Ok(())
            }
            RST_STREAM => self.resets.take(now).then_some(()).ok_or(Flood::Resets),
            _ => self.frames.take(now).then_some(()).ok_or(Flood::Frames),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use durward_testing::http2::{Frame, PREFACE as PREFACE_BYTES, flag, frame_type};

    use super::*;

    static FEW: Allowance = Allowance {
        burst: 3,
        per_second: 10,
    };

    fn watch(start: Instant) -> FrameWatch {
        FrameWatch::new(&FEW, &FEW, start)
    }

    /// One whose preface and settings have come.
    fn opened(start: Instant) -> FrameWatch {
        let mut watch = watch(start);
        watch.read(PREFACE_BYTES, || start).unwrap();
        watch.read(&Frame::settings(&[(3, 1)]).bytes(), || start).unwrap();
        assert_eq!(watch.open_section(), None);
        watch
    }

    #[test]
    fn the_preface_is_open_until_its_settings_are_whole_however_they_come() {
        let now = Instant::now();
        let bytes = [PREFACE_BYTES, &Frame::settings(&[(3, 1), (4, 2)]).bytes()].concat();
        let mut watch = watch(now);
        for (at, byte) in bytes.iter().enumerate() {
            assert!(watch.open_section().is_some(), "before byte {at}");
            watch.read(&[*byte], || now).unwrap();
        }
        assert_eq!(watch.open_section(), None);
    }

    #[test]
    fn a_section_is_open_from_the_type_of_its_first_frame_to_the_end_of_its_last() {
        let now = Instant::now();
        let block = Frame::new(frame_type::HEADERS, flag::END_STREAM, 1, [0; 5]).bytes();
        let more = Frame::new(frame_type::CONTINUATION, flag::NONE, 1, []).bytes();
        let last = Frame::new(frame_type::CONTINUATION, flag::END_HEADERS, 1, [0; 2]).bytes();
        let bytes = [block, more, last].concat();
        let mut watch = opened(now);
        let mut numbers = Vec::new();
        for round in 0..2 {
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(
                    watch.open_section().is_some(),
                    at > KIND,
                    "before byte {at} of {round}"
                );
                watch.read(&[*byte], || now).unwrap();
                numbers.extend(watch.open_section());
            }
            assert_eq!(watch.open_section(), None);
        }
        numbers.dedup();
        assert_eq!(numbers.len(), 2, "each has a number");
        let whole = [&bytes[..], &Frame::data(1, "body", true).bytes(), &bytes].concat();
        watch.read(&whole, || now).unwrap();
        assert_eq!(watch.open_section(), None);
        let empty = Frame::headers(1, [], true).bytes();
        watch.read(&empty[..8], || now).unwrap();
        assert!(watch.open_section().is_some());
        watch.read(&empty[8..], || now).unwrap();
        assert_eq!(watch.open_section(), None, "one without a payload");
    }

    #[test]
    fn what_is_used_up_comes_back_with_time() {
        let start = Instant::now();
        let now = Cell::new(start);
        let reset = Frame::reset(1, 8).bytes();
        for (after, back) in [(0, 0), (90, 0), (210, 2), (60_000, 3)] {
            let mut watch = opened(start);
            let mut resets = |count: usize| watch.read(&reset.repeat(count), || now.get());
            now.set(start);
            assert_eq!(resets(3), Ok(()));
            now.set(start + Duration::from_millis(after));
            assert_eq!(resets(back), Ok(()), "after {after} ms");
            assert_eq!(resets(1), Err(Flood::Resets), "after {after} ms");
        }
    }

    #[test]
    fn frames_that_bring_nothing_are_paid_for_by_those_that_do() {
        let now = Instant::now();
        let ping = Frame::new(frame_type::PING, flag::NONE, 0, [0; 8]).bytes();
        let request = Frame::headers(1, [0; 3], true).bytes();
        // One was the settings.
        let mut watch = opened(now);
        assert_eq!(watch.read(&ping.repeat(2), || now), Ok(()));
        assert_eq!(watch.read(&ping, || now), Err(Flood::Frames));
        for _ in 0..100 {
            assert_eq!(
                watch.read(&[&request[..], &ping.repeat(3)].concat(), || now),
                Ok(())
            );
        }
        for _ in 0..100 {
            watch.sent(BYTES_FOR_A_FRAME / 2);
            watch.sent(BYTES_FOR_A_FRAME / 2);
            let update = Frame::window_update(0, 1).bytes();
            assert_eq!(watch.read(&update, || now), Ok(()));
        }
        for frame in [
            Frame::data(1, [], false),
            Frame::settings(&[]),
            Frame::new(frame_type::PRIORITY, 0, 1, [0; 5]),
            Frame::window_update(1, 1),
            Frame::new(0x77, 0, 1, [0; 5]),
        ] {
            let mut watch = opened(now);
            let sent = watch.read(&frame.bytes().repeat(3), || now);
            assert_eq!(sent, Err(Flood::Frames), "{frame:?}");
        }
    }
}
