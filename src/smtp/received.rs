//! The Received field that this hop adds (RFC 5321 section 4.4).
