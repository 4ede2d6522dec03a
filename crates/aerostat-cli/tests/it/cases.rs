//! Inputs that others reported, each with its right value, as a user meets them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{copy, fixture, json as run_json, processor_seconds, run, run_with};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The results of a batch file by `custom_id`, those that failed with an `error`.
fn batch(model: &Path, lines: &[Value]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(&input, body).unwrap();
    let outcome = run(&["batch", "-m", path(model), "-i", path(&input), "-o", path(&output)]);
    assert!(matches!(outcome.code, Some(0 | 3)), "{outcome:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let all = read("out.jsonl") + &read("out.errors.jsonl");
    let by_id = all.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["custom_id"].as_str().unwrap().to_owned(), line)
    });
    Value::Object(by_id.collect())
}

fn chat(id: &str, body: &Value) -> Value {
    let mut whole =
        json!({"messages": [{"role": "user", "content": "Pick one"}], "max_tokens": 12, "temperature": 0});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": whole})
}

/// `none is iterable` was an error, CRLF came through, the newline after `raw` was lost, and an empty list turned round was
/// true; a `chat_template.json` was not found. The ids are transformers'.
#[test]
fn prompts_of_templates_are_those_of_transformers() {
    let folder = copy("chat");
    let file = |name: &str| folder.path().join(name);
    let turn = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let tools = "{% if tools is iterable and tools | length > 0 %}[tools]{% endif %}{% for m in messages %}";
    let crlf = format!("{{% for m in messages %}}\n{turn}").replace('\n', "\r\n");
    let raw =
        "{% for m in messages %}<|im_start|>{{ m.role }}{% raw %}\n{% endraw %}{{ m.content }}{% endfor %}";
    let named = json!({"chat_template": "<|im_start|>{{ messages[0].content }}<|im_end|>"}).to_string();
    for (name, source, ids) in [
        ("chat_template.jinja", format!("{tools}{turn}"), &[1, 87, 85, 269, 201, 74, 75, 2, 201][..]),
        ("chat_template.jinja", crlf, &[1, 87, 85, 269, 201, 74, 75, 2, 201]),
        ("chat_template.jinja", raw.to_owned(), &[1, 87, 85, 269, 201, 74, 75]),
        (
            "chat_template.jinja",
            "{% if messages[1:][::-1] %}more{% endif %}{{ messages[0].content }}".to_owned(),
            &[74, 75],
        ),
        ("chat_template.json", named, &[1, 74, 75, 2]),
    ] {
        let _ = fs::remove_file(file("chat_template.jinja"));
        fs::write(file(name), &source).unwrap();
        let report = run_json(&["run", path(folder.path()), "hi", "--max-new-tokens", "1"]);
        assert_eq!(report["results"][0]["prompt_token_ids"], json!(ids), "{source}");
    }
}

/// A content that is null became the word None, and one that is absent an error: 44 tokens, and 41.
#[test]
fn calls_of_tools_have_no_content_whether_it_is_null_absent_or_empty() {
    let folder = copy("chat");
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let call = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    let lines =
        [("null", json!({"content": null})), ("absent", json!({})), ("empty", json!({"content": ""}))];
    let lines = lines.map(|(id, content)| {
        let mut said = json!({"role": "assistant", "tool_calls": call});
        said.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        let result = json!({"role": "tool", "tool_call_id": "c1", "content": "ok"});
        chat(id, &json!({"messages": [{"role": "user", "content": "hi"}, said, result], "max_tokens": 1}))
    });
    let results = batch(folder.path(), &lines);
    let tokens = ["null", "absent", "empty"]
        .map(|id| results[id]["response"]["body"]["usage"]["prompt_tokens"].clone());
    assert_eq!(tokens, [json!(41), json!(41), json!(41)], "{results}");
}

/// 2,500 labels passed the check and failed when they ran; a loop of references passed it, too. Answers that were forced
/// from the first token to the last were counted as 0 tokens.
#[test]
fn long_lists_of_choices_are_served_and_what_cannot_run_is_refused_when_checked() {
    let labels: Vec<String> = (0..2500).map(|n| format!("category number {n}")).collect();
    let field = |n: usize| (format!("field_{n}"), json!({"type": "string"}));
    let fields: serde_json::Map<String, Value> = (0..600).map(field).collect();
    let lines = [
        chat("choice", &json!({"guided_choice": labels})),
        chat("whole", &json!({"guided_choice": labels, "max_tokens": 40})),
        chat("enum", &json!({"guided_json": {"enum": labels}})),
        chat(
            "loop",
            &json!({"guided_json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}}),
        ),
        chat("fields", &json!({"guided_json": {"type": "object", "properties": fields}})),
        chat("regex", &json!({"guided_regex": "(a?){300}a{300}"})),
        chat("after", &json!({})),
        chat(
            "object",
            &json!({"max_tokens": 20, "response_format": {"type": "json_object", "schema": {"type": "object",
            "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}}}),
        ),
        chat("member", &json!({"response_format": {"type": "json_object", "foo": 1}})),
    ];
    let results = batch(&fixture("chat"), &lines);
    let body = |id: &str| results[id]["response"]["body"].clone();
    let text =
        |id: &str| body(id)["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
    assert!(text("choice").starts_with("category numb") && labels.contains(&text("whole")), "{results}");
    assert_eq!(body("choice")["usage"]["completion_tokens"], 12);
    assert!(text("enum").starts_with("\"category num"), "{}", text("enum"));
    assert!(text("fields").starts_with('{') && !text("after").is_empty());
    // The tiny model's numbers are longer than the answer may be.
    let number = text("object").strip_prefix("{\"n\": ").map(str::to_owned).unwrap_or_default();
    assert!(number.trim_end_matches('}').parse::<i128>().is_ok(), "{results}");
    for (id, told) in [("loop", "no text follows"), ("regex", "grammar"), ("member", "response_format.foo")] {
        let message = results[id]["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(told), "{id}: {}", results[id]);
    }
}

/// Templates doubled strings until the process was killed, and overflowed the stack.
#[cfg(target_os = "linux")]
#[test]
fn templates_that_mean_harm_end_in_an_answer_or_one_error() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../aerostat-text/tests/data/chat/hostile");
    let folder = copy("chat");
    let deep = |before: &str, within: &str, after: &str| {
        format!("{{{{ {}{within}{} }}}}", before.repeat(100_000), after.repeat(100_000))
    };
    let nested =
        [deep("not ", "1", ""), deep("", "f", "()"), deep("", "1", "|abs"), deep("1 if 1 else ", "1", "")];
    let files = fs::read_dir(data).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let letters = format!("{}!", "a".repeat(20_000));
    for source in nested.into_iter().chain(files) {
        fs::write(folder.path().join("chat_template.jinja"), &source).unwrap();
        let shown = &source[..source.len().min(200)];
        let args = ["run", path(folder.path()), "--max-new-tokens", "1", "--memory", "256MiB"];
        for text in ["hi", letters.as_str()] {
            let begin = processor_seconds();
            let outcome = run_with(&args, text);
            let took = processor_seconds() - begin;
            assert!(took < 10.0, "{shown}: {took} s");
            assert!(outcome.stderr.chars().count() < 4000, "{shown}: {} bytes", outcome.stderr.len());
            match outcome.code {
                Some(0) => {}
                Some(1 | 2) => assert_eq!(outcome.stderr.matches("error").count(), 1, "{}", outcome.stderr),
                code => panic!("{shown}: {code:?} {}", outcome.stderr),
            }
        }
    }
    let peak =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(peak < 256 << 10, "{} MiB", peak >> 10);
}
