//! The arguments of commands: `FROM:<path>`, the size of a chunk, the name after EHLO (RFC 5321 section 4.1).
//!
//! Promises: takes any octets and never panics; allocates nothing but the parts of an envelope; a control character in
//! an argument is refused wherever it stands. What is refused comes back as the [`Reply`] to send. Lives on the thread
//! of its session.

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

/// What follows `FROM:` or `TO:`. The grammar has no space before the `<`; clients send one or more, and the servers
/// in wide use take them (RFC 5321 section 3.3 calls it a common error), so they are passed over.
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

/// The arguments of BDAT: `size` or `size LAST` (RFC 3030 section 2). What cannot be read exactly is refused, never
/// guessed: a wrong size makes content into commands.
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

/// The arguments of AUTH: the name of a mechanism as it was written (RFC 4422 section 3.1), and an initial response, still
/// encoded (RFC 4954 section 4).
pub fn auth(args: &[u8]) -> Result<(&str, Option<&[u8]>), Reply> {
    let mut words = args.splitn(2, |&octet| octet == b' ');
    let mechanism = std::str::from_utf8(words.next().unwrap_or_default()).map_err(|_| Reply::InvalidArguments)?;
    let initial = words.next().map(trim_spaces);
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    if (1..=20).contains(&mechanism.len()) && mechanism.bytes().all(is_name) {
        Ok((mechanism, initial))
    } else {
        Err(Reply::InvalidArguments)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Edition;
    use crate::smtp::envelope::Body;

    fn offered() -> Offered {
        Offered::of(Edition::Y2021, &[], false)
    }

    fn mail_reply(args: &[u8]) -> Reply {
        mail(args, offered()).map_or_else(|reply| reply, |_| Reply::SenderOk)
    }

    fn rcpt_reply(args: &[u8]) -> Reply {
        rcpt(args, offered(), false).map_or_else(|reply| reply, |_| Reply::RecipientOk)
    }

    #[test]
    fn mail_and_rcpt_are_answered_as_the_table_says() {
        let mut line = b"FROM:<a@b> SIZE=".to_vec();
        line.resize(10_000_000, b'1');
        for (args, reply) in [
            (&b"FROM:<a@b>"[..], Reply::SenderOk),
            (b"from:<a@b>", Reply::SenderOk),
            (b"FROM:   <a@b>", Reply::SenderOk),
            (b"FROM:<>", Reply::SenderOk),
            (b"FROM:<@r:a@b>   SIZE=1    BODY=7BIT", Reply::SenderOk),
            (b"", Reply::UnrecognizedParameter),
            (b"FROM", Reply::UnrecognizedParameter),
            (b"FROM :<a@b>", Reply::UnrecognizedParameter),
            (b"FROM<a@b>", Reply::UnrecognizedParameter),
            (b"<a@b>", Reply::UnrecognizedParameter),
            (b"TO:<a@b>", Reply::UnrecognizedParameter),
            (b"FROM:", Reply::InvalidSender),
            (b"FROM:a@b", Reply::InvalidSender),
            (b"FROM:<a@b", Reply::InvalidSender),
            (b"FROM:<a@b>x", Reply::InvalidSender),
            (b"FROM:<a@b>>", Reply::InvalidSender),
            (b"FROM:<>SIZE=1", Reply::InvalidSender),
            (b"FROM:\t<a@b>", Reply::InvalidSender),
            (b"FROM:<a\0@b>", Reply::InvalidSender),
            (b"FROM:<a@b\0>", Reply::InvalidSender),
            (b"FROM:<a@b\x7f>", Reply::InvalidSender),
            (b"FROM:<postmaster>", Reply::InvalidSender),
            (b"FROM:<\xe9@b> SMTPUTF8", Reply::InvalidSender),
            (b"FROM:<a@b> SIZE=1\0", Reply::InvalidArguments),
            (b"FROM:<a@b> \0", Reply::InvalidArguments),
            (b"FROM:<a@b> <c@d>", Reply::InvalidArguments),
            (b"FROM:<a@b> AUTH=<>", Reply::InvalidArguments),
            (&line, Reply::InvalidArguments),
        ] {
            assert_eq!(
                mail_reply(args),
                reply,
                "{:?}",
                args.escape_ascii().to_string().get(..40)
            );
        }
        for (args, reply) in [
            (&b"TO:<a@b>"[..], Reply::RecipientOk),
            (b"to: <Postmaster> NOTIFY=NEVER", Reply::RecipientOk),
            (b"TO", Reply::UnrecognizedParameter),
            (b"TO :<a@b>", Reply::UnrecognizedParameter),
            (b"FROM:<a@b>", Reply::UnrecognizedParameter),
            (b"TO:<>", Reply::InvalidRecipient),
            (b"TO:a@b", Reply::InvalidRecipient),
            (b"TO:<a@b\r\n>", Reply::InvalidRecipient),
            (b"TO:<postmaster>x", Reply::InvalidRecipient),
            (b"TO:<a@b> SIZE=1", Reply::InvalidArguments),
            (b"TO:<a@b> NOTIFY", Reply::InvalidArguments),
        ] {
            assert_eq!(rcpt_reply(args), reply, "{}", args.escape_ascii());
        }
    }

    #[test]
    fn utf8_is_taken_with_smtputf8_only() {
        let utf8 = "FROM:<\u{e9}@b> BODY=8BITMIME".as_bytes();
        assert_eq!(mail_reply(utf8), Reply::NeedSmtpUtf8);
        assert_eq!(mail_reply("FROM:<@\u{fc}.test:a@b>".as_bytes()), Reply::NeedSmtpUtf8);
        let (path, parameters) = mail(&[utf8, b" smtputf8"].concat(), offered()).unwrap();
        assert_eq!(
            (path.as_str(), parameters.smtputf8, parameters.body),
            ("\u{e9}@b", true, Body::EightBitMime)
        );
        let older = Offered::of(Edition::Y2011, &[], false);
        assert_eq!(mail(&[utf8, b" SMTPUTF8"].concat(), older), Err(Reply::NeedSmtpUtf8));
        assert_eq!(mail(b"FROM:<a@b> SMTPUTF8", older), Err(Reply::InvalidArguments));

        let to = "TO:<\u{e9}@b>".as_bytes();
        assert_eq!(rcpt_reply(to), Reply::NeedSmtpUtf8);
        assert!(rcpt(to, offered(), true).is_ok());
        assert_eq!(rcpt(b"TO:<\xe9@b>", offered(), true), Err(Reply::InvalidRecipient));
    }

    #[test]
    fn a_chunk_size_is_read_exactly_or_not_at_all() {
        let chunk = |size, last| Ok(Chunk { size, last });
        for (args, expected) in [
            ("0", chunk(0, false)),
            ("0 LAST", chunk(0, true)),
            ("86 last", chunk(86, true)),
            ("1000 LaSt", chunk(1000, true)),
            ("9223372036854775807", chunk(i64::MAX as u64, false)),
        ] {
            assert_eq!(bdat(args.as_bytes()), expected, "{args}");
        }
        for args in [
            "",
            "LAST",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999999",
            "-1",
            "+5",
            "0x10",
            "1e3",
            "00",
            "01",
            "007 LAST",
            "5  LAST",
            "5 LAST LAST",
            "5 LASTLY",
            "5 LAS",
            "5 6",
            "5LAST",
            "5\tLAST",
            "5 LAST\0",
            "\x005",
            "5\0",
            "\u{665}",
            "1,000",
        ] {
            assert_eq!(bdat(args.as_bytes()), Err(Reply::InvalidArguments), "{args:?}");
        }
    }

    #[test]
    fn xexch50_has_a_size_and_flags() {
        assert_eq!(xexch50(b"1024 2"), Ok(1024));
        for args in [
            &b""[..],
            b"1024",
            b"1024 ",
            b"1024  2",
            b"1024 2 3",
            b"x 2",
            b"1024 x",
            b"-1 2",
            b"9223372036854775808 2",
        ] {
            assert_eq!(xexch50(args), Err(Reply::InvalidArguments), "{}", args.escape_ascii());
        }
    }

    #[test]
    fn auth_has_a_mechanism_and_perhaps_a_response() {
        assert_eq!(auth(b"PLAIN"), Ok(("PLAIN", None)));
        assert_eq!(auth(b"Scram-Sha-256  biws"), Ok(("Scram-Sha-256", Some(&b"biws"[..]))));
        assert_eq!(auth(b"PLAIN ="), Ok(("PLAIN", Some(&b"="[..]))));
        assert_eq!(
            auth(b"PLAIN a b"),
            Ok(("PLAIN", Some(&b"a b"[..]))),
            "which is no base64"
        );
        for args in [
            &b""[..],
            b"PL/AIN",
            b"\xff",
            b"N\0",
            b"A23456789012345678901",
            b"NT\tLM x",
        ] {
            assert_eq!(auth(args), Err(Reply::InvalidArguments), "{}", args.escape_ascii());
        }
    }

    #[test]
    fn a_hello_name_is_one_printable_word() {
        for name in [
            "mx.test",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "my_host",
            "localhost",
            "-",
            "a(b)",
            "x".repeat(255).as_str(),
        ] {
            assert_eq!(hello(name.as_bytes(), true), Ok(name));
            assert_eq!(hello(name.as_bytes(), false), Ok(name));
        }
        let long = "x".repeat(256);
        for name in [
            "",
            "a b",
            "a\tb",
            "a\0",
            "a\x7f",
            "a\rb",
            "a\u{85}",
            "a\u{a0}b",
            "a\u{2028}b",
            long.as_str(),
        ] {
            assert_eq!(hello(name.as_bytes(), true), Err(Reply::InvalidArguments), "{name:?}");
        }
        assert_eq!(hello(b"\xff.test", true), Err(Reply::InvalidArguments));
        assert_eq!(hello("b\u{fc}cher.test".as_bytes(), true), Ok("b\u{fc}cher.test"));
        assert_eq!(
            hello("b\u{fc}cher.test".as_bytes(), false),
            Err(Reply::InvalidArguments)
        );
    }

    #[test]
    fn commands_without_arguments_take_none_and_the_others_anything_printable() {
        assert_eq!(no_arguments(b""), Ok(()));
        assert_eq!(no_arguments(b"x"), Err(Reply::InvalidArguments));
        for args in ["", "any thing <at> all", "\u{e9}"] {
            assert_eq!(any_arguments(args.as_bytes()), Ok(()));
        }
        for args in [&b"\0"[..], b"a\tb", b"\x7f", b"\xff", b"\xc2\x85", b"a\rb"] {
            assert_eq!(
                any_arguments(args),
                Err(Reply::InvalidArguments),
                "{}",
                args.escape_ascii()
            );
        }
    }
}
