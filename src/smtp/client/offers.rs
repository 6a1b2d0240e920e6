//! What a hop has said that it can do: the reply to EHLO or LHLO (RFC 5321 section 4.1.1.1).
//!
//! Promises: fixed size, whatever the hop lists. Lives with its connection.

use crate::smtp::extension::Extension;
use crate::smtp::parameters::decimal;
use crate::smtp::sasl::Mechanism;

/// The extensions of a hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// It has answered EHLO or LHLO, not only HELO.
    pub esmtp: bool,
    /// The largest message it takes, in octets (RFC 1870); none where it names no limit.
    pub size_limit: Option<u64>,
    extensions: u16,
    mechanisms: u8,
}

impl Offers {
    /// Whether the hop offers `extension`. BINARYMIME needs CHUNKING and SMTPUTF8 needs 8BITMIME to mean anything
    /// (RFC 3030 section 3, RFC 6531 section 3.1).
    pub fn has(&self, extension: Extension) -> bool {
        let said = |extension: Extension| self.extensions & 1 << extension as u16 != 0;
        said(extension)
            && match extension {
                Extension::BinaryMime => said(Extension::Chunking),
                Extension::SmtpUtf8 => said(Extension::EightBitMime),
                _ => true,
            }
    }

    /// Whether it offers to authenticate by `mechanism`.
    pub fn has_mechanism(&self, mechanism: Mechanism) -> bool {
        self.mechanisms & 1 << mechanism as u8 != 0
    }

    /// It has refused us by `mechanism`, which is not tried again.
    pub(super) fn forget_mechanism(&mut self, mechanism: Mechanism) {
        self.mechanisms &= !(1 << mechanism as u8);
    }

    /// One line of the reply, without its code; the first line is no keyword.
    pub(super) fn add(&mut self, line: &[u8]) {
        let mut words = line
            .split(|&octet| octet == b' ' || octet == b'\t')
            .filter(|w| !w.is_empty());
        let Some(keyword) = words.next() else {
            return;
        };
        // A form older than RFC 2554, which hops still send beside the true one: `AUTH=LOGIN PLAIN`.
        let (keyword, first) = match keyword.split_at_checked("AUTH=".len()) {
            Some((auth, first)) if auth.eq_ignore_ascii_case(b"AUTH=") => (&b"AUTH"[..], Some(first)),
            _ => (keyword, None),
        };
        let Some(extension) = std::str::from_utf8(keyword).ok().and_then(Extension::parse_keyword) else {
            return;
        };
        self.extensions |= 1 << extension as u16;
        match extension {
            // RFC 1870 section 4: 0 says that there is no fixed limit.
            Extension::Size => self.size_limit = words.next().and_then(decimal).filter(|&limit| limit > 0),
            Extension::Auth => {
                for name in first.into_iter().chain(words) {
                    if let Some(mechanism) = Mechanism::parse(name) {
                        self.mechanisms |= 1 << mechanism as u8;
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(lines: &[&str]) -> Offers {
        let mut offers = Offers::default();
        for line in lines {
            offers.add(line.as_bytes());
        }
        offers
    }

    #[test]
    fn keywords_are_read_in_any_case_and_order_and_unknown_ones_passed_over() {
        let offers = offers(&[
            "smtputf8",
            "BinaryMime",
            "X-FOO 1",
            "",
            " ",
            "SIZE 1000",
            "8BITMIME",
            "Chunking",
        ]);
        for (extension, offered) in [
            (Extension::SmtpUtf8, true),
            (Extension::BinaryMime, true),
            (Extension::Chunking, true),
            (Extension::EightBitMime, true),
            (Extension::Size, true),
            (Extension::Pipelining, false),
            (Extension::StartTls, false),
            (Extension::Auth, false),
        ] {
            assert_eq!(offers.has(extension), offered, "{extension:?}");
        }
        assert_eq!(offers.size_limit, Some(1000));
    }

    #[test]
    fn an_extension_without_the_one_that_it_stands_on_is_none() {
        assert!(!offers(&["BINARYMIME"]).has(Extension::BinaryMime));
        assert!(!offers(&["SMTPUTF8"]).has(Extension::SmtpUtf8));
    }

    #[test]
    fn a_size_that_is_none_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999999"] {
            assert_eq!(offers(&[line]).size_limit, None, "{line}");
            assert!(offers(&[line]).has(Extension::Size));
        }
    }

    #[test]
    fn mechanisms_are_read_in_both_forms() {
        for line in ["AUTH GSSAPI plain LOGIN", "auth=PLAIN Login", "AUTH= PLAIN LOGIN X"] {
            let offers = offers(&[line]);
            assert!(offers.has(Extension::Auth), "{line}");
            assert!(
                offers.has_mechanism(Mechanism::Plain) && offers.has_mechanism(Mechanism::Login),
                "{line}"
            );
        }
        assert!(!offers(&["AUTH GSSAPI"]).has_mechanism(Mechanism::Plain));
        assert!(!offers(&["AUTHPLAIN"]).has(Extension::Auth));
    }
}
