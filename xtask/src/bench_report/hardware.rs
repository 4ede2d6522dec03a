//! What the machine gives: the disk, and the kernels beside the peaks of processor and memory.

use anyhow::{Result, bail};

use super::chart::{Axis, Chart, Point, Series, Style};
use super::source::Source;
use super::text::{ABSENT, Page, bytes, percent, percentage, short, spread};
use super::ticks::Scale;

/// Raw reads by size and by how many are under way.
///
/// # Errors
/// The file lacks a field or says something twice.
pub(super) fn disk(page: &mut Page, sources: &[Source]) -> Result<()> {
    page.paragraph("## Disk");
    let Some(source) = sources.iter().find(|source| source.name == "disk") else {
        page.absent("disk", "aerostat bench disk MODEL --json");
        return Ok(());
    };
    let mut grid = Grid::default();
    for node in source.root().list("points")? {
        let size = node.positive("read_bytes")?;
        let name = match node.text_if_any("io")? {
            Some(io) => format!("{io}, {}", bytes(size)),
            None => bytes(size),
        };
        let value = (node.number("bytes_per_second")?, node.spread("spread")?);
        grid.insert(&name, node.positive("depth")?, value, &node)?;
    }
    page.paragraph(
        "Raw reads of the model's files, past the page cache: GB/s by size of a read (down) and number of reads under \
         way (across), with the lowest and the highest round. It is what sweeps are measured against.",
    );
    page.paragraph(&source.provenance()?);
    let columns = grid.columns();
    let gigabytes = |value: f64| short(value / 1e9);
    let rows = grid.rows.iter().map(|(name, cells)| {
        let cell = |column: &f64| match find(cells, *column) {
            Some((value, ends)) => spread(value, ends, gigabytes),
            None => ABSENT.to_owned(),
        };
        std::iter::once(name.clone()).chain(columns.iter().map(cell)).collect()
    });
    let heads = columns.iter().map(|depth| format!("depth {depth}"));
    let heads: Vec<_> = std::iter::once("read".to_owned()).chain(heads).collect();
    page.table(&heads, &rows.collect::<Vec<_>>());
    let chart = Chart {
        title: "Raw reads".to_owned(),
        x: Axis::new("reads under way", Scale::Log2),
        y: Axis::new("GB/s", Scale::Linear),
        series: grid.series(1e-9, |_| true),
    };
    page.plot("disk", &chart);
    Ok(())
}

/// The matrix kernels, one table for each number of threads.
///
/// # Errors
/// A file lacks a field or says something twice.
pub(super) fn kernels(page: &mut Page, sources: &[Source]) -> Result<()> {
    page.paragraph("## Kernels");
    let sources: Vec<_> = sources.iter().filter(|source| source.name.starts_with("kernels-")).collect();
    if sources.is_empty() {
        page.absent("kernels-1", "aerostat bench kernels --threads 1 --json");
        return Ok(());
    }
    page.paragraph(
        "A weight matrix times rows of activations, by weight format. At 1 row the weights must come from memory, so \
         the figure is the share of memory bandwidth; at more rows it is the share of the processor's peak of fused \
         multiply-adds. Both peaks are measured in the same run. In brackets: slowest and fastest repetition.",
    );
    for source in sources {
        one_kernels(page, source)?;
    }
    Ok(())
}

fn one_kernels(page: &mut Page, source: &Source) -> Result<()> {
    let root = source.root();
    let (fma, memory) =
        (root.number_if_any("fma_flops_per_second")?, root.number_if_any("memory_bytes_per_second")?);
    let mut grid = Grid::default();
    for node in root.list("points")? {
        let rows = node.positive("rows")?;
        let (share, rate, peak) = if rows == 1.0 {
            ("fraction_of_memory", "bytes_per_second", memory)
        } else {
            ("fraction_of_fma", "flops_per_second", fma)
        };
        let computed = node.number_if_any(rate)?.zip(peak.filter(|&peak| peak > 0.0));
        let share = node.number_if_any(share)?.or(computed.map(|(rate, peak)| rate / peak));
        let Some(share) = share else { continue };
        let ends = match (node.number_if_any("seconds")?, node.spread("seconds_spread")?) {
            (Some(seconds), Some((low, high))) if low > 0.0 => {
                Some((share * seconds / high, share * seconds / low))
            }
            _ => None,
        };
        grid.insert(&node.text("format")?, rows, (share, ends), &node)?;
    }
    let threads = root.positive("threads")?;
    let unit = if threads == 1.0 { "thread" } else { "threads" };
    page.paragraph(&format!("### {threads} {unit}"));
    let isa = root.text_if_any("isa")?.map(|isa| format!("Instruction set {isa}. ")).unwrap_or_default();
    let peak = |name: &str, value: Option<f64>, unit: &str| {
        value.map(|value| format!("{name}: {} {unit}. ", short(value / 1e9))).unwrap_or_default()
    };
    page.paragraph(&format!(
        "{isa}{}{}{}",
        peak("Peak of fused multiply-adds", fma, "GFLOP/s"),
        peak("Memory bandwidth", memory, "GB/s"),
        source.provenance()?
    ));
    let columns = grid.columns();
    let heads = columns.iter().map(|&rows| match rows {
        1.0 => "1 row, % of memory".to_owned(),
        _ => format!("{rows} rows, % of FMA"),
    });
    let heads: Vec<_> = std::iter::once("format".to_owned()).chain(heads).collect();
    let rows = grid.rows.iter().map(|(format, cells)| {
        let cell = |column: &f64| match find(cells, *column) {
            Some((value, Some((low, high)))) => {
                format!("{} ({}–{})", percent(value), percentage(low), percentage(high))
            }
            Some((value, None)) => percent(value),
            None => ABSENT.to_owned(),
        };
        std::iter::once(format.clone()).chain(columns.iter().map(cell)).collect()
    });
    page.table(&heads, &rows.collect::<Vec<_>>());
    let chart = Chart {
        title: format!("Kernels, {threads} {unit}: share of the FMA peak"),
        x: Axis::new("rows", Scale::Log2),
        y: Axis::new("% of the peak of fused multiply-adds", Scale::Linear),
        series: grid.series(100.0, |rows| rows > 1.0),
    };
    page.plot(&source.name, &chart);
    Ok(())
}

/// A figure and its spread.
type Cell = (f64, Option<(f64, f64)>);

/// Figures by name and by a number, names in order of appearance.
#[derive(Default)]
struct Grid {
    rows: Vec<(String, Vec<(f64, Cell)>)>,
}

impl Grid {
    fn insert(&mut self, name: &str, column: f64, cell: Cell, node: &super::source::Node<'_>) -> Result<()> {
        let found = self.rows.iter().position(|(known, _)| known == name);
        let index = found.unwrap_or_else(|| {
            self.rows.push((name.to_owned(), Vec::new()));
            self.rows.len() - 1
        });
        let Some((_, cells)) = self.rows.get_mut(index) else { return Ok(()) };
        if find(cells, column).is_some() {
            bail!(node.wrong("no second point of the same kind"));
        }
        cells.push((column, cell));
        cells.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(())
    }

    /// All columns, ascending.
    fn columns(&self) -> Vec<f64> {
        let mut columns: Vec<f64> =
            self.rows.iter().flat_map(|(_, cells)| cells.iter().map(|(column, _)| *column)).collect();
        columns.sort_by(f64::total_cmp);
        columns.dedup();
        columns
    }

    /// A line for each name that has a point in a wanted column, in the given unit.
    fn series(&self, unit: f64, wanted: impl Fn(f64) -> bool) -> Vec<Series> {
        let line = |(name, cells): &(String, Vec<(f64, Cell)>)| {
            let cells = cells.iter().filter(|(column, _)| wanted(*column));
            let points = cells.map(|(column, (value, ends))| {
                Point::new(*column, value * unit, ends.map(|(low, high)| (low * unit, high * unit)))
            });
            let points: Vec<_> = points.collect();
            (!points.is_empty()).then(|| Series::new(name.as_str(), Style::Line, points))
        };
        self.rows.iter().filter_map(line).collect()
    }
}

fn find(cells: &[(f64, Cell)], column: f64) -> Option<Cell> {
    cells.iter().find(|(known, _)| *known == column).map(|(_, cell)| *cell)
}

#[cfg(test)]
mod tests {
    use super::super::chart::tests::assert_well_formed;
    use super::*;

    const MACHINE: &str = r#""command": "aerostat bench", "machine": {"cpu": "Zen", "threads": 2}"#;

    fn page(name: &str, fields: &str, section: fn(&mut Page, &[Source]) -> Result<()>) -> Result<Page> {
        let source = Source::parse(name, &format!("{{{MACHINE}, {fields}}}"))?;
        let mut page = Page::default();
        section(&mut page, &[source])?;
        Ok(page)
    }

    #[test]
    fn disk_goes_by_size_and_depth() {
        let points = r#""points": [
            {"io": "direct", "read_bytes": 4194304, "depth": 8, "bytes_per_second": 2e9, "spread": [1.5e9, 2.5e9]},
            {"io": "direct", "read_bytes": 4194304, "depth": 1, "bytes_per_second": 1e9},
            {"io": "direct", "read_bytes": 65536, "depth": 8, "bytes_per_second": 3e8, "spread": null}]"#;
        let page = page("disk", points, disk).expect("complete");
        for line in [
            "| read | depth 1 | depth 8 |\n",
            "| direct, 4 MiB | 1.00 | 2.00 (1.50–2.50) |\n",
            "| direct, 64 KiB | – | 0.300 |\n",
            "`aerostat bench` on Zen, 2 threads.",
            "![Raw reads](benchmarks/disk.svg)",
        ] {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
        assert_well_formed(&page.plots["disk"]);
    }

    #[test]
    fn a_point_that_comes_twice_is_refused() {
        let points = r#""points": [{"read_bytes": 4, "depth": 8, "bytes_per_second": 2e9},
            {"read_bytes": 4, "depth": 8, "bytes_per_second": 1e9}]"#;
        let error = page("disk", points, disk).map(|_| ()).expect_err("must be refused").to_string();
        assert!(error.starts_with("disk.json: points[1]: "), "{error}");
    }

    #[test]
    fn kernels_are_shares_of_memory_at_one_row_and_of_arithmetic_at_more() {
        let points = r#""threads": 2, "isa": "avx512", "fma_flops_per_second": 2e11,
            "memory_bytes_per_second": 4e10, "points": [
            {"format": "BF16", "rows": 1, "seconds": 1, "seconds_spread": [0.8, 2], "fraction_of_memory": 0.8,
             "fraction_of_fma": 0.1},
            {"format": "BF16", "rows": 128, "fraction_of_fma": 0.92},
            {"format": "Q4_0", "rows": 128, "flops_per_second": 1e11},
            {"format": "Q4_0", "rows": 1}]"#;
        let page = page("kernels-2", points, kernels).expect("complete");
        for line in [
            "### 2 threads\n",
            "Instruction set avx512. Peak of fused multiply-adds: 200 GFLOP/s. Memory bandwidth: 40.0 GB/s. ",
            "| format | 1 row, % of memory | 128 rows, % of FMA |\n",
            "| BF16 | 80 % (40–100) | 92 % |\n",
            "| Q4_0 | – | 50 % |\n",
        ] {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
        assert_well_formed(&page.plots["kernels-2"]);
    }

    #[test]
    fn what_is_absent_names_its_command() {
        let mut page = Page::default();
        disk(&mut page, &[]).expect("nothing is needed");
        kernels(&mut page, &[]).expect("nothing is needed");
        assert!(page.text.contains(
            "the result of `aerostat bench disk MODEL --json`, kept as `docs/benchmarks/disk.json`,"
        ));
        assert!(page.text.contains("`aerostat bench kernels --threads 1 --json`"));
        assert!(page.plots.is_empty());
    }
}
