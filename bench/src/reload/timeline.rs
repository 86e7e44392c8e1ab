//! Requests over time as a picture, in SVG: how many, how long they took, and when something changed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::statistics::{nanos, percentile};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 924.0;
/// The two panels, from top to bottom.
const RATE: [f64; 2] = [64.0, 240.0];
const TIMES: [f64; 2] = [280.0, 440.0];
/// Over which requests are added up.
const BIN: Duration = Duration::from_millis(500);
const INK: &str = "#222222";
const RELOAD: &str = "#56b4e9";
const UPGRADE: &str = "#d55e00";
const LINE: &str = "#0072b2";

/// When something changed.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: Duration,
    is_upgrade: bool,
}

impl Mark {
    /// The configuration was reloaded.
    pub fn reload(at: Duration) -> Self {
        Self {
            at,
            is_upgrade: false,
        }
    }

    /// The binary was upgraded.
    pub fn upgrade(at: Duration) -> Self {
        Self { at, is_upgrade: true }
    }
}

/// What happened, and when.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// When each request was sent, and how long its answer took.
    pub samples: Vec<(Duration, Duration)>,
    /// What changed.
    pub marks: Vec<Mark>,
    /// From the beginning to the end.
    pub length: Duration,
}

impl Timeline {
    /// The picture.
    pub fn svg(&self) -> String {
        let bins = self.bins();
        let rates: Vec<f64> = bins
            .iter()
            .map(|bin| bin.len() as f64 / BIN.as_secs_f64())
            .collect();
        let times: Vec<f64> = bins.iter().map(|bin| percentile_millis(bin)).collect();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"34\" font-size=\"18\" font-weight=\"bold\">Requests under reloads and upgrades</text>\n"
        );
        for mark in &self.marks {
            let x = self.x(mark.at);
            let (colour, width) = if mark.is_upgrade {
                (UPGRADE, 2.0)
            } else {
                (RELOAD, 1.0)
            };
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
                RATE[0], TIMES[1]
            );
        }
        self.panel(&mut svg, RATE, "requests/s", &rates);
        self.panel(&mut svg, TIMES, "p99, ms", &times);
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"462\">0 s</text>\n\
             <text x=\"{RIGHT}\" y=\"462\" text-anchor=\"end\">{:.0} s</text>\n\
             <text x=\"{LEFT}\" y=\"486\" fill=\"{RELOAD}\">| reload</text>\n\
             <text x=\"{}\" y=\"486\" fill=\"{UPGRADE}\">| upgrade</text>\n</svg>",
            self.length.as_secs_f64(),
            LEFT + 90.0
        );
        svg
    }

    fn bins(&self) -> Vec<Vec<u64>> {
        let count = self.length.as_nanos() / BIN.as_nanos();
        let mut bins = vec![Vec::new(); usize::try_from(count).unwrap_or_default()];
        for (at, took) in &self.samples {
            let index = usize::try_from(at.as_nanos() / BIN.as_nanos()).unwrap_or(usize::MAX);
            if let Some(bin) = bins.get_mut(index) {
                bin.push(nanos(*took));
            }
        }
        bins.iter_mut().for_each(|bin| bin.sort_unstable());
        bins
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * at.as_secs_f64() / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn panel(&self, svg: &mut String, [top, bottom]: [f64; 2], name: &str, values: &[f64]) {
        let most = values.iter().copied().fold(1.0, f64::max);
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let x = self.x(BIN * u32::try_from(index).unwrap_or(u32::MAX) + BIN / 2);
                format!("{x:.1},{:.1}", bottom - (bottom - top) * value / most)
            })
            .collect();
        let middle = f64::midpoint(top, bottom);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{RIGHT}\" y2=\"{bottom}\" stroke=\"{INK}\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.0}</text>\n\
             <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
             <text x=\"22\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 22 {middle})\">{name}</text>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1.5\"/>",
            LEFT - 8.0,
            top + 4.0,
            LEFT - 8.0,
            points.join(" ")
        );
    }
}

fn percentile_millis(sorted: &[u64]) -> f64 {
    match sorted.is_empty() {
        true => 0.0,
        false => percentile(sorted, 0.99) as f64 / 1e6,
    }
}
