//! The parameters of MAIL and RCPT.
