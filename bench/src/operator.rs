//! Who bans: an administrator over HTTP, or the local operator over the control socket.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::Fallible;
use crate::client::Connection;
use crate::durward::{Durward, User};

/// One way to ban somebody: it returns when the ban is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `PUT /auth/admin/users/{id}/ban`.
    Http,
    /// The control socket, which `durward ban` uses.
    Control,
}

/// Connections to one auth service that stay open.
pub(crate) struct Operator {
    http: Connection,
    authorization: String,
    control: Connection<UnixStream>,
}

impl Operator {
    /// `http` is the auth service, or the gateway in front of it.
    pub fn new(durward: &Durward, http: SocketAddr, admin: &User) -> Fallible<Self> {
        Ok(Self {
            http: Connection::open(http)?,
            authorization: admin.authorization(),
            control: durward.control()?,
        })
    }

    /// Bans a user.
    pub fn ban(&mut self, door: Door, user: &User) -> Fallible<()> {
        self.ask_to_ban(door, user, "").map(drop)
    }

    /// Bans a user and waits until the gateways refuse, for at most so long, such as `5s`. The answer
    /// says how far it has come.
    pub fn ban_and_wait(&mut self, door: Door, user: &User, within: &str) -> Fallible<Value> {
        self.ask_to_ban(door, user, &format!("?wait={within}"))
    }

    fn ask_to_ban(&mut self, door: Door, user: &User, query: &str) -> Fallible<Value> {
        let reason = json!({ "reason": "benchmark" });
        let answer = match door {
            Door::Http => {
                let path = format!("/auth/admin/users/{}/ban{query}", user.id);
                let fields = [("Authorization", self.authorization.as_str())];
                self.http.ask("PUT", &path, &fields, Some(&reason))?
            }
            Door::Control => {
                let path = format!("/users/{}/ban{query}", user.name);
                self.control.ask("PUT", &path, &[], Some(&reason))?
            }
        };
        answer.json(200)
    }
}
