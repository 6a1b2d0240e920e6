//! What is left to do for a message, as octets.
//!
//! Promises: what is written is read again as it was; nothing panics. Pure.

use super::code::{Reader, number, optional};

/// How far the delivery of a message is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The operator holds it back.
    pub held: bool,
    /// In the order of the envelope. Empty: nothing was tried yet.
    pub recipients: Vec<RecipientProgress>,
}

/// How far the delivery to one recipient is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientProgress {
    /// Whether there is something left to do.
    pub state: RecipientState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be tried next, in seconds since 1970; 0 is at once.
    pub due: u64,
    /// A notice of delay has been sent.
    pub notified: bool,
    /// What was last heard of it, for reports.
    pub reply: Option<Box<str>>,
}

/// Whether there is something left to do for a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecipientState {
    /// It is to be tried, again or for the first time.
    #[default]
    Waiting,
    /// A next hop has taken the message for it.
    Delivered,
    /// It was given up, and reported if a report was due.
    Failed,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.held)];
        number(&mut out, self.recipients.len() as u64);
        for recipient in &self.recipients {
            let state = match recipient.state {
                RecipientState::Waiting => 0,
                RecipientState::Delivered => 1,
                RecipientState::Failed => 2,
            };
            out.push(state | u8::from(recipient.notified) << 2);
            number(&mut out, u64::from(recipient.attempts));
            number(&mut out, recipient.due);
            optional(&mut out, recipient.reply.as_deref());
        }
        out
    }

    /// None where the octets are none.
    pub(super) fn decode(octets: &[u8]) -> Option<Progress> {
        let mut rest = Reader::new(octets);
        let held = match rest.octet()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut recipients = Vec::new();
        for _ in 0..rest.number()? {
            let flags = rest.octet()?;
            let state = match flags & 3 {
                0 => RecipientState::Waiting,
                1 => RecipientState::Delivered,
                2 => RecipientState::Failed,
                _ => return None,
            };
            recipients.push(RecipientProgress {
                state,
                attempts: u32::try_from(rest.number()?).ok()?,
                due: rest.number()?,
                notified: flags & 4 != 0,
                reply: rest.optional()?.map(Box::from),
            });
        }
        rest.is_empty().then_some(Progress { held, recipients })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipient() -> impl Strategy<Value = RecipientProgress> {
        (0..3, any::<u32>(), any::<u64>(), any::<bool>(), any::<Option<String>>()).prop_map(
            |(state, attempts, due, notified, reply)| RecipientProgress {
                state: [
                    RecipientState::Waiting,
                    RecipientState::Delivered,
                    RecipientState::Failed,
                ][state],
                attempts,
                due,
                notified,
                reply: reply.map(Box::from),
            },
        )
    }

    proptest! {
        #[test]
        fn progress_is_read_as_it_was_written(
            held in any::<bool>(), recipients in prop::collection::vec(recipient(), 0..5)
        ) {
            let progress = Progress { held, recipients };
            let octets = progress.encode();
            prop_assert_eq!(Progress::decode(&octets).as_ref(), Some(&progress));
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
        let waiting = RecipientProgress {
            attempts: 3,
            due: 1_795_000_000,
            ..RecipientProgress::default()
        };
        let progress = Progress {
            held: false,
            recipients: vec![waiting],
        };
        assert!(progress.encode().len() <= 12, "{}", progress.encode().len());
    }
}
