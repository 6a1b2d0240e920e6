//! Configurations for the tests: what a test says, and what it takes for granted.

// Several test targets share this file and none uses all of it.
#![allow(dead_code)]

/// A configuration in the making. Two shards, one binding on a free port of 127.0.0.1, no tarpit, any domain into the
/// Maildir `mail`, metrics; each of these as long as the test does not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    top: String,
    limits: String,
    bindings: Vec<String>,
    rest: String,
}

impl Settings {
    /// All as it is taken for granted.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Keys at the top.
    pub fn top(mut self, keys: &str) -> Settings {
        self.top.push_str(&format!("{keys}\n"));
        self
    }

    /// Keys of `[limits]`.
    pub fn limits(mut self, keys: &str) -> Settings {
        self.limits.push_str(&format!("{keys}\n"));
        self
    }

    /// One more binding, with these keys.
    pub fn binding(mut self, keys: &str) -> Settings {
        self.bindings.push(keys.to_owned());
        self
    }

    /// Whole sections.
    pub fn sections(mut self, sections: &str) -> Settings {
        self.rest.push_str(&format!("{sections}\n"));
        self
    }

    /// The text of the file.
    pub fn toml(&self) -> String {
        let defaults = |text: &str, given: &[(&str, &str)]| -> String {
            let missing = given.iter().filter(|(key, _)| !text.contains(key));
            missing.map(|(_, whole)| format!("{whole}\n")).collect()
        };
        let mut toml = defaults(
            &self.top,
            &[("hostname", "hostname = \"mx.example.com\""), ("shards", "shards = 2")],
        );
        toml += &self.top;
        toml += "[limits]\n";
        toml += &defaults(&self.limits, &[("tarpit", "tarpit = \"0s\"")]);
        toml += &self.limits;
        let one = [String::new()];
        let bindings = if self.bindings.is_empty() {
            &one[..]
        } else {
            &self.bindings
        };
        for keys in bindings {
            toml += "[[binding]]\n";
            toml += &defaults(
                keys,
                &[
                    ("name =", "name = \"mx\""),
                    ("address =", "address = [\"127.0.0.1:0\"]"),
                ],
            );
            toml += &format!("{keys}\n");
        }
        toml += &defaults(
            &self.rest,
            &[
                ("[domains]", "[domains]\naccepted = [\"*\"]"),
                ("[[next_hop]]", "[[next_hop]]\nto = [\"maildir:mail\"]"),
                ("[admin]", "[admin]\nlisten = \"ADMIN\""),
            ],
        );
        toml + &self.rest
    }
}
