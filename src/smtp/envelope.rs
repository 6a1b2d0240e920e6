//! The envelope: who sent the message, to whom, and how it wants to be treated.
//!
//! Promises: holds only what the parser has checked. Lives with its session, then with the message.

use super::path::{ForwardPath, ReversePath};

/// What MAIL and the accepted RCPTs of one transaction said (RFC 5321 section 2.3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Where reports go; null for reports themselves.
    pub reverse_path: ReversePath,
    /// What MAIL said beside the path.
    pub mail: MailParameters,
    /// In the order of their RCPTs.
    pub recipients: Vec<Recipient>,
}

/// One accepted RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Where the message goes.
    pub forward_path: ForwardPath,
    /// What RCPT said beside the path.
    pub parameters: RcptParameters,
}

/// BODY= of MAIL (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Not said, or said.
    #[default]
    SevenBit,
    /// Octets above 127, still in lines.
    EightBitMime,
    /// No lines at all; only by BDAT.
    BinaryMime,
}

/// RET= of MAIL (RFC 3461 section 4.3): what a failure report returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Headers,
}

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE= (RFC 1870), octets; a claim only, nothing is allocated by it.
    pub size: Option<u64>,
    /// BODY=.
    pub body: Body,
    /// RET=.
    pub ret: Option<Ret>,
    /// ENVID= as it was sent, in xtext (RFC 3461 section 4.4).
    pub envid: Option<Box<str>>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// AUTH= as it was sent, in xtext or `<>` (RFC 4954 section 5).
    pub auth: Option<Box<str>>,
}

/// NOTIFY= of RCPT (RFC 3461 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// No report at all.
    Never,
    /// Reports of these kinds.
    On {
        /// Delivered.
        success: bool,
        /// Given up.
        failure: bool,
        /// Late.
        delay: bool,
    },
}

/// The parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// NOTIFY=.
    pub notify: Option<Notify>,
    /// ORCPT= as it was sent: address type, `;`, address in xtext or utf-8-addr-xtext (RFC 3461 section 4.2, RFC 6533).
    pub orcpt: Option<Box<str>>,
}
