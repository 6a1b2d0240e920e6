//! A Rust file as the rules look at it: its code without comments, strings and tests.
//!
//! Promises: line numbers are those of the file. Knows as much of Rust as it takes to tell code from comments, strings
//! and `#[cfg(test)]` items, and no more. Pure.

/// A string literal in code that is no test.
#[derive(Debug)]
pub struct Literal {
    pub line: usize,
    pub text: String,
}

/// One file of the crate.
#[derive(Debug)]
pub struct Source {
    /// Below `src/`, with slashes.
    pub path: String,
    /// As it stands.
    pub text: String,
    /// With comments and the insides of strings blanked; as long as `text` in lines.
    pub code: String,
    /// The same with `#[cfg(test)]` items blanked too.
    pub shipped: String,
    /// The strings of `shipped`.
    pub literals: Vec<Literal>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, mut literals) = strip(text);
        let shipped = without_tests(&code);
        let kept: Vec<bool> = code.lines().zip(shipped.lines()).map(|(c, s)| c == s).collect();
        literals.retain(|literal| kept.get(literal.line - 1).copied().unwrap_or(true));
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            shipped,
            literals,
        }
    }

    /// The modules above this file's items: `["smtp", "path"]` for `smtp/path.rs`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
            parts.pop();
        }
        parts
    }
}

/// Blanks comments and the insides of strings, and collects the strings.
fn strip(text: &str) -> (String, Vec<Literal>) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut literals = Vec::new();
    let (mut at, mut line) = (0, 1);
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while at < chars.len() {
        let rest = &chars[at..];
        let end = match token(rest, code.chars().last()) {
            Token::Comment(n) => {
                code.extend(rest[..n].iter().copied().map(blank));
                n
            }
            Token::Text { open, close, n } => {
                let inside = &rest[open..n - close];
                literals.push(Literal {
                    line,
                    text: inside.iter().collect(),
                });
                code.extend(&rest[..open]);
                code.extend(inside.iter().copied().map(blank));
                code.extend(&rest[n - close..n]);
                n
            }
            Token::Char(n) => {
                code.push('\'');
                code.extend((1..n - 1).map(|_| ' '));
                code.push('\'');
                n
            }
            Token::Other => {
                code.push(rest[0]);
                1
            }
        };
        line += rest[..end].iter().filter(|c| **c == '\n').count();
        at += end;
    }
    (code, literals)
}

enum Token {
    Comment(usize),
    Text { open: usize, close: usize, n: usize },
    Char(usize),
    Other,
}

fn token(rest: &[char], before: Option<char>) -> Token {
    let starts = |with: &str| with.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c));
    if starts("//") {
        return Token::Comment(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()));
    }
    if starts("/*") {
        return Token::Comment(block_comment(rest));
    }
    let in_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if starts("\"") {
        return quoted(rest, 1);
    }
    if !in_a_word && (starts("r") || starts("br")) {
        let open = rest.iter().skip(1).position(|c| *c == '"').map(|i| i + 2);
        if let Some(open) = open.filter(|open| rest[1..open - 1].iter().all(|c| matches!(c, 'r' | '#'))) {
            return raw(rest, open);
        }
    }
    match rest {
        ['\'', '\\', ..] => {
            let end = rest.iter().skip(3).position(|c| *c == '\'');
            end.map_or(Token::Other, |end| Token::Char(end + 4))
        }
        ['\'', _, '\'', ..] => Token::Char(3),
        _ => Token::Other,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], open: usize) -> Token {
    let mut at = open;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    let n = (at + 1).min(rest.len());
    Token::Text { open, close: 1, n }
}

fn raw(rest: &[char], open: usize) -> Token {
    let hashes = rest[..open].iter().filter(|c| **c == '#').count();
    let closes =
        |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    let end = (open..rest.len()).find(closes).unwrap_or(rest.len() - hashes - 1);
    Token::Text {
        open,
        close: hashes + 1,
        n: end + hashes + 1,
    }
}

/// Blanks each item behind `#[cfg(test)]`: up to its closing brace, or its semicolon where that comes first.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let item = &rest[start + MARK.len()..];
        let end = start + MARK.len() + item_length(item);
        out.push_str(&rest[..start]);
        out.extend(rest[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Octets up to the end of the first item of `code`, in which strings and comments are blank.
pub fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(c, '}' | ';') {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn comments_strings_and_tests_are_no_code() {
    let source = Source::new(
        "a.rs",
        "// unsafe\nlet s = \"un\\\"safe\"; /* unsafe /* x */ unsafe */ let c = '\"'; f::<'a>('\\'');\nlet r = br#\"unsafe \"x\" \"#;\n#[cfg(test)]\nmod tests {\n    fn f() { unsafe {} \"t\" }\n}\nfn g() {}\n",
    );
    assert!(!source.shipped.contains("unsafe"), "{}", source.shipped);
    assert!(source.code.contains("unsafe {}") && source.shipped.contains("fn g() {}"));
    assert_eq!(source.shipped.lines().count(), source.text.lines().count());
    let texts: Vec<_> = source.literals.iter().map(|l| (l.line, l.text.as_str())).collect();
    assert_eq!(texts, [(2, "un\\\"safe"), (3, "unsafe \"x\" ")]);
}
