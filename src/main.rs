//! The process: allocator and exit codes.
fn main() {}
