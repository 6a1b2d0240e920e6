//! The process: allocator and exit code; everything else is in the library.

use std::process::ExitCode;

/// Threads free what other threads allocated (control to shard), which is what mimalloc is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postern::cli::run()
}
