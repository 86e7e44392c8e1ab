//! A user who is about to be banned: what is open in their name, and when that ends.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::client::{Answer, Connection};
use crate::durward::User;

/// Requests before the ban: the connection is open on both sides and the proof is cached.
const WARM_UP: usize = 3;
/// Requests after an acknowledgement before a ban is given up on.
const MOST_ACCEPTED: usize = 10_000;
/// What a user asks for.
const PATH: &str = "/api/items/4711";
/// The longest that a cut may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a gateway that has just been used with a user's token.
pub(crate) struct Victim {
    name: String,
    edge: SocketAddr,
    connection: Connection,
    request: String,
}

/// What became of the requests after an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// From the acknowledgement to the first refusal, request included.
    pub refused: Duration,
    /// Requests that were sent after the acknowledgement and accepted.
    pub accepted: usize,
    /// From the acknowledgement to the sending of the last of them.
    pub last_accepted: Option<Duration>,
    /// Whether it was a request under way that was cut off, and not an answer.
    pub cut_off: bool,
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    /// The connection was ended under it, as that of any open request that a ban reaches.
    CutOff,
}

impl Victim {
    /// Opens the connection and uses it.
    pub fn warm(edge: SocketAddr, user: &User) -> Fallible<Self> {
        let connection = Connection::open(edge)?;
        let authorization = user.authorization();
        let request = connection.request("GET", PATH, &[("Authorization", &authorization)], None);
        let mut victim = Self {
            name: user.name.clone(),
            edge,
            connection,
            request,
        };
        for _ in 0..WARM_UP {
            if !victim.is_accepted()? {
                return Err(format!("{} was refused before the ban", victim.name).into());
            }
        }
        Ok(victim)
    }

    /// Asks once whether the backend answers.
    pub fn is_accepted(&mut self) -> Fallible<bool> {
        Ok(self.ask()? == Outcome::Accepted)
    }

    /// An answer that is neither the backend's nor the refusal of a revoked token is an error.
    fn ask(&mut self) -> Fallible<Outcome> {
        match self.connection.exchange(self.request.as_bytes())? {
            None => Ok(Outcome::CutOff),
            Some(answer) if answer.status == 200 => Ok(Outcome::Accepted),
            Some(answer) => expect_revoked(&answer).map(|()| Outcome::Refused),
        }
    }

    /// Asks again and again until it is refused, or cut off: then the next request, on another
    /// connection, must be refused.
    pub fn ask_until_refused(&mut self, acknowledged: Instant) -> Fallible<Refusal> {
        let mut last_accepted = None;
        for accepted in 0..MOST_ACCEPTED {
            let sent = acknowledged.elapsed();
            let outcome = self.ask()?;
            if outcome != Outcome::Accepted {
                let refused = acknowledged.elapsed();
                if outcome == Outcome::CutOff {
                    self.expect_refusal_on_another_connection()?;
                }
                return Ok(Refusal {
                    refused,
                    accepted,
                    last_accepted,
                    cut_off: outcome == Outcome::CutOff,
                });
            }
            last_accepted = Some(sent);
        }
        Err(format!("{} was never refused", self.name).into())
    }

    fn expect_refusal_on_another_connection(&mut self) -> Fallible<()> {
        self.connection = Connection::open(self.edge)?;
        match self.ask()? {
            Outcome::Refused => Ok(()),
            other => Err(format!("{} was cut off, and then {other:?}", self.name).into()),
        }
    }
}

fn expect_revoked(answer: &Answer) -> Fallible<()> {
    let reason = answer.json(401)?["reason"].clone();
    if reason == "revoked" {
        Ok(())
    } else {
        Err(format!("refused for {reason}, not for the ban").into())
    }
}

/// One cut of an open WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// From sending the ban.
    pub since_sent: Duration,
    /// How long after the acknowledgement; nothing where it came before.
    pub since_acknowledged: Option<Duration>,
}

impl Cut {
    pub fn new(sent: Instant, acknowledged: Instant, ended: Instant) -> Self {
        Self {
            since_sent: ended.saturating_duration_since(sent),
            since_acknowledged: ended.checked_duration_since(acknowledged),
        }
    }
}

/// Opens a WebSocket in a user's name.
pub(crate) fn open_web_socket(edge: SocketAddr, user: &User) -> Fallible<TcpStream> {
    let mut connection = Connection::open(edge)?;
    let authorization = user.authorization();
    let fields = [
        ("Authorization", authorization.as_str()),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = connection.ask("GET", "/api/chat", &fields, None)?;
    if answer.status != 101 {
        return Err(format!("the WebSocket was answered with {}", answer.status).into());
    }
    Ok(connection.into_stream())
}

/// When the other side ended it: with a Close frame, or without one.
pub(crate) fn wait_for_end(mut stream: TcpStream) -> Fallible<Instant> {
    const CLOSE: u8 = 0x88;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut piece = [0; 64];
    match stream.read(&mut piece) {
        Ok(0) => Ok(Instant::now()),
        Ok(_) if piece[0] == CLOSE => Ok(Instant::now()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Instant::now()),
        other => Err(format!("the WebSocket was not cut: {other:?}").into()),
    }
}
