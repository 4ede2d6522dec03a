//! Plots as SVG text: lines, markers, error bars and bars, in colours that show on white and on dark pages.

use std::fmt::Write;

use super::ticks::{Range, Scale};

/// A plot of series against two axes.
pub(super) struct Chart {
    /// What it shows.
    pub(super) title: String,
    /// The horizontal axis.
    pub(super) x: Axis,
    /// The vertical axis.
    pub(super) y: Axis,
    /// What is drawn, from back to front.
    pub(super) series: Vec<Series>,
}

/// An axis: what it measures, with its unit, and how it is divided.
pub(super) struct Axis {
    label: String,
    scale: Scale,
}

/// Points that belong together.
pub(super) struct Series {
    name: String,
    style: Style,
    points: Vec<Point>,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Style {
    /// Markers, connected.
    Line,
    /// Markers alone.
    Markers,
    /// A dashed grey line without markers.
    Dashed,
    /// The area between the ends of the spreads.
    Band,
}

/// A value, with how far it was scattered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Where on the horizontal axis.
    pub(super) x: f64,
    /// Where on the vertical axis.
    pub(super) y: f64,
    /// Lowest and highest `y`.
    pub(super) spread: Option<(f64, f64)>,
}

/// Lines of the series. Each has at least 3:1 of contrast on white and on the darkest page in use.
const COLOURS: &[&str] =
    &["#3b82d6", "#d9730d", "#2f9e5b", "#cf4a86", "#8a63d2", "#0f93a3", "#a67c00", "#d64545"];
/// Text, axes and guides: grey that reads on both.
const INK: &str = "#757d87";

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 72.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 362.0;
const MARGIN: f64 = 20.0;
/// Space that a letter of the legend takes, at most on average.
const LETTER: f64 = 7.0;
const SWATCH: f64 = 34.0;

impl Axis {
    /// An axis; the label ends with the unit.
    pub(super) fn new(label: &str, scale: Scale) -> Axis {
        Axis { label: label.to_owned(), scale }
    }
}

impl Series {
    /// A series.
    pub(super) fn new(name: impl Into<String>, style: Style, points: Vec<Point>) -> Series {
        Series { name: name.into(), style, points }
    }
}

impl Point {
    /// A point with its spread.
    pub(super) fn new(x: f64, y: f64, spread: Option<(f64, f64)>) -> Point {
        Point { x, y, spread }
    }
}

impl Chart {
    /// The SVG; `None` when no point has a place.
    pub(super) fn svg(&self) -> Option<String> {
        let held = |point: &&Point| self.x.scale.holds(point.x) && self.y.scale.holds(point.y);
        let points = || self.series.iter().flat_map(|series| &series.points).filter(held);
        let ends = |point: &Point| point.spread.map_or([point.y; 3], |(low, high)| [low, point.y, high]);
        let legend = self.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0);
        let frame = Frame {
            x: self.x.scale.range(points().map(|point| point.x))?,
            y: self.y.scale.range(points().flat_map(ends))?,
            right: WIDTH - MARGIN - (SWATCH + 10.0 + LETTER * legend as f64).min(WIDTH / 3.0),
        };
        let mut svg = Svg::begin(&self.title, HEIGHT);
        frame.axes(&mut svg, &self.x.label, &self.y.label);
        let mut coloured = 0;
        for (index, series) in self.series.iter().enumerate() {
            let is_placed = |(low, high): &(f64, f64)| self.y.scale.holds(*low) && self.y.scale.holds(*high);
            let placed = |point: &Point| Point { spread: point.spread.filter(is_placed), ..*point };
            let held: Vec<Point> = series.points.iter().filter(held).map(placed).collect();
            frame.series(&mut svg, coloured, series.style, &held);
            frame.key(&mut svg, index, coloured, series);
            coloured += usize::from(matches!(series.style, Style::Line | Style::Markers));
        }
        Some(svg.end())
    }
}

/// Horizontal bars with a label before and a figure behind each; bars of one name share a colour.
pub(super) fn bars(title: &str, label: &str, bars: &[Bar]) -> Option<String> {
    const ROW: f64 = 26.0;
    let ends = |bar: &Bar| [bar.value, bar.spread.map_or(bar.value, |(_, high)| high)];
    let range = Scale::Linear.range(bars.iter().flat_map(ends))?;
    let left = 16.0 + LETTER * bars.iter().map(|bar| bar.label.chars().count()).max()? as f64;
    let (left, right) = (left.clamp(LEFT, WIDTH / 2.0), WIDTH - 80.0);
    let bottom = TOP + ROW * bars.len() as f64;
    let at = |value: f64| left + (right - left) * range.place(value);
    let mut svg = Svg::begin(title, bottom + 58.0);
    for (value, text) in range.ticks() {
        svg.line((at(value), TOP), (at(value), bottom), INK, r#" stroke-opacity="0.3""#);
        svg.text((at(value), bottom + 18.0), "middle", &text);
    }
    svg.text(((left + right) / 2.0, bottom + 42.0), "middle", label);
    for (index, bar) in bars.iter().enumerate() {
        let middle = TOP + ROW * (index as f64 + 0.5);
        let colour = colour(usize::from(!bar.ours));
        svg.text((left - 8.0, middle + 4.0), "end", &bar.label);
        let (y, width, height) = (middle - ROW * 0.35, at(bar.value) - left, ROW * 0.7);
        svg.tag(format_args!(
            r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}" fill-opacity="0.55"/>"#
        ));
        let mut end = at(bar.value);
        if let Some((low, high)) = bar.spread {
            svg.line((at(low), middle), (at(high), middle), colour, r#" stroke-width="2""#);
            for end in [at(low), at(high)] {
                svg.line((end, middle - 4.0), (end, middle + 4.0), colour, r#" stroke-width="2""#);
            }
            end = end.max(at(high));
        }
        svg.text((end + 6.0, middle + 4.0), "start", &bar.figure);
    }
    Some(svg.end())
}

/// One bar.
pub(super) struct Bar {
    /// What it is.
    pub(super) label: String,
    /// Its length.
    pub(super) value: f64,
    /// Lowest and highest length.
    pub(super) spread: Option<(f64, f64)>,
    /// Its length as text.
    pub(super) figure: String,
    /// Whether it takes the first colour.
    pub(super) ours: bool,
}

/// Where the values of a chart lie.
struct Frame {
    x: Range,
    y: Range,
    right: f64,
}

impl Frame {
    fn across(&self, x: f64) -> f64 {
        LEFT + (self.right - LEFT) * self.x.place(x)
    }

    fn down(&self, y: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.y.place(y)
    }

    fn axes(&self, svg: &mut Svg, x_label: &str, y_label: &str) {
        let faint = r#" stroke-opacity="0.3""#;
        for (value, text) in self.x.ticks() {
            let x = self.across(value);
            svg.line((x, TOP), (x, BOTTOM), INK, faint);
            svg.text((x, BOTTOM + 18.0), "middle", &text);
        }
        for (value, text) in self.y.ticks() {
            let y = self.down(value);
            svg.line((LEFT, y), (self.right, y), INK, faint);
            svg.text((LEFT - 8.0, y + 4.0), "end", &text);
        }
        svg.line((LEFT, BOTTOM), (self.right, BOTTOM), INK, "");
        svg.line((LEFT, TOP), (LEFT, BOTTOM), INK, "");
        svg.text(((LEFT + self.right) / 2.0, BOTTOM + 42.0), "middle", x_label);
        let middle = (TOP + BOTTOM) / 2.0;
        svg.tag(format_args!(
            r#"<text transform="translate(18 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escape(y_label)
        ));
    }

    fn series(&self, svg: &mut Svg, coloured: usize, style: Style, points: &[Point]) {
        let colour = if style == Style::Dashed { INK } else { colour(coloured) };
        let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
            let corners = points.map(|(x, y)| format!("{:.1},{:.1}", self.across(x), self.down(y)));
            corners.collect::<Vec<_>>().join(" ")
        };
        if style == Style::Band {
            let low = points.iter().map(|point| (point.x, point.spread.map_or(point.y, |(low, _)| low)));
            let high = points.iter().map(|point| (point.x, point.spread.map_or(point.y, |(_, high)| high)));
            let corners = path(&mut low.chain(high.rev()));
            svg.tag(format_args!(r#"<polygon points="{corners}" fill="{INK}" fill-opacity="0.25"/>"#));
            return;
        }
        if style != Style::Markers {
            let corners = path(&mut points.iter().map(|point| (point.x, point.y)));
            let look = stroke(style);
            svg.tag(format_args!(r#"<polyline points="{corners}" fill="none" stroke="{colour}" {look}/>"#));
        }
        for point in points.iter().filter(|_| style != Style::Dashed) {
            let x = self.across(point.x);
            if let Some((low, high)) = point.spread {
                for (from, to) in [
                    ((x, self.down(low)), (x, self.down(high))),
                    ((x - 3.0, self.down(low)), (x + 3.0, self.down(low))),
                    ((x - 3.0, self.down(high)), (x + 3.0, self.down(high))),
                ] {
                    svg.line(from, to, colour, "");
                }
            }
            svg.marker(coloured, (x, self.down(point.y)));
        }
    }

    /// The entry of the legend.
    fn key(&self, svg: &mut Svg, index: usize, coloured: usize, series: &Series) {
        let (left, y) = (self.right + 14.0, TOP + 10.0 + 20.0 * index as f64);
        let right = left + SWATCH - 10.0;
        let colour = if series.style == Style::Dashed { INK } else { colour(coloured) };
        match series.style {
            Style::Band => svg.tag(format_args!(
                r#"<rect x="{left:.1}" y="{:.1}" width="24" height="12" fill="{INK}" fill-opacity="0.25"/>"#,
                y - 6.0
            )),
            Style::Markers => {}
            Style::Line | Style::Dashed => {
                svg.line((left, y), (right, y), colour, &format!(" {}", stroke(series.style)));
            }
        }
        if matches!(series.style, Style::Line | Style::Markers) {
            svg.marker(coloured, ((left + right) / 2.0, y));
        }
        svg.text((right + 8.0, y + 4.0), "start", &series.name);
    }
}

/// The text of a picture under construction.
struct Svg(String);

impl Svg {
    fn begin(title: &str, height: f64) -> Svg {
        let mut svg = Svg(String::new());
        svg.tag(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">"#
        ));
        let title = escape(title);
        svg.tag(format_args!("<title>{title}</title>"));
        svg.tag(format_args!(r#"<text x="{MARGIN}" y="26" font-size="15" font-weight="600">{title}</text>"#));
        svg
    }

    fn end(mut self) -> String {
        self.tag(format_args!("</svg>"));
        self.0
    }

    /// Appends a line.
    fn tag(&mut self, tag: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.0.write_fmt(tag);
        self.0.push('\n');
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, look: &str) {
        self.tag(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}"{look}/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escape(text);
        self.tag(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    /// The mark of a series: a shape that changes with the colour, and hollow once all colours are used.
    fn marker(&mut self, index: usize, (x, y): (f64, f64)) {
        const SHAPES: &[&str] = &[
            "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z",
            "M-3.6-3.6H3.6V3.6H-3.6Z",
            "M0-4.6L4.4 3.4H-4.4Z",
            "M0-5L5 0L0 5L-5 0Z",
            "M0 4.6L4.4-3.4H-4.4Z",
        ];
        let shape = SHAPES.get(index % SHAPES.len()).copied().unwrap_or_default();
        let colour = colour(index);
        let fill = if (index / COLOURS.len()).is_multiple_of(2) { colour } else { "none" };
        self.tag(format_args!(
            r#"<path d="{shape}" transform="translate({x:.1} {y:.1})" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>"#
        ));
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS.get(index % COLOURS.len()).copied().unwrap_or(INK)
}

fn stroke(style: Style) -> &'static str {
    if style == Style::Dashed {
        r#"stroke-width="1.5" stroke-dasharray="6 5""#
    } else {
        r#"stroke-width="2""#
    }
}

/// Text that XML may contain.
fn escape(text: &str) -> String {
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Panics unless every tag is closed, in order, and nothing but known tags occurs.
    pub(in crate::bench_report) fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("every tag ends");
            assert!(!text.contains('>') && tag.matches('"').count().is_multiple_of(2), "{piece}");
            assert!(!text.replace("&amp;", "").replace("&lt;", "").contains(" & "), "{piece}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().expect("a name");
            assert!(
                ["svg", "title", "text", "line", "polyline", "polygon", "rect", "path"].contains(&name),
                "{tag}"
            );
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty() && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    fn chart(scale: Scale, points: Vec<Point>) -> Chart {
        let styles = [Style::Band, Style::Dashed, Style::Line, Style::Markers];
        Chart {
            title: "a < b & \"c\"\u{7}".to_owned(),
            x: Axis::new("rows", scale),
            y: Axis::new("GB/s", Scale::Linear),
            series: styles.map(|style| Series::new("<s>", style, points.clone())).into(),
        }
    }

    #[test]
    fn svg_is_well_formed() {
        let points = vec![Point::new(1.0, 2.0, None), Point::new(8.0, 3.0, Some((2.5, 3.5)))];
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            let svg = chart(scale, points.clone()).svg().expect("there are points");
            assert_well_formed(&svg);
            assert!(svg.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"));
            assert_eq!(svg.matches("<polyline").count(), 2);
        }
        let bar = |value| Bar {
            label: "peer".to_owned(),
            value,
            spread: Some((value / 2.0, value * 2.0)),
            figure: "1.0".to_owned(),
            ours: value > 1.0,
        };
        assert_well_formed(&bars("t", "tokens/s", &[bar(1.0), bar(2.0), bar(0.0)]).expect("there are bars"));
    }

    #[test]
    fn values_without_a_place_are_left_out() {
        assert!(chart(Scale::Log10, vec![Point::new(0.0, 1.0, None)]).svg().is_none());
        assert!(chart(Scale::Log10, Vec::new()).svg().is_none());
        let points = vec![Point::new(1.0, 1.0, Some((0.0, 2.0))), Point::new(0.0, 1.0, None)];
        let mut chart = chart(Scale::Log10, points);
        chart.y.scale = Scale::Log10;
        assert_well_formed(&chart.svg().expect("one point has a place"));
        assert!(bars("t", "x", &[]).is_none());
    }

    #[test]
    fn colours_show_on_white_and_on_dark() {
        let channel = |colour: &str, at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal")) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let luminance =
            |c: &str| 0.2126 * channel(c, 1) + 0.7152 * channel(c, 3) + 0.0722 * channel(c, 5) + 0.05;
        for colour in COLOURS.iter().chain([&INK]) {
            let (white, dark) = (1.05 / luminance(colour), luminance(colour) / luminance("#0d1117"));
            assert!(white >= 3.0 && dark >= 3.0, "{colour}: {white:.2} on white, {dark:.2} on dark");
        }
    }
}
