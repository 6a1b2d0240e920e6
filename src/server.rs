//! The composition root.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// Runs the edge in the foreground.
pub fn serve(_config: Config, _path: Option<PathBuf>) -> ExitCode {
    eprintln!("postern: serve is not wired yet");
    ExitCode::FAILURE
}
