//! The limits of a binding: one row per limit.
//!
//! Promises: a row is the only place that knows a limit's name, default, range and meaning; the configuration file, its
//! errors, `postern check` and the README are made from [`ROWS`]. Pure data; lives on every thread.

use std::time::Duration;

use super::Role;

/// A value as the configuration file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A length of time.
    Span(Duration),
    /// A number of octets.
    Size(u64),
    /// A number of things.
    Count(u64),
}

/// One limit, as documentation and configuration see it.
#[derive(Debug)]
pub struct Row {
    /// The key in `[limits]`.
    pub key: &'static str,
    /// The default on a gateway binding.
    pub gateway: Value,
    /// The default on a relay binding.
    pub relay: Value,
    /// The smallest value that makes sense.
    pub least: Value,
    /// The largest value that makes sense.
    pub most: Value,
    /// What it bounds, in one sentence.
    pub meaning: &'static str,
    /// The event that answers, where there is one.
    pub event: Option<&'static str>,
}

macro_rules! limits {
    ($( $(#[$doc:meta])* $key:ident : $kind:ident = $gateway:expr, $relay:expr; $least:expr => $most:expr; $meaning:literal, $event:expr; )*) => {
        /// The limits that hold for the sessions of one binding.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits { $( #[doc = $meaning] pub $key: limits!(@type $kind), )* }

        /// Every limit, in the order of the configuration file.
        pub const ROWS: &[Row] = &[$( Row {
            key: stringify!($key),
            gateway: Value::$kind($gateway),
            relay: Value::$kind($relay),
            least: Value::$kind($least),
            most: Value::$kind($most),
            meaning: $meaning,
            event: $event,
        } ),*];

        impl Limits {
            /// The defaults of a role.
            pub const fn of(role: Role) -> Limits {
                match role {
                    Role::Gateway => Limits { $( $key: $gateway, )* },
                    Role::Relay => Limits { $( $key: $relay, )* },
                }
            }

            /// The value of the row named `key`.
            pub fn value(&self, key: &str) -> Option<Value> {
                match key { $( stringify!($key) => Some(Value::$kind(self.$key)), )* _ => None }
            }

            /// Sets the row named `key`; false where there is no such row or the value is of another kind.
            pub fn set(&mut self, key: &str, value: Value) -> bool {
                match (key, value) { $( (stringify!($key), Value::$kind(v)) => { self.$key = v; true } )* _ => false }
            }
        }
    };
    (@type Span) => { Duration };
    (@type Size) => { u64 };
    (@type Count) => { u64 };
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const TIB: u64 = 1024 * 1024 * MIB;
const YEAR: Duration = s(365 * 24 * 3600);
const MS: Duration = Duration::from_millis(1);

limits! {
    connection_timeout: Span = s(300), s(600); MS => YEAR;
        "How long a session may last, whatever it does.", Some("ConnectionTimeOut");
    inactivity_timeout: Span = s(60), s(300); MS => YEAR;
        "How long a session may stay without a whole command or an octet of content.", Some("ConnectionInactivityTimeOut");
    max_hop_count: Count = 60, 60; 1 => 1_000_000;
        "Received fields that a message may carry.", Some("MaxHopCount");
    max_local_hop_count: Count = 12, 12; 0 => 1_000_000;
        "Received fields that a message may carry whose `by` clause is this server's own name.", Some("MaxLocalHopCount");
    max_recipients: Count = 200, 200; 1 => 1_000_000;
        "Recipients of one message.", Some("TooManyRecipients");
    message_rate: Count = 600, 5; 0 => 1_000_000;
        "Messages a minute: per source address on a gateway, per user on a relay; 0 is no limit.", Some("MessageRateLimitExceeded");
    tls_session_rate: Count = 0, 0; 0 => 60_000;
        "New TLS sessions a minute of one source; resumed ones do not count; 0 is no limit.", None;
    max_header_size: Size = 64 * KIB, 64 * KIB; 1 => TIB;
        "Octets of the header section.", Some("HeaderSizeExceeded");
    max_message_size: Size = 10 * MIB, 10 * MIB; 1 => TIB;
        "Octets of the message, as RFC 1870 counts them.", Some("MessageSizeExceeded");
    max_protocol_errors: Count = 5, 5; 0 => 1_000_000;
        "Unknown commands, bad sequences and bad syntax in one session.", Some("ProtocolViolationCount");
    max_logon_errors: Count = 3, 3; 0 => 1_000_000;
        "Failed authentications in one session.", Some("ProtocolViolationCount");
    max_connections: Count = 5000, 5000; 1 => 10_000_000;
        "Connections at once, all shards together.", Some("ConnectionCountExceeded");
    max_connections_per_source: Count = 20, 20; 1 => 65_000;
        "Connections at once of one source: an IPv4 address or an IPv6 /64.", Some("ConnectionCountPerSource");
    acknowledgement_delay: Span = s(30), s(30); Duration::ZERO => YEAR;
        "How long the final reply waits for the next hop; 0s replies as soon as the message is durable.", None;
    tarpit: Span = s(5), s(5); Duration::ZERO => s(600);
        "How long an error reply to an unauthenticated client waits.", None;
    min_free_disk: Size = 256 * MIB, 256 * MIB; 0 => u64::MAX >> 1;
        "Free octets on the disks that mail is written to; below, nothing is taken.", Some("OutOfResources");
    min_free_memory: Size = 64 * MIB, 64 * MIB; 0 => u64::MAX >> 1;
        "Free octets of memory, within the control group; below, nothing is taken.", Some("OutOfResources");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_readable_and_writable_by_its_key() {
        for row in ROWS {
            assert_eq!(
                Limits::of(Role::Gateway).value(row.key),
                Some(row.gateway),
                "{}",
                row.key
            );
            let mut limits = Limits::of(Role::Gateway);
            assert!(limits.set(row.key, row.relay));
            assert_eq!(limits.value(row.key), Some(row.relay));
        }
        assert_eq!(Limits::of(Role::Relay).value("nothing"), None);
        assert!(!Limits::of(Role::Relay).set("tarpit", Value::Count(1)));
    }

    #[test]
    fn the_defaults_are_those_of_the_document() {
        let (gateway, relay) = (Limits::of(Role::Gateway), Limits::of(Role::Relay));
        assert_eq!((gateway.connection_timeout, relay.connection_timeout), (s(300), s(600)));
        assert_eq!((gateway.message_rate, relay.message_rate), (600, 5));
        assert_eq!((gateway.max_protocol_errors, gateway.max_logon_errors), (5, 3));
    }
}
