//! Aerostat beside other programs that run the same model on the same machine.

use anyhow::{Result, bail};

use super::chart::{Bar, bars};
use super::source::{Node, Source};
use super::text::{ABSENT, Page, bytes, maybe, short, spread};

/// The cases: file, heading, how to read the table.
const CASES: &[(&str, &str, &str)] = &[
    (
        "peers-streamed",
        "More weights than memory",
        "All run in the same memory cgroup, smaller than the weights, on the disk that is there.",
    ),
    (
        "peers-fast",
        "More weights than memory, fast device",
        "The same on a device as fast as memory: what is left is the work of the processor.",
    ),
    ("peers-resident", "The model fits", "No limit: all weights stay in memory."),
];

/// One table and plot for each case.
///
/// # Errors
/// A file lacks a field.
pub(super) fn peers(page: &mut Page, sources: &[Source]) -> Result<()> {
    page.paragraph("## Peers");
    page.paragraph(
        "The same weights, the same machine, taking turns. The last column is Aerostat's tokens per second over the \
         peer's under the same conditions: above 1, Aerostat is faster. In brackets: lowest and highest repetition.",
    );
    for (name, heading, how) in CASES {
        page.paragraph(&format!("### {heading}"));
        let Some(source) = sources.iter().find(|source| source.name == *name) else {
            page.absent(
                name,
                &format!("python bench/peers/run.py --case {}", name.trim_start_matches("peers-")),
            );
            continue;
        };
        page.paragraph(&format!("{how} {}", source.provenance()?));
        let results = source.root().list("results")?.iter().map(Outcome::read).collect::<Result<Vec<_>>>()?;
        let results = merge(results);
        table(page, &results);
        plots(page, name, heading, &results);
    }
    Ok(())
}

/// What one program did under one condition.
struct Outcome {
    peer: String,
    /// What else was the same for all that are compared: name and value.
    condition: Vec<(&'static str, String)>,
    /// Tokens per second, generating; of the spread, too.
    tokens: Option<f64>,
    tokens_spread: Option<(f64, f64)>,
    /// Tokens per second of a prompt.
    prompt: Option<f64>,
    seconds: Option<f64>,
    /// CPU time of a step.
    cpu_seconds: Option<f64>,
    peak: Option<f64>,
    failed: Option<String>,
}

impl Outcome {
    fn read(node: &Node<'_>) -> Result<Outcome> {
        let mut condition = Vec::new();
        condition.extend(node.text_if_any("format")?.map(|value| ("format", value)));
        for name in ["threads", "rows"] {
            condition.extend(node.number_if_any(name)?.map(|value| (name, value.to_string())));
        }
        let failed = node.text_if_any("failed")?;
        let tokens = match &failed {
            None => Some(node.positive("tokens_per_second")?),
            Some(_) => None,
        };
        let tokens_spread = node.spread("spread")?;
        if let (Some(tokens), Some((low, high)), Some(field)) = (tokens, tokens_spread, node.get("spread"))
            && !(low..=high).contains(&tokens)
        {
            bail!(field.wrong(&format!("lowest and highest around tokens_per_second, {tokens}")));
        }
        Ok(Outcome {
            peer: node.text("peer")?,
            condition,
            tokens,
            tokens_spread,
            prompt: node.number_if_any("prompt_tokens_per_second")?.filter(|&prompt| prompt > 0.0),
            seconds: node.number_of_any(&["seconds_per_step", "step_seconds"])?,
            cpu_seconds: node.number_if_any("step_cpu_seconds")?,
            peak: node.number_of_any(&["memory_peak_bytes", "peak_cgroup_bytes", "peak_resident_bytes"])?,
            failed,
        })
    }

    fn is_ours(&self) -> bool {
        self.peer.to_lowercase().starts_with("aerostat")
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.condition.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Aerostat's rate over this one's, under the same condition; `None` for Aerostat itself.
    fn ratio(&self, all: &[Outcome], rate: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let ours = all.iter().find(|other| other.is_ours() && other.condition == self.condition)?;
        if std::ptr::eq(ours, self) { None } else { Some(rate(ours)? / rate(self)?) }
    }
}

/// One outcome for all repeats of the same program under the same condition.
fn merge(results: Vec<Outcome>) -> Vec<Outcome> {
    let mut groups: Vec<Vec<Outcome>> = Vec::new();
    for result in results {
        let is_same = |other: &Outcome| other.peer == result.peer && other.condition == result.condition;
        match groups.iter_mut().find(|group| group.iter().any(is_same)) {
            Some(group) => group.push(result),
            None => groups.push(vec![result]),
        }
    }
    groups.into_iter().filter_map(merge_group).collect()
}

/// Medians, the largest peak, and how far the rates lie apart. Failures beside successes are told.
fn merge_group(mut group: Vec<Outcome>) -> Option<Outcome> {
    let (count, failures) = (group.len(), group.iter().filter(|result| result.failed.is_some()).count());
    if failures < count {
        group.retain(|result| result.failed.is_none());
    }
    let mut last = group.pop()?;
    if 0 < failures && failures < count {
        last.failed = Some(format!("{failures} of {count} failed"));
    }
    if group.is_empty() {
        return Some(last);
    }
    let all = || group.iter().chain([&last]);
    let median = |field: fn(&Outcome) -> Option<f64>| {
        let mut values: Vec<f64> = all().filter_map(field).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
        Some((low + high) / 2.0)
    };
    let ends = all().filter_map(|one| one.tokens_spread.or(one.tokens.map(|tokens| (tokens, tokens))));
    Some(Outcome {
        tokens: median(|result| result.tokens),
        tokens_spread: ends
            .reduce(|(low, high), (other_low, other_high)| (low.min(other_low), high.max(other_high))),
        prompt: median(|result| result.prompt),
        seconds: median(|result| result.seconds),
        cpu_seconds: median(|result| result.cpu_seconds),
        peak: all().filter_map(|result| result.peak).reduce(f64::max),
        ..last
    })
}

fn table(page: &mut Page, results: &[Outcome]) {
    let conditions = ["format", "threads", "rows"];
    let conditions =
        conditions.into_iter().filter(|name| results.iter().any(|result| result.value(name).is_some()));
    let conditions: Vec<_> = conditions.collect();
    let has_prompt = results.iter().any(|result| result.prompt.is_some());
    let mut heads = vec!["peer"];
    heads.extend(&conditions);
    if has_prompt {
        heads.extend(["prompt tokens/s", "prompt: Aerostat / peer"]);
    }
    let has_cpu = results.iter().any(|result| result.cpu_seconds.is_some());
    heads.push("s a step");
    if has_cpu {
        heads.push("CPU s a step");
    }
    heads.extend(["peak memory", "tokens/s", "Aerostat / peer"]);
    let row = |result: &Outcome| {
        let ratio = |rate: fn(&Outcome) -> Option<f64>| maybe(result.ratio(results, rate), short);
        let mut cells = vec![result.peer.clone()];
        cells.extend(conditions.iter().map(|name| result.value(name).unwrap_or(ABSENT).to_owned()));
        if has_prompt {
            cells.extend([maybe(result.prompt, short), ratio(|result| result.prompt)]);
        }
        let tokens = maybe(result.tokens, |tokens| spread(tokens, result.tokens_spread, short));
        let outcome = match &result.failed {
            None => tokens,
            Some(why) if result.tokens.is_some() => format!("{tokens}; {why}"),
            Some(why) => format!("failed: {why}"),
        };
        cells.push(maybe(result.seconds, short));
        if has_cpu {
            cells.push(maybe(result.cpu_seconds, short));
        }
        let peak = maybe(result.peak, bytes);
        cells.extend([peak, outcome, ratio(|result| result.tokens)]);
        cells
    };
    page.table(&heads, &results.iter().map(row).collect::<Vec<_>>());
}

/// A plot for each number of rows: their rates differ too much for one scale.
fn plots(page: &mut Page, name: &str, heading: &str, results: &[Outcome]) {
    let mut rows: Vec<_> = results.iter().map(|result| result.value("rows")).collect();
    rows.sort_by_key(|rows| rows.and_then(|rows| rows.parse::<u64>().ok()));
    rows.dedup();
    for rows in rows {
        let bar = |result: &Outcome| {
            let names = [Some(result.peer.as_str()), result.value("format")].into_iter().flatten();
            let threads = result.value("threads").map(|threads| format!("threads: {threads}"));
            let label = names.map(str::to_owned).chain(threads).collect::<Vec<_>>().join(", ");
            let value = result.tokens?;
            Some(Bar {
                label,
                value,
                spread: result.tokens_spread,
                figure: short(value),
                ours: result.is_ours(),
            })
        };
        let list: Vec<_> =
            results.iter().filter(|result| result.value("rows") == rows).filter_map(bar).collect();
        let (title, file) = match rows {
            Some(rows) => (format!("{heading}, rows: {rows}"), format!("{name}-{rows}")),
            None => (heading.to_owned(), name.to_owned()),
        };
        if let Some(svg) = bars(&title, "tokens/s", &list) {
            page.picture(&file, &title, svg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chart::tests::assert_well_formed;
    use super::*;

    fn page(name: &str, results: &str) -> Result<Page> {
        let text = format!(
            r#"{{"command": "run.py", "machine": {{"cpu": "Zen"}}, "case": "x", "results": [{results}]}}"#
        );
        let mut page = Page::default();
        peers(&mut page, &[Source::parse(name, &text)?])?;
        page.plots.values().for_each(|svg| assert_well_formed(svg));
        Ok(page)
    }

    #[test]
    fn peers_are_compared_under_the_same_condition() {
        let page = page(
            "peers-streamed",
            r#"{"peer": "aerostat", "rows": 1, "tokens_per_second": 2, "spread": [1.5, 2.5], "seconds_per_step": 0.5,
                "memory_peak_bytes": 104857600},
               {"peer": "llama.cpp", "rows": 1, "tokens_per_second": 0.5},
               {"peer": "aerostat", "rows": 50, "tokens_per_second": 80},
               {"peer": "airllm", "rows": 50, "failed": "killed | over the limit"}"#,
        )
        .expect("complete");
        for line in [
            "| peer | rows | s a step | peak memory | tokens/s | Aerostat / peer |\n",
            "| aerostat | 1 | 0.500 | 100 MiB | 2.00 (1.50–2.50) | – |\n",
            "| llama.cpp | 1 | – | – | 0.500 | 4.00 |\n",
            "| airllm | 50 | – | – | failed: killed \\| over the limit | – |\n",
            "[peers-streamed.json](benchmarks/peers-streamed.json): `run.py` on Zen.",
            "`python bench/peers/run.py --case resident`, kept as `docs/benchmarks/peers-resident.json`",
        ] {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
        let plots: Vec<_> = page.plots.keys().map(String::as_str).collect();
        assert_eq!(plots, ["peers-streamed-1", "peers-streamed-50"]);
    }

    #[test]
    fn formats_and_prompts_have_columns_where_they_were_measured() {
        let page = page(
            "peers-resident",
            r#"{"peer": "llama.cpp", "format": "q4_0", "threads": 2, "tokens_per_second": 50,
                "prompt_tokens_per_second": 100},
               {"peer": "aerostat", "format": "q4_0", "threads": 2, "tokens_per_second": 60,
                "prompt_tokens_per_second": 90}"#,
        )
        .expect("complete");
        for line in [
            "| peer | format | threads | prompt tokens/s | prompt: Aerostat / peer | s a step |",
            "| llama.cpp | q4_0 | 2 | 100 | 0.900 | – | – | 50.0 | 1.20 |\n",
        ] {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
        assert!(page.plots.contains_key("peers-resident"));
    }

    #[test]
    fn repeats_become_their_median() {
        let page = page(
            "peers-fast",
            r#"{"peer": "aerostat", "rows": 1, "tokens_per_second": 2, "step_seconds": 0.5, "peak_cgroup_bytes": null,
                "peak_resident_bytes": 1024, "step_cpu_seconds": 1},
               {"peer": "airllm", "rows": 1, "failed": "a"},
               {"peer": "aerostat", "rows": 1, "tokens_per_second": 4, "step_seconds": 0.25, "peak_resident_bytes": 2048,
                "step_cpu_seconds": 2},
               {"peer": "airllm", "rows": 1, "failed": "b"},
               {"peer": "aerostat", "rows": 1, "failed": "c"}"#,
        )
        .expect("complete");
        for line in [
            "| aerostat | 1 | 0.375 | 1.50 | 2 KiB | 3.00 (2.00–4.00); 1 of 3 failed | – |\n",
            "| airllm | 1 | – | – | – | failed: b | – |\n",
        ] {
            assert!(page.text.contains(line), "{line}\n{}", page.text);
        }
    }

    #[test]
    fn a_result_has_a_rate_or_a_reason() {
        let error = page("peers-fast", r#"{"peer": "a"}"#).map(|_| ()).expect_err("must be refused");
        assert_eq!(error.to_string(), "peers-fast.json: results[0].tokens_per_second: missing");
        let result = r#"{"peer": "a", "tokens_per_second": 2, "spread": [0.4, 0.6]}"#;
        let error =
            page("peers-fast", result).map(|_| ()).expect_err("a spread of something else").to_string();
        assert!(error.starts_with("peers-fast.json: results[0].spread: [0.4,0.6] found, lowest"), "{error}");
    }
}
