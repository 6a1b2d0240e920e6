//! The header section as the scanner counts it: its size, its Received fields, those of this host, and whether it has a
//! date and a Message-ID.
//!
//! Promises: holds no octet of the message, so a field of any length costs nothing but its time, which is linear; the
//! answers do not depend on how the text is cut. Lives in its [`Scanner`](super::Scanner).

use std::sync::Arc;

use super::received_by::By;

/// The fields that are looked for; their first letters differ.
const NAMES: [&[u8]; 3] = [b"received", b"date", b"message-id"];
const RECEIVED: usize = 0;
const DATE: usize = 1;

/// Reads header lines, without their line ends, until the empty line.
#[derive(Debug)]
pub(super) struct Header {
    by: By,
    normalise: bool,
    /// Whether the empty line is still to come.
    open: bool,
    /// The size of the message where the current line began.
    line_start: u64,
    /// Whether nothing has come since `line_start`.
    line_empty: bool,
    /// Whether the next octet is the first after a line end: a blank continues the field (RFC 5322 section 2.2.3).
    folds: bool,
    field: Field,
    received: u64,
    received_local: u64,
    date: bool,
    message_id: bool,
}

/// Which part of which field the text is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// At its first octet.
    Start,
    /// So many octets of the name at this place of [`NAMES`].
    Name(usize, usize),
    /// In the blanks after it, before the colon.
    Blank(usize),
    /// Behind the colon of a Received field.
    Received,
    /// In a field of no interest, or a line that is no field.
    Other,
}

impl Header {
    pub(super) fn new(own_name: Arc<str>) -> Header {
        Header {
            by: By::new(own_name),
            normalise: false,
            open: true,
            line_start: 0,
            line_empty: true,
            folds: true,
            field: Field::Other,
            received: 0,
            received_local: 0,
            date: false,
            message_id: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.by.reset();
        self.open = true;
        self.line_start = 0;
        self.line_empty = true;
        self.folds = true;
        self.field = Field::Other;
        self.received = 0;
        self.received_local = 0;
        self.date = false;
        self.message_id = false;
    }

    pub(super) fn normalise(&mut self, normalise: bool) {
        self.normalise = normalise;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The size of the section in a message of `size` octets so far.
    pub(super) fn size(&self, size: u64) -> u64 {
        // A line that is nothing but a CR may become the empty line.
        if self.open && !self.line_empty {
            size
        } else {
            self.line_start
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn received_local(&self) -> u64 {
        self.received_local
    }

    pub(super) fn has_date(&self) -> bool {
        self.date
    }

    pub(super) fn has_message_id(&self) -> bool {
        self.message_id
    }

    /// Takes text that holds no line end.
    pub(super) fn text(&mut self, text: &[u8]) {
        let (true, Some(&first)) = (self.open, text.first()) else {
            return;
        };
        self.line_empty = false;
        if std::mem::take(&mut self.folds) && !is_blank(first) {
            self.close_field();
            self.field = Field::Start;
        }
        let mut rest = text;
        while !matches!(self.field, Field::Other | Field::Received) {
            let Some((&octet, after)) = rest.split_first() else {
                return;
            };
            rest = after;
            self.name(octet);
        }
        if self.field == Field::Received {
            self.by.text(rest);
        }
    }

    /// The line ended in CRLF; the message has `size` octets with it.
    pub(super) fn line_end(&mut self, size: u64) {
        if !self.open {
            return;
        }
        if self.line_empty {
            self.close_field();
            self.open = false;
            return;
        }
        self.line_start = size;
        self.line_empty = true;
        self.folds = true;
    }

    /// A bare CR or LF came; the message has `size` octets with it.
    pub(super) fn bare_newline(&mut self, size: u64) {
        if self.normalise {
            return self.line_end(size);
        }
        // A field may begin behind it, but an empty line is between two CRLFs.
        self.line_empty = false;
        self.folds = true;
    }

    /// No more text will come.
    pub(super) fn finish(&mut self) {
        if self.open {
            self.close_field();
        }
    }

    /// A name, blanks, colon: RFC 5322 section 3.6, and 4.5 for the blanks.
    fn name(&mut self, octet: u8) {
        let letter = octet.to_ascii_lowercase();
        let part = |which: usize, n: usize| NAMES.get(which).and_then(|name| name.get(n)).copied();
        self.field = match self.field {
            Field::Start => match NAMES.iter().position(|name| name.first() == Some(&letter)) {
                Some(which) => Field::Name(which, 1),
                None => Field::Other,
            },
            Field::Name(which, n) => match part(which, n) {
                Some(expected) if expected == letter => Field::Name(which, n + 1),
                None if octet == b':' => self.begin(which),
                None if is_blank(octet) => Field::Blank(which),
                _ => Field::Other,
            },
            Field::Blank(which) if is_blank(octet) => Field::Blank(which),
            Field::Blank(which) if octet == b':' => self.begin(which),
            _ => Field::Other,
        }
    }

    /// The colon of a field that is looked for.
    fn begin(&mut self, which: usize) -> Field {
        match which {
            RECEIVED => {
                self.received += 1;
                self.by.reset();
                return Field::Received;
            }
            DATE => self.date = true,
            _ => self.message_id = true,
        }
        Field::Other
    }

    fn close_field(&mut self) {
        if self.field == Field::Received && self.by.names_us() {
            self.received_local += 1;
        }
        self.field = Field::Other;
    }
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::smtp::scanner::Scanner;

    fn received(header: &str) -> u64 {
        let mut scanner = Scanner::new(Arc::from("mx.example"));
        scanner.chunk(header.as_bytes());
        scanner.finish();
        scanner.received()
    }

    #[test]
    fn received_is_known_in_any_case_folded_and_with_blanks_before_its_colon() {
        for field in [
            "Received: x",
            "RECEIVED:",
            "received \t:x",
            "Received:\r\n\tfrom a\r\n by b",
            "Received \r\n : x",
        ] {
            assert_eq!(received(&format!("{field}\r\n\r\n")), 1, "{field}");
            assert_eq!(received(&format!("A: b\r\n{field}\r\n{field}")), 2, "{field}");
        }
    }

    #[test]
    fn what_only_looks_like_received_is_not_counted() {
        for field in [
            "X-Received: x",
            "Received-SPF: pass",
            "Received",
            "Receive: x",
            " Received: x",
            "A: Received: x",
            "A: b\r\n Received: x",
            "Received x: y",
        ] {
            assert_eq!(received(&format!("{field}\r\n\r\n")), 0, "{field}");
        }
    }

    #[test]
    fn received_in_the_body_is_not_counted() {
        assert_eq!(received("Received: a\r\n\r\nReceived: b\r\n\r\nReceived: c\r\n"), 1);
        assert_eq!(received("\r\nReceived: b\r\n"), 0);
    }

    #[test]
    fn a_date_and_a_message_id_are_known_in_any_case_and_in_the_header_only() {
        let has = |header: &str| {
            let mut scanner = Scanner::new(Arc::from("mx.example"));
            header.as_bytes().chunks(3).for_each(|piece| scanner.chunk(piece));
            scanner.finish();
            (scanner.has_date(), scanner.has_message_id())
        };
        assert_eq!(has("Date: x\r\nMessage-ID: <y>\r\n\r\n"), (true, true));
        assert_eq!(has("DATE:\r\nA: b\r\nmessage-id :\r\n"), (true, true));
        assert_eq!(has("Received: x\r\nDate: x\r\n\r\n"), (true, false));
        assert_eq!(
            has("Dated: x\r\nMessage-IDs: x\r\nDat: x\r\nResent-Date: x\r\n\r\n"),
            (false, false)
        );
        assert_eq!(
            has("A: b\r\n Date: x\r\n\r\nDate: x\r\nMessage-ID: y\r\n"),
            (false, false)
        );
        assert_eq!(has(""), (false, false));
    }

    #[test]
    fn a_megabyte_of_received_fields_is_counted_to_the_last() {
        assert_eq!(received(&"Received: by mx.example; now\r\n".repeat(40_000)), 40_000);
    }
}
