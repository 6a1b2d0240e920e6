//! Unit tests of the log.

use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use super::*;

/// Collects what is written; can be told to hold its writer.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn log(level: Level, format: Format) -> (Log, Writer, Paper) {
    let paper = Paper::default();
    let (log, writer) = Log::start_to(Box::new(paper.clone()), level, format).unwrap();
    (log, writer, paper)
}

const NOW: Duration = Duration::from_millis(1_795_221_819_123);

#[test]
fn a_text_line_has_time_level_message_and_fields_quoted_where_needed() {
    let (log, writer, paper) = log(Level::Info, Format::Text);
    let mut buffer = log.buffer();
    buffer
        .line(UNIX_EPOCH + NOW, Level::Info, "session")
        .field("helo", "mx.test")
        .field("from", "<a b@x>")
        .field("empty", "")
        .number("size", 42)
        .seconds("took", Duration::from_millis(1_007))
        .display("client", std::net::Ipv4Addr::LOCALHOST)
        .done();
    drop(buffer);
    drop(writer);
    assert_eq!(
        paper.text(),
        "2026-11-21T00:43:39.123Z info session helo=mx.test from=\"<a b@x>\" empty=\"\" size=42 took=1.007 client=127.0.0.1\n"
    );
}

#[test]
fn a_json_line_is_one_object() {
    let (log, writer, paper) = log(Level::Info, Format::Json);
    log.buffer()
        .line(UNIX_EPOCH + NOW, Level::Warn, "session")
        .field("helo", "é")
        .number("size", 42)
        .done();
    drop(writer);
    assert_eq!(
        paper.text(),
        "{\"time\":\"2026-11-21T00:43:39.123Z\",\"level\":\"warn\",\"message\":\"session\",\"helo\":\"\\u00e9\",\"size\":42}\n"
    );
}

#[test]
fn the_lines_that_others_wait_for_are_literal() {
    let (log, writer, paper) = log(Level::Info, Format::Text);
    log.listening("mx", "127.0.0.1:2525".parse().unwrap());
    log.ready();
    drop(writer);
    let text = paper.text();
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .ends_with("Z info listening binding=mx address=127.0.0.1:2525")
    );
    assert!(lines.next().unwrap().ends_with("Z info postern ready"));
}

#[test]
fn a_level_below_the_configured_one_is_not_written_until_the_level_changes() {
    let (log, writer, paper) = log(Level::Warn, Format::Text);
    log.event(Level::Info, "one", &[]);
    log.set_level(Level::Debug);
    log.event(Level::Debug, "two", &[]);
    drop(writer);
    assert!(!paper.text().contains("one") && paper.text().contains("two"));
}

#[test]
fn a_long_value_is_cut() {
    let (log, writer, paper) = log(Level::Info, Format::Text);
    log.event(Level::Info, "long", &[("value", &"x".repeat(100_000))]);
    drop(writer);
    assert!(
        paper
            .text()
            .ends_with(&format!(" value={}...\n", "x".repeat(VALUE_OCTETS)))
    );
}

#[test]
fn a_log_that_stalls_loses_lines_without_blocking_and_tells_how_many_later() {
    struct Stalled(Paper, Receiver<()>);
    impl Write for Stalled {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            let _ = self.1.recv(); // until the test drops its end
            self.0.write(octets)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (resume, stalled) = bounded(0);
    let paper = Paper::default();
    let (log, writer) = Log::start_to(Box::new(Stalled(paper.clone(), stalled)), Level::Info, Format::Text).unwrap();
    let sent = BUFFERS as u64 + 10;
    (0..sent).for_each(|_| log.event(Level::Info, "line", &[]));
    let dropped = log.dropped();
    assert!((9..=10).contains(&dropped), "{dropped}"); // one may be in the writer's hands
    drop(resume);
    drop(writer);
    assert!(
        paper
            .text()
            .contains(&format!(" warn log lines dropped lines={dropped}\n"))
    );
    assert_eq!(paper.text().matches("info line").count() as u64, sent - dropped);
}

#[test]
fn nothing_handed_over_before_the_end_is_lost() {
    let (log, writer, paper) = log(Level::Info, Format::Text);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut buffer = log.buffer();
                (0..1000).for_each(|i| buffer.line(UNIX_EPOCH, Level::Info, "n").number("i", i).done());
            });
        }
    });
    drop(writer);
    assert_eq!(paper.text().lines().count() as u64 + log.dropped(), 4000);
    assert_eq!(log.dropped(), 0);
}
