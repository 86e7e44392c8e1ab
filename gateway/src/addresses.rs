//! Addresses as text, without the cost of a formatter: each request says one to its upstream and one
//! in its log line.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// An address as the value of a field.
pub(crate) fn ip_value(ip: IpAddr) -> Result<HeaderValue, InvalidHeaderValue> {
    match ip {
        IpAddr::V4(ip) => HeaderValue::from_bytes(V4Text::of(ip).as_bytes()),
        IpAddr::V6(ip) => HeaderValue::try_from(ip.to_string()),
    }
}

/// Appends an address.
pub(crate) fn push_ip(text: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => text.extend_from_slice(V4Text::of(ip).as_bytes()),
        IpAddr::V6(ip) => {
            let _ = write!(text, "{ip}");
        }
    }
}

/// Appends an address with its port, as `Display` has it.
pub(crate) fn push_socket(text: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            text.extend_from_slice(V4Text::of(*address.ip()).as_bytes());
            text.push(b':');
            text.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
        }
        SocketAddr::V6(address) => {
            let _ = write!(text, "{address}");
        }
    }
}

/// Four numbers and three dots. Put together in a register: the processor waits for bytes that are
/// read in another grouping than they were just written in.
struct V4Text {
    bytes: [u8; 16],
    length: usize,
}

/// Every octet with a dot after it, lowest byte first, and how many bytes that is.
const OCTETS: [(u32, u8); 256] = {
    let mut octets = [(0, 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (mut text, mut length) = (b'.' as u32, 1);
        let mut rest = octet as u32;
        while length == 1 || rest > 0 {
            text = text << 8 | (b'0' as u32 + rest % 10);
            rest /= 10;
            length += 1;
        }
        octets[octet] = (text, length);
        octet += 1;
    }
    octets
};

impl V4Text {
    fn of(ip: Ipv4Addr) -> Self {
        let (mut text, mut length) = (0, 0);
        for octet in ip.octets() {
            let (part, taken) = OCTETS[usize::from(octet)];
            text |= u128::from(part) << (8 * length);
            length += usize::from(taken);
        }
        Self {
            bytes: text.to_le_bytes(),
            // Without the last dot.
            length: length - 1,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_display_has_them() {
        for octet in 0..=u8::MAX {
            let ip = Ipv4Addr::new(octet, octet.wrapping_mul(7), 0, octet);
            let v4 = SocketAddr::from((ip, u16::from(octet) * 257));
            for address in [v4, "[2001:db8::1]:8080".parse().unwrap()] {
                let mut text = Vec::new();
                push_socket(&mut text, address);
                assert_eq!(String::from_utf8(text).unwrap(), address.to_string());
                assert_eq!(ip_value(address.ip()).unwrap(), address.ip().to_string());
            }
        }
    }
}
