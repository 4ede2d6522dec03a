//! Renders chat templates for `oracle/check_templates.py`: each line of stdin is an object of `template`, `messages`,
//! `add_generation_prompt`, `variables` and `now`, each line of stdout one of `text` or `error`.

use std::io::{BufRead, Write};

use aerostat_text::{ChatTemplate, Message, Specials};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    template: String,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    add_generation_prompt: bool,
    #[serde(default)]
    variables: Map<String, Value>,
    #[serde(default)]
    now: i64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let case: Case = serde_json::from_str(&line?)?;
        let rendered = ChatTemplate::new(&case.template, Specials::default()).and_then(|template| {
            template.at(case.now).render(&case.messages, case.add_generation_prompt, case.variables)
        });
        let result = match rendered {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(out, "{result}")?;
    }
    Ok(())
}
