//! Password hashes in Dovecot's form, `{SCHEME}hash`: read, compared, made.
//!
//! Promises: pure but for the salt of a new one; secrets are compared in constant time; what passes [`check`] takes seconds
//! at most to compare. Comparing takes milliseconds and more, and never happens on a shard.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq as _;

use crate::smtp::sasl::{self, ScramKeys, Secret};

/// A way of keeping a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 9106.
    Argon2id,
    /// bcrypt.
    BlfCrypt,
    /// crypt(3), `$6$`.
    Sha512Crypt,
    /// crypt(3), `$5$`.
    Sha256Crypt,
    /// RFC 5802, as Dovecot writes it: iterations, salt, StoredKey, ServerKey.
    ScramSha256,
    /// MD4 of UTF-16, for NTLM.
    Nt,
    /// As it is.
    Plain,
}

use Scheme::*;

/// What may stand between the braces.
pub const SCHEMES: &str = "{ARGON2ID}, {BLF-CRYPT} (or {BCRYPT}), {SHA512-CRYPT}, {SHA256-CRYPT}, {SCRAM-SHA-256}, {NT} or {PLAIN} before the hash";

/// Iterations of SCRAM for new passwords: RFC 7677 section 4 counts 15,000 for a tenth of a second.
pub const SCRAM_ITERATIONS: u32 = 15_000;
/// The same for `{PLAIN}`, of which the keys are made when the file is read; the least that RFC 7677 allows.
pub const PLAIN_ITERATIONS: u32 = 4096;

/// What one comparison may cost: so much that nobody wants more, so little that a typing error does not take a thread for
/// an hour.
const ARGON2_MOST_KIB: u32 = 1 << 20;
const ARGON2_MOST_PASSES: u32 = 64;
const BCRYPT_MOST: u32 = 15;
const SHA_CRYPT_MOST: u32 = 5_000_000;
const SCRAM_MOST: u32 = 5_000_000;
/// What new ones cost.
const BCRYPT_COST: u32 = 11;

impl Scheme {
    /// Every scheme, the default first.
    pub const ALL: [Scheme; 7] = [Argon2id, BlfCrypt, Sha512Crypt, Sha256Crypt, ScramSha256, Nt, Plain];

    /// The name between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Argon2id => "ARGON2ID",
            BlfCrypt => "BLF-CRYPT",
            Sha512Crypt => "SHA512-CRYPT",
            Sha256Crypt => "SHA256-CRYPT",
            ScramSha256 => "SCRAM-SHA-256",
            Nt => "NT",
            Plain => "PLAIN",
        }
    }

    /// The scheme of a name in any case.
    pub fn parse(name: &str) -> Option<Scheme> {
        let name = if name.eq_ignore_ascii_case("BCRYPT") {
            "BLF-CRYPT"
        } else {
            name
        };
        Self::ALL
            .into_iter()
            .find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }
}

/// Whether `hash` is one of `scheme` that can be compared; else what should stand there.
pub fn check(scheme: Scheme, hash: &str) -> Result<(), &'static str> {
    let (good, expected) = match scheme {
        Argon2id => (
            argon2(hash),
            "$argon2id$v=19$m=…,t=…,p=…$salt$hash, of at most 1 GiB and 64 passes",
        ),
        BlfCrypt => {
            let cost = hash.parse().map(|parts: bcrypt::HashParts| parts.get_cost());
            (
                cost.is_ok_and(|cost| cost <= BCRYPT_MOST),
                "$2y$cost$salt-and-hash, of a cost of at most 15",
            )
        }
        Sha512Crypt => (
            sha_crypt(hash, "6", 86),
            "$6$salt$hash or $6$rounds=…$salt$hash, of at most 5000000 rounds",
        ),
        Sha256Crypt => (
            sha_crypt(hash, "5", 43),
            "$5$salt$hash or $5$rounds=…$salt$hash, of at most 5000000 rounds",
        ),
        ScramSha256 => (
            scram(hash).is_some(),
            "iterations,salt,StoredKey,ServerKey, of 4096 to 5000000 iterations",
        ),
        Nt => (nt(hash).is_some(), "32 hexadecimal digits"),
        Plain => (!hash.is_empty(), "a password"),
    };
    good.then_some(()).ok_or(expected)
}

fn argon2(hash: &str) -> bool {
    let parsed = PasswordHash::new(hash)
        .ok()
        .filter(|h| h.algorithm.as_str() == "argon2id" && h.hash.is_some());
    parsed
        .and_then(|parsed| Params::try_from(&parsed).ok())
        .is_some_and(|params| params.m_cost() <= ARGON2_MOST_KIB && params.t_cost() <= ARGON2_MOST_PASSES)
}

fn sha_crypt(hash: &str, id: &str, length: usize) -> bool {
    let mut fields = hash.split('$');
    let begins = fields.next() == Some("") && fields.next() == Some(id);
    let mut salt = fields.next().unwrap_or_default();
    let mut cheap = true;
    if let Some(rounds) = salt.strip_prefix("rounds=") {
        cheap = rounds.parse().is_ok_and(|n: u32| (1000..=SHA_CRYPT_MOST).contains(&n));
        salt = fields.next().unwrap_or_default();
    }
    let letters = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
    };
    let sum = fields.next().unwrap_or_default();
    begins
        && cheap
        && (1..=16).contains(&salt.len())
        && letters(salt)
        && sum.len() == length
        && letters(sum)
        && fields.next().is_none()
}

/// `iterations,salt,StoredKey,ServerKey`.
pub fn scram(hash: &str) -> Option<ScramKeys> {
    let mut parts = hash.split(',');
    let iterations = parts
        .next()?
        .parse()
        .ok()
        .filter(|n| (PLAIN_ITERATIONS..=SCRAM_MOST).contains(n))?;
    let salt = BASE64.decode(parts.next()?).ok().filter(|salt| !salt.is_empty())?;
    let mut key = || BASE64.decode(parts.next()?).ok().filter(|key| key.len() == 32);
    let (stored_key, server_key) = (Secret::new(&key()?), Secret::new(&key()?));
    parts.next().is_none().then_some(ScramKeys {
        salt: salt.into(),
        iterations,
        stored_key,
        server_key,
    })
}

/// 32 hexadecimal digits.
pub fn nt(hash: &str) -> Option<Secret> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let (pairs, []) = hash.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let octets: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8))
        .collect();
    octets
        .filter(|octets| octets.len() == 16)
        .map(|octets| Secret::new(&octets))
}

/// Whether `password` is the one of `encoded`, a `{SCHEME}hash` that has passed [`check`].
pub fn is_of(encoded: &Secret, password: &[u8]) -> bool {
    let parts = std::str::from_utf8(encoded.octets()).ok().and_then(|text| {
        let (word, hash) = text.strip_prefix('{')?.split_once('}')?;
        Some((Scheme::parse(word)?, hash))
    });
    let Some((scheme, hash)) = parts else { return false };
    match scheme {
        Argon2id => PasswordHash::new(hash).is_ok_and(|h| Argon2::default().verify_password(password, &h).is_ok()),
        BlfCrypt => bcrypt::verify(password, hash).unwrap_or(false),
        Sha512Crypt | Sha256Crypt => ShaCrypt::default().verify_password(password, hash).is_ok(),
        ScramSha256 => scram(hash).is_some_and(|keys| keys.are_of(password)),
        Nt => match (nt(hash), std::str::from_utf8(password)) {
            (Some(hash), Ok(password)) => hash.octets().ct_eq(sasl::nt_hash(password).octets()).into(),
            _ => false,
        },
        Plain => hash.as_bytes().ct_eq(password).into(),
    }
}

/// `{SCHEME}hash` of a new password.
///
/// # Errors
///
/// A sentence: the scheme cannot keep this password, or the system has no randomness.
pub fn make(scheme: Scheme, password: &str) -> Result<String, String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| format!("the system has no random numbers: {error}"))?;
    let octets = password.as_bytes();
    let unfit = |error: &dyn std::fmt::Display| format!("{} cannot keep this password: {error}", scheme.name());
    // crypt(3) has 16 letters of salt, which are 12 octets.
    let short = salt.first_chunk::<12>().unwrap_or(&[0; 12]);
    let sha = |algorithm: sha_crypt::Algorithm| {
        let hash = ShaCrypt::from(algorithm).hash_password_with_salt(octets, short);
        hash.map(|hash| hash.to_string()).map_err(|e| unfit(&e))
    };
    let hash = match scheme {
        Argon2id => {
            let hash = Argon2::default().hash_password_with_salt(octets, &salt);
            hash.map_err(|e| unfit(&e))?.to_string()
        }
        BlfCrypt => {
            let parts = bcrypt::non_truncating_hash_with_salt(octets, BCRYPT_COST, salt).map_err(|e| unfit(&e))?;
            parts.format_for_version(bcrypt::Version::TwoY)
        }
        Sha512Crypt => sha(sha_crypt::Algorithm::Sha512Crypt)?,
        Sha256Crypt => sha(sha_crypt::Algorithm::Sha256Crypt)?,
        ScramSha256 => {
            let keys = ScramKeys::derive(octets, &salt, SCRAM_ITERATIONS);
            let [salt, stored, server] =
                [&keys.salt, keys.stored_key.octets(), keys.server_key.octets()].map(|part| BASE64.encode(part));
            format!("{},{salt},{stored},{server}", keys.iterations)
        }
        Nt => sasl::nt_hash(password)
            .octets()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect(),
        Plain if password.contains(':') => return Err(unfit(&"a colon ends it")),
        Plain => password.to_owned(),
    };
    Ok(format!("{{{}}}{hash}", scheme.name()))
}
