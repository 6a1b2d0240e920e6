//! Command lines: the verbs, how long their lines may be, which one a line has (RFC 5321 section 4.1). The arguments of
//! each verb are read by the functions named like it.
//!
//! Promises: takes any octets, never panics, allocates nothing here. Lives on the thread of its session.

mod arguments;

pub use arguments::{Chunk, any_arguments, auth, bdat, hello, mail, no_arguments, rcpt, xexch50};

/// The verb of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// RFC 5321 section 4.1.1.1.
    Helo,
    /// RFC 5321 section 4.1.1.1.
    Ehlo,
    /// RFC 5321 section 4.1.1.2.
    Mail,
    /// RFC 5321 section 4.1.1.3.
    Rcpt,
    /// RFC 5321 section 4.1.1.4.
    Data,
    /// RFC 3030 section 2.
    Bdat,
    /// RFC 5321 section 4.1.1.5.
    Rset,
    /// RFC 5321 section 4.1.1.9.
    Noop,
    /// RFC 5321 section 4.1.1.6.
    Vrfy,
    /// RFC 5321 section 4.1.1.7.
    Expn,
    /// RFC 5321 section 4.1.1.8.
    Help,
    /// RFC 5321 section 4.1.1.10.
    Quit,
    /// RFC 3207 section 4.
    StartTls,
    /// RFC 4954 section 4.
    Auth,
    /// Exchange 2000 and 2003.
    Xexch50,
    /// Another protocol is speaking: one reply, then the connection is dropped.
    Foreign,
    /// None of these.
    Unknown,
}

/// The longest command line, octets with its CRLF; but that of AUTH, for which there is more room only where it is offered.
pub const MAX_LINE: usize = {
    let (mail, rcpt) = (Verb::Mail.line_limit(), Verb::Rcpt.line_limit());
    if mail > rcpt { mail } else { rcpt }
};

impl Verb {
    /// The octets that a line with this verb may have, CRLF included (RFC 5321 section 4.5.3.1.4 and the extensions').
    pub const fn line_limit(self) -> usize {
        const LINE: usize = 512; // RFC 5321 section 4.5.3.1.4
        const SIZE: usize = 26; // RFC 1870 section 3
        const BODY: usize = 17; // RFC 6152 section 2; BINARYMIME of RFC 3030 fits
        const DSN_MAIL: usize = 100; // RFC 3461 section 4
        const DSN_RCPT: usize = 500; // RFC 3461 section 4
        const AUTH_MAIL: usize = 500; // RFC 4954 section 3
        const SMTPUTF8: usize = 10; // RFC 6531 section 3.1, MAIL only
        match self {
            Verb::Mail => LINE + SIZE + BODY + DSN_MAIL + AUTH_MAIL + SMTPUTF8,
            Verb::Rcpt => LINE + DSN_RCPT,
            Verb::Auth => 12_288, // RFC 4954 section 4
            _ => LINE,
        }
    }

    /// The verb as it is written: for logs and metrics. Never what the client sent.
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Helo => "HELO",
            Verb::Ehlo => "EHLO",
            Verb::Mail => "MAIL",
            Verb::Rcpt => "RCPT",
            Verb::Data => "DATA",
            Verb::Bdat => "BDAT",
            Verb::Rset => "RSET",
            Verb::Noop => "NOOP",
            Verb::Vrfy => "VRFY",
            Verb::Expn => "EXPN",
            Verb::Help => "HELP",
            Verb::Quit => "QUIT",
            Verb::StartTls => "STARTTLS",
            Verb::Auth => "AUTH",
            Verb::Xexch50 => "XEXCH50",
            Verb::Foreign => "foreign",
            Verb::Unknown => "unknown",
        }
    }
}

/// Divides a line without its CRLF into verb and arguments, the spaces around the arguments dropped.
pub fn split(line: &[u8]) -> (Verb, &[u8]) {
    let end = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
    let (word, args) = line.split_at_checked(end).unwrap_or((line, b""));
    let args = trim_spaces(args);
    let verb = match packed(word) {
        HELO => Verb::Helo,
        EHLO => Verb::Ehlo,
        MAIL => Verb::Mail,
        RCPT => Verb::Rcpt,
        DATA => Verb::Data,
        BDAT => Verb::Bdat,
        RSET => Verb::Rset,
        NOOP => Verb::Noop,
        VRFY => Verb::Vrfy,
        EXPN => Verb::Expn,
        HELP => Verb::Help,
        QUIT => Verb::Quit,
        STARTTLS => Verb::StartTls,
        AUTH => Verb::Auth,
        XEXCH50 => Verb::Xexch50,
        _ if is_foreign(line) => Verb::Foreign,
        _ => Verb::Unknown,
    };
    (verb, args)
}

const HELO: u64 = packed(b"HELO");
const EHLO: u64 = packed(b"EHLO");
const MAIL: u64 = packed(b"MAIL");
const RCPT: u64 = packed(b"RCPT");
const DATA: u64 = packed(b"DATA");
const BDAT: u64 = packed(b"BDAT");
const RSET: u64 = packed(b"RSET");
const NOOP: u64 = packed(b"NOOP");
const VRFY: u64 = packed(b"VRFY");
const EXPN: u64 = packed(b"EXPN");
const HELP: u64 = packed(b"HELP");
const QUIT: u64 = packed(b"QUIT");
const STARTTLS: u64 = packed(b"STARTTLS");
const AUTH: u64 = packed(b"AUTH");
const XEXCH50: u64 = packed(b"XEXCH50");

/// A word of at most eight octets in upper case, as one number, so that a verb is found by one comparison; 0 for longer
/// ones, and for those that begin with NUL, which would pack like the word without it.
const fn packed(word: &[u8]) -> u64 {
    if word.len() > 8 || matches!(word, [0, ..]) {
        return 0;
    }
    let mut number = 0;
    let mut rest = word;
    while let Some((octet, more)) = rest.split_first() {
        number = number << 8 | octet.to_ascii_uppercase() as u64;
        rest = more;
    }
    number
}

/// Whether the first octets of a line are another protocol's: HTTP, SSH, a PROXY header, a TLS or SSL ClientHello. They
/// come from scanners, from wrong ports, and from browsers made to post mail (ALPACA). Also for the front of a line
/// that is not finished: a ClientHello has no line end. Looks at the first [`MAX_LINE`] octets only, so that a longer
/// line is judged alike before and after its end is there.
pub fn is_foreign(line: &[u8]) -> bool {
    let line = line.get(..MAX_LINE).unwrap_or(line);
    const METHODS: [&[u8]; 9] = [
        b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"TRACE", b"PATCH",
    ];
    match line {
        // TLS handshake record; the first octets of a PROXY v2 signature, whole or what lines leave of it; SSLv2
        // ClientHello.
        [0x16 | b'\r' | 0, ..] | [0x80..=0xff, _, 1, ..] => return true,
        _ => {}
    }
    if line.starts_with(b"SSH-") || line.starts_with(b"PROXY ") || line.starts_with(b"PRI * HTTP/") {
        return true;
    }
    let mut words = line.splitn(2, |&octet| octet == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    METHODS.contains(&method) && (target.starts_with(b"/") || target.windows(5).any(|w| w == b"HTTP/"))
}

fn trim_spaces(mut args: &[u8]) -> &[u8] {
    while let Some(rest) = args.strip_prefix(b" ") {
        args = rest;
    }
    while let Some(rest) = args.strip_suffix(b" ") {
        args = rest;
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Verb; 15] = [
        Verb::Helo,
        Verb::Ehlo,
        Verb::Mail,
        Verb::Rcpt,
        Verb::Data,
        Verb::Bdat,
        Verb::Rset,
        Verb::Noop,
        Verb::Vrfy,
        Verb::Expn,
        Verb::Help,
        Verb::Quit,
        Verb::StartTls,
        Verb::Auth,
        Verb::Xexch50,
    ];

    #[test]
    fn a_verb_is_known_in_any_case_and_only_whole() {
        for verb in KNOWN {
            let mixed: String = verb
                .name()
                .chars()
                .enumerate()
                .map(|(n, c)| if n % 2 == 0 { c.to_ascii_lowercase() } else { c })
                .collect();
            for name in [verb.name(), &verb.name().to_lowercase(), &mixed] {
                assert_eq!(split(name.as_bytes()), (verb, &b""[..]), "{name}");
                assert_eq!(split(format!("{name}X").as_bytes()).0, Verb::Unknown);
                assert_eq!(split(format!("{name}\t").as_bytes()).0, Verb::Unknown);
                assert_eq!(split(&name.as_bytes()[1..]).0, Verb::Unknown);
                assert_ne!(split(format!("\0{name}").as_bytes()).0, verb);
                assert_eq!(split(format!(" {name}").as_bytes()).0, Verb::Unknown);
            }
        }
        assert_eq!(split(b""), (Verb::Unknown, &b""[..]));
        assert_eq!(split(b"NOSUCHVERB of nine"), (Verb::Unknown, &b"of nine"[..]));
    }

    #[test]
    fn arguments_lose_the_spaces_around_them_and_keep_those_within() {
        assert_eq!(split(b"NOOP  a  b  "), (Verb::Noop, &b"a  b"[..]));
        assert_eq!(split(b"QUIT   "), (Verb::Quit, &b""[..]));
        assert_eq!(split(b"NOOP \ta\t"), (Verb::Noop, &b"\ta\t"[..]));
    }

    #[test]
    fn another_protocol_is_known_by_its_first_octets() {
        let foreign: [&[u8]; 16] = [
            b"GET / HTTP/1.1",
            b"POST /mail HTTP/1.0",
            b"PUT /x",
            b"HEAD / HTTP/1.1",
            b"CONNECT mx.test:25 HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"DELETE /a",
            b"TRACE / HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"SSH-2.0-OpenSSH_9.9",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25",
            b"PROXY UNKNOWN",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"\r\n\r\n\0\r\nQUIT",
            b"\0",
            b"\x80\x2e\x01\x03\x01",
        ];
        for line in foreign {
            assert_eq!(split(line).0, Verb::Foreign, "{:?}", String::from_utf8_lossy(line));
            assert!(is_foreign(line));
        }
        for line in [
            "GET",
            "GET up",
            "get / HTTP/1.1",
            "GETS / HTTP/1.1",
            "SSH",
            "PROXY",
            "PROXYING x",
            "Subject: / HTTP/1.1",
            "\u{e4}h",
        ] {
            assert_eq!(split(line.as_bytes()).0, Verb::Unknown, "{line}");
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_its_verb_allows() {
        assert_eq!(Verb::Mail.line_limit(), 1165);
        assert_eq!(Verb::Rcpt.line_limit(), 1012);
        assert_eq!(Verb::Auth.line_limit(), 12_288);
        for verb in [Verb::Ehlo, Verb::Bdat, Verb::Vrfy, Verb::Unknown, Verb::Foreign] {
            assert_eq!(verb.line_limit(), 512);
        }
        assert_eq!(MAX_LINE, 1165, "AUTH is for the session to know");
    }
}
