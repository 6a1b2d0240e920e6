//! The certificate of a server that was given none: signed by itself, so it hides the mail from who only listens and
//! proves nothing.
//!
//! Promises: kept and used again while it is valid and for this name; the key is readable by its owner alone, from the
//! moment that its file exists. Called on the main thread.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use super::Identity;

const DAY: i64 = 24 * 3600;
/// How long a new one is valid.
const VALID_DAYS: i64 = 365;
/// One that ends so soon is made anew at the next start or reload.
const RENEW_DAYS: i64 = 30;

/// Where a certificate of our own making is kept.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    folder: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// How it was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was there.
    Found,
    /// It was made now.
    Made,
}

impl SelfSigned {
    /// Below `data_dir`, in `tls/`.
    pub fn below(data_dir: &Path) -> SelfSigned {
        let folder = data_dir.join("tls");
        SelfSigned {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
            folder,
        }
    }

    /// The file of the certificate, for who wants to trust it.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The one that is kept, where it will do for `hostname`; otherwise a new one.
    ///
    /// # Errors
    ///
    /// The sentence for the operator, where it cannot be made or kept.
    pub fn identity(&self, hostname: &str, unix_seconds: i64) -> Result<(Identity, Kept), String> {
        let kept = Identity::load(&self.certificate, &self.key, unix_seconds);
        let good =
            |identity: &Identity| identity.covers(hostname) && identity.valid_until() - unix_seconds > RENEW_DAYS * DAY;
        if let Some(identity) = kept.ok().filter(good) {
            return Ok((identity, Kept::Found));
        }
        let (certificate, key) = make(hostname, unix_seconds)
            .map_err(|error| format!("cannot make a certificate for \"{hostname}\": {error}"))?;
        self.keep(&certificate, &key).map_err(|error| {
            format!(
                "cannot keep a certificate in {0}: {error}; who may: ls -ld {0}",
                self.folder.display()
            )
        })?;
        let identity = Identity::load(&self.certificate, &self.key, unix_seconds)?;
        Ok((identity, Kept::Made))
    }

    fn keep(&self, certificate: &str, key: &str) -> io::Result<()> {
        if let Some(data_dir) = self.folder.parent() {
            fs::create_dir_all(data_dir)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        replace(&self.key, key, 0o600)?;
        replace(&self.certificate, certificate, 0o644)
    }
}

/// Writes a file beside `path` and moves it there: nobody ever sees half of one.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Certificate and key as PEM.
fn make(hostname: &str, unix_seconds: i64) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(vec![hostname.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hostname);
    // A day before: clocks differ.
    let (y, m, d) = day(unix_seconds - DAY);
    params.not_before = date_time_ymd(y, m, d);
    let (y, m, d) = day(unix_seconds + VALID_DAYS * DAY);
    params.not_after = date_time_ymd(y, m, d);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Year, month and day in UTC.
fn day(unix_seconds: i64) -> (i32, u8, u8) {
    let date = jiff::Timestamp::from_second(unix_seconds)
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    (
        i32::from(date.year()),
        date.month().unsigned_abs(),
        date.day().unsigned_abs(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: i64 = 1_795_221_819; // 2026-11-21

    #[test]
    fn one_that_was_made_is_found_again_and_its_key_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let kept = SelfSigned::below(dir.path());
        let (made, how) = kept.identity("mx.example.com", NOW).unwrap();
        assert_eq!(how, Kept::Made);
        assert!(made.covers("mx.example.com") && !made.covers("mx.example.net"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.key), mode(&kept.folder)), (0o600, 0o700));
        let before = fs::read(kept.certificate()).unwrap();
        assert_eq!(kept.identity("mx.example.com", NOW + 300 * DAY).unwrap().1, Kept::Found);
        assert_eq!(fs::read(kept.certificate()).unwrap(), before);
    }

    #[test]
    fn one_that_ends_soon_is_of_another_name_or_is_damaged_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let kept = SelfSigned::below(dir.path());
        kept.identity("mx.example.com", NOW).unwrap();
        let end_is_near = NOW + (VALID_DAYS - RENEW_DAYS) * DAY;
        assert_eq!(kept.identity("mx.example.com", end_is_near).unwrap().1, Kept::Made);
        assert_eq!(kept.identity("mx.example.net", end_is_near).unwrap().1, Kept::Made);
        assert_eq!(kept.identity("192.0.2.1", end_is_near).unwrap().1, Kept::Made);
        fs::write(&kept.key, "no key").unwrap();
        assert_eq!(kept.identity("192.0.2.1", end_is_near).unwrap().1, Kept::Made);
        assert_eq!(kept.identity("192.0.2.1", end_is_near).unwrap().1, Kept::Found);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let said = SelfSigned::below(&file).identity("mx.test", NOW).unwrap_err();
        assert!(said.contains(&file.display().to_string()), "{said}");
    }
}
