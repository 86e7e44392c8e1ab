//! Sockets on their way from one process to the next: one record for each, of a fixed length, with the
//! socket itself beside it (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The length of a record: a text, and zeros behind it.
const RECORD: usize = 256;
/// The most sockets.
const MAX_SOCKETS: usize = 256;
/// The text of the record after the last socket, which has none.
const END: &str = "end";
const CONTROL: &str = "control ";
const TCP: &str = "tcp ";

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A listener that was asked for by this address.
    Tcp(SocketAddr),
    /// The control socket, whose file is there.
    Control(PathBuf),
}

/// A socket, and what it is for.
#[derive(Debug)]
pub struct Handed {
    pub kind: Kind,
    pub socket: OwnedFd,
}

/// Sends all of them.
pub fn send(channel: &UnixStream, handed: &[Handed]) -> io::Result<()> {
    for Handed { kind, socket } in handed {
        let text = match kind {
            Kind::Tcp(address) => format!("{TCP}{address}"),
            Kind::Control(path) => format!("{CONTROL}{}", path.display()),
        };
        send_record(channel, &text, Some(socket))?;
    }
    send_record(channel, END, None)
}

/// Receives all of them.
pub fn receive(channel: &UnixStream) -> io::Result<Vec<Handed>> {
    let mut handed = Vec::new();
    while handed.len() <= MAX_SOCKETS {
        let (text, socket) = receive_record(channel)?;
        if text == END {
            return Ok(handed);
        }
        let kind = match (text.strip_prefix(TCP), text.strip_prefix(CONTROL)) {
            (Some(address), _) => Kind::Tcp(address.parse().map_err(|_| malformed())?),
            (None, Some(path)) => Kind::Control(path.into()),
            (None, None) => return Err(malformed()),
        };
        let socket = socket.ok_or_else(malformed)?;
        handed.push(Handed { kind, socket });
    }
    Err(malformed())
}

fn send_record(channel: &UnixStream, text: &str, socket: Option<&OwnedFd>) -> io::Result<()> {
    let mut record = [0; RECORD];
    let room = record.get_mut(..text.len()).ok_or_else(malformed)?;
    room.copy_from_slice(text.as_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.map(AsFd::as_fd);
    if let Some(socket) = &sockets
        && !beside.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(socket)))
    {
        return Err(malformed());
    }
    let sent = sendmsg(
        channel,
        &[IoSlice::new(&record)],
        &mut beside,
        SendFlags::NOSIGNAL,
    )?;
    match sent == RECORD {
        true => Ok(()),
        false => Err(malformed()),
    }
}

fn receive_record(channel: &UnixStream) -> io::Result<(String, Option<OwnedFd>)> {
    let mut record = [0; RECORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(channel, &mut [IoSliceMut::new(&mut record)], &mut beside, flags)?;
    let mut sockets = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    if received.bytes != RECORD {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = std::str::from_utf8(&record).map_err(|_| malformed())?;
    Ok((text.trim_end_matches('\0').to_owned(), socket))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not what a process hands over")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_arrive_with_what_waits_in_their_queue() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        waiting.write_all(b"hello").unwrap();
        let other = TcpListener::bind("[::1]:0")
            .or_else(|_| TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let handed = [
            Handed {
                kind: Kind::Tcp(address),
                socket: listener.into(),
            },
            Handed {
                kind: Kind::Control("/run/c.sock".into()),
                socket: other.into(),
            },
        ];
        send(&ours, &handed).unwrap();
        drop(handed);
        let mut received = receive(&theirs).unwrap();
        let kinds: Vec<_> = received.iter().map(|handed| handed.kind.clone()).collect();
        assert_eq!(kinds, [Kind::Tcp(address), Kind::Control("/run/c.sock".into())]);
        let listener = TcpListener::from(received.remove(0).socket);
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    #[test]
    fn what_breaks_off_or_is_something_else_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(receive(&theirs).is_err());
        for text in ["tcp nowhere", "control x", "other"] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            send_record(&ours, text, None).unwrap();
            assert!(receive(&theirs).is_err(), "{text}");
        }
    }
}
