//! The values that flags take, from what was typed. Pure.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use rustix::thread::CpuSet;

/// Most source addresses that a range may name.
const SOURCES_MAX: u32 = 65_536;

/// on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What leaves in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pipelining {
    Off,
    On,
    Group,
}

/// Messages on a connection; 0 is endless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerConnection(pub u64);

impl FromStr for PerConnection {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "endless" => Ok(Self(0)),
            _ => text
                .parse()
                .map(Self)
                .map_err(|_| "expected a number or \"endless\"".into()),
        }
    }
}

/// Cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl FromStr for Cores {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(core) if core < CpuSet::MAX_CPU => Ok(core),
            _ => Err(format!("\"{text}\" is no core")),
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            cores.extend(number(first)?..=number(last)?);
        }
        if cores.is_empty() {
            return Err(format!("\"{text}\" names no core"));
        }
        Ok(Self(cores))
    }
}

/// Local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(pub Vec<IpAddr>);

impl FromStr for Sources {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for part in text.split(',') {
            let one = |text: &str| {
                text.trim()
                    .parse::<IpAddr>()
                    .map_err(|_| format!("\"{text}\" is no IP address"))
            };
            let Some((first, last)) = part.split_once('-') else {
                addresses.push(one(part)?);
                continue;
            };
            let (IpAddr::V4(first), IpAddr::V4(last)) = (one(first)?, one(last)?) else {
                return Err("a range has two IPv4 addresses".into());
            };
            let (first, last) = (u32::from(first), u32::from(last));
            if last < first || last - first >= SOURCES_MAX {
                return Err(format!("\"{part}\" is no range of 1 to {SOURCES_MAX} addresses"));
            }
            addresses.extend((first..=last).map(|address| IpAddr::V4(address.into())));
        }
        Ok(Self(addresses))
    }
}

/// A server in `versus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    pub name: String,
    pub target: SocketAddr,
    pub pids: Vec<u32>,
}

impl FromStr for Contender {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('=');
        let (Some(name), Some(target)) = (parts.next(), parts.next()) else {
            return Err("expected NAME=IP:PORT or NAME=IP:PORT=PID".into());
        };
        let target = target.parse().map_err(|_| format!("\"{target}\" is not IP:PORT"))?;
        let pids: Result<_, _> = parts
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|p| !p.is_empty())
            .map(str::parse)
            .collect();
        let pids = pids.map_err(|_| "the third part is a process id, or several separated by commas")?;
        if parts.next().is_some() {
            return Err("expected three parts at most".into());
        }
        Ok(Self {
            name: name.into(),
            target,
            pids,
        })
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=1 << 30).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 1 to {}", 1 << 30)),
    }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-3..=1e9).contains(&rate) => Ok(rate),
        _ => Err("expected messages a second, from 0.001 to 1000000000".into()),
    }
}

/// `500ms`, `10s`, `2m`, or seconds without a unit; a day at most.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number with ms, s, m or h, such as 10s".into()),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match milliseconds {
        Some(milliseconds) if milliseconds <= 86_400_000 => Ok(Duration::from_millis(milliseconds)),
        _ => Err("expected a time of a day at most, such as 10s".into()),
    }
}

/// Text that goes into a command: no spaces, no controls, nothing that could end the line or the path.
pub(super) fn address(text: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '<' && c != '>';
    if text.len() <= 254 && text.chars().all(fits) {
        return Ok(text.into());
    }
    Err("expected an address without spaces and angle brackets".into())
}
