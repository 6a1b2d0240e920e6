//! The header section as the scanner counts it: its size, its Received fields, and those of this host.
//!
//! Promises: holds no octet of the message, so a field of any length costs nothing but its time, which is linear; the
//! answers do not depend on how the text is cut. Lives in its [`Scanner`](super::Scanner).

use std::sync::Arc;

use super::received_by::By;

const NAME: &[u8] = b"received";

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
}

/// Which part of which field the text is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// So many octets of the name `Received`.
    Name(usize),
    /// In the blanks after `Received`, before the colon.
    Blank,
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

    /// Takes text that holds no line end.
    pub(super) fn text(&mut self, text: &[u8]) {
        let (true, Some(&first)) = (self.open, text.first()) else {
            return;
        };
        self.line_empty = false;
        if std::mem::take(&mut self.folds) && !is_blank(first) {
            self.close_field();
            self.field = Field::Name(0);
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

    /// `Received`, blanks, colon: RFC 5322 section 3.6.7, and 4.5 for the blanks.
    fn name(&mut self, octet: u8) {
        self.field = match self.field {
            Field::Name(n) if NAME.get(n) == Some(&octet.to_ascii_lowercase()) => Field::Name(n + 1),
            Field::Name(n) if n == NAME.len() && is_blank(octet) => Field::Blank,
            Field::Blank if is_blank(octet) => Field::Blank,
            Field::Name(n) if n == NAME.len() && octet == b':' => self.begin_received(),
            Field::Blank if octet == b':' => self.begin_received(),
            _ => Field::Other,
        }
    }

    fn begin_received(&mut self) -> Field {
        self.received += 1;
        self.by.reset();
        Field::Received
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
    fn a_megabyte_of_received_fields_is_counted_to_the_last() {
        assert_eq!(received(&"Received: by mx.example; now\r\n".repeat(40_000)), 40_000);
    }
}
