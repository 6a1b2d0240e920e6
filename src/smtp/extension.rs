//! The service extensions: their EHLO keywords, and which of them a binding offers ([MS-OXSMTP] 3.2.5, RFC 5321 section
//! 2.2).
//!
//! Promises: an [`Offered`] never holds an extension without the one that it stands on. Pure data; lives on every
//! thread.

use std::borrow::Cow;

use super::Edition;

/// A service extension. The order is the order of the EHLO reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// RFC 1870: the size of a message is said before it is sent.
    Size,
    /// RFC 3461: delivery status notifications.
    Dsn,
    /// RFC 2034: replies carry an enhanced status code.
    EnhancedStatusCodes,
    /// RFC 2920: commands may be sent without waiting.
    Pipelining,
    /// RFC 3207: TLS begins within the session.
    StartTls,
    /// RFC 4954: authentication.
    Auth,
    /// RFC 6152: octets above 127 in content.
    EightBitMime,
    /// RFC 3030: content that has no lines.
    BinaryMime,
    /// RFC 3030: BDAT.
    Chunking,
    /// RFC 6531: UTF-8 in addresses and header fields.
    SmtpUtf8,
    /// Exchange 2000 and 2003: a blob beside the message. It is thrown away.
    Xexch50,
}

use Extension::*;

impl Extension {
    /// Every extension, in the order of the EHLO reply.
    pub const ALL: [Extension; 11] = [
        Size,
        Dsn,
        EnhancedStatusCodes,
        Pipelining,
        StartTls,
        Auth,
        EightBitMime,
        BinaryMime,
        Chunking,
        SmtpUtf8,
        Xexch50,
    ];

    /// The keyword in the EHLO reply and in `extensions_off`.
    pub const fn keyword(self) -> &'static str {
        match self {
            Size => "SIZE",
            Dsn => "DSN",
            EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Pipelining => "PIPELINING",
            StartTls => "STARTTLS",
            Auth => "AUTH",
            EightBitMime => "8BITMIME",
            BinaryMime => "BINARYMIME",
            Chunking => "CHUNKING",
            SmtpUtf8 => "SMTPUTF8",
            Xexch50 => "XEXCH50",
        }
    }

    /// The extension of a keyword in any case.
    pub fn parse_keyword(keyword: &str) -> Option<Extension> {
        Self::ALL
            .into_iter()
            .find(|e| e.keyword().eq_ignore_ascii_case(keyword))
    }

    /// Whether a binding may switch it off; the others are always offered ([MS-OXSMTP] 3.2.5).
    pub const fn is_optional(self) -> bool {
        !matches!(self, Size | Dsn | EnhancedStatusCodes)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The extensions that a session offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered(u16);

/// An extension and the one without which it means nothing: BINARYMIME travels by BDAT only (RFC 3030 section 3), a
/// server with SMTPUTF8 must offer 8BITMIME (RFC 6531 section 3.1).
const STANDS_ON: [(Extension, Extension); 2] = [(BinaryMime, Chunking), (SmtpUtf8, EightBitMime)];

impl Offered {
    /// What a binding offers: everything of the edition but what is switched `off`, XEXCH50 where the operator wants
    /// it. STARTTLS and AUTH depend on more than the binding: [`Offered::with`] adds them.
    pub fn of(edition: Edition, off: &[Extension], xexch50: bool) -> Offered {
        let in_edition = |e: Extension| match e {
            StartTls | Auth => false,
            SmtpUtf8 => edition == Edition::Y2021,
            Xexch50 => xexch50,
            _ => true,
        };
        let bits = Extension::ALL
            .into_iter()
            .filter(|&e| in_edition(e) && !(e.is_optional() && off.contains(&e)))
            .fold(0, |bits, e| bits | e.bit());
        Offered(bits).supported()
    }

    /// The same and `extension`, if what it stands on is there.
    #[must_use]
    pub fn with(self, extension: Extension) -> Offered {
        Offered(self.0 | extension.bit()).supported()
    }

    /// The same without `extension` and what stands on it; those that are not optional stay.
    #[must_use]
    pub fn without(self, extension: Extension) -> Offered {
        if extension.is_optional() {
            Offered(self.0 & !extension.bit()).supported()
        } else {
            self
        }
    }

    /// Whether `extension` is offered.
    pub const fn has(self, extension: Extension) -> bool {
        self.0 & extension.bit() != 0
    }

    /// The keyword lines of the EHLO reply, in its order; SIZE with the maximum in octets. AUTH stands without its
    /// mechanisms: who offers it adds them.
    pub fn keywords(self, max_message_size: u64) -> impl Iterator<Item = Cow<'static, str>> {
        Extension::ALL
            .into_iter()
            .filter(move |&e| self.has(e))
            .map(move |e| match e {
                Size => Cow::Owned(format!("SIZE {max_message_size}")),
                _ => Cow::Borrowed(e.keyword()),
            })
    }

    fn supported(mut self) -> Offered {
        for (extension, ground) in STANDS_ON {
            if !self.has(ground) {
                self.0 &= !extension.bit();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords(offered: Offered) -> String {
        offered.keywords(1000).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn the_keywords_stand_in_the_order_of_the_document() {
        let all = Offered::of(Edition::Y2021, &[], true).with(StartTls).with(Auth);
        assert_eq!(
            keywords(all),
            "SIZE 1000,DSN,ENHANCEDSTATUSCODES,PIPELINING,STARTTLS,AUTH,8BITMIME,BINARYMIME,CHUNKING,SMTPUTF8,XEXCH50"
        );
        for (n, extension) in Extension::ALL.into_iter().enumerate() {
            assert_eq!(extension as usize, n, "ALL has the order of the enum");
        }
    }

    #[test]
    fn the_older_edition_knows_no_smtputf8_and_xexch50_is_the_operators_choice() {
        assert_eq!(
            keywords(Offered::of(Edition::Y2011, &[], false)),
            "SIZE 1000,DSN,ENHANCEDSTATUSCODES,PIPELINING,8BITMIME,BINARYMIME,CHUNKING"
        );
        assert!(Offered::of(Edition::Y2011, &[], true).has(Xexch50));
    }

    #[test]
    fn an_extension_goes_with_the_one_that_it_stands_on() {
        let all = Offered::of(Edition::Y2021, &[], false);
        assert!(!Offered::of(Edition::Y2021, &[Chunking], false).has(BinaryMime));
        assert!(!Offered::of(Edition::Y2021, &[EightBitMime], false).has(SmtpUtf8));
        assert!(!all.without(Chunking).has(BinaryMime) && all.without(Chunking).has(SmtpUtf8));
        assert!(!all.without(Chunking).with(BinaryMime).has(BinaryMime));
        assert!(!all.without(BinaryMime).has(BinaryMime) && all.without(BinaryMime).has(Chunking));
    }

    #[test]
    fn size_dsn_and_status_codes_cannot_be_switched_off() {
        let off = Offered::of(Edition::Y2021, &Extension::ALL, true);
        assert_eq!(keywords(off), "SIZE 1000,DSN,ENHANCEDSTATUSCODES");
        assert_eq!(off.without(Size).without(Dsn).without(EnhancedStatusCodes), off);
    }

    #[test]
    fn a_keyword_is_known_in_any_case() {
        for extension in Extension::ALL {
            assert_eq!(Extension::parse_keyword(extension.keyword()), Some(extension));
            assert_eq!(
                Extension::parse_keyword(&extension.keyword().to_lowercase()),
                Some(extension)
            );
        }
        assert_eq!(Extension::parse_keyword("SIZE 10"), None);
        assert_eq!(Extension::parse_keyword(""), None);
    }
}
