//! What the sink is told to do wrong: at which stage, how, and how often.
//!
//! Notation: `WHAT[:SHARE]`, several separated by commas, each drawn for itself; delays add up, of the others the first
//! that is drawn counts. SHARE is `5%` (of the commands at that stage, by chance) or `1/20` (every twentieth, exactly).
//! Promises: without faults a stage costs one comparison. Each thread has its own copy, its own chance and count. Pure.

use std::str::FromStr;
use std::time::Duration;

use crate::sample::{Dice, Distribution};

/// What happens in place of, or with, the proper reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The proper reply.
    Take,
    /// A 4xx reply; 0 is the stage's own code.
    Defer(u16),
    /// A 5xx reply; 0 is the stage's own code.
    Refuse(u16),
    /// Closes the connection without a reply.
    Drop,
    /// Resets the connection without a reply.
    Reset,
    /// Never says anything again.
    Stall,
    /// Half of the reply, then closes.
    Cut,
    /// Something that is no reply.
    Garbage,
    /// The proper reply in this many lines.
    Lines(u16),
    /// The proper reply, then closes.
    DropAfter,
    /// The proper reply, then resets the connection.
    ResetAfter,
    /// At the end: says yes and forgets the message, to see that it is missed.
    Forget,
    /// At the end: takes the message twice, to see that it is noticed.
    Twice,
    /// At the end: takes the message with an octet changed, to see that it is noticed.
    Alter,
}

impl Act {
    /// Whether the command has succeeded, as far as the sink is concerned.
    pub fn takes(self) -> bool {
        !matches!(
            self,
            Self::Defer(_) | Self::Refuse(_) | Self::Drop | Self::Reset | Self::Stall
        )
    }

    /// Whether a client cannot know, or may not get to know, that it has.
    pub fn spoils_the_reply(self) -> bool {
        matches!(self, Self::Cut | Self::Garbage | Self::DropAfter | Self::ResetAfter)
    }
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Share {
    Always,
    Fraction(f64),
    Every(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// Seconds.
    Delay(Distribution),
    Act(Act),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fault {
    what: What,
    share: Share,
    /// How often it was asked for.
    asked: u64,
}

/// The faults of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults(Vec<Fault>);

/// What was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Before the reply.
    pub delay: Duration,
    pub act: Act,
}

impl Verdict {
    /// The proper reply at once.
    pub const PROPER: Self = Self {
        delay: Duration::ZERO,
        act: Act::Take,
    };
}

impl Faults {
    /// Draws for one command.
    pub fn draw(&mut self, dice: &mut Dice) -> Verdict {
        let mut verdict = Verdict::PROPER;
        for fault in &mut self.0 {
            fault.asked += 1;
            let hit = match fault.share {
                Share::Always => true,
                Share::Fraction(share) => dice.fraction() < share,
                Share::Every(every) => fault.asked.is_multiple_of(every),
            };
            match fault.what {
                _ if !hit => {}
                What::Delay(length) => verdict.delay += seconds(length.draw(dice)),
                What::Act(act) if verdict.act == Act::Take => verdict.act = act,
                What::Act(_) => {}
            }
        }
        verdict
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them can only be done at the end of a message.
    pub fn is_for_the_end(&self) -> bool {
        let mut acts = self.0.iter().map(|fault| fault.what);
        acts.any(|what| matches!(what, What::Act(Act::Forget | Act::Twice | Act::Alter)))
    }

    /// Whether one of them needs a reply to be given.
    pub fn needs_a_reply(&self) -> bool {
        let silent = |what| matches!(what, What::Delay(_) | What::Act(Act::Drop | Act::Reset | Act::Stall));
        self.0.iter().any(|fault| !silent(fault.what))
    }
}

/// An hour at most: a log-normal distribution may draw anything.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.min(3600.0)).unwrap_or_default()
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        pieces(text).map(fault).collect::<Result<_, _>>().map(Self)
    }
}

/// The parts between commas outside of parentheses.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
}

fn fault(text: &str) -> Result<Fault, String> {
    let (what, share) = match text.trim().split_once(':') {
        Some((what, share)) => (what, read_share(share)?),
        None => (text.trim(), Share::Always),
    };
    let (name, value) = match what.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (what, None),
    };
    let code = |class: u16| match value.map(str::parse::<u16>) {
        None => Ok(0),
        Some(Ok(code)) if code / 100 == class => Ok(code),
        Some(_) => Err(format!(
            "\"{what}\": expected a code of three digits that begins with {class}"
        )),
    };
    let act = match name {
        "delay" => {
            let length = value.ok_or("\"delay\" has no length, such as delay=10ms..50ms")?;
            return Ok(Fault {
                what: What::Delay(Distribution::parse(length, milliseconds)?),
                share,
                asked: 0,
            });
        }
        "defer" => Act::Defer(code(4)?),
        "refuse" => Act::Refuse(code(5)?),
        "lines" => match value.map(str::parse) {
            Some(Ok(lines)) if (1..=1000).contains(&lines) => Act::Lines(lines),
            _ => return Err("\"lines\" has a number from 1 to 1000, such as lines=5".into()),
        },
        _ if value.is_some() => return Err(format!("\"{name}\" takes no value")),
        "drop" => Act::Drop,
        "reset" => Act::Reset,
        "stall" => Act::Stall,
        "cut" => Act::Cut,
        "garbage" => Act::Garbage,
        "drop-after" => Act::DropAfter,
        "reset-after" => Act::ResetAfter,
        "forget" => Act::Forget,
        "twice" => Act::Twice,
        "alter" => Act::Alter,
        _ => {
            return Err(format!(
                "\"{name}\" is not known: delay, defer, refuse, drop, reset, stall, cut, garbage, lines, drop-after, \
                 reset-after, forget, twice, alter"
            ));
        }
    };
    Ok(Fault {
        what: What::Act(act),
        share,
        asked: 0,
    })
}

fn read_share(text: &str) -> Result<Share, String> {
    let percent = text.strip_suffix('%').map(str::parse::<f64>);
    let every = text.strip_prefix("1/").map(str::parse::<u64>);
    match (percent, every) {
        (Some(Ok(percent)), _) if (0.0..=100.0).contains(&percent) => Ok(Share::Fraction(percent / 100.0)),
        (_, Some(Ok(every))) if every > 0 => Ok(Share::Every(every)),
        _ => Err(format!("\"{text}\" is no share: 5% or 1/20")),
    }
}

/// In seconds: `10ms`, `1.5s`, `200us`, `1m`.
fn milliseconds(text: &str) -> Result<f64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("\"{text}\" is no length of time, such as 10ms or 1.5s")),
    };
    match number.parse::<f64>() {
        Ok(number) if number * factor <= 3600.0 => Ok(number * factor),
        _ => Err(format!("\"{text}\" is no length of time of an hour at most")),
    }
}

/// The faults of every stage.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub connect: Faults,
    pub ehlo: Faults,
    pub mail: Faults,
    pub rcpt: Faults,
    pub data: Faults,
    pub content: Faults,
    pub end: Faults,
}

/// A point at which the sink answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connect,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Content,
    End,
}

impl Stage {
    /// All of them, in order, with their names.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Connect, "connect"),
        (Self::Ehlo, "ehlo"),
        (Self::Mail, "mail"),
        (Self::Rcpt, "rcpt"),
        (Self::Data, "data"),
        (Self::Content, "content"),
        (Self::End, "end"),
    ];
}

impl Plan {
    /// The faults of a stage.
    pub fn at(&mut self, stage: Stage) -> &mut Faults {
        match stage {
            Stage::Connect => &mut self.connect,
            Stage::Ehlo => &mut self.ehlo,
            Stage::Mail => &mut self.mail,
            Stage::Rcpt => &mut self.rcpt,
            Stage::Data => &mut self.data,
            Stage::Content => &mut self.content,
            Stage::End => &mut self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_twentieth_is_exactly_every_twentieth() {
        let mut faults: Faults = "refuse=552:1/20".parse().unwrap();
        let mut dice = Dice::new(1);
        let acts: Vec<Act> = (0..40).map(|_| faults.draw(&mut dice).act).collect();
        let hits: Vec<usize> = (0..40).filter(|&at| acts[at] != Act::Take).collect();
        assert_eq!(hits, [19, 39]);
        assert_eq!(acts[19], Act::Refuse(552));
    }

    #[test]
    fn shares_are_met_by_chance_and_delays_fall_within_their_distribution() {
        let mut faults: Faults = "delay=10ms..50ms:20%,defer:5%".parse().unwrap();
        let mut dice = Dice::new(1);
        let verdicts: Vec<Verdict> = (0..20_000).map(|_| faults.draw(&mut dice)).collect();
        let delayed: Vec<Duration> = verdicts.iter().map(|v| v.delay).filter(|d| !d.is_zero()).collect();
        assert!((3700..4300).contains(&delayed.len()), "{}", delayed.len());
        let bounds = Duration::from_millis(10)..=Duration::from_millis(50);
        assert!(delayed.iter().all(|delay| bounds.contains(delay)));
        let deferred = verdicts.iter().filter(|v| v.act == Act::Defer(0)).count();
        assert!((850..1150).contains(&deferred), "{deferred}");
    }

    #[test]
    fn delays_add_up_and_the_first_act_counts() {
        let mut faults: Faults = "delay=10ms,delay=1s,drop,stall".parse().unwrap();
        let expected = Verdict {
            delay: Duration::from_millis(1010),
            act: Act::Drop,
        };
        assert_eq!(faults.draw(&mut Dice::new(1)), expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_sentence() {
        for wrong in [
            "",
            "delay",
            "delay=5",
            "delay=50ms..10ms",
            "defer=550",
            "refuse=450",
            "drop=1",
            "lines",
            "lines=0",
            "dance",
            "drop:",
            "drop:101%",
            "drop:1/0",
            "drop:2/3",
        ] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
        }
        assert!("delay=lognormal(20ms,1.5):50%,refuse:1%".parse::<Faults>().is_ok());
    }
}
