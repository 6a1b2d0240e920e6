//! What must hold for every log line, whatever the values.

use std::time::UNIX_EPOCH;

use postern::log::{Format, Level, VALUE_OCTETS};
use proptest::prelude::*;

use crate::rig;

/// One line with the two values.
fn line(format: Format, message: &str, value: &[u8], other: &[u8]) -> Vec<u8> {
    let (log, writer, paper) = rig::log(format);
    log.buffer()
        .line(UNIX_EPOCH, Level::Info, message)
        .field("value", value)
        .number("number", 7)
        .field("other", other)
        .done();
    drop(writer);
    paper.octets()
}

/// Octets as an attacker would choose them: any, and text full of what is special.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        "[ -~\u{0}-\u{1f}\u{7f}-\u{a0}\u{202a}-\u{202e}\u{2028}\u{2029}\u{feff}😀\"\\\\=]{0,200}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_line_is_printable_ascii_and_ends_once(message in any::<String>(), value in nasty(), other in nasty()) {
        for format in [Format::Text, Format::Json] {
            let octets = line(format, &message, &value, &other);
            let (end, rest) = octets.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(rest.iter().all(|b| matches!(b, b' '..=b'~')), "{:?}", String::from_utf8_lossy(rest));
        }
    }

    #[test]
    fn a_json_line_is_an_object_whose_values_read_back(message in any::<String>(), value in any::<String>(), other in nasty()) {
        let octets = line(Format::Json, &message, value.as_bytes(), &other);
        let object: serde_json::Value = serde_json::from_slice(&octets).unwrap();
        prop_assert_eq!(object["message"].as_str(), Some(message.as_str()));
        prop_assert_eq!(object["level"].as_str(), Some("info"));
        prop_assert_eq!(object["number"].as_u64(), Some(7));
        if value.len() <= VALUE_OCTETS {
            prop_assert_eq!(object["value"].as_str(), Some(value.as_str()));
        }
        prop_assert_eq!(object.as_object().unwrap().len(), 6);
    }

    #[test]
    fn a_value_cannot_pretend_to_be_another_field(value in nasty(), other in nasty()) {
        let octets = line(Format::Text, "session", &value, &other);
        let text = String::from_utf8(octets).unwrap();
        let fields = split(text.trim_end_matches('\n').split_once(" info session ").unwrap().1);
        let keys: Vec<_> = fields.iter().map(|field| field.split_once('=').unwrap().0).collect();
        prop_assert_eq!(keys, ["value", "number", "other"]);
    }
}

/// Splits at spaces outside quotes: the whole grammar of a text line.
fn split(text: &str) -> Vec<String> {
    let (mut fields, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        match c {
            ' ' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    assert!(!quoted);
    fields
}
