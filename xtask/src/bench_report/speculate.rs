//! Tokens that guesses bring.

use anyhow::{Result, bail};

use super::chart::{Bar, bars};
use super::source::{Node, Source};
use super::text::{Page, percent, short, spread};

/// A table for each file, and one plot of all.
///
/// # Errors
/// A file lacks a field.
pub(super) fn speculate(page: &mut Page, sources: &[Source]) -> Result<()> {
    page.paragraph("## Several tokens a sweep");
    let sources: Vec<_> = sources.iter().filter(|source| source.name.starts_with("speculate-")).collect();
    if sources.is_empty() {
        page.absent("speculate-texts", "aerostat bench speculate MODEL PROMPTS --json");
        return Ok(());
    }
    page.paragraph(
        "The same answers with guesses and without, one prompt at a time, every answer compared token by token; their prompts are in \
         the cache. In brackets: the quartiles of the prompts. Answers that hold some 32 tokens twice are left out, since what repeats \
         itself is easily guessed. Without guesses a sweep brings one token; with `--timed-tokens N` its time is that of the first N tokens of each answer.",
    );
    let mut all = Vec::new();
    for source in sources {
        let name = source.name.trim_start_matches("speculate-");
        page.paragraph(&format!("### {name}"));
        page.paragraph(&source.provenance()?);
        let tasks = source.root().list("tasks")?;
        let mut rows = Vec::new();
        for task in &tasks {
            let (prompts, loops) = (task.positive("prompts")?, task.number("loops")?);
            let three = |field| -> Result<String> {
                let [low, middle, high] = quartiles(task, field)?;
                Ok(spread(middle, Some((low, high)), short))
            };
            let (drafted, accepted) = (task.number("drafted")?, task.number("accepted")?);
            rows.push(vec![
                task.text("task")?,
                format!("{prompts}"),
                format!("{loops}"),
                three("tokens_per_sweep")?,
                three("fewer_sweeps")?,
                three("faster")?,
                percent(accepted / drafted.max(1.0)),
            ]);
            let [low, middle, high] = quartiles(task, "tokens_per_sweep")?;
            all.push(Bar {
                label: format!("{}, {name}", task.text("task")?),
                value: middle,
                spread: Some((low, high)),
                figure: short(middle),
                ours: task_is_even(all.len(), tasks.len()),
            });
        }
        let heads = [
            "task",
            "prompts",
            "left out",
            "tokens a sweep",
            "fewer sweeps",
            "faster",
            "guesses that were right",
        ];
        page.table(&heads, &rows);
    }
    if let Some(svg) = bars("Tokens a sweep", "tokens a sweep, median and quartiles", &all) {
        page.picture("speculate", "Tokens a sweep", svg);
    }
    Ok(())
}

/// Whether a bar is of the first, third, … file: those of one file share a colour.
fn task_is_even(bar: usize, tasks: usize) -> bool {
    (bar / tasks.max(1)).is_multiple_of(2)
}

/// A quarter, half, and three quarters of the way through what was measured.
fn quartiles(task: &Node<'_>, field: &str) -> Result<[f64; 3]> {
    let list = task.list(field)?;
    let numbers = list.iter().map(Node::as_number).collect::<Result<Vec<_>>>()?;
    match numbers[..] {
        [low, middle, high] if low <= middle && middle <= high => Ok([low, middle, high]),
        _ => bail!(task.need(field)?.wrong("three quartiles in order")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_with_their_quartiles() {
        let text = r#"{"command": "c", "machine": {"cpu": "Zen"}, "tasks": [{"task": "edit", "prompts": 4, "loops": 1,
            "tokens_per_sweep": [5, 6.5, 8], "fewer_sweeps": [5, 6.5, 8], "faster": [4, 5, 6], "drafted": 200, "accepted": 90}]}"#;
        let of = |text: &str| {
            let mut page = Page::default();
            speculate(&mut page, &[Source::parse("speculate-texts", text)?]).map(|()| page)
        };
        let page = of(text).unwrap();
        assert!(page.text.contains("| edit | 4 | 1 | 6.50 (5.00–8.00) |"), "{}", page.text);
        assert!(page.text.contains("| 45 % |") && page.plots.contains_key("speculate"), "{}", page.text);
        let error = of(&text.replace("[5, 6.5, 8]", "[5, 8]")).err().unwrap().to_string();
        assert!(error.contains("three quartiles in order wanted"), "{error}");
    }
}
