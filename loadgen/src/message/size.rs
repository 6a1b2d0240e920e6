//! Sizes of messages: one, or a distribution of them.
//!
//! Promises: a distribution becomes the same sizes in every run, in its proportions. Pure.

use std::fmt;
use std::str::FromStr;

use crate::sample::{Dice, Distribution};

/// Messages that a distribution becomes; they take turns.
const VARIANTS: usize = 200;
/// Draws that each of them stands for.
const DRAWS_EACH: usize = 100;
/// Largest message, in octets.
const SIZE_MAX: f64 = (1_u64 << 30) as f64;

/// A day of an MX, as we assume it: notes and notices; newsletters; attachments; a few that fill the limit. Shares of
/// messages, and the sizes of their contents. An assumption, not a measurement: bring `--corpus` for your own mail.
const MIX: [(f64, Distribution); 4] = [
    (0.55, Distribution::LogNormal(8_192.0, 0.8)),
    (0.35, Distribution::LogNormal(40_960.0, 0.8)),
    (0.09, Distribution::LogNormal(307_200.0, 1.0)),
    (0.01, Distribution::Uniform(1_048_576.0, 9_437_184.0)),
];

/// What `--size` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    text: String,
    shares: Vec<(f64, Distribution)>,
}

impl Sizes {
    /// All of one size.
    #[cfg(test)]
    pub fn fixed(octets: usize) -> Self {
        Self {
            text: octets.to_string(),
            shares: vec![(1.0, Distribution::Fixed(octets as f64))],
        }
    }

    /// The size, if it is one.
    pub fn single(&self) -> Option<usize> {
        match self.shares.as_slice() {
            [(_, Distribution::Fixed(octets))] => Some(*octets as usize),
            _ => None,
        }
    }

    /// The sizes of the messages that take turns: each stands for an equal part of the distribution.
    pub fn drawn(&self) -> Vec<usize> {
        if let Some(single) = self.single() {
            return vec![single];
        }
        let mut dice = Dice::new(1);
        let mut draws: Vec<f64> = (0..VARIANTS * DRAWS_EACH).map(|_| self.draw(&mut dice)).collect();
        draws.sort_by(f64::total_cmp);
        let means = draws
            .chunks(DRAWS_EACH)
            .map(|part| part.iter().sum::<f64>() / part.len() as f64);
        means.map(|mean| mean.clamp(1.0, SIZE_MAX) as usize).collect()
    }

    fn draw(&self, dice: &mut Dice) -> f64 {
        let mut at = dice.fraction();
        for (share, distribution) in &self.shares {
            if at < *share {
                return distribution.draw(dice);
            }
            at -= share;
        }
        self.shares
            .last()
            .map_or(0.0, |(_, distribution)| distribution.draw(dice))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shares = match text {
            "mix" => MIX.to_vec(),
            _ => vec![(1.0, Distribution::parse(text, octets)?)],
        };
        Ok(Self {
            text: text.into(),
            shares,
        })
    }
}

/// `4096`, `4k` or `4KiB`, `10M` or `10MiB`.
fn octets(text: &str) -> Result<f64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        _ => 0.0,
    };
    match number.parse::<f64>().map(|number| number * factor) {
        Ok(octets) if (1.0..=SIZE_MAX).contains(&octets) => Ok(octets),
        _ => Err(format!(
            "\"{text}\" is no size from 1 to {SIZE_MAX} octets; examples: 4096, 4k, 1k..64k, lognormal(20k,1.2), mix"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_typed() {
        let read = |text: &str| text.parse::<Sizes>().unwrap();
        assert_eq!(read("4096").single(), Some(4096));
        assert_eq!(read("4k").single(), Some(4096));
        assert_eq!(read("10MiB").drawn(), [10 << 20]);
        assert_eq!(read("1k..64k").single(), None);
        assert_eq!(read("mix").to_string(), "mix");
        for wrong in ["", "0", "4g", "2048M", "64k..1k", "-1", "4.5k"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_distribution_keeps_its_proportions() {
        let uniform = "1000..3000".parse::<Sizes>().unwrap().drawn();
        assert_eq!(uniform.len(), VARIANTS);
        let mean = uniform.iter().sum::<usize>() / VARIANTS;
        assert!((1970..2030).contains(&mean), "{mean}");
        let mut log_normal = "lognormal(20000,1)".parse::<Sizes>().unwrap().drawn();
        log_normal.sort_unstable();
        assert!((19_000..21_000).contains(&log_normal[VARIANTS / 2]), "{log_normal:?}");
        let mix = "mix".parse::<Sizes>().unwrap().drawn();
        let large = mix.iter().filter(|size| **size > 1 << 20).count();
        assert!((1..=6).contains(&large), "{large}");
        assert_eq!(mix, "mix".parse::<Sizes>().unwrap().drawn());
    }
}
