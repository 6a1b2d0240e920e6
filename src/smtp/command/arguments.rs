//! The arguments of commands: `FROM:<path>`, the size of a chunk, the name after EHLO (RFC 5321 section 4.1).
//!
//! Promises: takes any octets and never panics; allocates nothing but the parts of an envelope; a control character in an
//! argument is refused wherever it stands. What is refused comes back as the [`Reply`] to send. Lives on the thread of
//! its session.

use crate::smtp::envelope::{MailParameters, RcptParameters};
use crate::smtp::extension::{Extension, Offered};
use crate::smtp::oxsmtp::Reply;
use crate::smtp::parameters;
use crate::smtp::path::{ForwardPath, PathError, ReversePath};

use super::trim_spaces;

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
    let input = after_label(args, b"FROM:")?;
    let (path, rest) =
        ReversePath::parse(input, offered.has(Extension::SmtpUtf8)).map_err(|e| refused(e, Reply::InvalidSender))?;
    divided(rest, Reply::InvalidSender)?;
    let parameters = parameters::mail(rest, offered)?;
    // SMTPUTF8 stands behind the path that needs it; a source route counts, though it is dropped.
    let consumed = input.len() - rest.len();
    if !parameters.smtputf8 && !input.iter().take(consumed).all(u8::is_ascii) {
        return Err(Reply::NeedSmtpUtf8);
    }
    Ok((path, parameters))
}

/// The arguments of RCPT: `TO:<path> parameters`. `smtputf8`: MAIL said SMTPUTF8.
pub fn rcpt(args: &[u8], offered: Offered, smtputf8: bool) -> Result<(ForwardPath, RcptParameters), Reply> {
    let path = after_label(args, b"TO:")?;
    let (path, rest) = ForwardPath::parse(path, smtputf8).map_err(|e| refused(e, Reply::InvalidRecipient))?;
    divided(rest, Reply::InvalidRecipient)?;
    Ok((path, parameters::rcpt(rest, offered, smtputf8)?))
}

/// What follows `FROM:` or `TO:`. The grammar has no space before the `<`; clients send one or more, and every server in
/// use takes them (RFC 5321 section 3.3 calls it a common error), so they are passed over.
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
