//! The octets of a run: every command and the message, made once and shared by all connections.
//!
//! Promises: a message has exactly the size asked for, lines of at most 78 octets that never begin with a dot, and an
//! identity of fixed width that is patched in place; nothing is allocated a message. Lives on the thread of the source.

use crate::dialogue::Chunk;

/// Digits of the serial number in a message's identity.
const SERIAL_DIGITS: usize = 12;
/// A line of the body with its CRLF: 76 characters is what RFC 2045 section 6.8 allows base64.
const LINE: usize = 78;

/// What a message is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name given in EHLO.
    pub name: String,
    /// Address for MAIL.
    pub from: String,
    /// Addresses for RCPT, one for each recipient.
    pub to: Vec<String>,
    /// Octets of the content, header included, the closing dot not.
    pub size: usize,
    /// BDAT in place of DATA.
    pub bdat: bool,
    /// The content is to lead groups of commands.
    pub group: bool,
    /// First part of every identity: names the run.
    pub run: u32,
}

/// Octets that may carry an identity.
#[derive(Debug)]
struct Stamped {
    octets: Vec<u8>,
    /// Where the serial number begins; none in commands.
    serial: Option<usize>,
}

/// Everything that the source writes.
#[derive(Debug)]
pub struct Wire {
    ehlo: Stamped,
    envelope: Stamped,
    mail: Stamped,
    rcpt: Vec<Stamped>,
    data: Stamped,
    content: Stamped,
    /// Empty unless the recipe asks for groups.
    content_and_envelope: Stamped,
    content_and_quit: Stamped,
    lone_dot: Stamped,
    reset: Stamped,
    quit: Stamped,
}

impl Wire {
    /// Makes every chunk. Fails when the size has no room for the header; says how much is needed.
    pub fn new(recipe: &Recipe) -> Result<Self, String> {
        let mut content = content(recipe)?;
        if recipe.bdat {
            let command = format!("BDAT {} LAST\r\n", content.octets.len());
            content = prefixed(command.as_bytes(), &content);
        } else {
            content.octets.extend_from_slice(b".\r\n");
        }
        let mail = format!("MAIL FROM:<{}>\r\n", recipe.from);
        let rcpt: Vec<String> = recipe.to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
        let commands = mail.clone() + &rcpt.concat();
        let envelope = if recipe.bdat {
            prefixed(commands.as_bytes(), &content)
        } else {
            command(&(commands + "DATA\r\n"))
        };
        let group = |behind: &[u8]| match recipe.group {
            true => Stamped {
                octets: [&content.octets, behind].concat(),
                serial: content.serial,
            },
            false => command(""),
        };
        Ok(Self {
            content_and_envelope: group(&envelope.octets),
            content_and_quit: group(b"QUIT\r\n"),
            ehlo: command(&format!("EHLO {}\r\n", recipe.name)),
            envelope,
            mail: command(&mail),
            rcpt: rcpt.iter().map(|rcpt| command(rcpt)).collect(),
            data: command("DATA\r\n"),
            content,
            lone_dot: command(".\r\n"),
            reset: command("RSET\r\n"),
            quit: command("QUIT\r\n"),
        })
    }

    /// The octets of a chunk, with the identity of message `serial` where the chunk has one.
    pub fn octets(&mut self, chunk: Chunk, serial: u64) -> &[u8] {
        let stamped = match chunk {
            Chunk::Ehlo => &mut self.ehlo,
            Chunk::Envelope => &mut self.envelope,
            Chunk::Mail => &mut self.mail,
            Chunk::Rcpt(number) => {
                let number = number as usize;
                return self
                    .rcpt
                    .get(number)
                    .map(|rcpt| rcpt.octets.as_slice())
                    .unwrap_or_default();
            }
            Chunk::Data => &mut self.data,
            Chunk::Content => &mut self.content,
            Chunk::ContentAndEnvelope => &mut self.content_and_envelope,
            Chunk::ContentAndQuit => &mut self.content_and_quit,
            Chunk::LoneDot => &mut self.lone_dot,
            Chunk::Reset => &mut self.reset,
            Chunk::Quit => &mut self.quit,
        };
        if let Some(place) = stamped
            .serial
            .and_then(|at| stamped.octets.get_mut(at..at + SERIAL_DIGITS))
        {
            write_serial(place, serial);
        }
        &stamped.octets
    }

    /// Where in this chunk the content ends, if it has one: the final reply is due when that much is written.
    pub fn content_end(&self, chunk: Chunk) -> Option<usize> {
        match chunk {
            Chunk::Content | Chunk::ContentAndEnvelope | Chunk::ContentAndQuit => Some(self.content.octets.len()),
            Chunk::Envelope if self.envelope.serial.is_some() => Some(self.envelope.octets.len()),
            _ => None,
        }
    }
}

/// The recipients of a message: the addresses given, then the last one with a number put to its local part.
pub fn recipients(given: &[String], count: u32) -> Vec<String> {
    (0..count as usize)
        .map(|number| match (given.get(number), given.last()) {
            (Some(address), _) => address.clone(),
            (None, Some(last)) => match last.rsplit_once('@') {
                Some((local, domain)) => format!("{local}{}@{domain}", number + 1),
                None => format!("{last}{}", number + 1),
            },
            (None, None) => format!("someone{}@example.com", number + 1),
        })
        .collect()
}

fn content(recipe: &Recipe) -> Result<Stamped, String> {
    let Recipe {
        name, from, size, run, ..
    } = recipe;
    let to = recipe.to.first().map(String::as_str).unwrap_or_default();
    // A header as mail has it when it arrives at an edge: one hop behind it, a signature's length of other fields.
    let mut octets = format!(
        "Received: from client.loadgen.invalid (client.loadgen.invalid [192.0.2.1])\r\n\
         \tby {name} with ESMTPSA id {run:08x}; Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         From: Load Generator <{from}>\r\n\
         To: A Recipient <{to}>\r\n\
         Message-ID: <{run:08x}.loadgen@{name}>\r\n\
         Subject: A message of the load generator, of no interest to anybody\r\n\
         User-Agent: loadgen/{}\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: application/octet-stream; name=\"nothing.bin\"\r\n\
         Content-Disposition: attachment; filename=\"nothing.bin\"\r\n\
         Content-Transfer-Encoding: base64\r\n\
         X-Loadgen-Id: {run:08x}-",
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes();
    let serial = octets.len();
    octets.extend_from_slice(&[b'0'; SERIAL_DIGITS]);
    octets.extend_from_slice(b"\r\n\r\n");
    let least = octets.len() + 2;
    if *size < least {
        return Err(format!(
            "--size {size} has no room for the header: at least {least} octets are needed"
        ));
    }
    octets.reserve_exact(size - octets.len() + 3);
    fill(&mut octets, *size);
    Ok(Stamped {
        octets,
        serial: Some(serial),
    })
}

/// Appends lines that look like base64 until there are exactly `size` octets; the last one may be short or long by two.
fn fill(octets: &mut Vec<u8>, size: usize) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // xorshift64: the same body in every run, and nothing that a file system could compress.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while octets.len() < size {
        let left = size - octets.len();
        let line = if left <= LINE + 2 { left } else { LINE };
        for _ in 0..line.saturating_sub(2) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            octets.push(ALPHABET.get((state >> 58) as usize).copied().unwrap_or(b'A'));
        }
        octets.extend_from_slice(b"\r\n");
    }
}

fn write_serial(place: &mut [u8], mut serial: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (serial % 10) as u8;
        serial /= 10;
    }
}

fn command(text: &str) -> Stamped {
    Stamped {
        octets: text.as_bytes().to_vec(),
        serial: None,
    }
}

fn prefixed(prefix: &[u8], rest: &Stamped) -> Stamped {
    let serial = rest.serial.map(|at| at + prefix.len());
    Stamped {
        octets: [prefix, &rest.octets].concat(),
        serial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(size: usize, bdat: bool) -> Recipe {
        let to = recipients(&["a@example.com".into()], 2);
        Recipe {
            name: "test".into(),
            from: "f@example.com".into(),
            to,
            size,
            bdat,
            group: !bdat,
            run: 0xabc,
        }
    }

    #[test]
    fn the_content_has_exactly_the_size_asked_for_and_proper_lines() {
        let least = content(&recipe(1 << 20, false)).unwrap().serial.unwrap() + SERIAL_DIGITS + 4;
        for size in (least + 2..least + 400).chain([4096, 100_000]) {
            let mut wire = Wire::new(&recipe(size, false)).unwrap();
            let text = String::from_utf8(wire.octets(Chunk::Content, 7).to_vec()).unwrap();
            let text = text.strip_suffix(".\r\n").unwrap();
            assert_eq!(text.len(), size);
            for line in text.split_inclusive('\n') {
                assert!(
                    line.ends_with("\r\n") && line.len() <= 82 && !line.starts_with('.'),
                    "{line:?}"
                );
                assert_eq!(line.matches(['\r', '\n']).count(), 2, "{line:?}");
            }
        }
    }

    #[test]
    fn a_size_without_room_for_the_header_is_refused_with_the_size_needed() {
        let error = Wire::new(&recipe(100, false)).unwrap_err();
        assert!(error.contains("at least"), "{error}");
    }

    #[test]
    fn the_header_has_about_six_hundred_octets() {
        let header = content(&recipe(4096, false)).unwrap().serial.unwrap() + SERIAL_DIGITS + 4;
        assert!((500..800).contains(&header), "{header}");
    }

    #[test]
    fn the_identity_is_patched_wherever_the_content_is() {
        for (bdat, chunk) in [(false, Chunk::Content), (true, Chunk::Content), (true, Chunk::Envelope)] {
            let mut wire = Wire::new(&recipe(2000, bdat)).unwrap();
            for serial in [0, 42, 999_999_999_999] {
                let text = String::from_utf8(wire.octets(chunk, serial).to_vec()).unwrap();
                assert!(text.contains(&format!("\r\nX-Loadgen-Id: 00000abc-{serial:012}\r\n")));
            }
            assert_eq!(wire.content_end(chunk), Some(wire.octets(chunk, 1).len()));
        }
    }

    #[test]
    fn a_group_is_the_content_with_its_identity_and_what_follows() {
        let mut wire = Wire::new(&recipe(2000, false)).unwrap();
        let [content, envelope, quit] =
            [Chunk::Content, Chunk::Envelope, Chunk::Quit].map(|chunk| wire.octets(chunk, 42).to_vec());
        for (group, behind) in [(Chunk::ContentAndEnvelope, envelope), (Chunk::ContentAndQuit, quit)] {
            assert_eq!(wire.octets(group, 42), [content.as_slice(), &behind].concat());
            assert_eq!(wire.content_end(group), Some(content.len()));
        }
    }

    #[test]
    fn the_pipelined_envelope_is_all_commands_in_order() {
        let mut wire = Wire::new(&recipe(2000, false)).unwrap();
        let expected = "MAIL FROM:<f@example.com>\r\nRCPT TO:<a@example.com>\r\n\
                        RCPT TO:<a2@example.com>\r\nDATA\r\n";
        assert_eq!(wire.octets(Chunk::Envelope, 1), expected.as_bytes());
    }

    #[test]
    fn bdat_announces_the_octets_that_follow() {
        let mut wire = Wire::new(&recipe(2000, true)).unwrap();
        let chunk = wire.octets(Chunk::Content, 1);
        let end = memchr::memchr(b'\n', chunk).unwrap() + 1;
        assert_eq!(&chunk[..end], b"BDAT 2000 LAST\r\n");
        assert_eq!(chunk.len() - end, 2000);
    }
}
