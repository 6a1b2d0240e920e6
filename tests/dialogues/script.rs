//! The words of a dialogue file.
//!
//! A line is one of these; what stands behind `#` at the start of a line is a comment.
//!
//! | before the dialogue | |
//! | --- | --- |
//! | `edition 2011`, `edition both` | instead of 2021 |
//! | `limits max_recipients = 1` | a row of the limits; octets, counts, or a time like `5s` |
//! | `bare_newline normalise` | instead of refuse |
//! | `offer XEXCH50`, `offer STARTTLS`, `off CHUNKING` | extensions |
//! | `require_tls` | MAIL waits for TLS |
//! | `auth NTLM LOGIN` | mechanisms, which may be used outside TLS |
//! | `auth requires tls`, `auth required`, `auth serves alice bob` | what else a binding says of them |
//! | `user alice:{PLAIN}secret` | a line of the users file |
//!
//! | the client | |
//! | --- | --- |
//! | `C: text` | `text` and CRLF |
//! | `C- text` | `text` alone |
//! | `hello` | `EHLO client.test` and its reply |
//! | `transaction` | `hello`, a MAIL and a RCPT, with their replies |
//! | `repeat 3 C: text` | the line three times |
//! | `after 61s` | this time passes |
//!
//! | the server | |
//! | --- | --- |
//! | `S: text` | the next line of a reply, exactly |
//! | `S* 250` | the next reply, of as many lines as it has, by its code |
//! | `waited 5s` | so long have replies waited since the last `waited` |
//! | `closed` | the session is over |
//! | `message "text"` | the next message in custody, in wire form |
//! | `file "text"` | the same message as the Maildir would hold it |
//! | `protocol ESMTP` | how it came |
//! | `authenticated alice` | whom the client has proved to be |
//! | `report abandoned`, `report refused TEXT`, `report limit EVENT` | the next transaction that ended otherwise |
//! | `envelope <a@b> … -> <c@d> …` | of the last `message` or `report` |
//! | `event MaxHopCount` | the next limit passed |
//!
//! | the driver | |
//! | --- | --- |
//! | `policy mail accept`, `policy mail refuse ResourcesLow`, `policy mail limit EVENT` | from here on |
//! | `policy rcpt <a@b> refuse UserUnknown`, `… limit EVENT`, `… accept` | for one path |
//! | `policy takes 70s` | it answers late |
//! | `policy passwords unavailable` | nobody can compare one |
//! | `store accept`, `store refuse CannotStore`, `store takes 70s` | custody |
//! | `tls` | the handshake is done |
//! | `drain`, `stop` | the server ends |
//! | `drain while waiting` | the server ends in the middle of the next wait of a reply |
//!
//! Text knows `\r \n \t \0 \\ \" \xNN`, and `{text*12}` for text twelve times. Queue ids are `Q1`, `Q2` and so on. Every reply
//! must be expected before the client goes on, every message be claimed, and a session must not end without `closed`.

use std::sync::Arc;
use std::time::Duration;

use postern::policy::users::Users;
use postern::smtp::extension::{Extension, Offered};
use postern::smtp::limits::{Limits, ROWS, Value};
use postern::smtp::oxsmtp::{Event, Reply};
use postern::smtp::sasl::Mechanism;
use postern::smtp::session::{Auth, Terms, Verdict};
use postern::smtp::{BareNewline, Edition, Role};

/// One file in one edition.
#[derive(Clone, Debug)]
pub struct Script {
    pub name: String,
    pub terms: Arc<Terms>,
    /// The users file, read once: a `{PLAIN}` takes a while.
    pub users: Arc<Users>,
    pub lines: Vec<(usize, Line)>,
}

#[derive(Clone, Debug)]
pub enum Line {
    Client(Vec<u8>),
    Reply(String),
    WholeReply(String),
    After(Duration),
    Waited(Duration),
    Closed,
    Message(Vec<u8>),
    File(Vec<u8>),
    Protocol(String),
    Report(String),
    Envelope(String),
    Event(String),
    PolicyMail(Verdict),
    PolicyStartTls(Verdict),
    PolicyRcpt(String, Verdict),
    PolicyTakes(Duration),
    PasswordsUnavailable,
    Authenticated(String),
    Store(Option<Reply>),
    StoreTakes(Duration),
    Tls,
    Drain,
    DrainWhileWaiting,
    Stop,
}

impl Script {
    /// The scripts of a file: one for each edition it is about.
    pub fn read(name: &str, text: &str) -> Vec<Script> {
        let mut lines = Vec::new();
        let mut limits = Limits::of(Role::Gateway);
        let (mut editions, mut bare_newline) = (vec![Edition::Y2021], BareNewline::Refuse);
        let (mut off, mut xexch50) = (Vec::new(), false);
        let (mut starttls, mut require_tls) = (false, false);
        let (mut auth, mut users) = (Auth::default(), String::new());
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let settles = matches!(
                word,
                "edition" | "limits" | "bare_newline" | "offer" | "off" | "require_tls" | "auth" | "user"
            );
            let begun = lines.iter().any(|(_, line)| matches!(line, Line::Client(_)));
            assert!(!settles || !begun, "{name}:{number}: `{word}` comes first");
            match (word, rest) {
                ("" | "#", _) => {}
                ("edition", "2011") => editions = vec![Edition::Y2011],
                ("edition", "both") => editions = vec![Edition::Y2011, Edition::Y2021],
                ("limits", rest) => {
                    let (key, value) = rest.split_once(" = ").unwrap();
                    assert!(limits.set(key, limit(key, value)), "{name}:{number}: {rest}");
                }
                ("bare_newline", "normalise") => bare_newline = BareNewline::Normalise,
                ("offer", "XEXCH50") => xexch50 = true,
                ("offer", "STARTTLS") => starttls = true,
                ("require_tls", "") => require_tls = true,
                ("auth", rest) => read_auth(rest, &mut auth),
                ("user", line) => users += &format!("{line}\n"),
                ("off", keyword) => off.push(Extension::parse_keyword(keyword).unwrap()),
                _ => {
                    let read = parse(line).unwrap_or_else(|| panic!("{name}:{number}: what is `{line}`?"));
                    lines.extend(read.into_iter().map(|line| (number, line)));
                }
            }
        }
        let users = Arc::new(Users::parse(&users, [1; 32]).users);
        let script = |edition| Script {
            name: name.to_owned(),
            terms: Arc::new(Terms {
                hostname: "mx.test".into(),
                edition,
                limits: limits.clone(),
                offered: match Offered::of(edition, &off, xexch50) {
                    offered if starttls => offered.with(Extension::StartTls),
                    offered => offered,
                },
                require_tls,
                auth: auth.clone(),
                bare_newline,
            }),
            users: users.clone(),
            lines: lines.clone(),
        };
        editions.into_iter().map(script).collect()
    }

    /// Everything that the client sends.
    pub fn input(&self) -> Vec<u8> {
        let sent = self.lines.iter().filter_map(|(_, line)| match line {
            Line::Client(octets) => Some(octets.as_slice()),
            _ => None,
        });
        sent.collect::<Vec<_>>().concat()
    }
}

fn parse(line: &str) -> Option<Vec<Line>> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let one = match word {
        "hello" => return hello(),
        "transaction" => return transaction(),
        "repeat" => {
            let (times, line) = rest.split_once(' ')?;
            let lines = parse(line)?;
            return Some(vec![lines; times.parse().ok()?].concat());
        }
        "C:" => Line::Client([unescape(rest)?, b"\r\n".to_vec()].concat()),
        "C-" => Line::Client(unescape(rest)?),
        "S:" => Line::Reply(rest.to_owned()),
        "S*" => Line::WholeReply(rest.to_owned()),
        "after" => Line::After(span(rest)?),
        "waited" => Line::Waited(span(rest)?),
        "closed" => Line::Closed,
        "message" => Line::Message(unescape(rest.strip_prefix('"')?.strip_suffix('"')?)?),
        "file" => Line::File(unescape(rest.strip_prefix('"')?.strip_suffix('"')?)?),
        "protocol" => Line::Protocol(rest.to_owned()),
        "report" => Line::Report(rest.to_owned()),
        "envelope" => Line::Envelope(rest.to_owned()),
        "event" => Line::Event(rest.to_owned()),
        "policy" if rest == "passwords unavailable" => Line::PasswordsUnavailable,
        "policy" => policy(rest)?,
        "authenticated" => Line::Authenticated(rest.to_owned()),
        "store" => match rest.split_once(' ') {
            None if rest == "accept" => Line::Store(None),
            Some(("refuse", reply)) => Line::Store(Some(reply_named(reply)?)),
            Some(("takes", time)) => Line::StoreTakes(span(time)?),
            _ => return None,
        },
        "drain" if rest == "while waiting" => Line::DrainWhileWaiting,
        "tls" => Line::Tls,
        "drain" => Line::Drain,
        "stop" => Line::Stop,
        _ => return None,
    };
    Some(vec![one])
}

/// `NTLM LOGIN`, `required`, `requires tls`, `serves alice bob`.
fn read_auth(rest: &str, auth: &mut Auth) {
    match rest.split_once(' ') {
        _ if rest == "required" => auth.required = true,
        _ if rest == "requires tls" => auth.requires_tls = true,
        Some(("serves", users)) => auth.users = users.split(' ').map(Box::from).collect(),
        _ => {
            let known = |name: &str| Mechanism::parse(name.as_bytes()).unwrap();
            auth.mechanisms = rest.split(' ').map(known).collect();
        }
    }
}

fn hello() -> Option<Vec<Line>> {
    Some([parse("C: EHLO client.test")?, parse("S* 250")?].concat())
}

fn transaction() -> Option<Vec<Line>> {
    let lines = [
        "C: MAIL FROM:<a@client.test>",
        "S: 250 2.1.0 Sender OK",
        "C: RCPT TO:<b@mx.test>",
        "S: 250 2.1.5 Recipient OK",
    ];
    let mut all = hello()?;
    for line in lines {
        all.extend(parse(line)?);
    }
    Some(all)
}

fn policy(rest: &str) -> Option<Line> {
    let (about, rest) = rest.split_once(' ')?;
    match about {
        "mail" => Some(Line::PolicyMail(verdict(rest)?)),
        "starttls" => Some(Line::PolicyStartTls(verdict(rest)?)),
        "rcpt" => {
            let (path, rest) = rest.split_once(' ')?;
            Some(Line::PolicyRcpt(path.to_owned(), verdict(rest)?))
        }
        "takes" => Some(Line::PolicyTakes(span(rest)?)),
        _ => None,
    }
}

fn verdict(text: &str) -> Option<Verdict> {
    match text.split_once(' ') {
        None if text == "accept" => Some(Verdict::Accept),
        Some(("refuse", name)) => Some(Verdict::Refuse(reply_named(name)?)),
        Some(("limit", name)) => {
            let event = Event::ALL.iter().find(|e| e.name() == name)?;
            Some(Verdict::Limit(*event))
        }
        _ => None,
    }
}

fn reply_named(name: &str) -> Option<Reply> {
    Reply::ALL.iter().find(|r| r.name() == name).copied()
}

fn limit(key: &str, value: &str) -> Value {
    let row = ROWS.iter().find(|row| row.key == key).unwrap();
    match row.gateway {
        Value::Span(_) => Value::Span(span(value).unwrap()),
        Value::Size(_) => Value::Size(value.parse().unwrap()),
        Value::Count(_) => Value::Count(value.parse().unwrap()),
    }
}

fn span(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return milliseconds.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

/// `\xNN` and its like, and `{text*N}`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'\\' => {
                let (&letter, after) = rest.split_first()?;
                rest = after;
                octets.push(match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'x' => {
                        let (digits, after) = rest.split_at_checked(2)?;
                        rest = after;
                        u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
                    }
                    b'\\' | b'"' | b'{' => letter,
                    _ => return None,
                });
            }
            b'{' => {
                let end = rest.iter().position(|&b| b == b'}')?;
                let inner = str::from_utf8(&rest[..end]).ok()?;
                let (text, times) = inner.rsplit_once('*')?;
                octets.extend(unescape(text)?.repeat(times.parse().ok()?));
                rest = &rest[end + 1..];
            }
            _ => octets.push(octet),
        }
    }
    Some(octets)
}
