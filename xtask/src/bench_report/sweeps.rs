//! Whole sweeps: the disk's share, the knee, what pinning gives, how good predictions are, what memory it takes.

use anyhow::Result;

use super::chart::{Axis, Chart, Point, Series, Style};
use super::source::{Node, Source};
use super::text::{ABSENT, Page, bytes, code, maybe, percent, short, spread};
use super::ticks::Scale;

/// The share of a sweep below which waiting for reads does not count.
const WAITING_SHARE_MAX: f64 = 0.1;
/// The share of weights below which nothing counts as pinned.
const PINNED_NOTHING: f64 = 0.01;
/// How far a prediction may be off.
const PREDICTION_TOLERANCE: f64 = 0.1;
const GIBIBYTE: f64 = (1u64 << 30) as f64;

/// Everything that is measured by whole sweeps.
///
/// # Errors
/// A file lacks a field.
pub(super) fn sweeps(page: &mut Page, sources: &[Source]) -> Result<()> {
    page.paragraph("## Sweeps");
    let files = sources.iter().filter(|source| source.name.starts_with("sweep"));
    let files = files.map(Sweeps::read).collect::<Result<Vec<_>>>()?;
    let cache = sources.iter().find(|source| source.name == "page-cache");
    if files.is_empty() {
        page.absent("sweep-NAME", "aerostat bench sweep MODEL --json");
    } else {
        page.paragraph(
            "A sweep reads all weights that are not pinned and computes all rows. Names in the tables, with the \
             command and the machine that measured them; figures in brackets are the lowest and the highest round.",
        );
        let lines = files.iter().map(|file| file.introduction.as_str()).collect::<Vec<_>>();
        page.paragraph(&lines.join("\n"));
    }
    share_of_raw(page, &files);
    rows(page, &files);
    pinned(page, &files, cache)?;
    predictions(page, &files);
    memory(page, &files);
    Ok(())
}

/// The points of one file.
struct Sweeps {
    file: String,
    name: String,
    introduction: String,
    points: Vec<Sweep>,
}

/// One measurement. Times in seconds, sizes in bytes, rates by second.
struct Sweep {
    rows: f64,
    pinned: f64,
    streamed: Option<f64>,
    weights: Option<f64>,
    budget: Option<f64>,
    seconds: f64,
    seconds_spread: Option<(f64, f64)>,
    predicted: Option<f64>,
    stall: Option<f64>,
    compute: Option<f64>,
    tokens: f64,
    read_rate: Option<f64>,
    raw_rate: Option<f64>,
    fraction: Option<f64>,
    fraction_spread: Option<(f64, f64)>,
    peak: Option<f64>,
}

impl Sweeps {
    fn read(source: &Source) -> Result<Sweeps> {
        let root = source.root();
        let model = root.text_if_any("model")?;
        let model = model.as_deref().map(|model| model.trim_end_matches('/'));
        let model = model.map(|model| model.rsplit_once('/').map_or(model, |(_, last)| last));
        let name = match source.name.trim_start_matches("sweep").trim_start_matches('-') {
            "" => model.unwrap_or(&source.name),
            name => name,
        };
        let shown = model.map(|model| format!(" ({})", code(model))).unwrap_or_default();
        let points = root.list("points")?.iter().map(Sweep::read).collect::<Result<Vec<_>>>()?;
        Ok(Sweeps {
            file: source.name.clone(),
            name: name.to_owned(),
            introduction: format!("- {name}{shown}: {}", source.provenance()?),
            points,
        })
    }

    /// The points with the smallest part of the weights pinned, by rows.
    fn least_pinned(&self) -> Vec<&Sweep> {
        let least = self.points.iter().map(|point| point.pinned).fold(f64::INFINITY, f64::min);
        let mut points: Vec<_> =
            self.points.iter().filter(|point| point.pinned < least + PINNED_NOTHING).collect();
        points.sort_by(|a, b| a.rows.total_cmp(&b.rows));
        points
    }

    /// The points of the number of rows with most different parts pinned, and what nothing pinned takes.
    fn by_pinned(&self) -> Option<(Vec<&Sweep>, &Sweep)> {
        let of_rows = |rows: f64| self.points.iter().filter(move |point| point.rows == rows);
        let mut best: Vec<&Sweep> = Vec::new();
        for point in self.least_pinned() {
            let same: Vec<_> = of_rows(point.rows).collect();
            if same.len() > best.len() {
                best = same;
            }
        }
        best.sort_by(|a, b| a.pinned.total_cmp(&b.pinned));
        let base = *best.first().filter(|base| base.pinned < PINNED_NOTHING)?;
        let reaches = best.last().is_some_and(|last| last.pinned > PINNED_NOTHING);
        reaches.then_some((best, base))
    }
}

impl Sweep {
    fn read(node: &Node<'_>) -> Result<Sweep> {
        let (rows, seconds) = (node.positive("rows")?, node.positive("sweep_seconds")?);
        let seconds_spread = node.spread("sweep_seconds_spread")?.filter(|(low, _)| *low > 0.0);
        Ok(Sweep {
            rows,
            pinned: node.number_if_any("pinned_fraction")?.unwrap_or(0.0),
            streamed: node.number_if_any("streamed_bytes")?,
            weights: node.number_if_any("weight_bytes")?.filter(|&weights| weights > 0.0),
            budget: node.number_if_any("memory_budget_bytes")?,
            seconds,
            seconds_spread,
            predicted: node.number_if_any("predicted_seconds")?.filter(|&predicted| predicted > 0.0),
            stall: node.number_if_any("stall_seconds")?,
            compute: node.number_if_any("compute_seconds")?,
            tokens: node.number_if_any("tokens_per_second")?.unwrap_or(rows / seconds),
            read_rate: node.number_if_any("read_bytes_per_second")?,
            raw_rate: node.number_if_any("raw_bytes_per_second")?,
            fraction: node.number_if_any("fraction_of_raw")?,
            fraction_spread: node.spread("fraction_spread")?,
            peak: node.number_if_any("memory_peak_bytes")?.filter(|&peak| peak > 0.0),
        })
    }

    /// The share of the sweep that waits for reads.
    fn waiting(&self) -> Option<f64> {
        self.stall.map(|stall| stall / self.seconds)
    }

    /// Whether computing, not reading, takes the time; `one` is the sweep of one row.
    fn is_bound_by_computing(&self, one: &Sweep) -> bool {
        let busy = match (self.waiting(), self.compute) {
            (Some(waiting), _) => waiting < WAITING_SHARE_MAX,
            (None, Some(compute)) => compute / self.seconds > 1.0 - WAITING_SHARE_MAX,
            (None, None) => self.seconds > 1.5 * one.seconds,
        };
        busy && self.rows > one.rows && self.seconds > one.seconds
    }

    /// Lowest and highest tokens per second.
    fn tokens_spread(&self) -> Option<(f64, f64)> {
        let scaled = |seconds: f64| self.tokens * self.seconds / seconds;
        self.seconds_spread.map(|(low, high)| (scaled(high), scaled(low)))
    }

    /// Times as a multiple of another sweep's.
    fn relative(&self, base: f64) -> (f64, Option<(f64, f64)>) {
        (self.seconds / base, self.seconds_spread.map(|(low, high)| (low / base, high / base)))
    }

    fn ratio_of_prediction(&self) -> Option<f64> {
        self.predicted.map(|predicted| predicted / self.seconds)
    }
}

/// The knee by the largest point: its rows times the one-row sweep over its own. `None` while reading bounds it.
fn knee(one: &Sweep, largest: &Sweep) -> Option<f64> {
    largest.is_bound_by_computing(one).then(|| largest.rows * one.seconds / largest.seconds)
}

fn share_of_raw(page: &mut Page, files: &[Sweeps]) {
    let gigabytes = |rate: f64| short(rate / 1e9);
    let mut rows = Vec::new();
    for file in files {
        for point in file.points.iter().filter(|point| point.streamed != Some(0.0)) {
            let Some(fraction) = point.fraction else { continue };
            rows.push(vec![
                file.name.clone(),
                point.rows.to_string(),
                percent(point.pinned),
                maybe(point.read_rate, gigabytes),
                maybe(point.raw_rate, gigabytes),
                spread(fraction, point.fraction_spread, |value| format!("{value:.2}")),
                maybe(point.waiting(), percent),
            ]);
        }
    }
    if rows.is_empty() {
        return;
    }
    page.paragraph("### Share of the disk");
    page.paragraph(
        "Weights read over the wall time of whole generations, beside raw reads of the same files before and after \
         each. A share of 1 means that the disk was never idle; it falls below 1 where computing takes longer than \
         reading (past the knee), or where little is left to read. Waiting is the share of the sweep in which nothing \
         could be computed because a read was not done.",
    );
    let heads = ["model", "rows", "pinned", "read GB/s", "raw GB/s", "share of raw", "waiting"];
    page.table(&heads, &rows);
}

fn rows(page: &mut Page, files: &[Sweeps]) {
    let is_measured = |file: &&Sweeps| {
        let points = file.least_pinned();
        points.first().zip(points.last()).is_some_and(|(first, last)| first.rows < last.rows)
    };
    let mut files = files.iter().filter(is_measured).peekable();
    if files.peek().is_none() {
        return;
    }
    page.paragraph("### Rows");
    page.paragraph(
        "Tokens per second by rows of a sweep. Up to the knee, where computing takes as long as reading, a row more \
         costs nothing: tokens per second follow the ideal, rows times the rate of one row. The knee is computed from \
         the largest number of rows, when that is bound by computing: its rows, times the sweep of one row over its \
         own sweep.",
    );
    for file in files {
        rows_of_one(page, file);
    }
}

fn rows_of_one(page: &mut Page, file: &Sweeps) {
    let points = file.least_pinned();
    let one = points.first().filter(|point| point.rows == 1.0).copied();
    let ideal = |rows: f64| one.map(|one| one.tokens * rows);
    let line = |point: &&Sweep| {
        vec![
            point.rows.to_string(),
            spread(point.seconds, point.seconds_spread, short),
            spread(point.tokens, point.tokens_spread(), short),
            maybe(ideal(point.rows), short),
            maybe(ideal(point.rows), |ideal| percent(point.tokens / ideal)),
            maybe(point.waiting(), percent),
        ]
    };
    page.paragraph(&format!("#### {}", file.name));
    let knee = one.zip(points.last()).map(|(one, largest)| (knee(one, largest), largest.rows));
    match knee {
        Some((Some(knee), rows)) => {
            page.paragraph(&format!("Knee: {knee:.0} rows (from the sweep of {rows} rows)."));
        }
        Some((None, rows)) => page.paragraph(&format!(
            "No knee up to {rows} rows: that sweep is not bound by computing, or not longer than that of one row."
        )),
        None => page.paragraph("No knee: one row was not measured."),
    }
    let heads = ["rows", "sweep, s", "tokens/s", "ideal", "of the ideal", "waiting"];
    page.table(&heads, &points.iter().map(line).collect::<Vec<_>>());
    let measured = points.iter().map(|point| Point::new(point.rows, point.tokens, point.tokens_spread()));
    let mut series = Vec::new();
    if let Some(one) = one {
        let ideal = points.iter().map(|point| Point::new(point.rows, one.tokens * point.rows, None));
        series.push(Series::new("ideal", Style::Dashed, ideal.collect()));
    }
    series.push(Series::new("measured", Style::Line, measured.collect()));
    if let (Some(one), Some((Some(knee), _))) = (one, knee) {
        let place = Point::new(knee, one.tokens * knee, None);
        series.push(Series::new(format!("knee: {knee:.0} rows"), Style::Markers, vec![place]));
    }
    let chart = Chart {
        title: format!("{}: tokens per second by rows", file.name),
        x: Axis::new("rows", Scale::Log2),
        y: Axis::new("tokens/s", Scale::Log10),
        series,
    };
    page.plot(&format!("rows-{}", file.file), &chart);
}

fn pinned(page: &mut Page, files: &[Sweeps], cache: Option<&Source>) -> Result<()> {
    let mut table = Vec::new();
    let ideal =
        (0..=10).map(|tenth| f64::from(tenth) / 10.0).map(|share| Point::new(share, 1.0 - share, None));
    let mut series = vec![Series::new("ideal: 1 - pinned", Style::Dashed, ideal.collect())];
    for file in files {
        let Some((points, base)) = file.by_pinned() else { continue };
        let label = format!("{}, rows: {}", file.name, base.rows);
        let measured = points.iter().map(|point| {
            let (relative, ends) = point.relative(base.seconds);
            table.push(pinned_row(&label, point.pinned, (point.seconds, point.seconds_spread), relative));
            Point::new(point.pinned, relative, ends)
        });
        series.push(Series::new(label.clone(), Style::Line, measured.collect()));
    }
    if let Some(source) = cache {
        let points = page_cache(source)?;
        let base = points.first().map_or(1.0, |point| point.y);
        let label = "page cache (LRU)";
        let relative = points.iter().map(|point| {
            table.push(pinned_row(label, point.x, (point.y, point.spread), point.y / base));
            Point::new(point.x, point.y / base, point.spread.map(|(low, high)| (low / base, high / base)))
        });
        series.push(Series::new(label, Style::Line, relative.collect()));
    }
    if table.is_empty() && files.is_empty() {
        return Ok(());
    }
    page.paragraph("### Pinned weights");
    page.paragraph(
        "Time of a sweep against the share of weights kept in memory, relative to keeping none. Ideally it falls in \
         proportion, until computing takes over. Beside it, plain reads of one file through the page cache, in a \
         memory cgroup that holds a share of it, relative to the smallest share measured: the page cache evicts what \
         was used longest ago, which in a cyclic scan is what is needed next.",
    );
    match cache {
        Some(source) => page.paragraph(&format!("Page cache: {}", source.provenance()?)),
        None => page.paragraph(
            "Not measured: passes of buffered reads in memory cgroups of several sizes, kept as \
             `docs/benchmarks/page-cache.json`, appear here.",
        ),
    }
    if table.is_empty() {
        page.absent("sweep-NAME", "aerostat bench sweep MODEL --pinned 0,25,50,75 --json");
        return Ok(());
    }
    page.table(&["what", "in memory", "time, s", "relative", "ideal"], &table);
    let chart = Chart {
        title: "Time against the share of weights in memory".to_owned(),
        x: Axis::new("share in memory", Scale::Linear),
        y: Axis::new("time, relative to nothing in memory", Scale::Linear),
        series,
    };
    page.plot("pinned", &chart);
    Ok(())
}

fn pinned_row(
    name: &str,
    share: f64,
    (seconds, ends): (f64, Option<(f64, f64)>),
    relative: f64,
) -> Vec<String> {
    vec![
        name.to_owned(),
        percent(share),
        spread(seconds, ends, short),
        format!("{relative:.2}"),
        format!("{:.2}", (1.0 - share).max(0.0)),
    ]
}

/// Passes over a file by the share that the cache may hold, ascending.
fn page_cache(source: &Source) -> Result<Vec<Point>> {
    let read = |node: &Node<'_>| {
        let (share, seconds) = (node.number("cached_fraction")?, node.positive("pass_seconds")?);
        Ok(Point::new(share, seconds, node.spread("pass_seconds_spread")?))
    };
    let mut points = source.root().list("points")?.iter().map(read).collect::<Result<Vec<_>>>()?;
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    Ok(points)
}

fn predictions(page: &mut Page, files: &[Sweeps]) {
    let (mut table, mut series, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut ends = (f64::INFINITY, 0.0f64);
    for file in files {
        let mut scattered = Vec::new();
        for point in &file.points {
            let (Some(predicted), Some(ratio)) = (point.predicted, point.ratio_of_prediction()) else {
                continue;
            };
            ratios.push(ratio);
            ends = (ends.0.min(predicted), ends.1.max(predicted));
            scattered.push(Point::new(predicted, point.seconds, point.seconds_spread));
            table.push(vec![
                file.name.clone(),
                point.rows.to_string(),
                percent(point.pinned),
                short(predicted),
                spread(point.seconds, point.seconds_spread, short),
                format!("{ratio:.2}"),
            ]);
        }
        if !scattered.is_empty() {
            series.push(Series::new(file.name.as_str(), Style::Markers, scattered));
        }
    }
    if table.is_empty() {
        return;
    }
    let good = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() <= PREDICTION_TOLERANCE).count();
    page.paragraph("### Predicted and measured");
    page.paragraph(&format!(
        "What the plan says before the start beside what a sweep took. A ratio above 1 means that the sweep was faster \
         than predicted. {good} of {} predictions are within {} of the measurement (the band of the plot).",
        ratios.len(),
        percent(PREDICTION_TOLERANCE)
    ));
    let heads = ["model", "rows", "pinned", "predicted, s", "measured, s", "predicted / measured"];
    page.table(&heads, &table);
    let around = |seconds: f64| {
        let band = (seconds / (1.0 + PREDICTION_TOLERANCE), seconds / (1.0 - PREDICTION_TOLERANCE));
        Point::new(seconds, seconds, Some(band))
    };
    let ends = vec![around(ends.0 / 1.2), around(ends.1 * 1.2)];
    series.insert(0, Series::new("within 10 %", Style::Band, ends.clone()));
    series.insert(1, Series::new("equal", Style::Dashed, ends));
    let chart = Chart {
        title: "Sweep time, predicted and measured".to_owned(),
        x: Axis::new("predicted, s", Scale::Log10),
        y: Axis::new("measured, s", Scale::Log10),
        series,
    };
    page.plot("predicted", &chart);
}

fn memory(page: &mut Page, files: &[Sweeps]) {
    let (mut table, mut least, mut most, mut equal) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let points: Vec<_> = file.least_pinned().into_iter().filter(|point| point.peak.is_some()).collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
        let Some(weights) = first.weights else { continue };
        let of_rows = |point: &Sweep| maybe(point.peak, |peak| format!("{} ({})", bytes(peak), point.rows));
        table.push(vec![
            file.name.clone(),
            bytes(weights),
            maybe(first.budget, bytes),
            of_rows(first),
            if last.rows > first.rows { of_rows(last) } else { ABSENT.to_owned() },
            maybe(first.peak, |peak| percent(peak / weights)),
        ]);
        let place = |point: &Sweep| point.peak.map(|p| Point::new(weights / GIBIBYTE, p / GIBIBYTE, None));
        least.extend(place(first));
        most.extend(place(last).filter(|_| last.rows > first.rows));
        equal.push(Point::new(weights / GIBIBYTE, weights / GIBIBYTE, None));
    }
    if table.is_empty() {
        return;
    }
    page.paragraph("### Memory");
    let budgeted =
        files.iter().flat_map(|file| &file.points).filter_map(|point| point.peak.zip(point.budget));
    let (checked, over) = budgeted
        .fold((0, 0), |(checked, over), (peak, budget)| (checked + 1, over + usize::from(peak > budget)));
    let exceeded = match checked {
        0 => String::new(),
        _ => {
            format!(" Of all {checked} measurements with a budget, pinned ones included, {over} exceeded it.")
        }
    };
    page.paragraph(&format!(
        "Peak resident set of the whole process up to that measurement, where least is pinned, at the fewest and at the \
         most rows measured (the number of rows in brackets).{exceeded} In the plot, the dashed line is memory as large as the model."
    ));
    page.table(
        &["model", "weights", "budget", "peak, fewest rows", "peak, most rows", "peak / weights"],
        &table,
    );
    equal.sort_by(|a, b| a.x.total_cmp(&b.x));
    let mut series = vec![
        Series::new("as large as the model", Style::Dashed, equal),
        Series::new("fewest rows", Style::Markers, least),
    ];
    if !most.is_empty() {
        series.push(Series::new("most rows", Style::Markers, most));
    }
    let chart = Chart {
        title: "Peak memory against model size".to_owned(),
        x: Axis::new("weights, GiB", Scale::Log10),
        y: Axis::new("peak resident set, GiB", Scale::Log10),
        series,
    };
    page.plot("memory", &chart);
}

#[cfg(test)]
mod tests {
    use super::super::chart::tests::assert_well_formed;
    use super::*;

    fn file(name: &str, points: &str) -> Source {
        let text = format!(
            r#"{{"command": "aerostat bench sweep M", "machine": {{"cpu": "Zen", "threads": 2,
            "memory_bytes": 25769803776, "system": "Linux"}}, "model": "models/tiny/", "points": [{points}]}}"#
        );
        Source::parse(name, &text).expect("valid")
    }

    fn page(sources: &[Source]) -> Page {
        let mut page = Page::default();
        sweeps(&mut page, sources).expect("complete");
        page.plots.values().for_each(|svg| assert_well_formed(svg));
        page
    }

    fn assert_lines(page: &Page, lines: &[&str]) {
        for line in lines {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
    }

    const POINTS: &str = r#"
        {"rows": 1, "pinned_fraction": 0, "streamed_bytes": 2147483648, "weight_bytes": 2147483648,
         "memory_budget_bytes": 104857600, "sweep_seconds": 2, "sweep_seconds_spread": [1.6, 2.5],
         "predicted_seconds": 2.1, "stall_seconds": 1.9, "tokens_per_second": 0.5, "read_bytes_per_second": 1.07e9,
         "raw_bytes_per_second": 1.1e9, "fraction_of_raw": 0.976, "fraction_spread": [0.9, 1.01],
         "memory_peak_bytes": 52428800},
        {"rows": 1, "pinned_fraction": 0.5, "sweep_seconds": 1.1, "predicted_seconds": 0.5},
        {"rows": 100, "pinned_fraction": 0, "sweep_seconds": 4, "stall_seconds": 0.1,
         "memory_budget_bytes": 104857600, "memory_peak_bytes": 209715200},
        {"rows": 1, "pinned_fraction": 1, "streamed_bytes": 0, "sweep_seconds": 0.2, "fraction_of_raw": 0}"#;

    #[test]
    fn tables_say_what_was_measured() {
        let cache = file(
            "page-cache",
            r#"{"cached_fraction": 0.5, "pass_seconds": 2.2}, {"cached_fraction": 0.1, "pass_seconds": 2}"#,
        );
        let page = page(&[cache, file("sweep-tiny", POINTS)]);
        let lines = [
            "- tiny (`tiny`): [sweep-tiny.json](benchmarks/sweep-tiny.json): `aerostat bench sweep M` on Zen, 2 \
             threads, 24 GiB, Linux.\n",
            "| tiny | 1 | 0 % | 1.07 | 1.10 | 0.98 (0.90–1.01) | 95 % |\n",
            "Knee: 50 rows (from the sweep of 100 rows).\n",
            "| 1 | 2.00 (1.60–2.50) | 0.500 (0.400–0.625) | 0.500 | 100 % | 95 % |\n",
            "| 100 | 4.00 | 25.0 | 50.0 | 50 % | 2.5 % |\n",
            "| tiny, rows: 1 | 50 % | 1.10 | 0.55 | 0.50 |\n",
            "| page cache (LRU) | 10 % | 2.00 | 1.00 | 0.90 |\n",
            "| page cache (LRU) | 50 % | 2.20 | 1.10 | 0.50 |\n",
            "1 of 2 predictions are within 10 % of the measurement",
            "| tiny | 1 | 50 % | 0.500 | 1.10 | 0.45 |\n",
            "Of all 2 measurements with a budget, pinned ones included, 1 exceeded it.",
            "| tiny | 2 GiB | 100 MiB | 50 MiB (1) | 200 MiB (100) | 2.4 % |\n",
        ];
        assert_lines(&page, &lines);
        let plots: Vec<_> = page.plots.keys().map(String::as_str).collect();
        assert_eq!(plots, ["memory", "pinned", "predicted", "rows-sweep-tiny"]);
        assert!(!page.text.contains("| tiny | 1 | 100 % |"), "nothing is read when all is pinned");
    }

    #[test]
    fn there_is_no_knee_while_the_disk_is_waited_for() {
        let points = |stall: f64, seconds: f64| {
            format!(
                r#"{{"rows": 1, "sweep_seconds": 2}},
                   {{"rows": 8, "sweep_seconds": {seconds}, "stall_seconds": {stall}}}"#
            )
        };
        for (points, said) in [
            (points(1.0, 2.2), "No knee up to 8 rows"),
            (points(0.0, 1.9), "No knee up to 8 rows"),
            (points(0.0, 4.0), "Knee: 4 rows"),
            (
                r#"{"rows": 2, "sweep_seconds": 2}, {"rows": 8, "sweep_seconds": 9}"#.to_owned(),
                "No knee: one",
            ),
        ] {
            assert_lines(&page(&[file("sweep", &points)]), &[said, "#### tiny\n"]);
        }
    }

    #[test]
    fn only_the_necessary_fields_are_needed() {
        let page = page(&[file("sweep-a", r#"{"rows": 4, "sweep_seconds": 2}"#), file("sweep-b", "")]);
        assert!(page.plots.is_empty());
        assert_lines(&page, &["`docs/benchmarks/page-cache.json`", "aerostat bench sweep MODEL --pinned"]);
        let error =
            sweeps(&mut Page::default(), &[file("sweep-a", r#"{"rows": 4}"#)]).expect_err("incomplete");
        assert_eq!(error.to_string(), "sweep-a.json: points[0].sweep_seconds: missing");
    }
}
