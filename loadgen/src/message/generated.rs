//! Messages made up: a header as mail has it when it arrives at an edge, and a body that looks like base64.
//!
//! Promises: exactly the size asked for; lines of at most 78 octets that never begin with a dot; the same octets for the same
//! recipe, and nothing that a file system could compress. Pure.

use super::{Recipe, Stamped, field};
use crate::identity::{Body, Identity};

/// A line of the body with its CRLF: 76 characters is what RFC 2045 section 6.8 allows base64.
const LINE: usize = 78;

/// Smallest message of this recipe, in octets.
pub fn least(recipe: &Recipe) -> usize {
    header(recipe).len() + Identity::LENGTH + 4
}

/// A message of `size` octets; another `number` has another body.
pub fn content(recipe: &Recipe, size: usize, number: u64) -> Result<Stamped, String> {
    let mut octets = header(recipe).into_bytes();
    let least = least(recipe);
    if size < least {
        return Err(format!(
            "--size {size} has no room for the header: at least {least} octets are needed"
        ));
    }
    let at = octets.len();
    let body = at + Identity::LENGTH + 2;
    octets.reserve_exact(size - at);
    octets.resize(body - 2, 0);
    octets.extend_from_slice(b"\r\n");
    fill(&mut octets, size, number);
    let of_body = Body::of(octets.get(body..).unwrap_or_default());
    if let Some(place) = octets.get_mut(at..body - 2) {
        place.copy_from_slice(field(recipe.run, of_body).as_bytes());
    }
    Ok(Stamped {
        octets,
        field: Some(at),
    })
}

/// One hop behind it, a signature's length of other fields; the identity comes last.
fn header(recipe: &Recipe) -> String {
    let Recipe { name, from, run, .. } = recipe;
    let to = recipe.to.first().map(String::as_str).unwrap_or_default();
    format!(
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
         Content-Transfer-Encoding: base64\r\n",
        env!("CARGO_PKG_VERSION"),
    )
}

/// Appends lines that look like base64 until there are exactly `size` octets; the last one may be short or long by two.
fn fill(octets: &mut Vec<u8>, size: usize, number: u64) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // xorshift64, from a state that is never zero.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number << 1);
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
