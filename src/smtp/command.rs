//! Command lines: the verb, its line limit, its arguments.
