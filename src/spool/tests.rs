//! The rules of the log, one by one.
