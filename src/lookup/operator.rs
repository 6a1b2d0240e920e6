//! What an operator asks of the queue of a running edge, and what comes back: the same words on the command line's side of
//! the socket, on the control thread and on a shard.
//!
//! Promises: plain data; a question and an answer are one line of JSON each, an answer no longer than its bounds say. No
//! runtime is named here.

use serde::{Deserialize, Serialize};

/// The socket of a running edge, below its `data_dir`.
pub const SOCKET: &str = "admin.sock";
/// Octets that a question may have.
pub const MAX_QUESTION: u64 = 4096;
/// Octets that an answer may have: every text in it at its longest.
pub const MAX_ANSWER: u64 = 64 << 20;
/// Messages that one answer lists at most.
pub const MAX_LISTED: usize = 512;
/// Recipients that one answer names at most.
pub const MAX_RECIPIENTS: usize = 2048;
/// Recipients that a list names of one message; the others are counted.
pub const RECIPIENTS_LISTED: usize = 20;

/// What is asked. Names of messages are as in the log; lower case is fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A page of the messages, in the order of their names.
    List {
        /// It begins behind this one.
        after: Option<String>,
        /// How many messages at most; [`MAX_LISTED`] holds as well.
        most: usize,
    },
    /// One message with its recipients, from the one at `from` on; its header section comes with the first of them.
    Show {
        /// Its name.
        id: String,
        /// Recipients to pass over.
        from: usize,
    },
    /// Do something with one message.
    Ask {
        /// Its name.
        id: String,
        /// What.
        wish: Wish,
    },
    /// Try everybody who waits now.
    RetryAll,
}

/// What can be done with one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Try who waits now.
    Retry,
    /// Try nobody until it is released.
    Hold,
    /// Ends a hold.
    Release,
    /// Forget it; nobody is told.
    Remove,
}

/// What a shard says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `List`.
    Page {
        /// In the order of their names.
        messages: Vec<Message>,
        /// There are others behind the last.
        more: bool,
    },
    /// To `Show`.
    Shown(Box<Message>),
    /// To `Ask`: it is done.
    Done,
    /// To `RetryAll`: so many messages are queued.
    All(u64),
    /// There is no such message.
    Unknown,
    /// Its client still waits for the final reply: it is not in the queue yet.
    Unacknowledged,
    /// To `Ask`: it is done, but the disk has failed, and a crash now would undo it.
    Unkept {
        /// What the file system said.
        error: String,
    },
    /// The question cannot be read.
    Misunderstood,
}

/// What the edge says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The time there, in unix seconds.
    pub now: u64,
    /// Shards that have said nothing in time.
    pub silent: Vec<usize>,
    /// What the others say together.
    pub reply: Reply,
}

/// A queued message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its name.
    pub id: String,
    /// What it does now.
    pub status: Status,
    /// When its content was complete, in unix seconds.
    pub arrived: u64,
    /// Octets of content.
    pub size: u64,
    /// The most attempts that any recipient has seen.
    pub attempts: u16,
    /// When the next attempt is due, in unix seconds; none where none is to be made.
    pub next: Option<u64>,
    /// Where reports go; empty for a message that is a report itself.
    pub sender: String,
    /// How many recipients it has.
    pub recipient_count: usize,
    /// Those that this answer names.
    pub recipients: Vec<Recipient>,
    /// The identifier that its sender has given it (ENVID of RFC 3461), in xtext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// Its header section, with the fields of this hop on top; where it was asked for and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// What a queued message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is being tried, or about to be for the first time, or a report about it is being written.
    Active,
    /// It waits for its next attempt.
    Deferred,
    /// The operator holds it back.
    Held,
}

/// One recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    pub address: String,
    /// Where it stands.
    pub state: State,
    /// How often it was tried.
    pub attempts: u16,
    /// When it is tried next, in unix seconds; where it waits for that.
    pub due: Option<u64>,
    /// What was last said about it.
    pub reply: Option<String>,
    /// Who said so; none where nobody could be asked.
    pub hop: Option<String>,
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// An attempt is under way.
    Trying,
    /// It waits for an attempt.
    Waiting,
    /// The operator holds the message back.
    Held,
    /// It is delivered, or given up.
    Done,
}

/// Brings what a shard says to who asked. Called on the shard: must not block.
pub type ReplyTo = Box<dyn FnOnce(Reply) + Send>;

/// A question on its way to a shard.
pub struct Request {
    /// What.
    pub question: Question,
    /// Where the reply goes. Dropped unanswered, it tells nobody anything: who asks has a deadline.
    pub reply_to: ReplyTo,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Request").field(&self.question).finish()
    }
}

/// Anything of the above as a line of JSON, without the line end.
pub fn to_line(what: &impl Serialize) -> String {
    // Nothing here has keys that are not texts, so nothing here can fail.
    serde_json::to_string(what).unwrap_or_default()
}

/// A question, from its line. None where it is none.
pub fn read_question(line: &str) -> Option<Question> {
    serde_json::from_str(line).ok()
}

/// An answer, from its line.
///
/// # Errors
///
/// Why it is none.
pub fn read_answer(line: &str) -> Result<Answer, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_back_from_their_lines() {
        for question in [
            Question::List { after: None, most: 7 },
            Question::Show {
                id: "0AKJXS5P40000".into(),
                from: 2,
            },
            Question::Ask {
                id: "a\"\n".into(),
                wish: Wish::Hold,
            },
            Question::RetryAll,
        ] {
            let line = to_line(&question);
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(read_question(&line), Some(question));
        }
        let answer = Answer {
            now: 1,
            silent: vec![3],
            reply: Reply::Shown(Box::new(message())),
        };
        assert_eq!(read_answer(&to_line(&answer)), Ok(answer));
    }

    #[test]
    fn the_names_in_a_line_are_those_that_programs_rely_on() {
        assert_eq!(
            to_line(&message()),
            "{\"id\":\"0AKJXS5P40000\",\"status\":\"deferred\",\"arrived\":5,\"size\":1,\"attempts\":2,\"next\":9,\
             \"sender\":\"a@b.test\",\"recipient_count\":1,\"recipients\":[{\"address\":\"c@d.test\",\
             \"state\":\"waiting\",\"attempts\":2,\"due\":9,\"reply\":\"451 4.3.0 Later\",\"hop\":null}]}"
        );
    }

    #[test]
    fn what_is_no_question_is_none() {
        for line in [
            "",
            "{",
            "\"hold\"",
            "{\"ask\":{\"id\":\"1\"}}",
            "{\"list\":{\"most\":-1}}",
        ] {
            assert_eq!(read_question(line), None, "{line}");
        }
    }

    fn message() -> Message {
        Message {
            id: "0AKJXS5P40000".into(),
            status: Status::Deferred,
            arrived: 5,
            size: 1,
            attempts: 2,
            next: Some(9),
            sender: "a@b.test".into(),
            recipient_count: 1,
            recipients: vec![Recipient {
                address: "c@d.test".into(),
                state: State::Waiting,
                attempts: 2,
                due: Some(9),
                reply: Some("451 4.3.0 Later".into()),
                hop: None,
            }],
            envid: None,
            header: None,
        }
    }
}
