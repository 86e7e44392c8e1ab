use std::pin::Pin;
use std::task::{Context, Poll};

use durward_policy::Cause;
use futures_util::task::noop_waker_ref;
use pingora::protocols::Stream;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::*;

const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
const KEY: [u8; 4] = [1, 2, 3, 4];

/// A WebSocket between a client, and Pingora.
struct Between {
    websocket: WebSocket,
    stream: Stream,
    client: DuplexStream,
    /// What has come to the client, and to the server.
    heard: Vec<u8>,
    passed: Vec<u8>,
}

impl Between {
    /// Over a connection that takes so many bytes before they are read.
    fn new(room: usize) -> Self {
        let (client, stream) = duplex(room);
        Self {
            websocket: WebSocket::new(),
            stream: Box::new(stream),
            client,
            heard: Vec::new(),
            passed: Vec::new(),
        }
    }

    fn opened() -> Self {
        let mut between = Self::new(1 << 16);
        between.answer(HEAD);
        between.heard.clear();
        between
    }

    /// The server sends.
    fn answer(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut context = Context::from_waker(noop_waker_ref());
            let polled = self.websocket.poll_write(&mut self.stream, &mut context, bytes);
            if let Poll::Ready(written) = polled {
                bytes = &bytes[written.unwrap()..];
            }
            let _ = self.websocket.poll_flush(&mut self.stream, &mut context);
            self.hear();
        }
    }

    /// The client sends.
    fn say(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(noop_waker_ref());
        let polled = Pin::new(&mut self.client).poll_write(&mut context, bytes);
        assert!(matches!(polled, Poll::Ready(Ok(written)) if written == bytes.len()));
    }

    /// Pingora reads what is there into buffers of this size, and passes it on.
    fn pass(&mut self, size: usize) {
        let mut context = Context::from_waker(noop_waker_ref());
        let mut bytes = vec![0; size];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = self
                .websocket
                .poll_read(&mut self.stream, &mut context, &mut buffer);
            if polled.is_pending() || buffer.filled().is_empty() {
                break;
            }
            self.websocket.passes_to_upstream(buffer.filled());
            self.passed.extend_from_slice(buffer.filled());
        }
        self.hear();
    }

    fn hear(&mut self) {
        let mut context = Context::from_waker(noop_waker_ref());
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.client).poll_read(&mut context, &mut buffer);
            if polled.is_pending() || buffer.filled().is_empty() {
                return;
            }
            self.heard.extend_from_slice(buffer.filled());
        }
    }
}

fn of_server(payload: &[u8]) -> Vec<u8> {
    [&[0x82, u8::try_from(payload.len()).unwrap()], payload].concat()
}

fn of_client(payload: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(payload.len()).unwrap();
    [&[0x82, length], &KEY[..], payload].concat()
}

/// The code and the reason of the one Close frame that this begins with, and what follows it.
fn close(bytes: &[u8]) -> (u16, String, &[u8]) {
    assert_eq!(bytes[0], 0x88);
    let length = usize::from(bytes[1] & 0x7F);
    let (start, key) = match bytes[1] & 0x80 {
        0 => (2, [0; 4]),
        _ => (6, bytes[2..6].try_into().unwrap()),
    };
    let payload: Vec<u8> = bytes[start..start + length]
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect();
    let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
    let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
    (code, reason, &bytes[start + length..])
}

#[test]
fn both_sides_of_an_idle_one_are_told_and_it_is_over_when_both_have_answered() {
    let mut between = Between::opened();
    between.pass(100);
    assert!(between.heard.is_empty() && between.passed.is_empty());
    assert!(between.websocket.say_goodbye(Close::GOING_AWAY));
    assert!(!between.websocket.say_goodbye(Close::GOING_AWAY));
    between.pass(100);
    let expected = (1001, "shutdown".to_owned(), &[][..]);
    assert_eq!(close(&between.heard), expected);
    assert_eq!(between.passed[1] & 0x80, 0x80, "a client masks");
    assert_eq!(close(&between.passed), expected);
    assert!(!between.websocket.is_over());
    between.say(&Close::GOING_AWAY.frame(Some(KEY)));
    between.pass(100);
    assert!(!between.websocket.is_over());
    between.answer(&Close::GOING_AWAY.frame(None));
    assert!(between.websocket.is_over());
    // Neither answer is passed on: both had theirs.
    assert!(close(&between.heard).2.is_empty());
    assert!(close(&between.passed).2.is_empty());
}

#[test]
fn what_is_in_the_middle_of_a_frame_is_told_at_its_end() {
    let mut between = Between::opened();
    let (from_server, from_client) = (of_server(b"server"), of_client(b"client"));
    between.answer(&from_server[..3]);
    between.say(&from_client[..4]);
    between.pass(100);
    between.websocket.say_goodbye(Close::GOING_AWAY);
    between.pass(100);
    assert_eq!(between.heard, from_server[..3]);
    assert_eq!(between.passed, from_client[..4]);
    between.answer(&[&from_server[3..], &of_server(b"too late")].concat());
    between.say(&[&from_client[4..], &of_client(b"too late")].concat());
    between.pass(100);
    let (heard, passed) = (&between.heard, &between.passed);
    assert_eq!(heard[..from_server.len()], from_server);
    assert_eq!(passed[..from_client.len()], from_client);
    assert!(close(&heard[from_server.len()..]).2.is_empty());
    assert!(close(&passed[from_client.len()..]).2.is_empty());
}

#[test]
fn who_closes_of_its_own_accord_is_not_told_again() {
    let mut between = Between::opened();
    let done = Close {
        code: 1000,
        reason: "done",
    };
    let (of_server, of_client) = (done.frame(None), done.frame(Some(KEY)));
    between.answer(&of_server);
    between.websocket.say_goodbye(Close::GOING_AWAY);
    between.pass(100);
    between.say(&of_client);
    between.pass(100);
    assert_eq!((&between.heard, &between.passed), (&of_server, &of_client));
    assert!(between.websocket.is_over());

    let mut between = Between::opened();
    between.say(&of_client);
    between.pass(100);
    between.websocket.say_goodbye(Close::GOING_AWAY);
    between.pass(100);
    between.answer(&of_server);
    assert_eq!((&between.heard, &between.passed), (&of_server, &of_client));
    assert!(between.websocket.is_over());
}

#[test]
fn nothing_is_said_before_the_head_is_written() {
    let mut between = Between::new(1 << 16);
    between.websocket.say_goodbye(Close::GOING_AWAY);
    between.answer(&HEAD[..20]);
    between.pass(100);
    assert_eq!(between.heard, HEAD[..20]);
    between.answer(&[&HEAD[20..], &of_server(b"too late")].concat());
    assert_eq!(between.heard[..HEAD.len()], *HEAD);
    assert!(close(&between.heard[HEAD.len()..]).2.is_empty());
}

#[test]
fn who_is_cut_hears_why_where_a_frame_may_begin() {
    let cut = Cut::Revoked(Cause::User);
    let mut between = Between::opened();
    between.answer(&of_server(b"hello"));
    between.heard.clear();
    between.websocket.is_cut(cut);
    between.websocket.dropped(&mut between.stream);
    between.hear();
    assert_eq!(close(&between.heard), (1008, "revoked".into(), &[][..]));

    let mut between = Between::opened();
    between.answer(&of_server(b"hello")[..4]);
    between.websocket.is_cut(cut);
    between.websocket.dropped(&mut between.stream);
    between.hear();
    assert_eq!(between.heard, of_server(b"hello")[..4]);

    // Of what ends by itself nothing is said, and of what was cut for a time neither.
    let mut between = Between::opened();
    between.websocket.dropped(&mut between.stream);
    between.websocket.is_cut(Cut::TotalTimeout);
    between.websocket.dropped(&mut between.stream);
    between.hear();
    assert!(between.heard.is_empty());

    // Who was told once is not told again.
    let mut between = Between::opened();
    between.websocket.say_goodbye(Close::GOING_AWAY);
    between.pass(100);
    between.websocket.is_cut(cut);
    between.websocket.dropped(&mut between.stream);
    between.hear();
    assert_eq!(close(&between.heard), (1001, "shutdown".into(), &[][..]));
}

#[test]
fn a_client_that_takes_nothing_is_cut_without_a_word() {
    let mut between = Between::new(HEAD.len());
    let mut context = Context::from_waker(noop_waker_ref());
    assert!(
        between
            .websocket
            .poll_write(&mut between.stream, &mut context, HEAD)
            .is_ready()
    );
    let _ = between.websocket.poll_flush(&mut between.stream, &mut context);
    between.websocket.is_cut(Cut::Expired);
    between.websocket.dropped(&mut between.stream);
    between.hear();
    assert_eq!(between.heard, HEAD);
}

#[derive(Clone, Debug)]
enum Step {
    /// So many bytes of the server's frames.
    Answer(usize),
    /// So many bytes of the client's frames, read by so many.
    Say(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_usize..40).prop_map(Step::Answer),
        (1_usize..40, 1_usize..30).prop_map(|(length, size)| Step::Say(length, size)),
    ]
}

proptest! {
    /// Whatever the pieces, and whenever it is said: each side has whole frames, then one Close frame,
    /// then nothing.
    #[test]
    fn a_close_frame_stands_between_frames_and_is_the_last(
        steps in vec(step(), 0..30),
        when in 0_usize..30,
        room in 16_usize..200,
    ) {
        let mut between = Between::new(room);
        between.answer(HEAD);
        between.heard.clear();
        let many = |of: fn(&[u8]) -> Vec<u8>| {
            let payload = [0x88, 0x02, 0x03, 0xE9, 0x88, 0x80, 0x7E, 0x00];
            (0..300).map(|index| of(&payload[..index % 9])).collect::<Vec<_>>()
        };
        let (from_server, from_client) = (many(of_server), many(of_client));
        let (mut to_answer, mut to_say) = (from_server.concat().into_iter(), from_client.concat().into_iter());
        for (index, step) in steps.iter().enumerate() {
            if index == when {
                between.websocket.say_goodbye(Close::GOING_AWAY);
            }
            match step {
                Step::Answer(length) => {
                    let bytes: Vec<_> = to_answer.by_ref().take(*length).collect();
                    between.answer(&bytes);
                }
                Step::Say(length, size) => {
                    for byte in to_say.by_ref().take(*length).collect::<Vec<_>>().chunks(16) {
                        between.say(byte);
                        between.pass(*size);
                    }
                }
            }
        }
        if when < steps.len() {
            // To the ends of the frames that are on their way.
            between.answer(&to_answer.by_ref().take(10).collect::<Vec<_>>());
            for _ in 0..14 {
                between.say(&to_say.by_ref().take(1).collect::<Vec<_>>());
                between.pass(30);
            }
            for (sent, arrived) in [(from_server, &between.heard), (from_client, &between.passed)] {
                let mut rest = &arrived[..];
                for frame in sent {
                    match rest.strip_prefix(&frame[..]) {
                        Some(after) => rest = after,
                        None => break,
                    }
                }
                let (code, reason, after) = close(rest);
                prop_assert_eq!((code, reason.as_str(), after), (1001, "shutdown", &[][..]));
            }
        } else {
            prop_assert!(from_server.concat().starts_with(&between.heard));
            prop_assert!(from_client.concat().starts_with(&between.passed));
        }
    }
}
