//! tarpit
