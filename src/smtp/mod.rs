//! The protocol, without sockets, files, clocks or runtimes: bytes and `now` come in, replies and steps go out.
//!
//! Promises: nothing here blocks, nothing allocates by a size that a client declared, no input panics. Lives on
//! whichever thread calls it; holds no global state.
//!
//! Start reading at [`oxsmtp`] (every reply text, in the order of the document) and [`session`] (the dialogue).

pub mod client;
pub mod command;
pub mod envelope;
pub mod extension;
pub mod limits;
pub mod oxsmtp;
pub mod parameters;
pub mod path;
pub mod received;
pub mod sasl;
pub mod scanner;
pub mod session;

/// What a server is for its clients ([MS-OXSMTP] 3.2.7, RFC 5321 section 2.3.10): picks the default limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes mail from the internet: strangers, short timers, rates per source address.
    Gateway,
    /// A hub or submission server: known clients, long timers, rates per user.
    Relay,
}

/// The edition of [MS-OXSMTP] followed where the editions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edition {
    /// v4.1: a passed limit closes the session; tarpit at connect and after MAIL.
    Y2011,
    /// v17: the session goes on after a passed limit; tarpit after any command.
    Y2021,
}

/// What a bare CR or LF in the content of DATA leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// `550 5.6.11` after the end of the content.
    Refuse,
    /// It becomes a line end.
    Normalise,
}

/// How content came over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// By DATA: a dot that begins a line is doubled (RFC 5321 section 4.5.2). The final `.` line is not content.
    Dotted,
    /// By BDAT (RFC 3030): as it is.
    Plain,
}
