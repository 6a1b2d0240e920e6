//! Queued messages as people read them.
//!
//! Promises: a line never holds more than its own line: what came from the network can neither end it nor move a cursor nor
//! turn its direction. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use crate::lookup::operator::{Message, Recipient, State, Status};

/// Octets of the column of senders at most; a longer one moves its own line only.
const SENDER: usize = 40;

/// A table that is written page by page, with one head.
#[derive(Debug)]
pub struct Table {
    verbose: bool,
    sender: Option<usize>,
}

impl Table {
    /// `verbose`: with a line for each recipient.
    pub fn new(verbose: bool) -> Table {
        Table { verbose, sender: None }
    }

    /// The lines of some messages; the head before the first.
    pub fn page(&mut self, messages: &[Message], now: u64) -> String {
        let mut out = String::new();
        if messages.is_empty() {
            return out;
        }
        let sender = *self.sender.get_or_insert_with(|| {
            let width = messages.iter().map(|m| sender(m).chars().count()).max().unwrap_or(0);
            let width = width.clamp("FROM".len(), SENDER);
            let _ = writeln!(
                out,
                "{:13}  {:>4}  {:>9}  {:>5}  {:>4}  {:8}  {:width$}  TO",
                "ID", "AGE", "SIZE", "TRIED", "NEXT", "STATUS", "FROM"
            );
            width
        });
        for message in messages {
            let next = message
                .next
                .map_or("-".to_owned(), |next| span(next.saturating_sub(now)));
            let _ = writeln!(
                out,
                "{:13}  {:>4}  {:>9}  {:>5}  {next:>4}  {:8}  {:sender$}  {}",
                escaped(&message.id),
                span(now.saturating_sub(message.arrived)),
                sized(message.size),
                message.attempts,
                status(message.status),
                self::sender(message),
                recipients(message),
            );
            if self.verbose {
                for recipient in &message.recipients {
                    let _ = writeln!(out, "    {}", line(recipient, now));
                }
            }
        }
        out
    }
}

/// Everything about one message.
pub fn message(message: &Message, now: u64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "id        {}", escaped(&message.id));
    let _ = writeln!(out, "status    {}", status(message.status));
    let _ = writeln!(
        out,
        "arrived   {} ({} ago)",
        date(message.arrived),
        span(now.saturating_sub(message.arrived))
    );
    let _ = writeln!(out, "size      {} octets", message.size);
    let _ = writeln!(out, "attempts  {}", message.attempts);
    if let Some(next) = message.next {
        let _ = writeln!(out, "next      {} ({})", date(next), soon(next, now));
    }
    let _ = writeln!(out, "from      {}", sender(message));
    if let Some(envid) = &message.envid {
        let _ = writeln!(out, "envid     {}", escaped(envid));
    }
    let _ = writeln!(out, "\nrecipients ({})", message.recipient_count);
    for recipient in &message.recipients {
        let _ = writeln!(out, "    {}", line(recipient, now));
    }
    match &message.header {
        Some(header) => {
            let _ = writeln!(out, "\nheader");
            for field in header.lines() {
                let _ = writeln!(out, "    {}", escaped(field));
            }
        }
        None => {
            let _ = writeln!(out, "\nits content cannot be read now");
        }
    }
    out
}

fn line(recipient: &Recipient, now: u64) -> String {
    let state = match (recipient.state, recipient.due) {
        (State::Trying, _) => "being tried".to_owned(),
        (State::Waiting, Some(due)) if due > now => format!("next {}", soon(due, now)),
        (State::Waiting, _) => "due".to_owned(),
        (State::Held, _) => "held".to_owned(),
        (State::Done, _) => "done".to_owned(),
    };
    let mut out = format!(
        "{}: {state}, tried {}",
        escaped(&recipient.address),
        times(recipient.attempts)
    );
    if let Some(reply) = &recipient.reply {
        let _ = write!(out, ": {}", escaped(reply));
    }
    if let Some(hop) = &recipient.hop {
        let _ = write!(out, " ({})", escaped(hop));
    }
    out
}

fn times(n: u16) -> String {
    match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Deferred => "deferred",
        Status::Held => "held",
    }
}

fn sender(message: &Message) -> String {
    match message.sender.as_str() {
        "" => "<>".to_owned(),
        sender => escaped(sender),
    }
}

fn recipients(message: &Message) -> String {
    let mut out: Vec<_> = message.recipients.iter().map(|r| escaped(&r.address)).collect();
    let more = message.recipient_count.saturating_sub(out.len());
    if more > 0 {
        out.push(format!("and {more} more"));
    }
    out.join(", ")
}

/// Seconds, in the largest unit that makes a number of them.
fn span(seconds: u64) -> String {
    match seconds {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

fn soon(time: u64, now: u64) -> String {
    match time.checked_sub(now) {
        Some(0) | None => "now".to_owned(),
        Some(wait) => format!("in {}", span(wait)),
    }
}

fn date(unix: u64) -> String {
    let seconds = i64::try_from(unix).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "at no time".to_owned(), |time| time.to_string())
}

fn sized(octets: u64) -> String {
    match octets {
        n @ 0..1024 => n.to_string(),
        n if n < 1024 * 1024 => format!("{:.1} KiB", n as f64 / 1024.0),
        n => format!("{:.1} MiB", n as f64 / (1024.0 * 1024.0)),
    }
}

/// The text, with whatever is not plainly itself spelled out.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Controls; line and paragraph separators, marks of direction, and what has no width.
        let odd = c.is_control() && c != '\t'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if odd {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, recipients: &[&str]) -> Message {
        Message {
            id: id.to_owned(),
            status: Status::Deferred,
            arrived: 1_000,
            size: 4_196,
            attempts: 2,
            next: Some(1_790),
            sender: "me@example.org".to_owned(),
            recipient_count: recipients.len(),
            recipients: recipients
                .iter()
                .map(|address| Recipient {
                    address: (*address).to_owned(),
                    state: State::Waiting,
                    attempts: 2,
                    due: Some(1_790),
                    reply: Some("451 4.4.1 No next hop answers".to_owned()),
                    hop: None,
                })
                .collect(),
            envid: None,
            header: Some("Subject: a\u{1b}[2J\r\n".to_owned()),
        }
    }

    #[test]
    fn a_table_has_one_head_and_a_line_a_message() {
        let mut table = Table::new(false);
        let mut text = table.page(&[of("0AKJXS5P40000", &["a@b.test", "c@d.test"])], 1_730);
        text += &table.page(&[of("0AKJXS5P40001", &["e@f.test"])], 1_730);
        assert_eq!(
            text,
            "ID              AGE       SIZE  TRIED  NEXT  STATUS    FROM            TO\n\
             0AKJXS5P40000   12m    4.1 KiB      2    1m  deferred  me@example.org  a@b.test, c@d.test\n\
             0AKJXS5P40001   12m    4.1 KiB      2    1m  deferred  me@example.org  e@f.test\n"
        );
        assert_eq!(Table::new(true).page(&[], 0), "");
    }

    #[test]
    fn what_was_said_stands_below_its_message_and_nothing_moves_the_cursor() {
        let mut shown = of("0AKJXS5P40000", &["a@b.test"]);
        let table = Table::new(true).page(std::slice::from_ref(&shown), 1_730);
        let said = "a@b.test: next in 1m, tried 2 times: 451 4.4.1 No next hop answers";
        assert!(table.ends_with(&format!("\n    {said}\n")), "{table}");
        shown.recipient_count = 30;
        let text = message(&shown, 1_730);
        assert!(text.contains("    Subject: a\\u{1b}[2J\n"), "{text}");
        assert!(text.contains("arrived   1970-01-01T00:16:40Z (12m ago)\n"), "{text}");
        assert!(recipients(&shown).ends_with(", and 29 more"));
        assert_eq!(escaped("a\u{202e}b\u{85}ü"), "a\\u{202e}b\\u{85}ü");
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(
            [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(span),
            ["0s", "59s", "1m", "59m", "1h", "47h", "2d"]
        );
        assert_eq!(
            [0, 1_023, 1_024, 3 << 20].map(sized),
            ["0", "1023", "1.0 KiB", "3.0 MiB"]
        );
    }
}
