//! Command lines: the verb, and the arguments of each verb (RFC 5321 section 4.1).
//!
//! Promises: takes any octets and never panics; allocates nothing but the parts of an envelope; a control character in an
//! argument is refused wherever it stands. What is refused comes back as the [`Reply`] to send. Lives on the thread of
//! its session.

use super::envelope::{MailParameters, RcptParameters};
use super::extension::{Extension, Offered};
use super::oxsmtp::Reply;
use super::parameters;
use super::path::{ForwardPath, PathError, ReversePath};

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

/// The longest command line of what is offered now, octets with its CRLF.
pub const MAX_LINE: usize = {
    let (mail, rcpt) = (Verb::Mail.line_limit(), Verb::Rcpt.line_limit());
    if mail > rcpt { mail } else { rcpt }
};

impl Verb {
    /// The octets that a line with this verb may have, CRLF included (RFC 5321 section 4.5.3.1.4 and the extensions').
    pub const fn line_limit(self) -> usize {
        const LINE: usize = 512;
        const SIZE: usize = 26; // RFC 1870 section 3, item 5
        const BODY: usize = 17; // RFC 6152 section 2, item 5; BINARYMIME fits
        const DSN_MAIL: usize = 100; // RFC 3461 section 4, item 6
        const DSN_RCPT: usize = 500; // the same
        const AUTH_MAIL: usize = 500; // RFC 4954 section 3, item 6
        const SMTPUTF8: usize = 10; // RFC 6531 section 3.1
        match self {
            Verb::Mail => LINE + SIZE + BODY + DSN_MAIL + AUTH_MAIL + SMTPUTF8,
            Verb::Rcpt => LINE + DSN_RCPT + SMTPUTF8,
            Verb::Vrfy | Verb::Expn => LINE + SMTPUTF8,
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
/// ones. A NUL packs as itself and not as nothing: no word of fewer octets has the number of a verb.
const fn packed(word: &[u8]) -> u64 {
    if word.len() > 8 {
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

/// Whether the first octets of a line are another protocol's: HTTP, SSH, a PROXY header, a TLS or SSL ClientHello. They come
/// from scanners, from wrong ports, and from browsers made to post mail (ALPACA). Also for the front of a line that is
/// not finished: a ClientHello has no line end.
pub fn is_foreign(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"TRACE", b"PATCH",
    ];
    match line {
        // TLS handshake record; the first octets of a PROXY v2 signature, whole or what lines leave of it; SSLv2 ClientHello.
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

/// The name after HELO or EHLO. RFC 5321 section 4.1.1.1 has a domain or an address literal; clients that are let in
/// everywhere else send underscores, bare names and worse, so any word is taken that is printable. `ehlo`: the word may
/// be UTF-8 (RFC 6531 section 3.7.1 asks for A-labels, not everyone does).
pub fn hello(args: &[u8], ehlo: bool) -> Result<&str, Reply> {
    let name = std::str::from_utf8(args).map_err(|_| Reply::InvalidArguments)?;
    let printable = if name.is_ascii() {
        name.bytes().all(|octet| octet.is_ascii_graphic())
    } else {
        ehlo && !name.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if printable && (1..=255).contains(&name.len()) {
        Ok(name)
    } else {
        Err(Reply::InvalidArguments)
    }
}

/// The arguments of MAIL: `FROM:<path> parameters`.
pub fn mail(args: &[u8], offered: Offered) -> Result<(ReversePath, MailParameters), Reply> {
    let path = after_label(args, b"FROM:")?;
    let (path, rest) =
        ReversePath::parse(path, offered.has(Extension::SmtpUtf8)).map_err(|e| refused(e, Reply::InvalidSender))?;
    divided(rest, Reply::InvalidSender)?;
    let parameters = parameters::mail(rest, offered)?;
    Ok((path, parameters))
}

/// The arguments of RCPT: `TO:<path> parameters`. `smtputf8`: MAIL said SMTPUTF8.
pub fn rcpt(args: &[u8], _offered: Offered, smtputf8: bool) -> Result<(ForwardPath, RcptParameters), Reply> {
    let path = after_label(args, b"TO:")?;
    let (path, rest) = ForwardPath::parse(path, smtputf8).map_err(|e| refused(e, Reply::InvalidRecipient))?;
    divided(rest, Reply::InvalidRecipient)?;
    Ok((path, parameters::rcpt(rest, smtputf8)?))
}

/// What follows `FROM:` or `TO:`. The grammar has no space before the `<`; clients send one or more, and every server in
/// use takes them (RFC 5321 section 3.3 says that they are seen), so they are passed over.
fn after_label<'a>(args: &'a [u8], label: &[u8]) -> Result<&'a [u8], Reply> {
    match args.split_at_checked(label.len()) {
        Some((head, path)) if head.eq_ignore_ascii_case(label) => Ok(trim_spaces(path)),
        _ => Err(Reply::UnrecognizedParameter),
    }
}

/// What stands at the `>` without a space between belongs to the path, and makes it a bad one.
fn divided(rest: &[u8], bad_path: Reply) -> Result<(), Reply> {
    if rest.is_empty() || rest.starts_with(b" ") {
        Ok(())
    } else {
        Err(bad_path)
    }
}

fn refused(error: PathError, bad_path: Reply) -> Reply {
    match error {
        PathError::Invalid => bad_path,
        PathError::NeedsUtf8 => Reply::NeedSmtpUtf8,
    }
}

/// What BDAT announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Octets that follow the command line; a claim only, nothing is allocated by it.
    pub size: u64,
    /// Whether the message ends with this chunk.
    pub last: bool,
}

/// The arguments of BDAT: `size` or `size LAST` (RFC 3030 section 2). What cannot be read exactly is refused, never guessed: a
/// wrong size makes content into commands.
pub fn bdat(args: &[u8]) -> Result<Chunk, Reply> {
    let (size, last) = match args.iter().position(|&octet| octet == b' ') {
        None => (args, false),
        Some(n) => {
            let (size, word) = args.split_at_checked(n).unwrap_or_default();
            if !word.eq_ignore_ascii_case(b" LAST") {
                return Err(Reply::InvalidArguments);
            }
            (size, true)
        }
    };
    let size = strict_number(size)?;
    Ok(Chunk { size, last })
}

/// The arguments of XEXCH50: `size flags`. Returns the size of the blob, octets; a claim only.
pub fn xexch50(args: &[u8]) -> Result<u64, Reply> {
    let mut words = args.splitn(2, |&octet| octet == b' ');
    let (size, flags) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    strict_number(flags)?;
    strict_number(size)
}

/// Digits without leading zeros, at most `i64::MAX`: so sums of two never overflow.
fn strict_number(digits: &[u8]) -> Result<u64, Reply> {
    if digits.len() > 1 && digits.starts_with(b"0") {
        return Err(Reply::InvalidArguments);
    }
    parameters::decimal(digits)
        .filter(|&n| n <= i64::MAX as u64)
        .ok_or(Reply::InvalidArguments)
}

/// DATA, RSET, QUIT: no argument is allowed (RFC 5321 section 4.1.1.4, 5 and 10).
pub fn no_arguments(args: &[u8]) -> Result<(), Reply> {
    if args.is_empty() {
        Ok(())
    } else {
        Err(Reply::InvalidArguments)
    }
}

/// NOOP, HELP, VRFY, EXPN: anything printable, UTF-8 as well (RFC 6531 section 3.7.4.2 has it for VRFY and EXPN).
pub fn any_arguments(args: &[u8]) -> Result<(), Reply> {
    match std::str::from_utf8(args) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(()),
        _ => Err(Reply::InvalidArguments),
    }
}
