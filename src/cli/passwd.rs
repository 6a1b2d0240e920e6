//! `postern passwd`: from a password to a line of the users file.
//!
//! Promises: the password is never shown, nor left in memory by us; the terminal is as it was when this ends, also by an
//! interrupt from the keyboard. Lives on the main thread.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::policy::users::Users;
use crate::policy::users::hash::{self, Scheme};

/// Octets of a password; what bcrypt cannot keep it says itself.
const LONGEST: usize = 1024;

/// Reads a password and prints the line.
pub fn passwd(user: &str, scheme: Scheme) -> ExitCode {
    match line(user, scheme) {
        Ok(line) => match writeln!(std::io::stdout(), "{line}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(sentence) => {
            eprintln!("postern: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn line(user: &str, scheme: Scheme) -> Result<String, String> {
    // Before anybody types anything: a name that the file cannot have.
    if let Some(fault) = Users::parse(&format!("{user}:{{NT}}{:032}", 0), [0; 32]).faults.first() {
        return Err(format!("{user:?} cannot be a user: expected {}", fault.expected));
    }
    if user.starts_with('#') || user.is_empty() {
        return Err(format!("{user:?} cannot be a user: such a line would be passed over"));
    }
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        let password = ask("Password: ")?;
        if ask("Again: ")? != password {
            return Err("the two are not the same".into());
        }
        password
    } else {
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST + 2));
        let mut limited = stdin.lock().take(LONGEST as u64 + 2);
        limited
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("cannot read a password: {error}"))?;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        Zeroizing::new(text.strip_suffix(b"\r").unwrap_or(text).to_vec())
    };
    let text = std::str::from_utf8(&password).map_err(|_| "the password is not in UTF-8")?;
    if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
        return Err(format!("a password has 1 to {LONGEST} octets, none of them 0"));
    }
    Ok(format!("{user}:{}", hash::make(scheme, text)?))
}

/// The terminal as it was before, when this goes.
struct Quiet(Termios);

impl Quiet {
    /// Nothing that is typed is shown, and an interrupt is an octet like others.
    fn begin() -> Result<Quiet, String> {
        let failed = |error| format!("cannot keep the terminal from showing the password: {error}");
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        eprintln!();
    }
}

/// One line from the terminal.
fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let quiet = Quiet::begin()?;
    eprint!("{prompt}");
    let read = typed(std::io::stdin().lock());
    drop(quiet);
    read
}

/// What is typed up to the end of the line, without what was rubbed out again.
fn typed(mut keys: impl Read) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut key = [0];
    loop {
        let count = keys
            .read(&mut key)
            .map_err(|error| format!("cannot read a password: {error}"))?;
        match (count, key) {
            (0, _) | (_, [3 | 4]) => return Err("no password was given".into()),
            (_, [b'\r' | b'\n']) => return Ok(line),
            (_, [8 | 127]) => {
                // The last character, which may have several octets.
                while line.pop().is_some_and(|octet| octet & 0xc0 == 0x80) {}
            }
            (_, [21]) => line.clear(),
            (_, [octet]) if line.len() < LONGEST => line.push(octet),
            _ => return Err(format!("a password has at most {LONGEST} octets")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_ends_at_the_line_end_without_what_was_rubbed_out() {
        let line = |keys: &[u8]| typed(keys).map(|line| line.to_vec());
        assert_eq!(line(b"secret\nmore"), Ok(b"secret".to_vec()));
        assert_eq!(line(b"wrong\x15secr\xc3\xa4\x7fett\x08\r"), Ok(b"secret".to_vec()));
        assert_eq!(line(b"\x7f\n"), Ok(Vec::new()));
        for keys in [&b"sec\x03ret\n"[..], b"\x04", b"secret", &[b'x'; LONGEST + 1]] {
            assert!(line(keys).is_err());
        }
    }

    #[test]
    fn a_name_that_the_file_cannot_have_is_refused_first() {
        for user in ["", "a:b", "a b", "#a"] {
            assert!(
                line(user, Scheme::Nt).unwrap_err().contains("cannot be a user"),
                "{user:?}"
            );
        }
    }
}
