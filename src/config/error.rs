//! Errors of the configuration.
use std::path::Path;

/// One mistake.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
}

/// Why a configuration is refused.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// Each mistake.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The file cannot be read.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
        ConfigError::of(format!("cannot read {}: {error}", path.display()))
    }
    pub(super) fn too_large(name: &str, most: u64) -> ConfigError {
        ConfigError::of(format!("{name}: larger than {most} octets"))
    }
    pub(super) fn not_utf8(name: &str, _bytes: &[u8], error: &std::str::Utf8Error) -> ConfigError {
        ConfigError::of(format!("{name}: {error}"))
    }
    pub(super) fn of(text: String) -> ConfigError {
        ConfigError {
            problems: vec![Problem { text }],
        }
    }
    /// One line.
    pub fn one_line(&self) -> String {
        self.problems.first().map(|p| p.text.clone()).unwrap_or_default()
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.one_line())
    }
}

impl std::error::Error for ConfigError {}
