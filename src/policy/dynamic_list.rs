//! The dynamic list: networks that come and go while the server runs, each until its expiry.
//!
//! Promises: a bad line costs that line only and is reported by its number; an expired network is in the list no more
//! from the second of its expiry on, without the file being read again. Pure data, made by whoever read the file; lives
//! on every thread.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::network::{Network, NetworkError, bits, canonical, width};

/// The most networks that a list takes: a file that was written wrong must not take the memory of the server.
const MOST_NETWORKS: usize = 1_000_000;

/// The most faults that are reported of one file.
const MOST_FAULTS: usize = 100;

/// Never: a second after all others.
const NEVER: i64 = i64::MAX;

/// Networks with an optional expiry.
///
/// Networks of one prefix length share a map, so a look costs one map access for each length in use, at most 33 for IPv4
/// and 129 for IPv6, however many networks there are. (Merged ranges would lose which of two overlapping networks
/// expires when.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicList {
    v4: Vec<Length>,
    v6: Vec<Length>,
    networks: usize,
}

/// The networks of one prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Length {
    prefix: u8,
    /// First address → the Unix second from which on it does not count.
    expiry: HashMap<u128, i64>,
}

/// A line that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// Its first word is no network.
    Network(NetworkError),
    /// Its second word is no time as RFC 3339 writes it.
    Expiry,
    /// It has a third word.
    Surplus,
    /// The list is full: this line and all that follow are skipped.
    TooMany,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LineFault::Network(_) => "no network such as 192.0.2.0/24",
            LineFault::Expiry => "no time such as 2026-12-31T00:00:00Z",
            LineFault::Surplus => "more than a network and a time",
            LineFault::TooMany => "the list is full",
        })
    }
}

impl DynamicList {
    /// Reads a list: a network a line, an optional expiry (RFC 3339) after it, `#` begins a comment. Returns it with the
    /// lines that were skipped, of which at most 100 are reported. Of two lines for one network the later expiry holds.
    pub fn parse(text: &str) -> (DynamicList, Vec<LineError>) {
        let mut list = DynamicList::default();
        let mut faults = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            let fault = match entry(content) {
                Ok(None) => continue,
                Ok(Some(_)) if list.networks == MOST_NETWORKS => LineFault::TooMany,
                Ok(Some((network, expiry))) => {
                    list.insert(network, expiry);
                    continue;
                }
                Err(fault) => fault,
            };
            if faults.len() < MOST_FAULTS {
                faults.push(LineError { line, fault });
            }
            if fault == LineFault::TooMany {
                break;
            }
        }
        (list, faults)
    }

    /// Puts `network` into the list until the Unix second `expiry`, or for good; the later of two expiries holds.
    pub fn insert(&mut self, network: Network, expiry: Option<i64>) {
        let (v6, first) = bits(network.address());
        let lengths = if v6 { &mut self.v6 } else { &mut self.v4 };
        let at = lengths
            .iter()
            .position(|length| length.prefix == network.prefix())
            .unwrap_or_else(|| {
                lengths.push(Length {
                    prefix: network.prefix(),
                    expiry: HashMap::new(),
                });
                lengths.len() - 1
            });
        let expiry = expiry.unwrap_or(NEVER);
        let known = lengths[at].expiry.entry(first).or_insert_with(|| {
            self.networks += 1;
            expiry
        });
        *known = expiry.max(*known);
    }

    /// Whether `address` is in a network of the list that has not expired at `now`, in Unix seconds.
    pub fn contains(&self, address: IpAddr, now: i64) -> bool {
        let address = canonical(address);
        let (v6, bits) = bits(address);
        let lengths = if v6 { &self.v6 } else { &self.v4 };
        lengths.iter().any(|length| {
            let host = u32::from(width(address) - length.prefix);
            let first = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
            length.expiry.get(&first).is_some_and(|&expiry| now < expiry)
        })
    }

    /// How many networks there are, expired ones included.
    pub fn len(&self) -> usize {
        self.networks
    }

    /// Whether there is no network.
    pub fn is_empty(&self) -> bool {
        self.networks == 0
    }
}

/// One line without its comment: nothing, or a network and when it expires.
fn entry(line: &str) -> Result<Option<(Network, Option<i64>)>, LineFault> {
    let mut words = line.split_ascii_whitespace();
    let Some(network) = words.next() else { return Ok(None) };
    let network = network.parse().map_err(LineFault::Network)?;
    let expiry = match words.next() {
        Some(word) => Some(
            word.parse::<jiff::Timestamp>()
                .map_err(|_| LineFault::Expiry)?
                .as_second(),
        ),
        None => None,
    };
    if words.next().is_some() {
        return Err(LineFault::Surplus);
    }
    Ok(Some((network, expiry)))
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.fault {
            LineFault::Network(error) => error.fmt(f),
            LineFault::Expiry => f.write_str("expected an expiry such as 2026-01-31T12:00:00Z (RFC 3339)"),
            LineFault::Surplus => f.write_str("expected nothing after the expiry but a comment that begins with #"),
            LineFault::TooMany => write!(
                f,
                "more than {MOST_NETWORKS} networks: the rest of the file is not read"
            ),
        }
    }
}

impl std::error::Error for LineError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bad_line_costs_that_line_only() {
        let text = "# dynamic ranges\n\n192.0.2.0/24\r\nnonsense\n198.51.100.0/33\n  2001:db8::/32 # ours\n\
                    203.0.113.1 tomorrow\n203.0.113.2 1970-01-01T00:16:40Z # until second 1000\n203.0.113.3 1970-01-01T00:16:40Z x\n";
        let (list, faults) = DynamicList::parse(text);
        assert_eq!(list.len(), 3);
        let faults: Vec<_> = faults.into_iter().map(|error| (error.line, error.fault)).collect();
        assert_eq!(
            faults,
            [
                (4, LineFault::Network(NetworkError::Address)),
                (5, LineFault::Network(NetworkError::Prefix)),
                (7, LineFault::Expiry),
                (9, LineFault::Surplus)
            ]
        );
        assert!(list.contains(ip("192.0.2.9"), 0) && list.contains(ip("::ffff:192.0.2.9"), 0));
        assert!(list.contains(ip("2001:db8:ffff::1"), 0) && !list.contains(ip("2001:db9::1"), 0));
        assert!(!list.contains(ip("203.0.113.1"), 0) && !list.contains(ip("203.0.113.3"), 0));
    }

    #[test]
    fn a_network_counts_until_the_second_of_its_expiry() {
        let (list, _) = DynamicList::parse("203.0.113.2 1970-01-01T01:16:40+01:00");
        assert!(list.contains(ip("203.0.113.2"), 999));
        assert!(!list.contains(ip("203.0.113.2"), 1000));
    }

    #[test]
    fn the_later_of_two_expiries_holds() {
        let early = "10.0.0.0/8 1970-01-01T00:00:10Z\n";
        let late = "10.0.0.0/8 1970-01-01T00:00:20Z\n";
        for text in [format!("{early}{late}"), format!("{late}{early}")] {
            let (list, _) = DynamicList::parse(&text);
            assert!(list.len() == 1 && list.contains(ip("10.1.1.1"), 19) && !list.contains(ip("10.1.1.1"), 20));
        }
        let (list, _) = DynamicList::parse(&format!("10.0.0.0/8\n{early}"));
        assert!(list.contains(ip("10.1.1.1"), i64::MAX - 1), "no expiry is the latest");
    }

    #[test]
    fn everything_can_be_listed() {
        let (list, faults) = DynamicList::parse("0.0.0.0/0\n::/0\n");
        assert_eq!(faults, []);
        assert!(list.contains(ip("192.0.2.1"), 0) && list.contains(ip("2001:db8::1"), 0) && !list.is_empty());
        assert!(!DynamicList::default().contains(ip("192.0.2.1"), 0));
    }

    #[test]
    fn faults_are_reported_up_to_a_hundred() {
        let (list, faults) = DynamicList::parse(&"bad\n".repeat(1000));
        assert!(list.is_empty());
        assert_eq!(faults.len(), MOST_FAULTS);
        assert_eq!(
            faults[1].to_string(),
            "line 2: expected an IP address or a network such as 192.0.2.0/24 or 2001:db8::/32"
        );
    }
}
