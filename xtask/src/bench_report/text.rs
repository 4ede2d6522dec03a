//! Numbers and Markdown as text.

use std::collections::BTreeMap;

use super::chart::Chart;

/// What stands for a figure that was not measured.
pub(super) const ABSENT: &str = "–";

/// The report under construction: its text, and the plots by file name.
#[derive(Default)]
pub(super) struct Page {
    /// Markdown.
    pub(super) text: String,
    /// SVG by name, without `.svg`.
    pub(super) plots: BTreeMap<String, String>,
}

impl Page {
    /// A paragraph, heading or anything else that stands between empty lines.
    pub(super) fn paragraph(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A line on where figures would come from.
    pub(super) fn absent(&mut self, file: &str, command: &str) {
        self.paragraph(&format!(
            "Not measured: the result of `{command}`, kept as `docs/benchmarks/{file}.json`, appears here."
        ));
    }

    /// A table. Cells may hold anything.
    pub(super) fn table<S: AsRef<str>>(&mut self, heads: &[S], rows: &[Vec<String>]) {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let escape = |cell: &str| cell.replace('|', "\\|").replace(['\n', '\r'], " ");
        let mut table = line(heads.iter().map(|head| escape(head.as_ref())).collect());
        let rule = (0..heads.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned());
        table.push_str(&line(rule.collect()));
        for row in rows {
            table.push_str(&line(row.iter().map(|cell| escape(cell)).collect()));
        }
        self.paragraph(table.trim_end());
    }

    /// A plot, unless it would be empty.
    pub(super) fn plot(&mut self, name: &str, chart: &Chart) {
        if let Some(svg) = chart.svg() {
            self.picture(name, &chart.title, svg);
        }
    }

    /// A picture.
    pub(super) fn picture(&mut self, name: &str, title: &str, svg: String) {
        self.paragraph(&format!("![{}](benchmarks/{name}.svg)", title.replace(['[', ']'], " ")));
        self.plots.insert(name.to_owned(), svg);
    }
}

/// Text as inline code, on one line.
pub(super) fn code(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

/// A number with three significant digits, or all of those before the point.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits_before = (value.abs() * 1.000_5).log10().floor() as i32 + 1;
    format!("{value:.*}", (3 - digits_before).clamp(0, 9) as usize)
}

/// A number that may be absent.
pub(super) fn maybe(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), show)
}

/// A number with its spread.
pub(super) fn spread(value: f64, spread: Option<(f64, f64)>, show: impl Fn(f64) -> String) -> String {
    match spread {
        Some((low, high)) => format!("{} ({}–{})", show(value), show(low), show(high)),
        None => show(value),
    }
}

/// A share as whole percent, with a decimal below ten.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value > 0.0 && value < 9.95 { format!("{value:.1} %") } else { format!("{value:.0} %") }
}

/// A share as percent, without the sign.
pub(super) fn percentage(share: f64) -> String {
    percent(share).trim_end_matches(" %").to_owned()
}

/// A size in binary units.
pub(super) fn bytes(value: f64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut unit = "B";
    for next in UNITS {
        unit = next;
        if value < 1023.5 {
            break;
        }
        if *next != "TiB" {
            value /= 1024.0;
        }
    }
    let number = if value == value.trunc() { format!("{value}") } else { short(value) };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (0.012_345, "0.0123"),
            (123.4, "123"),
            (45_678.0, "45678"),
        ] {
            assert_eq!(short(value), text);
        }
        for (value, text) in [
            (0.0, "0 B"),
            (512.0, "512 B"),
            (4_194_304.0, "4 MiB"),
            (1.5 * 1024.0, "1.50 KiB"),
            (1023.9, "1.00 KiB"),
            (5e15, "4547 TiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (share, text) in [(0.0, "0 %"), (0.034, "3.4 %"), (0.0999, "10 %"), (1.014, "101 %")] {
            assert_eq!(percent(share), text);
        }
        assert_eq!(spread(1.0, Some((0.5, 2.0)), short), "1.00 (0.500–2.00)");
    }

    #[test]
    fn cells_and_commands_cannot_break_the_page() {
        let mut page = Page::default();
        page.table(&["a|b", "c"], &[vec!["x\ny".to_owned(), "|".to_owned()]]);
        assert_eq!(page.text, "| a\\|b | c |\n| --- | ---: |\n| x y | \\| |\n");
        assert_eq!(code("a\n  b"), "`a b`");
        assert_eq!(code("echo `a`"), "`` echo `a` ``");
    }
}
