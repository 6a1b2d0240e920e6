//! Messages from files: a folder of .eml files, a Maildir, or an mbox.
//!
//! Promises: every line ends with CRLF, whatever it ended with in the file, and so does the last; nothing else is changed.
//! Read once, before the run.

use std::fs;
use std::path::{Path, PathBuf};

/// Largest message read, in octets.
const MESSAGE_MAX: u64 = 256 << 20;

/// Every message at `path`, in the order of their names.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut messages = Vec::new();
    for file in files(path).map_err(said)? {
        let told = |error: std::io::Error| format!("{}: {error}", file.display());
        if fs::metadata(&file).map_err(told)?.len() > MESSAGE_MAX {
            return Err(format!("{}: larger than {MESSAGE_MAX} octets", file.display()));
        }
        let text = fs::read(&file).map_err(told)?;
        if text.starts_with(b"From ") {
            messages.extend(split_mbox(&text).iter().map(|message| with_crlf(message)));
        } else if !text.is_empty() {
            messages.push(with_crlf(&text));
        }
    }
    if messages.is_empty() {
        return Err(format!(
            "{}: no message (*.eml, Maildir or mbox) is there",
            path.display()
        ));
    }
    Ok(messages)
}

/// The file itself; or the .eml files of a folder; or the messages of a Maildir.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        fs::metadata(path)?;
        return Ok(vec![path.into()]);
    }
    let mut found = Vec::new();
    let maildir = [path.join("cur"), path.join("new")];
    let is_maildir = maildir.iter().any(|folder| folder.is_dir());
    let folders = if is_maildir {
        maildir.to_vec()
    } else {
        vec![path.into()]
    };
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            let fits = is_maildir
                || file
                    .extension()
                    .is_some_and(|ending| ending.eq_ignore_ascii_case("eml"));
            if fits && file.is_file() {
                found.push(file);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The messages of an mbox: each begins behind a line `From `; `>From ` and the like lose a bracket (mboxrd).
fn split_mbox(text: &[u8]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut after_empty_line = true;
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        if after_empty_line && line.starts_with(b"From ") {
            messages.push(Vec::new());
        } else if let Some(message) = messages.last_mut() {
            let behind = line.iter().position(|octet| *octet != b'>').unwrap_or_default();
            let quoted = behind > 0 && line.get(behind..).is_some_and(|rest| rest.starts_with(b"From "));
            message.extend_from_slice(line.get(usize::from(quoted)..).unwrap_or_default());
        }
        after_empty_line = matches!(line, b"\n" | b"\r\n");
    }
    for message in &mut messages {
        // The empty line in front of the next `From ` is not the message's.
        if message.ends_with(b"\n\n") {
            message.pop();
        } else if message.ends_with(b"\n\r\n") {
            message.truncate(message.len() - 2);
        }
    }
    messages.retain(|message| !message.is_empty());
    messages
}

/// Every end of line as CRLF, of which a lone CR is one too, and one at the end.
pub fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len() + text.len() / 32 + 2);
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        octets.extend_from_slice(rest.get(..end).unwrap_or_default());
        octets.extend_from_slice(b"\r\n");
        let is_both = rest.get(end..).is_some_and(|ending| ending.starts_with(b"\r\n"));
        at += end + 1 + usize::from(is_both);
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends_with_crlf() {
        for (text, expected) in [
            (&b"a\nb"[..], &b"a\r\nb\r\n"[..]),
            (b"a\r\n\nb\r", b"a\r\n\r\nb\r\n"),
            (b"a\r\r\nb\n\n", b"a\r\n\r\nb\r\n\r\n"),
            (b"", b""),
        ] {
            assert_eq!(with_crlf(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn an_mbox_is_split_at_its_from_lines() {
        let mbox = b"From a@b Thu Jan 1\nSubject: 1\n\n>From x\n>>From y\nFrom z\n\nFrom c@d\nSubject: 2\n\nlast\n";
        let expected: [&[u8]; 2] = [b"Subject: 1\n\nFrom x\n>From y\nFrom z\n", b"Subject: 2\n\nlast\n"];
        assert_eq!(split_mbox(mbox), expected);
    }

    #[test]
    fn a_folder_a_maildir_and_a_file_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.eml"), "Subject: b\n\n").unwrap();
        fs::write(folder.path().join("a.EML"), "Subject: a\r\n\r\n").unwrap();
        fs::write(folder.path().join("README"), "no message").unwrap();
        let both = [b"Subject: a\r\n\r\n", b"Subject: b\r\n\r\n"];
        assert_eq!(read(folder.path()).unwrap(), both);
        assert_eq!(read(&folder.path().join("b.eml")).unwrap(), both[1..]);
        let maildir = tempfile::tempdir().unwrap();
        fs::create_dir(maildir.path().join("new")).unwrap();
        assert!(read(maildir.path()).unwrap_err().contains("no message"));
        fs::write(maildir.path().join("new/1.x"), "Subject: a\n\n").unwrap();
        assert_eq!(read(maildir.path()).unwrap(), both[..1]);
        assert!(read(Path::new("/nowhere/at/all")).is_err());
    }
}
