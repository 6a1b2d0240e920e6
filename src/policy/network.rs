//! Addresses and networks: what an address counts as, and which networks it is in.
//!
//! Promises: an IPv4 address mapped into IPv6 (`::ffff:192.0.2.1`, RFC 4291 section 2.5.5.2) is that IPv4 address
//! everywhere, so no limit or list is passed by changing the family of a socket. Pure data, made by the configuration;
//! lives on every thread.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use super::dynamic_list::{DynamicList, LineError, LineFault};

/// The address itself, an IPv4 address where it is one mapped into IPv6.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What an address counts as for a limit: an IPv4 address, or the /64 of an IPv6 address, which is the smallest network
/// that its user is given (RFC 6177 section 2) and whose 2⁶⁴ addresses are free to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl Source {
    /// The source that `address` belongs to.
    pub fn of(address: IpAddr) -> Source {
        match canonical(address) {
            IpAddr::V4(address) => Source::V4(address),
            IpAddr::V6(address) => Source::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Source::V4(address) => address.fmt(f),
            Source::V6(prefix) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(prefix) << 64)),
        }
    }
}

/// An address and the length of its prefix, as in `192.0.2.0/24`; a bare address is a network of one.
///
/// The bits behind the prefix are zero: they are dropped on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// What stands before the slash is no IP address.
    Address,
    /// What stands behind the slash is no number from 0 to 32 (IPv4) or 128 (IPv6).
    Prefix,
}

impl Network {
    /// The network of the first `prefix` bits of `address`.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Prefix`] for a prefix longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Network, NetworkError> {
        // The IPv4 addresses stand in IPv6 as ::ffff:0:0/96; a network inside is one of IPv4.
        let (address, prefix) = match (canonical(address), address) {
            (IpAddr::V4(inner), IpAddr::V6(_)) if prefix >= 96 => (IpAddr::V4(inner), prefix - 96),
            _ => (address, prefix),
        };
        if prefix > width(address) {
            return Err(NetworkError::Prefix);
        }
        let (v6, first, _) = span(address, prefix);
        let address = if v6 {
            Ipv6Addr::from_bits(first).into()
        } else {
            Ipv4Addr::from_bits(first as u32).into()
        };
        Ok(Network { address, prefix })
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits all addresses of the network share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` is in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        let (v6, first, last) = span(self.address, self.prefix);
        let (of_v6, bits) = bits(canonical(address));
        v6 == of_v6 && (first..=last).contains(&bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        match prefix {
            None => Network::new(address, width(address)),
            // `u8::from_str` alone would take a sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Network::new(address, digits.parse().map_err(|_| NetworkError::Prefix)?)
            }
            Some(_) => Err(NetworkError::Prefix),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetworkError::Address => "expected an IP address or a network such as 192.0.2.0/24 or 2001:db8::/32",
            NetworkError::Prefix => "expected a prefix length from 0 to 32 (IPv4) or 128 (IPv6) after the slash",
        })
    }
}

impl std::error::Error for NetworkError {}

/// Networks of both families: sorted, what overlaps or touches merged, so a look is a binary search however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Box<[(u128, u128)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    /// Whether `address` is in one of the networks. `::/0` is every IPv6 address and no IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (v6, bits) = bits(canonical(address));
        let ranges = if v6 { &self.v6 } else { &self.v4 };
        let next = ranges.partition_point(|&(first, _)| first <= bits);
        next.checked_sub(1)
            .and_then(|at| ranges.get(at))
            .is_some_and(|&(_, last)| bits <= last)
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> NetworkSet {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let (of_v6, first, last) = span(network.address, network.prefix);
            if of_v6 { &mut v6 } else { &mut v4 }.push((first, last));
        }
        NetworkSet {
            v4: merge(v4),
            v6: merge(v6),
        }
    }
}

fn merge(mut ranges: Vec<(u128, u128)>) -> Box<[(u128, u128)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joined = next.0 <= kept.1.saturating_add(1);
        if joined {
            kept.1 = kept.1.max(next.1);
        }
        joined
    });
    ranges.into_boxed_slice()
}

/// How many bits an address of this family has.
pub(super) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the address is of IPv6, and its bits.
pub(super) fn bits(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, address.to_bits().into()),
        IpAddr::V6(address) => (true, address.to_bits()),
    }
}

/// Whether the network is of IPv6, its first and its last address.
fn span(address: IpAddr, prefix: u8) -> (bool, u128, u128) {
    let (v6, bits) = bits(address);
    let host = u32::from(width(address).saturating_sub(prefix));
    let rest = if host == 128 { u128::MAX } else { (1 << host) - 1 };
    (v6, bits & !rest, bits | rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_the_64_of_an_ipv6_address() {
        assert_eq!(Source::of(ip("192.0.2.1")), Source::V4(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(Source::of(ip("::ffff:192.0.2.1")), Source::of(ip("192.0.2.1")));
        assert_eq!(
            Source::of(ip("2001:db8:1:2::1")),
            Source::of(ip("2001:db8:1:2:ffff::9"))
        );
        assert_ne!(Source::of(ip("2001:db8:1:2::1")), Source::of(ip("2001:db8:1:3::1")));
        assert_ne!(
            Source::of(ip("::1")),
            Source::of(ip("0.0.0.0")),
            "the families never meet"
        );
        assert_eq!(Source::of(ip("2001:db8:1:2::1")).to_string(), "2001:db8:1:2::/64");
        assert_eq!(Source::of(ip("192.0.2.1")).to_string(), "192.0.2.1");
    }

    #[test]
    fn a_network_is_written_as_it_is_read_with_the_bits_behind_the_prefix_dropped() {
        for (read, written) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.77", "192.0.2.77"),
            ("192.0.2.77/32", "192.0.2.77"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("255.255.255.255/0", "0.0.0.0/0"),
            ("2001:db8::7/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.77"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(network(read).to_string(), written, "{read}");
        }
    }

    #[test]
    fn a_text_that_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/24",
            "192.0.2",
            "192.0.2.0.1/24",
            "192.0.2.010",
            "mx.test/24",
            " 192.0.2.0/24",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Address), "{text}");
        }
        for text in [
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/+8",
            "192.0.2.0/-1",
            "::/129",
            "::/999",
            "::/8/8",
            "::/ 8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Prefix), "{text}");
        }
    }

    #[test]
    fn every_ipv4_network_and_every_ipv6_network_are_apart() {
        let v4: NetworkSet = [network("0.0.0.0/0")].into_iter().collect();
        let v6: NetworkSet = [network("::/0")].into_iter().collect();
        for text in ["0.0.0.0", "255.255.255.255", "::ffff:10.0.0.1"] {
            assert!(v4.contains(ip(text)) && !v6.contains(ip(text)), "{text}");
        }
        for text in ["::", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(v6.contains(ip(text)) && !v4.contains(ip(text)), "{text}");
        }
    }

    #[test]
    fn networks_that_overlap_or_touch_become_one_range() {
        let set: NetworkSet = ["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "11.0.0.0/8"]
            .into_iter()
            .map(network)
            .collect();
        assert_eq!(set.v4.len(), 1);
        assert!(
            set.contains(ip("11.255.255.255")) && !set.contains(ip("12.0.0.0")) && !set.contains(ip("9.255.255.255"))
        );
        assert!(!set.is_empty() && NetworkSet::default().is_empty());
        assert!(!NetworkSet::default().contains(ip("10.0.0.1")));
    }
}
