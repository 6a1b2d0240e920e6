//! The table: every reply text that this server can send, in the order of [MS-OXSMTP].
//!
//! Promises: a reply literal stands here and nowhere else (`tests/layers.rs` guards it), and the class of an enhanced
//! status code (RFC 2034) agrees with its reply code, checked while compiling. So a `grep` for a line of a log lands in
//! this file. Pure data; lives on every thread.

use std::net::IpAddr;

use super::Edition;

/// What happens to the session once the reply is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The session goes on.
    Continue,
    /// The reply is sent, then the connection is closed.
    Close,
}

use Follows::{Close, Continue};

/// Fails the build where code and enhanced status code disagree, or the text is not one line of printable ASCII.
const fn well_formed(text: &str, class_may_differ: bool) -> bool {
    let b = text.as_bytes();
    if b.len() < 4 || b.len() > 510 || b[3] != b' ' {
        return false;
    }
    let mut i = 0;
    while i < b.len() {
        if b[i] < 0x20 || b[i] > 0x7e {
            return false;
        }
        i += 1;
    }
    // RFC 2034 section 4: the greeting, HELO, EHLO and intermediate replies carry no enhanced status code.
    class_may_differ || b[0] == b'3' || (b.len() > 6 && b[5] == b'.' && b[0] == b[4])
}

macro_rules! events {
    ($( $(#[$doc:meta])* $name:ident $now:ident | $then:ident $text:literal; )*) => {
        /// A limit that was passed, or a state of the server that its client must be told ([MS-OXSMTP] 3.2.6, 3.2.7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Event { $( $(#[$doc])* $name, )* }

        impl Event {
            /// Every event, in the order of the table.
            pub const ALL: &'static [Event] = &[$(Event::$name),*];

            /// The name that the document uses: for logs and metrics.
            pub const fn name(self) -> &'static str { match self { $(Event::$name => stringify!($name)),* } }

            /// The reply without its CRLF. For the two `IpAddressNotAllowed` rows that name the address, the text up to it.
            pub const fn text(self) -> &'static str { match self { $(Event::$name => $text),* } }

            /// The reply as it goes on the wire.
            pub const fn wire(self) -> &'static [u8] {
                match self { $(Event::$name => concat!($text, "\r\n").as_bytes()),* }
            }

            /// Whether the session ends with the reply in this edition.
            pub const fn follows(self, edition: Edition) -> Follows {
                match (self, edition) { $((Event::$name, Edition::Y2021) => $now, (Event::$name, Edition::Y2011) => $then),* }
            }
        }
        $( const _: () = assert!(well_formed($text, false), stringify!($name)); )*
    };
}

macro_rules! replies {
    ($( $(#[$doc:meta])* $name:ident $text:literal $($odd:ident)?; )*) => {
        /// A reply to a command whose text never varies (v4.1 section 3.2.5, then RFC 5321 and the RFCs of the extensions).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reply { $( $(#[$doc])* $name, )* }

        impl Reply {
            /// Every reply, in the order of the table.
            pub const ALL: &'static [Reply] = &[$(Reply::$name),*];

            /// The name of the row: for tests and documentation.
            pub const fn name(self) -> &'static str { match self { $(Reply::$name => stringify!($name)),* } }

            /// The reply without its CRLF.
            pub const fn text(self) -> &'static str { match self { $(Reply::$name => $text),* } }

            /// The reply as it goes on the wire.
            pub const fn wire(self) -> &'static [u8] {
                match self { $(Reply::$name => concat!($text, "\r\n").as_bytes()),* }
            }
        }
        $( const _: () = assert!(well_formed($text, replies!(@odd $($odd)?)), stringify!($name)); )*
    };
    (@odd) => { false };
    (@odd class_differs) => { true };
}

events! {
    // name                       2021       2011
    /// The session has lasted too long, whatever it does.
    ConnectionTimeOut             Close    | Close "421 4.4.1 Connection timed out";
    /// No input for too long.
    ConnectionInactivityTimeOut   Close    | Close "451 4.7.0 Timeout waiting for client input";
    /// More Received fields than the maximum.
    MaxHopCount                   Continue | Close "554 5.4.6 Hop count exceeded - possible mail loop";
    /// This server's own name in more Received fields than the maximum.
    MaxLocalHopCount              Continue | Close "554 5.4.6 Hop count exceeded - possible mail loop";
    /// The RCPT that is one too many; those accepted before stay.
    TooManyRecipients             Continue | Close "452 4.5.3 Too many recipients";
    /// The MAIL that is one too many in a minute.
    MessageRateLimitExceeded      Close    | Close "421 4.4.2 Message submission rate for this client has exceeded the configured limit";
    /// The header section is larger than the limit.
    HeaderSizeExceeded            Continue | Close "552 5.3.4 Header size exceeds fixed maximum size";
    /// The message is larger than the limit, or SIZE= says that it will be.
    MessageSizeExceeded           Continue | Close "552 5.3.4 Message size exceeds fixed maximum message size";
    /// The protocol or logon error that exceeds the maximum.
    ProtocolViolationCount        Close    | Close "421 4.7.0 Too many errors on this connection, closing transmission channel";
    /// Memory or disk is low. At connect the session ends with it, at MAIL it goes on (see [`Reply::ResourcesLow`]).
    OutOfResources                Close    | Close "452 4.3.1 Insufficient system resources";
    /// The server is draining, or a shard hangs or has crashed.
    NewConnectionNotAvailable     Close    | Close "421 4.4.2 Connection dropped";
    /// The address, or after AUTH the user, is not one that the binding serves.
    BindingNotConfigured          Close    | Close "421 4.3.2 Service not available";
    /// All connections of the server together.
    ConnectionCountExceeded       Close    | Close "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit, closing transmission channel";
    /// The connections of one source address.
    ConnectionCountPerSource      Close    | Close "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel";
    /// A static range: see [`ip_address_not_allowed`] for the whole text.
    IPAddressNotAllowedStatic     Close    | Close "550 5.7.1 External client with IP address";
    /// A dynamic range: see [`ip_address_not_allowed`] for the whole text.
    IPAddressNotAllowedDynamic    Close    | Close "550 5.7.1 External client with IP address";
    /// The address is on a DNS block list; said at RCPT, so that the envelope can be logged.
    IPAddressNotAllowedBlockList  Close    | Close "550 5.7.1 Recipient not authorized, your IP has been found on a block list";
}

replies! {
    // MAIL
    /// MAIL or RCPT before HELO or EHLO.
    SendHelloFirst          "503 5.5.2 Send hello first";
    /// MAIL, RCPT or DATA once BDAT has begun a message; RCPT after XEXCH50; DATA for BODY=BINARYMIME; BDAT in DATA.
    BadSequence             "503 5.5.1 Bad sequence of commands";
    /// `require_tls` and no TLS yet. Code and class disagree; the document says MUST.
    MustStartTls            "451 5.7.3 Must issue a STARTTLS command first" class_differs;
    /// A second MAIL in the transaction.
    SenderAlreadySpecified  "503 5.5.2 Sender already specified";
    /// MAIL without `FROM:`, RCPT without `TO:`.
    UnrecognizedParameter   "501 5.5.4 Unrecognized parameter";
    /// MAIL while resources are low.
    ResourcesLow            "452 4.3.1 Insufficient system resources";
    /// An unknown parameter, or one with an invalid value; arguments where there must be none; a bad chunk size.
    InvalidArguments        "501 5.5.4 Invalid arguments";
    /// The reverse-path is invalid or improper.
    InvalidSender           "501 5.1.7 Invalid address";
    /// `require_auth` and no AUTH yet.
    NotAuthenticated        "530 5.7.1 Client was not authenticated";
    /// The reverse-path is not one that this client may use.
    NoPermission            "550 5.7.1 Client does not have permissions to submit to this server";
    /// MAIL was taken.
    SenderOk                "250 2.1.0 Sender OK";
    // RCPT
    /// The forward-path is invalid, or the null path.
    InvalidRecipient        "501 5.1.3 Invalid address";
    /// A domain that this server neither accepts nor relays to for this client.
    UnableToRelay           "550 5.7.1 Unable to relay";
    /// Not in the list of known addresses.
    UserUnknown             "550 5.1.1 User unknown";
    /// RCPT without MAIL.
    NeedMail                "503 5.5.2 Need mail command";
    /// A policy question could not be answered in time.
    TryLater                "451 4.3.0 Temporary server error, try again later";
    /// RCPT was taken.
    RecipientOk             "250 2.1.5 Recipient OK";
    // DATA, BDAT
    /// DATA or BDAT without an accepted RCPT.
    NeedRcpt                "503 5.5.2 Need rcpt command";
    /// DATA was taken.
    StartMailInput          "354 Start mail input; end with <CRLF>.<CRLF>";
    /// A bare CR or LF in the content of DATA, where the binding refuses them.
    BareNewline             "550 5.6.11 Bare CR or LF in message content: lines end with CRLF";
    /// XEXCH50 was taken, its octets are awaited.
    SendBinaryData          "354 Send binary data";
    /// The octets of XEXCH50 have been thrown away.
    BlobTaken               "250 2.0.0 XEXCH50 success";
    // STARTTLS
    /// The handshake may begin (RFC 3207 section 4).
    StartTlsNow             "220 2.0.0 SMTP server ready";
    /// More new TLS sessions in a minute than the source may begin; the session ends.
    TooManyTlsSessions      "421 4.7.0 Too many new TLS sessions from this client";
    // AUTH
    /// The client is who it says.
    Authenticated           "235 2.7.0 Authentication successful";
    /// It is not, or nobody knows it.
    AuthenticationFailed    "535 5.7.3 Authentication unsuccessful";
    /// The client gave up with `*`.
    AuthenticationCancelled "501 5.7.0 Authentication cancelled";
    /// A response that is no base64 (RFC 4954 section 4).
    NotBase64               "501 5.5.2 Cannot decode response";
    /// A mechanism that this server does not know, or does not offer at this point.
    UnrecognizedMechanism   "504 5.7.4 Unrecognized authentication type";
    /// Too many passwords wait to be looked at.
    CannotAuthenticate      "454 4.7.0 Temporary authentication failure";
    // Every other command
    /// A verb that this server does not know, or does not offer here.
    UnrecognizedCommand     "500 5.5.1 Unrecognized command";
    /// A command line longer than its limit (RFC 5321 section 4.5.3.1 and the RFCs of the extensions).
    LineTooLong             "500 5.5.2 Line too long";
    /// A command line that ends with a bare LF. The session ends: what follows cannot be trusted to be a command.
    BareNewlineInCommand    "500 5.5.2 Bare LF in command: lines end with CRLF";
    /// A parameter or path needs SMTPUTF8 (RFC 6531 section 3.5).
    NeedSmtpUtf8            "553 5.6.7 Address needs SMTPUTF8";
    /// VRFY.
    CannotVerify            "252 2.5.2 Cannot VRFY user, but will take message and attempt delivery";
    /// EXPN.
    CannotExpand            "502 5.5.1 EXPN not available";
    /// HELP.
    Help                    "214 2.0.0 Commands: HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT";
    /// NOOP.
    NoopOk                  "250 2.0.0 OK";
    /// RSET.
    Resetting               "250 2.0.0 Resetting";
    /// QUIT.
    Goodbye                 "221 2.0.0 Service closing transmission channel";
    /// An idle session while the server drains.
    ServiceNotAvailable     "421 4.3.2 Service not available";
    // The end of content
    /// The disk is full or the place to write to is gone.
    CannotStore             "452 4.3.1 Insufficient system resources";
}

impl Reply {
    /// Unknown commands, bad sequences, bad syntax; a refusal by policy is none.
    pub const fn is_protocol_error(self) -> bool {
        matches!(
            self,
            Reply::SendHelloFirst
                | Reply::BadSequence
                | Reply::SenderAlreadySpecified
                | Reply::UnrecognizedParameter
                | Reply::InvalidArguments
                | Reply::InvalidSender
                | Reply::InvalidRecipient
                | Reply::NeedMail
                | Reply::NeedRcpt
                | Reply::UnrecognizedCommand
                | Reply::LineTooLong
                | Reply::NotBase64
                | Reply::UnrecognizedMechanism
        )
    }
}

/// `220 HOSTNAME ESMTP ready`.
pub fn greeting(out: &mut Vec<u8>, hostname: &str) {
    line(out, &["220 ", hostname, " ESMTP ready"]);
}

/// The reply to HELO: one line, the client's address bare.
pub fn helo(out: &mut Vec<u8>, hostname: &str, client: IpAddr) {
    line(out, &["250 ", hostname, " Hello ", &client.to_string()]);
}

/// The reply to EHLO: the first line as v4.1 section 3.2.5 has it, then a keyword a line.
pub fn ehlo<'k>(out: &mut Vec<u8>, hostname: &str, client: IpAddr, keywords: impl Iterator<Item = &'k str>) {
    let mut keywords = keywords.peekable();
    let separator = |more: bool| if more { "250-" } else { "250 " };
    line(
        out,
        &[
            separator(keywords.peek().is_some()),
            hostname,
            " Hello ",
            &client.to_string(),
        ],
    );
    while let Some(keyword) = keywords.next() {
        line(out, &[separator(keywords.peek().is_some()), keyword]);
    }
}

/// The message is in custody.
pub fn queued(out: &mut Vec<u8>, queue_id: &str) {
    line(out, &["250 2.6.0 <", queue_id, "> Queued mail for delivery"]);
}

/// A next hop's refusal, passed on in its own words: code, enhanced status code where it gave one, text, on one line. Whatever
/// in it is no printable ASCII is replaced, and it ends where a reply line must (RFC 5321 section 4.5.3.1.5).
pub fn of_a_hop(out: &mut Vec<u8>, text: &str) {
    const LONGEST: usize = 510;
    let printable = |octet: u8| if (0x20..=0x7e).contains(&octet) { octet } else { b'?' };
    out.extend(text.bytes().take(LONGEST).map(printable));
    out.extend_from_slice(b"\r\n");
}

/// The mechanism is known, and its client speaks first ([MS-OXSMTP] 2.2.1): the name as the client wrote it.
pub fn mechanism_supported(out: &mut Vec<u8>, mechanism: &str) {
    line(out, &["334 ", mechanism, " supported"]);
}

/// A challenge of AUTH, in base64; an empty one still has its space (RFC 4954 section 4).
pub fn challenge(out: &mut Vec<u8>, base64: &str) {
    line(out, &["334 ", base64]);
}

/// A chunk that is not the last one has been taken (RFC 3030 section 2).
pub fn chunk_received(out: &mut Vec<u8>, octets: u64) {
    line(out, &["250 2.0.0 ", &octets.to_string(), " octets received"]);
}

/// The refusal of an address in a static or dynamic range. `last_sentence` is the operator's own (static ranges only).
pub fn ip_address_not_allowed(out: &mut Vec<u8>, event: Event, client: IpAddr, last_sentence: &str) {
    let address = client.to_string();
    let head = [
        event.text(),
        " ",
        &address,
        " does not have permissions to submit to this server",
    ];
    match event {
        Event::IPAddressNotAllowedStatic if !last_sentence.is_empty() => {
            line(out, &[head[0], head[1], head[2], head[3], ". ", last_sentence]);
        }
        _ => line(out, &head),
    }
}

fn line(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multi_line_reply_has_hyphens_on_all_but_its_last_line() {
        let mut out = Vec::new();
        ehlo(
            &mut out,
            "mx.test",
            "192.0.2.7".parse().unwrap(),
            ["SIZE 10", "DSN"].into_iter(),
        );
        assert_eq!(out, b"250-mx.test Hello 192.0.2.7\r\n250-SIZE 10\r\n250 DSN\r\n");
        out.clear();
        ehlo(&mut out, "mx.test", "2001:db8::1".parse().unwrap(), [].into_iter());
        assert_eq!(out, b"250 mx.test Hello 2001:db8::1\r\n");
    }

    #[test]
    fn the_refusal_of_an_address_names_it_and_ends_with_the_operators_sentence() {
        let mut out = Vec::new();
        let client = "192.0.2.7".parse().unwrap();
        ip_address_not_allowed(
            &mut out,
            Event::IPAddressNotAllowedStatic,
            client,
            "See https://mx.test/why",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "550 5.7.1 External client with IP address 192.0.2.7 does not have permissions to submit to this server. See https://mx.test/why\r\n"
        );
        let mut out = Vec::new();
        ip_address_not_allowed(
            &mut out,
            Event::IPAddressNotAllowedDynamic,
            client,
            "See https://mx.test/why",
        );
        assert!(out.ends_with(b" to this server\r\n"));
    }

    #[test]
    fn the_words_of_a_hop_stay_one_line_of_printable_ascii() {
        let mut out = Vec::new();
        of_a_hop(&mut out, "550 5.1.1 no\r\n250 OK\u{1b}");
        assert_eq!(out, b"550 5.1.1 no??250 OK?\r\n");
        out.clear();
        of_a_hop(&mut out, &"x".repeat(2000));
        assert_eq!(out.len(), 512);
    }

    #[test]
    fn names_and_texts_of_the_table_are_distinct_where_they_must_be() {
        let mut names: Vec<_> = Event::ALL
            .iter()
            .map(|e| e.name())
            .chain(Reply::ALL.iter().map(|r| r.name()))
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
