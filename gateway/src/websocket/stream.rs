//! The client's connection of a WebSocket: bytes as they are, until there is something to say.
//!
//! The frame to the server is handed to Pingora as though the client had sent it, and so goes the way
//! that all of the client's bytes go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::rand;
use futures_util::task::noop_waker_ref;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Close, State, WebSocket};

/// How much of what goes nowhere is read at once, and how often before others have their turn.
const DISCARDED: usize = 4096;
const DISCARDS: usize = 16;

impl WebSocket {
    /// Reads for Pingora.
    pub(crate) fn poll_read(
        &self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let Some(goodbye) = state.goodbye else {
            return Pin::new(inner).poll_read(context, buffer);
        };
        if let Poll::Ready(Err(error)) = state.poll_say(inner, context) {
            return Poll::Ready(Err(error));
        }
        if state.from_client.is_none() && !state.is_closing_itself() {
            if state.to_upstream.at_boundary() {
                state.from_client = Some(state.to_upstream);
                state.to_read = masked(goodbye);
            } else {
                return state.poll_read_frame(inner, context, buffer, goodbye);
            }
        }
        if !state.to_read.is_empty() {
            let length = buffer.remaining().min(state.to_read.len());
            buffer.put_slice(&state.to_read[..length]);
            state.to_read.drain(..length);
            return Poll::Ready(Ok(()));
        }
        match state.from_client {
            Some(_) => state.poll_discard(inner, context),
            None => Pin::new(inner).poll_read(context, buffer),
        }
    }

    /// Writes for Pingora.
    pub(crate) fn poll_write(
        &self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        ready!(state.poll_say(inner, context))?;
        if state.client_told {
            state.to_client.follow(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let end = match state.goodbye {
            Some(_) => state.end_of_frame(bytes),
            None => bytes.len(),
        };
        let written = ready!(Pin::new(inner).poll_write(context, &bytes[..end]))?;
        state.unflushed = true;
        let frames = state.head.follow(&bytes[..written]);
        state.to_client.follow(frames);
        Poll::Ready(Ok(written))
    }

    /// Flushes for Pingora.
    pub(crate) fn poll_flush(&self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.poll_say(inner, context))?;
        state.poll_flush(inner, context)
    }

    /// The connection is dropped: says why, if that can be done at once.
    pub(crate) fn dropped(&self, inner: &mut Stream) {
        let mut state = self.0.lock();
        let Some(close) = state.last_word.take() else {
            return;
        };
        if !state.unflushed && state.may_tell_client() {
            let mut context = Context::from_waker(noop_waker_ref());
            state.tell_client(close);
            // Who cannot be told is cut all the same.
            let _ = state.poll_say(inner, &mut context);
        }
    }
}

impl State {
    /// Whether a Close frame may be sent to the client now.
    fn may_tell_client(&self) -> bool {
        let may_begin = self.head.is_done() && self.to_client.at_boundary();
        !self.client_told && may_begin && !self.to_client.is_closing()
    }

    /// Whether one of the two has begun to close it before the other was told anything: their frames
    /// pass.
    fn is_closing_itself(&self) -> bool {
        let by_client = self.from_client.is_none() && self.to_upstream.is_closing();
        let by_server = !self.client_told && self.to_client.is_closing();
        by_client || by_server
    }

    fn tell_client(&mut self, close: Close) {
        self.client_told = true;
        self.to_write = close.frame(None);
    }

    /// Tells the client what it is to be told, if it may be.
    fn poll_say(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(goodbye) = self.goodbye
            && self.may_tell_client()
            && !self.is_closing_itself()
        {
            self.tell_client(goodbye);
        }
        while !self.to_write.is_empty() {
            let written = ready!(Pin::new(&mut *inner).poll_write(context, &self.to_write))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.to_write.drain(..written);
        }
        match self.client_told && self.unflushed {
            true => self.poll_flush(inner, context),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_flush(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(inner).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// How much of this is of the frame that is on its way to the client.
    fn end_of_frame(&self, bytes: &[u8]) -> usize {
        let (mut head, mut frames) = (self.head, self.to_client);
        let rest = head.follow(bytes);
        let of_head = bytes.len() - rest.len();
        match of_head {
            0 => frames.follow_frame(rest),
            _ => of_head,
        }
    }

    /// Reads the rest of the frame that is on its way to the server. What follows it goes nowhere, but
    /// where it is a Close frame.
    fn poll_read_frame(
        &mut self,
        inner: &mut Stream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        goodbye: Close,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(inner).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        let mut frames = self.to_upstream;
        let end = frames.follow_frame(read);
        if !read.is_empty() && frames.at_boundary() && !frames.is_closing() {
            frames.follow(&read[end..]);
            self.from_client = Some(frames);
            self.to_read = masked(goodbye);
            buffer.set_filled(before + end);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what goes nowhere, until there is no more.
    fn poll_discard(&mut self, inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; DISCARDED];
        for _ in 0..DISCARDS {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *inner).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(frames) = &mut self.from_client {
                frames.follow(buffer.filled());
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The frame as the client would send it. Its key has to be one that nobody foresees (RFC 6455 section
/// 5.3); without randomness the server is not told.
fn masked(close: Close) -> Vec<u8> {
    let mut key = [0; 4];
    rand::fill(&mut key).map_or_else(|_| Vec::new(), |()| close.frame(Some(key)))
}
