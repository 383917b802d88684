//! Line plots as SVG, for embedding in an HTML page. They have CSS classes instead of styles, so
//! that the page chooses light or dark colours.
//!
//! This module knows numbers and names, but not their meaning.

use std::fmt::Write as _;

/// A named line with points in ascending order of x. A point without a value interrupts it.
pub(super) struct Line {
    /// Name shown in the legend.
    pub(super) name: String,
    /// The points.
    pub(super) points: Vec<Point>,
}

/// A point of a line.
#[derive(Clone, Copy)]
pub(super) struct Point {
    /// Position on the x axis.
    pub(super) x: f64,
    /// Value; `None` if there is none.
    pub(super) y: Option<f64>,
}

/// A plot of one or more lines.
pub(super) struct Plot<'a> {
    /// Title shown above the plot.
    pub(super) title: &'a str,
    /// Label of the x axis.
    pub(super) x: &'a str,
    /// Unit of the y axis.
    pub(super) unit: &'a str,
    /// The lines; a line without any value is omitted.
    pub(super) lines: Vec<Line>,
    /// Start of the measurement on the x axis; the area before it is shaded.
    pub(super) from: Option<f64>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Number of distinct line colours.
const COLOURS: usize = 7;
/// Maximum number of points with markers, which show their values as tooltips. With more points,
/// markers would hide the line.
const MARKED: usize = 120;

impl Plot<'_> {
    /// Renders the plot as a `<figure>`; empty if there is no value.
    pub(super) fn to_html(&self) -> String {
        let lines: Vec<_> = self.lines.iter().filter(|line| line.points.iter().any(|point| point.y.is_some())).collect();
        if lines.is_empty() {
            return String::new();
        }
        let all = || lines.iter().flat_map(|line| &line.points).filter_map(|point| Some((point.x, point.y?)));
        let (from_x, to_x) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (x, _)| (low.min(x), high.max(x)));
        let to_x = if to_x > from_x { to_x } else { from_x + 1.0 };
        let step = step_of(all().map(|(_, y)| y).fold(0.0, f64::max));
        let top = (all().map(|(_, y)| y).fold(0.0, f64::max) / step).ceil().max(1.0) * step;
        let px = |x: f64| LEFT + (x - from_x) / (to_x - from_x) * (WIDTH - LEFT - RIGHT);
        let py = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = String::new();
        if let Some(from) = self.from.filter(|from| *from > from_x) {
            let width = px(from.min(to_x)) - px(from_x);
            _ = write!(svg, r#"<rect class="shade" x="{LEFT}" y="{TOP}" width="{width:.1}" height="{:.1}"/>"#, HEIGHT - TOP - BOTTOM);
        }
        let mut level = 0.0;
        while level <= top + step / 2.0 {
            let y = py(level);
            _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#, WIDTH - RIGHT);
            _ = write!(svg, r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 6.0, y + 4.0, short(level));
            level += step;
        }
        let across = step_of(to_x - from_x);
        let mut at = (from_x / across).ceil() * across;
        while at <= to_x + 1e-9 {
            _ = write!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                px(at),
                HEIGHT - BOTTOM + 16.0,
                short(at)
            );
            at += across;
        }
        _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escape(self.x)
        );
        for (index, line) in lines.iter().enumerate() {
            let colour = index % COLOURS;
            let mut path = String::new();
            let mut pen_is_down = false;
            for Point { x, y } in &line.points {
                if let Some(y) = y {
                    _ = write!(path, "{}{:.1} {:.1}", if pen_is_down { "L" } else { "M" }, px(*x), py(*y));
                }
                pen_is_down = y.is_some();
            }
            _ = write!(svg, r#"<path class="line c{colour}" d="{path}"/>"#);
            let values: Vec<_> = line.points.iter().filter_map(|point| Some((point.x, point.y?))).collect();
            if values.len() <= MARKED {
                for (x, y) in values {
                    let title = format!("{}, {} {}: {} {}", escape(&line.name), short(x), escape(self.x), short(y), escape(self.unit));
                    _ = write!(
                        svg,
                        r#"<circle class="mark c{colour}" cx="{:.1}" cy="{:.1}" r="2.5"><title>{title}</title></circle>"#,
                        px(x),
                        py(y)
                    );
                }
            }
        }
        let legend: String = lines
            .iter()
            .enumerate()
            .map(|(index, line)| format!(r#"<span class="key c{}">{}</span>"#, index % COLOURS, escape(&line.name)))
            .collect();
        let (title, unit) = (escape(self.title), escape(self.unit));
        format!(
            r#"<figure><figcaption><b>{title}</b>, {unit} <span class="legend">{legend}</span></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{svg}</svg></figure>"#
        )
    }
}

/// Returns the distance between two ticks of an axis: 1, 2 or 5 times a power of ten, which gives
/// four to nine ticks.
fn step_of(range: f64) -> f64 {
    let power = 10.0_f64.powf((range.max(1e-6) / 5.0).log10().floor());
    let times = range / 5.0 / power;
    power
        * if times < 1.5 {
            1.0
        } else if times < 3.5 {
            2.0
        } else if times < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// Formats a number with about three significant digits.
fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 || value.fract().abs() < 1e-6 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, Option<f64>)>) -> String {
        Plot {
            title: "T<",
            x: "s",
            unit: "ms",
            lines: vec![Line { name: "a&b".into(), points: points.into_iter().map(|(x, y)| Point { x, y }).collect() }],
            from: Some(1.0),
        }
        .to_html()
    }

    #[test]
    fn a_plotted_line_is_interrupted_where_there_is_no_value() {
        let html = plot(vec![(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(2.0)), (4.0, Some(3.0))]);
        let path = html.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 2), "{path}");
        assert!(html.contains("T&lt;") && html.contains("a&amp;b") && !html.contains("a&b<"));
        assert!(html.contains(r#"class="shade""#));
    }

    #[test]
    fn without_values_there_is_no_plot() {
        assert_eq!(plot(vec![(0.0, None)]), "");
        assert_eq!(plot(Vec::new()), "");
    }

    #[test]
    fn one_point_and_zero_are_drawn_without_dividing_by_nothing() {
        for html in [plot(vec![(0.0, Some(0.0))]), plot(vec![(5.0, Some(7.0))])] {
            assert!(html.contains("<circle") && !html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }

    #[test]
    fn axes_have_round_steps() {
        assert_eq!([0.9, 1.0, 7.0, 30.0, 450.0, 99_000.0].map(step_of), [0.2, 0.2, 1.0, 5.0, 100.0, 20_000.0]);
    }
}
