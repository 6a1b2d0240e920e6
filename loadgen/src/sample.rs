//! Drawing numbers: a small generator and the distributions that flags can name.
//!
//! Promises: the same seed draws the same numbers; nothing here is fit for secrets. Pure.

use std::f64::consts::TAU;

/// splitmix64: one addition and three multiplications a number, and any seed is a good one.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that always fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The normal distribution with mean 0 and deviation 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (TAU * self.fraction()).cos()
    }
}

/// A quantity that is drawn anew each time; its unit is the user's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Always this.
    Fixed(f64),
    /// Anything from the first to the second, equally often.
    Uniform(f64, f64),
    /// Exponential, with this mean.
    Exponential(f64),
    /// Log-normal, with this median and this deviation of the logarithm.
    LogNormal(f64, f64),
}

impl Distribution {
    /// Reads `Q`, `Q..Q`, `exp(Q)` or `lognormal(Q,SIGMA)`, where `quantity` reads a `Q`.
    pub fn parse<T: Into<f64>>(text: &str, quantity: impl Fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let quantity = |text: &str| quantity(text.trim()).map(Into::into);
        if let Some(mean) = inside(text, "exp") {
            return quantity(mean).map(Self::Exponential);
        }
        if let Some(both) = inside(text, "lognormal") {
            let (median, sigma) = both.split_once(',').unwrap_or((both, "1"));
            return match sigma.trim().parse::<f64>() {
                Ok(sigma) if (0.0..=5.0).contains(&sigma) => Ok(Self::LogNormal(quantity(median)?, sigma)),
                _ => Err(format!("\"{sigma}\" is no deviation from 0 to 5")),
            };
        }
        match text.split_once("..") {
            None => quantity(text).map(Self::Fixed),
            Some((least, most)) => match (quantity(least)?, quantity(most)?) {
                (least, most) if least <= most => Ok(Self::Uniform(least, most)),
                _ => Err(format!("\"{text}\" goes from more to less")),
            },
        }
    }

    /// One draw; never negative.
    pub fn draw(&self, dice: &mut Dice) -> f64 {
        match *self {
            Self::Fixed(value) => value,
            Self::Uniform(least, most) => least + (most - least) * dice.fraction(),
            Self::Exponential(mean) => -mean * (1.0 - dice.fraction()).ln(),
            Self::LogNormal(median, sigma) => median * (sigma * dice.normal()).exp(),
        }
    }
}

fn inside<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Distribution, String> {
        Distribution::parse(text, |q| q.parse::<f64>().map_err(|e| e.to_string()))
    }

    #[test]
    fn distributions_are_read_as_they_are_typed() {
        assert_eq!(parse("5"), Ok(Distribution::Fixed(5.0)));
        assert_eq!(parse("5..6"), Ok(Distribution::Uniform(5.0, 6.0)));
        assert_eq!(parse("exp(5)"), Ok(Distribution::Exponential(5.0)));
        assert_eq!(parse("lognormal(5)"), Ok(Distribution::LogNormal(5.0, 1.0)));
        assert_eq!(parse("lognormal(5, 0.5)"), Ok(Distribution::LogNormal(5.0, 0.5)));
        for wrong in ["", "6..5", "x", "exp(x)", "lognormal(5,9)", "gauss(1)"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_drawn_has_the_mean_or_median_asked_for() {
        let mut dice = Dice::new(1);
        let mut draws = |text: &str| {
            let distribution = parse(text).unwrap();
            let mut all: Vec<f64> = (0..40_000).map(|_| distribution.draw(&mut dice)).collect();
            all.sort_by(f64::total_cmp);
            (all[20_000], all.iter().sum::<f64>() / 40_000.0)
        };
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.03;
        assert!(near(draws("10..20").1, 15.0));
        assert!(near(draws("exp(10)").1, 10.0));
        let (median, mean) = draws("lognormal(10,1)");
        assert!(
            near(median, 10.0) && near(mean, 10.0 * 0.5_f64.exp()),
            "{median} {mean}"
        );
    }

    #[test]
    fn a_fraction_is_below_one_and_spread() {
        let mut dice = Dice::new(7);
        let all: Vec<f64> = (0..10_000).map(|_| dice.fraction()).collect();
        assert!(all.iter().all(|f| (0.0..1.0).contains(f)));
        let low = all.iter().filter(|f| **f < 0.25).count();
        assert!((2300..2700).contains(&low), "{low}");
    }
}
