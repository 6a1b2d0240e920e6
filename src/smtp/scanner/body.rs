//! Passing over the body of a message in blocks.
//!
//! Promises: a block that is passed over holds no bare CR, no bare LF, no NUL and no dot at the start of a line, so the
//! scanner need not stop in it. Pure functions; live on whichever thread calls.
//!
//! Most of a body is lines that end in CRLF. Searching each line end costs a call for every 78 octets. Asking of a whole
//! block whether *anything* odd is in it has no branch inside, so the compiler makes vector code of it, and its speed does
//! not depend on the length of lines. Measured on base64 of 76 octets a line (`benches/scanner.rs`): 4.7 to 5.6 GiB/s in
//! blocks, 1.7 to 2.4 GiB/s with one memchr3 a line; blocks of 64 to 512 octets are alike, and short ones suit small mail.
//! It is compiled twice, and the processor chooses at the first call: with AVX2 14 GiB/s, beside 4.7 of memchr for the line
//! ends alone.

use multiversion::multiversion;

use super::{CR, LF, NUL};

/// Octets in a block.
pub(super) const BLOCK: usize = 128;

/// What makes a block odd. What is known already is not looked for again: an oddity on every line is slow only once.
#[derive(Clone, Copy)]
pub(super) struct LookedFor {
    pub(super) bare_newline: bool,
    pub(super) nul: bool,
    pub(super) dot: bool,
}

/// How many octets at the start of `text`, in whole blocks, are free of what is looked for, and whether one of them is
/// above 127. The octet behind the last block was looked at too: if the block ends in CR it is LF (where bare newlines
/// are looked for), if the block ends in LF it is no dot (where dots are).
#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
pub(super) fn plain(text: &[u8], looked_for: LookedFor) -> (usize, bool) {
    let mask = |on: bool| if on { 0xff } else { 0 };
    let (bare, nul, dot) = (
        mask(looked_for.bare_newline),
        mask(looked_for.nul),
        mask(looked_for.dot),
    );
    let (mut plain, mut all) = (0, 0u8);
    while let Some(block) = text.get(plain..).and_then(|text| text.first_chunk::<{ BLOCK + 1 }>()) {
        let (mut odd, mut seen) = (0u8, 0u8);
        for (&octet, &next) in block.iter().zip(&block[1..]) {
            let is = |yes: bool| if yes { 0xff } else { 0u8 };
            odd |= (is(octet == CR) ^ is(next == LF)) & bare;
            odd |= is(octet == NUL) & nul;
            odd |= is(octet == LF) & is(next == b'.') & dot;
            seen |= octet;
        }
        if odd != 0 {
            break;
        }
        all |= seen;
        plain += BLOCK;
    }
    (plain, all > 127)
}
