//! The Maildir next hop.
