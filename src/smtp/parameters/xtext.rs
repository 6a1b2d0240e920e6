//! The codes for values that may be any text: xtext (RFC 3461 section 4), and the one of RFC 6533 for UTF-8 addresses.
//!
//! Promises: what passes here neither is nor stands for a control character but a tab, so no report, header field or
//! log line can be broken through it. Reads each octet once, allocates nothing. Lives on the thread of its session.

/// xtext (RFC 3461 section 4): printable ASCII without `+` and `=`, and `+HH` in upper case. What it stands for must be
/// printable too, or a tab (sections 4.2 and 4.4): so no line end can come into a report through it.
pub fn is_xtext(value: &[u8]) -> bool {
    let mut octets = value.iter();
    while let Some(&octet) = octets.next() {
        match octet {
            b'+' => {
                let decoded = match (octets.next().and_then(upper_hex), octets.next().and_then(upper_hex)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return false,
                };
                if !matches!(decoded, b'\t' | 0x20..=0x7e) {
                    return false;
                }
            }
            b'=' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
    }
    true
}

fn upper_hex(octet: &u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 section 3): printable, without `+`, `=` and `\`, but `\x{HEX}`.
pub fn is_utf8_addr(text: &str) -> bool {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = match character {
            '\\' => match embedded(rest) {
                Some(rest) => rest,
                None => return false,
            },
            '+' | '=' | ' ' => return false,
            _ if character.is_control() => return false,
            _ => rest.get(character.len_utf8()..).unwrap_or_default(),
        };
    }
    true
}

/// What follows `\x{HEX}`, where HEX is a code point in upper case that needs to be written so: not printable ASCII
/// other than `+`, `=`, `\` and space. Control characters are refused as in xtext.
fn embedded(text: &str) -> Option<&str> {
    let (hex, rest) = text.strip_prefix("\\x{")?.split_once('}')?;
    if !(2..=6).contains(&hex.len())
        || !hex.bytes().all(|octet| upper_hex(&octet).is_some())
        || (hex.len() > 2 && hex.starts_with('0'))
    {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    let needs_it = !character.is_ascii() || matches!(character, '+' | '=' | '\\' | ' ');
    (needs_it && !character.is_control()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_octet_raw_and_encoded_is_xtext_or_not() {
        for octet in 0..=255_u8 {
            let raw = (0x21..=0x7e).contains(&octet) && octet != b'+' && octet != b'=';
            assert_eq!(is_xtext(&[octet]), raw, "{octet:#x}");
            let printable = octet == b'\t' || (0x20..=0x7e).contains(&octet);
            assert_eq!(is_xtext(format!("a+{octet:02X}b").as_bytes()), printable, "{octet:#x}");
            let lower = format!("+{octet:02x}");
            assert_eq!(
                is_xtext(lower.as_bytes()),
                printable && !lower.contains(|c: char| c.is_ascii_lowercase())
            );
        }
        for value in ["+", "+4", "a+", "a+4", "+4G", "+G4", "++41", "+4+1"] {
            assert!(!is_xtext(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn each_character_is_written_plainly_or_embedded_but_never_both_and_controls_neither() {
        for character in ('\0'..='\u{2fff}').chain('\u{ffff}'..='\u{10fff}') {
            let plain = is_utf8_addr(&character.to_string());
            let embedded = is_utf8_addr(&format!("\\x{{{:02X}}}", character as u32));
            assert!(!(character.is_control() && (plain || embedded)), "{character:?}");
            assert!(character.is_control() || plain || embedded, "{character:?}");
            assert!(!(character.is_ascii() && plain && embedded), "{character:?}");
        }
    }
}
