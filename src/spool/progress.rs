//! How far the delivery of a message has come: what a record in the spool says of it after its content.
//!
//! Promises: plain data, whole in itself: the last one that was written replaces those before it. Times are wall time, for
//! they outlive the process; what is written is read again as it was, and nothing that is read panics. Lives with its message.

use super::code::{Reader, number, octets};
use crate::smtp::client::{EnhancedStatusCode, HopReply, Origin};

/// What is left to do for a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// One for each recipient, in the order of the envelope.
    pub recipients: Vec<Fate>,
    /// The operator holds it back.
    pub held: bool,
    /// The sender has been told that it is late, or is not to be told.
    pub notified: bool,
    /// The operator has removed it: nobody is to be tried any more, and nobody is told.
    pub removed: bool,
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To be tried.
    Waiting {
        /// Attempts that were made.
        attempts: u16,
        /// When to try, in unix seconds; 0 is now.
        due: u64,
        /// What the last attempt led to.
        last: Option<Answer>,
    },
    /// Nothing is left to do: delivered, or failed and reported, or nobody is to hear of it.
    Settled,
    /// Given up; the sender is still to be told.
    Failed(Answer),
    /// Taken by a hop that tells the sender nothing, and the sender asked to be told (RFC 3461 section 5.2.2); still to be
    /// done.
    Relayed(Answer),
    /// Delivered here, and the sender asked to be told (RFC 3461 section 5.2.3); still to be done.
    Delivered(Answer),
}

/// What was heard of a recipient, from whom, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What was said.
    pub reply: HopReply,
    /// Who was asked: a host name or an address; empty where nobody could be. One line of printable ASCII.
    pub hop: Box<str>,
    /// When, in unix seconds.
    pub at: u64,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.held) | u8::from(self.notified) << 1 | u8::from(self.removed) << 2];
        number(&mut out, self.recipients.len() as u64);
        for fate in &self.recipients {
            fate.encode(&mut out);
        }
        out
    }

    /// None where the octets are none.
    pub(super) fn decode(from: &[u8]) -> Option<Progress> {
        let mut rest = Reader::new(from);
        let flags = rest.octet().filter(|flags| *flags < 8)?;
        let mut recipients = Vec::new();
        for _ in 0..rest.number()? {
            recipients.push(Fate::decode(&mut rest)?);
        }
        rest.is_empty().then_some(Progress {
            recipients,
            held: flags & 1 != 0,
            notified: flags & 2 != 0,
            removed: flags & 4 != 0,
        })
    }
}

impl Fate {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Fate::Waiting { attempts, due, last } => {
                out.push(if last.is_some() { 1 } else { 0 });
                number(out, u64::from(*attempts));
                number(out, *due);
                if let Some(last) = last {
                    last.encode(out);
                }
            }
            Fate::Settled => out.push(2),
            Fate::Failed(answer) => {
                out.push(3);
                answer.encode(out);
            }
            Fate::Relayed(answer) => {
                out.push(4);
                answer.encode(out);
            }
            Fate::Delivered(answer) => {
                out.push(5);
                answer.encode(out);
            }
        }
    }

    fn decode(rest: &mut Reader<'_>) -> Option<Fate> {
        Some(match rest.octet()? {
            kind @ (0 | 1) => Fate::Waiting {
                attempts: u16::try_from(rest.number()?).ok()?,
                due: rest.number()?,
                last: if kind == 1 { Some(Answer::decode(rest)?) } else { None },
            },
            2 => Fate::Settled,
            3 => Fate::Failed(Answer::decode(rest)?),
            4 => Fate::Relayed(Answer::decode(rest)?),
            5 => Fate::Delivered(Answer::decode(rest)?),
            _ => return None,
        })
    }
}

impl Answer {
    /// The time first: what follows is often the same for many messages, and then kept once.
    fn encode(&self, out: &mut Vec<u8>) {
        number(out, self.at);
        let HopReply {
            code,
            status,
            text,
            origin,
        } = &self.reply;
        number(out, u64::from(*code));
        out.push(status.class);
        number(out, u64::from(status.subject));
        number(out, u64::from(status.detail));
        octets(out, text.as_bytes());
        out.push(match origin {
            Origin::Hop => 0,
            Origin::NoConnection => 1,
            Origin::TimedOut { ended: false } => 2,
            Origin::TimedOut { ended: true } => 3,
            Origin::Lost { ended: false } => 4,
            Origin::Lost { ended: true } => 5,
            Origin::Nonsense => 6,
            Origin::Ours => 7,
        });
        octets(out, self.hop.as_bytes());
    }

    fn decode(rest: &mut Reader<'_>) -> Option<Answer> {
        let small = |number: u64| u16::try_from(number).ok();
        let at = rest.number()?;
        Some(Answer {
            reply: HopReply {
                code: small(rest.number()?)?,
                status: EnhancedStatusCode::new(rest.octet()?, small(rest.number()?)?, small(rest.number()?)?),
                text: rest.text()?.into(),
                origin: match rest.octet()? {
                    0 => Origin::Hop,
                    1 => Origin::NoConnection,
                    2 => Origin::TimedOut { ended: false },
                    3 => Origin::TimedOut { ended: true },
                    4 => Origin::Lost { ended: false },
                    5 => Origin::Lost { ended: true },
                    6 => Origin::Nonsense,
                    7 => Origin::Ours,
                    _ => return None,
                },
            },
            hop: rest.text()?.into(),
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer() -> impl Strategy<Value = Answer> {
        let origins = prop::sample::select(vec![
            Origin::Hop,
            Origin::NoConnection,
            Origin::TimedOut { ended: false },
            Origin::TimedOut { ended: true },
            Origin::Lost { ended: false },
            Origin::Lost { ended: true },
            Origin::Nonsense,
            Origin::Ours,
        ]);
        (
            any::<(u16, u8, u16, u16)>(),
            "[ -~]{0,40}",
            origins,
            "[ -~]{0,20}",
            any::<u64>(),
        )
            .prop_map(|((code, class, subject, detail), text, origin, hop, at)| Answer {
                reply: HopReply {
                    code,
                    status: EnhancedStatusCode::new(class, subject, detail),
                    text: text.into(),
                    origin,
                },
                hop: hop.into(),
                at,
            })
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            (any::<u16>(), any::<u64>(), prop::option::of(answer())).prop_map(|(attempts, due, last)| Fate::Waiting {
                attempts,
                due,
                last
            }),
            Just(Fate::Settled),
            answer().prop_map(Fate::Failed),
            answer().prop_map(Fate::Relayed),
            answer().prop_map(Fate::Delivered),
        ]
    }

    proptest! {
        #[test]
        fn progress_is_read_as_it_was_written(
            flags in any::<(bool, bool, bool)>(), recipients in prop::collection::vec(fate(), 0..5)
        ) {
            let (held, notified, removed) = flags;
            let progress = Progress { recipients, held, notified, removed };
            let octets = progress.encode();
            prop_assert_eq!(Progress::decode(&octets), Some(progress.clone()));
            for end in 0..octets.len() {
                prop_assert_eq!(Progress::decode(&octets[..end]), None);
            }
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Progress::decode(&octets);
        }
    }

    #[test]
    fn the_progress_of_one_recipient_takes_a_dozen_octets() {
        let waiting = Fate::Waiting {
            attempts: 3,
            due: 1_795_000_000,
            last: None,
        };
        let progress = Progress {
            recipients: vec![waiting],
            held: false,
            notified: false,
            removed: false,
        };
        assert!(progress.encode().len() <= 12, "{}", progress.encode().len());
    }
}
