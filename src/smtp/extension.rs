//! Which EHLO keywords a session is offered.
