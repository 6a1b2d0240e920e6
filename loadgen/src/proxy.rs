//! The header of the PROXY protocol (versions 1 and 2) with made-up clients, for a server that takes it from us.
//!
//! Promises: clients are addresses of 198.18.0.0/15, set aside for benchmarks (RFC 2544), so they are nobody's. Pure.

use std::net::{Ipv4Addr, SocketAddr};

/// Which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    V1,
    V2,
}

/// Made-up clients that there can be.
pub const CLIENTS_MAX: u32 = 1 << 17;

/// The clients of a run.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Which form.
    pub version: Version,
    /// How many.
    pub count: u32,
}

impl Clients {
    /// The header of a connection to `target`, from client `number` of those there are.
    pub fn header(&self, number: u64, target: SocketAddr) -> Vec<u8> {
        let nth = u32::try_from(number % u64::from(self.count.max(1))).unwrap_or_default();
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + nth % CLIENTS_MAX);
        let port = u16::try_from(1024 + number % 60_000).unwrap_or(1024);
        let (to, to_port) = match target {
            SocketAddr::V4(target) => (*target.ip(), target.port()),
            SocketAddr::V6(target) => (Ipv4Addr::LOCALHOST, target.port()),
        };
        match self.version {
            Version::V1 => format!("PROXY TCP4 {source} {to} {port} {to_port}\r\n").into_bytes(),
            Version::V2 => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
                header.extend_from_slice(&source.octets());
                header.extend_from_slice(&to.octets());
                header.extend_from_slice(&port.to_be_bytes());
                header.extend_from_slice(&to_port.to_be_bytes());
                header
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_and_are_in_the_range_for_benchmarks() {
        let target = SocketAddr::from(([127, 0, 0, 1], 25));
        let clients = Clients {
            version: Version::V1,
            count: 2,
        };
        let headers: Vec<_> = (0..3).map(|number| clients.header(number, target)).collect();
        assert_eq!(headers[0], b"PROXY TCP4 198.18.0.0 127.0.0.1 1024 25\r\n");
        assert_eq!(headers[1], b"PROXY TCP4 198.18.0.1 127.0.0.1 1025 25\r\n");
        assert_eq!(headers[2], b"PROXY TCP4 198.18.0.0 127.0.0.1 1026 25\r\n");
    }

    #[test]
    fn the_second_version_is_binary_with_its_length() {
        let clients = Clients {
            version: Version::V2,
            count: 10,
        };
        let header = clients.header(3, SocketAddr::from(([127, 0, 0, 9], 25)));
        assert_eq!(header.len(), 16 + 12);
        assert_eq!(&header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(&header[16..], [198, 18, 0, 3, 127, 0, 0, 9, 4, 3, 0, 25]);
    }
}
