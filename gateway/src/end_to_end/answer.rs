//! What a client gets.

use std::io::Read;
use std::net::TcpStream;

use serde_json::Value;

use crate::testing::read_head;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn read(stream: &mut TcpStream) -> Self {
        let head = read_head(stream);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_default();
        let head = head.to_ascii_lowercase();
        let length = header(&head, "content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Self {
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(super) fn reason(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }
}

pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let named = |line: &'h str| {
        line.split_once(':')
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
    };
    head.lines().find_map(named).map(|(_, value)| value.trim())
}
