//! Users of the own auth service, as they and their admins use it.

use serde_json::{Value, json};

use super::client::{Answer, Ask, get, post};
use super::service::Service;

/// A password that nobody would object to.
pub const PASSWORD: &str = "a lantern in the harbour at nine";

/// What logging in gives.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

/// A user who is logged in.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub name: String,
    pub tokens: Tokens,
}

impl Tokens {
    /// The tokens of an answer.
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        let text = |name: &str| {
            body[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name}: {body}"))
                .to_owned()
        };
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

impl Service {
    /// A user made over the control socket, logged in through the edge.
    #[track_caller]
    pub fn account(&self, name: &str, roles: &[&str]) -> Account {
        let mut arguments = vec!["user", "add", name, "--password-stdin", "--json"];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        let added = self.command_with_input(&arguments, PASSWORD);
        assert_eq!(added.code, 0, "{added:?}");
        let user: Value = serde_json::from_str(&added.stdout).unwrap();
        Account {
            id: user["id"].as_str().unwrap().to_owned(),
            name: name.to_owned(),
            tokens: self.log_in(name),
        }
    }

    /// Logs in with the usual password.
    #[track_caller]
    pub fn log_in(&self, name: &str) -> Tokens {
        Tokens::of(&self.ask(&login(name, PASSWORD)))
    }

    /// Asks for the successor of a refresh token.
    #[track_caller]
    pub fn refresh(&self, token: &str) -> Answer {
        self.ask(&refresh(token))
    }
}

impl Account {
    /// The request with this user's access token.
    #[must_use]
    pub fn with(&self, ask: Ask) -> Ask {
        ask.bearer(&self.tokens.access)
    }

    /// A `GET` with this user's access token.
    pub fn get(&self, target: &str) -> Ask {
        self.with(get(target))
    }
}

/// A request to log in.
pub fn login(name: &str, password: &str) -> Ask {
    post("/auth/login").json(&json!({ "username": name, "password": password }))
}

/// A request for a successor.
pub fn refresh(token: &str) -> Ask {
    post("/auth/refresh").json(&json!({ "refresh_token": token }))
}
