//! Distributions of times as a picture: cumulative shares over a logarithmic axis, in SVG.

use std::fmt::Write as _;
use std::time::Duration;

use crate::statistics::{percentile, sorted_nanos};

/// A picture of some distributions.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// What the times are.
    pub x_axis: String,
    /// What the shares are of.
    pub y_axis: String,
    /// What is hoped for.
    pub target: Option<Target>,
    /// The distributions.
    pub lines: Vec<Line>,
}

/// A time that is marked.
#[derive(Clone, Debug)]
pub struct Target {
    /// The time.
    pub at: Duration,
    /// What is written beside it.
    pub name: String,
}

/// One distribution.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Whether it is dashed.
    pub dashed: bool,
    /// The times, in any order.
    pub times: Vec<Duration>,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 924.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 420.0;
/// From the frame to the first line of the legend, and from line to line.
const LEGEND_GAP: f64 = 96.0;
const LEGEND_STEP: f64 = 24.0;
/// Where the legend's columns of figures end.
const FIGURES: [f64; 4] = [520.0, 640.0, 760.0, 880.0];
/// Told apart also by those who see few colours.
const COLOURS: [&str; 4] = ["#0072b2", "#56b4e9", "#d55e00", "#e69f00"];
const INK: &str = "#222222";
const PALE: &str = "#e3e3e3";
const GREY: &str = "#666666";
const TARGET_COLOUR: &str = "#117733";

impl Plot {
    /// The picture.
    pub fn svg(&self) -> String {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| (line, sorted_nanos(line.times.iter().copied())))
            .collect();
        let target = self.target.iter().map(|target| nanoseconds(target.at));
        let times = lines
            .iter()
            .flat_map(|(_, sorted)| sorted.iter().map(|time| *time as f64));
        let axis = Axis::around(times.chain(target));
        let height = BOTTOM + LEGEND_GAP + LEGEND_STEP * lines.len() as f64 + 16.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        text(
            &mut svg,
            LEFT,
            34.0,
            "font-size=\"18\" font-weight=\"bold\"",
            &self.title,
        );
        self.grid(&mut svg, &axis);
        for (number, (line, sorted)) in lines.iter().enumerate() {
            draw(
                &mut svg,
                &axis,
                COLOURS[number % COLOURS.len()],
                line.dashed,
                sorted,
            );
        }
        legend(&mut svg, &lines);
        svg.push_str("</svg>\n");
        svg
    }

    fn grid(&self, svg: &mut String, axis: &Axis) {
        for (time, labelled) in axis.ticks() {
            let x = axis.x(time);
            rule(svg, [x, TOP, x, BOTTOM], &format!("stroke=\"{PALE}\""));
            if labelled {
                text(svg, x, BOTTOM + 20.0, "text-anchor=\"middle\"", &label(time));
            }
        }
        for percent in [0, 25, 50, 75, 100] {
            let y = y(f64::from(percent) / 100.0);
            rule(svg, [LEFT, y, RIGHT, y], &format!("stroke=\"{PALE}\""));
            text(
                svg,
                LEFT - 10.0,
                y + 4.0,
                "text-anchor=\"end\"",
                &format!("{percent} %"),
            );
        }
        let percentile = y(0.99);
        let dashed = format!("stroke=\"{GREY}\" stroke-dasharray=\"2 3\"");
        rule(svg, [LEFT, percentile, RIGHT, percentile], &dashed);
        let grey = format!("font-size=\"11\" fill=\"{GREY}\"");
        text(svg, RIGHT + 4.0, percentile + 4.0, &grey, "99 %");
        rule(svg, [LEFT, BOTTOM, RIGHT, BOTTOM], &format!("stroke=\"{INK}\""));
        rule(svg, [LEFT, TOP, LEFT, BOTTOM], &format!("stroke=\"{INK}\""));
        let middle = f64::midpoint(LEFT, RIGHT);
        text(svg, middle, BOTTOM + 44.0, "text-anchor=\"middle\"", &self.x_axis);
        let (x, y) = (22.0, f64::midpoint(TOP, BOTTOM));
        let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\"");
        text(svg, x, y, &turned, &self.y_axis);
        if let Some(target) = &self.target {
            let x = axis.x(nanoseconds(target.at));
            let style = format!("stroke=\"{TARGET_COLOUR}\" stroke-width=\"1.5\" stroke-dasharray=\"7 4\"");
            rule(svg, [x, TOP - 8.0, x, BOTTOM], &style);
            // On the side where there is more room.
            let (anchor, gap) = if x > middle { ("end", -6.0) } else { ("start", 6.0) };
            let style = format!("text-anchor=\"{anchor}\" font-size=\"12\" fill=\"{TARGET_COLOUR}\"");
            text(svg, x + gap, TOP - 10.0, &style, &target.name);
        }
    }
}

/// The distribution: the share of times that are at most so long. A mark stands where it reaches
/// 99 of 100.
fn draw(svg: &mut String, axis: &Axis, colour: &str, dashed: bool, sorted: &[u64]) {
    if sorted.is_empty() {
        return;
    }
    let at_once = sorted.partition_point(|time| axis.x(*time as f64) <= LEFT);
    let mut path = format!("M{LEFT:.1} {:.1}", y(at_once as f64 / sorted.len() as f64));
    let mut drawn = LEFT;
    for (position, time) in sorted.iter().enumerate().skip(at_once) {
        let x = axis.x(*time as f64);
        // Only the highest of those that nobody can tell apart.
        let next = sorted.get(position + 1).map(|next| axis.x(*next as f64));
        if next.is_some_and(|next| next - drawn < 0.5) {
            continue;
        }
        let share = (position + 1) as f64 / sorted.len() as f64;
        let _ = write!(path, "H{x:.1}V{:.1}", y(share));
        drawn = x;
    }
    let dash = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"{dash}/>"
    );
    let x = axis.x(percentile(sorted, 0.99) as f64);
    let _ = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\" stroke=\"#ffffff\"/>",
        y(0.99)
    );
}

fn legend(svg: &mut String, lines: &[(&Line, Vec<u64>)]) {
    let head = BOTTOM + LEGEND_GAP - LEGEND_STEP;
    let grey = format!("text-anchor=\"end\" fill=\"{GREY}\"");
    for (x, name) in FIGURES.iter().zip(["number", "p50", "p99", "max"]) {
        text(svg, *x, head + 4.0, &grey, name);
    }
    for (number, (line, sorted)) in lines.iter().enumerate() {
        let y = head + LEGEND_STEP * (number + 1) as f64;
        let colour = COLOURS[number % COLOURS.len()];
        let dash = if line.dashed {
            " stroke-dasharray=\"6 4\""
        } else {
            ""
        };
        rule(
            svg,
            [LEFT, y, LEFT + 34.0, y],
            &format!("stroke=\"{colour}\" stroke-width=\"3\"{dash}"),
        );
        text(svg, LEFT + 46.0, y + 4.0, "", &line.name);
        let at = |share| label(percentile(sorted, share) as f64);
        let figures = [sorted.len().to_string(), at(0.5), at(0.99), at(1.0)];
        for (x, figure) in FIGURES.iter().zip(figures) {
            text(svg, *x, y + 4.0, "text-anchor=\"end\"", &figure);
        }
    }
}

/// The logarithmic axis of nanoseconds.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// The shortest from one of 1, 2, 5 to another that holds all times. Zero has no place on it and
    /// is drawn at its beginning.
    fn around(times: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for time in times.filter(|time| *time > 0.0) {
            least = least.min(time);
            most = most.max(time);
        }
        if most == 0.0 {
            (least, most) = (1e3, 1e6);
        }
        let below = steps().take_while(|step| *step <= least).last();
        let from = below.unwrap_or(1.0);
        let above = steps().find(|step| *step >= most && *step > from);
        Self {
            from,
            to: above.unwrap_or(most.max(from * 2.0)),
        }
    }

    fn x(&self, time: f64) -> f64 {
        let share = (time.max(self.from) / self.from).ln() / (self.to / self.from).ln();
        LEFT + (RIGHT - LEFT) * share
    }

    /// Every multiple of a power of ten, with a label at 1, 2 and 5.
    fn ticks(&self) -> impl Iterator<Item = (f64, bool)> {
        let multiples = (0..=10).flat_map(|power| (1..=9).map(move |multiple| (power, multiple)));
        multiples
            .map(|(power, multiple)| {
                (
                    f64::from(multiple) * 10_f64.powi(power),
                    matches!(multiple, 1 | 2 | 5),
                )
            })
            .filter(|(time, _)| (self.from..=self.to).contains(time))
    }
}

/// 1, 2, 5, 10, ... nanoseconds, to 100 seconds.
fn steps() -> impl Iterator<Item = f64> {
    (0..=10).flat_map(|power| [1.0, 2.0, 5.0].map(|multiple| multiple * 10_f64.powi(power)))
}

fn y(share: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * share
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A time for people, with three digits at most where that is exact enough to read.
fn label(nanoseconds: f64) -> String {
    let (number, unit) = match nanoseconds {
        below if below < 1e3 => (below, "ns"),
        below if below < 1e6 => (below / 1e3, "µs"),
        below if below < 1e9 => (below / 1e6, "ms"),
        above => (above / 1e9, "s"),
    };
    let digits = match number {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{number:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} {unit}")
}

fn rule(svg: &mut String, [from_x, from_y, to_x, to_y]: [f64; 4], style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{from_x:.1}\" y1=\"{from_y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\" {style}/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (nanoseconds, expected) in [
            (0.0, "0 ns"),
            (900.0, "900 ns"),
            (1_000.0, "1 µs"),
            (74_400.0, "74.4 µs"),
            (1_235_000.0, "1.24 ms"),
            (123_400_000.0, "123 ms"),
            (200_000_000.0, "200 ms"),
            (2e9, "2 s"),
        ] {
            assert_eq!(label(nanoseconds), expected);
        }
    }

    #[test]
    fn the_axis_holds_every_time() {
        let axis = Axis::around([0.0, 60_000.0, 3e6].into_iter());
        assert_eq!((axis.from, axis.to), (5e4, 5e6));
        assert!((axis.x(0.0) - LEFT).abs() < 1e-9 && (axis.x(5e6) - RIGHT).abs() < 1e-9);
        let labelled = axis.ticks().filter(|(_, labelled)| *labelled).count();
        assert_eq!(labelled, 7);
        // Nothing but zeros, and nothing at all, can be drawn too.
        assert!(Axis::around([0.0].into_iter()).from < Axis::around([].into_iter()).to);
        assert!(Axis::around([5e3].into_iter()).to > 5e3);
    }

    #[test]
    fn names_do_not_end_their_element() {
        let plot = Plot {
            title: "a < b & c".into(),
            x_axis: String::new(),
            y_axis: String::new(),
            target: None,
            lines: vec![Line {
                name: "one".into(),
                dashed: false,
                times: vec![Duration::from_millis(1); 3],
            }],
        };
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b &amp; c"));
        assert_eq!(svg.matches("<path").count(), 1);
    }
}
