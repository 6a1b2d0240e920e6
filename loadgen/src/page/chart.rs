//! Charts as inline SVG: lines over a linear, logarithmic or percentile axis, and bars.
//!
//! Promises: needs no script and no font of its own; colours come from the page's style sheet (`s0`, `s1` ... for the series),
//! so that light and dark both work; every text is escaped. Pure.

use std::fmt::Write;

/// Size of a chart in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Space for the ticks, and at the right for the last of them.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Colours that the style sheet knows.
pub const COLOURS: usize = 8;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0 or the least value on.
    Linear,
    /// Powers of ten.
    Logarithmic,
    /// Percentiles: the nines are equally far apart.
    Percentile,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1e-9).log10(),
            Self::Percentile => -(1.0 - (value / 100.0).min(0.999_999_9)).log10(),
        }
    }
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    pub name: &'a str,
    pub scale: Scale,
    /// How a value is written.
    pub label: fn(f64) -> String,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    /// Which colour.
    pub colour: usize,
    /// Drawn broken, to tell it from another of the same colour.
    pub dashed: bool,
    pub points: Vec<(f64, f64)>,
    /// A step at each point, and the area below filled.
    pub filled: bool,
}

/// A stretch of the horizontal axis that is shaded, with its name.
#[derive(Clone, Copy, Debug)]
pub struct Band<'a> {
    pub from: f64,
    pub to: f64,
    pub name: &'a str,
}

/// A chart of lines with its legend; empty when there is nothing to draw.
pub fn lines(title: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series], bands: &[Band<'_>]) -> String {
    let points = || series.iter().flat_map(|line| line.points.iter().copied());
    let (Some(across), Some(up)) = (
        Range::of(x.scale, points().map(|(x, _)| x), false),
        Range::of(y.scale, points().map(|(_, y)| y), true),
    ) else {
        return String::new();
    };
    let place = |(px, py): (f64, f64)| {
        let right = LEFT + across.share(x.scale.place(px)) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - up.share(y.scale.place(py)) * (HEIGHT - TOP - BOTTOM);
        (right, down)
    };
    let mut svg = open(title, HEIGHT);
    for band in bands {
        let (from, _) = place((band.from, 0.0));
        let (to, _) = place((band.to, 0.0));
        let (from, to) = (from.clamp(LEFT, WIDTH - RIGHT), to.clamp(LEFT, WIDTH - RIGHT));
        if to > from {
            let _ = write!(
                svg,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                to - from,
                HEIGHT - TOP - BOTTOM,
                escape(band.name)
            );
        }
    }
    for tick in up.ticks(y.scale, 5) {
        let (_, down) = place((0.0, tick));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{down:.1}\" y2=\"{down:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            down + 4.0,
            escape(&(y.label)(tick))
        );
    }
    for tick in across.ticks(x.scale, 8) {
        let (right, _) = place((tick, 0.0));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{right:.1}\" x2=\"{right:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            escape(&(x.label)(tick))
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(x.name)
    );
    for line in series.iter().filter(|line| !line.points.is_empty()) {
        draw(&mut svg, line, place, HEIGHT - BOTTOM);
        for point in line.points.iter().filter(|_| line.points.len() <= 60) {
            let (right, down) = place(*point);
            let _ = write!(
                svg,
                "<circle class=\"dot s{}\" cx=\"{right:.1}\" cy=\"{down:.1}\" r=\"2.5\"><title>{}: {} at {}</title></circle>",
                line.colour % COLOURS,
                escape(&line.name),
                escape(&(y.label)(point.1)),
                escape(&(x.label)(point.0))
            );
        }
    }
    svg.push_str("</svg>");
    figure(title, y.name, &svg, series)
}

fn draw(svg: &mut String, line: &Series, place: impl Fn((f64, f64)) -> (f64, f64), floor: f64) {
    let mut path = String::new();
    let mut last = None;
    for point in &line.points {
        let (right, down) = place(*point);
        let _ = match last {
            None => write!(path, "M{right:.1} {down:.1}"),
            Some((_, before)) if line.filled => write!(path, "L{right:.1} {before:.1}L{right:.1} {down:.1}"),
            Some(_) => write!(path, "L{right:.1} {down:.1}"),
        };
        last = Some((right, down));
    }
    let first = line.points.first().map(|point| place(*point));
    if let (true, Some((from, _)), Some((to, _))) = (line.filled, first, last) {
        let _ = write!(
            svg,
            "<path class=\"area s{}\" d=\"{path}L{to:.1} {floor:.1}L{from:.1} {floor:.1}Z\"/>",
            line.colour % COLOURS
        );
    }
    let dashes = if line.dashed { " dashed" } else { "" };
    let _ = write!(
        svg,
        "<path class=\"line{dashes} s{}\" d=\"{path}\"/>",
        line.colour % COLOURS
    );
}

/// A row of `bars`.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    /// What is written behind it.
    pub text: String,
    pub value: f64,
    pub colour: usize,
}

/// Bars from left to right, one under the other.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 26.0;
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let mut svg = open(title, ROW * bars.len() as f64 + 8.0);
    for (number, bar) in bars.iter().enumerate() {
        let top = 4.0 + ROW * number as f64;
        let length = (bar.value / most * (WIDTH - LEFT - 220.0)).max(1.5);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar s{}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"16\" rx=\"2\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            top + 15.0,
            escape(&bar.name),
            bar.colour % COLOURS,
            top + 2.0,
            LEFT + length + 8.0,
            top + 15.0,
            escape(&bar.text)
        );
    }
    svg.push_str("</svg>");
    figure(title, "", &svg, &[])
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    )
}

fn figure(title: &str, unit: &str, svg: &str, series: &[Series]) -> String {
    let mut legend = String::new();
    for line in series.iter().filter(|line| !line.points.is_empty()) {
        let dashes = if line.dashed { " dashed" } else { "" };
        let _ = write!(
            legend,
            "<span class=\"key\"><svg viewBox=\"0 0 24 10\" aria-hidden=\"true\"><path class=\"line{dashes} s{}\" d=\"M1 5L23 5\"/></svg>{}</span>",
            line.colour % COLOURS,
            escape(&line.name)
        );
    }
    let unit = if unit.is_empty() {
        String::new()
    } else {
        format!(" <small>{}</small>", escape(unit))
    };
    format!(
        "<figure><figcaption>{}{unit}</figcaption>{svg}<div class=\"legend\">{legend}</div></figure>\n",
        escape(title)
    )
}

/// The ends of an axis, as places.
#[derive(Clone, Copy, Debug)]
struct Range {
    least: f64,
    most: f64,
}

impl Range {
    /// None of no values. `upright`: begins at 0 if linear, and has room on top.
    fn of(scale: Scale, values: impl Iterator<Item = f64>, upright: bool) -> Option<Self> {
        let places = values.filter(|value| value.is_finite()).map(|value| scale.place(value));
        let (mut least, mut most) = places.fold((f64::MAX, f64::MIN), |(least, most), place| {
            (least.min(place), most.max(place))
        });
        if least > most {
            return None;
        }
        match scale {
            Scale::Linear if upright => {
                least = least.min(0.0);
                most += (most - least) * 0.05;
            }
            // To half a decade, so that the ends are near a tick.
            Scale::Logarithmic => {
                least = (least * 2.0).floor() / 2.0;
                most = (most * 2.0).ceil() / 2.0;
            }
            _ => {}
        }
        if most - least < 1e-9 {
            most = least + 1.0;
        }
        Some(Self { least, most })
    }

    fn share(self, place: f64) -> f64 {
        ((place - self.least) / (self.most - self.least)).clamp(0.0, 1.0)
    }

    /// Values worth a line.
    fn ticks(self, scale: Scale, about: usize) -> Vec<f64> {
        let inside = |value: &f64| {
            let place = scale.place(*value);
            place >= self.least - 1e-9 && place <= self.most + 1e-9
        };
        match scale {
            Scale::Linear => {
                let rough = (self.most - self.least) / about as f64;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .into_iter()
                    .map(|m| m * power)
                    .find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                let first = (self.least / step).ceil() as i64;
                (first..first + 100)
                    .map(|number| number as f64 * step)
                    .take_while(inside)
                    .collect()
            }
            Scale::Logarithmic => {
                let decades = self.most - self.least;
                let marks: &[f64] = match decades {
                    d if d <= 2.0 => &[1.0, 2.0, 5.0],
                    d if d <= 4.0 => &[1.0, 3.0],
                    _ => &[1.0],
                };
                let powers = self.least.floor() as i32..=self.most.ceil() as i32;
                let all = powers.flat_map(|power| marks.iter().map(move |mark| mark * 10_f64.powi(power)));
                all.filter(inside).collect()
            }
            Scale::Percentile => [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999]
                .into_iter()
                .filter(inside)
                .collect(),
        }
    }
}

/// Text as it may stand in HTML and in attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis<'static> {
        Axis {
            name: "a < b",
            scale,
            label: |value| format!("{value}"),
        }
    }

    fn series(points: &[(f64, f64)]) -> Series {
        Series {
            name: "<x>".into(),
            colour: 1,
            dashed: false,
            points: points.to_vec(),
            filled: false,
        }
    }

    #[test]
    fn places_are_within_the_chart_and_text_is_escaped() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = lines(
                "t",
                axis(Scale::Percentile),
                axis(scale),
                &[series(&[(0.0, 0.5), (50.0, 100.0), (100.0, 1e6)])],
                &[],
            );
            assert!(
                svg.contains("&lt;x&gt;") && !svg.contains("<x>") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
            let numbers = svg
                .split("cx=\"")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
            assert!(numbers.clone().count() == 3 && numbers.clone().all(|x| (LEFT..=WIDTH - RIGHT).contains(&x)));
        }
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert_eq!(
            lines("t", axis(Scale::Linear), axis(Scale::Linear), &[series(&[])], &[]),
            ""
        );
        assert_eq!(bars("t", &[]), "");
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let ticks = |scale, values: [f64; 2]| Range::of(scale, values.into_iter(), false).unwrap().ticks(scale, 5);
        assert_eq!(ticks(Scale::Linear, [0.0, 10.0]), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            ticks(Scale::Logarithmic, [1.0, 1000.0]),
            [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
        );
        assert_eq!(
            ticks(Scale::Percentile, [0.0, 99.9]),
            [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9]
        );
        assert_eq!(ticks(Scale::Linear, [5.0, 5.0]).first(), Some(&5.0));
    }
}
