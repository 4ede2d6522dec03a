//! Templates that templates of the Hub do not have, but jinja2 renders; and templates that mean harm.

use std::time::{Duration, Instant};

use aerostat_text::{ChatTemplate, ErrorKind, Message, Specials};
use serde_json::{Map, Value, json};

use crate::data;

fn render(source: &str, variables: Map<String, Value>) -> Result<String, aerostat_text::Error> {
    let template = ChatTemplate::new(source, Specials::default())?;
    template.render(&[Message::new("user", "hi")], true, variables)
}

fn text(source: &str) -> String {
    render(source, Map::new()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn rows_of_jinja2_are_its_own_to_the_byte() {
    let rows = std::fs::read_to_string(data("chat/jinja.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let source = row["template"].as_str().unwrap();
        let got = render(source, row["variables"].as_object().unwrap().clone());
        if got.as_ref().ok().map(String::as_str) != row["want"].as_str() {
            wrong.push(format!("{source}\n got {got:?}\nwant {}", row["want"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_other_engines_do_otherwise() {
    for (source, want) in [
        ("{{ none is iterable }}{{ none is sequence }}", "FalseFalse"),
        ("{{ [][::-1] }}{{ [][::-1]|length }}{% if [][::-1] %}x{% endif %}", "[]0"),
        ("a\r\nb\rc\r\n", "a\nb\nc"),
        ("{% raw %}\nx\n{% endraw %}\ny\n\n", "\nx\ny\n"),
        ("{% for i in [1] if false %}{% else %}none{% endfor %}", "none"),
        ("{% set d = {'items': 1} %}{{ d['items'] }}{{ d.items() }}", "1dict_items([('items', 1)])"),
        (
            "{{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 64 }} {{ 1e16 }} {{ 0.1 + 0.2 }}",
            "-4 2 18446744073709551616 1e+16 0.30000000000000004",
        ),
        ("{{ 'é' is string }}{{ '%05.1f|%-4s|' % (2.25, 'x') }}", "True002.2|x   |"),
        ("{% generation %}x{% endgeneration %}{% set a %}{{ 1 }}{% endset %}{{ a is string }}", "xTrue"),
        ("{{ {'a': [1, none, 'x']} | tojson }}", r#"{"a": [1, null, "x"]}"#),
        (
            "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 3, 4, c=5) }}",
            "13(4,){'c': 5}",
        ),
    ] {
        assert_eq!(text(source), want, "{source}");
    }
}

#[test]
fn members_of_messages_that_are_null_are_absent() {
    let source = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ 'content' in m }}{{ m.name is defined }};{% endfor %}";
    let template = ChatTemplate::new(source, Specials::default()).unwrap();
    let messages = json!([{"role": "a"}, {"role": "a", "content": null, "name": null}, {"role": "a", "content": "x", "name": "n"}]);
    let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
    let got = template.render(&messages, false, Map::new()).unwrap();
    assert_eq!(got, "a:FalseFalse;a:FalseFalse;a:xTrueTrue;");
}

#[test]
fn what_the_sandbox_refuses_is_refused() {
    for source in [
        "{{ [1].append(2) }}",
        "{{ {}.update({}) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ '{0.__class__.x}'.format(1) }}",
        "{{ range(100001) }}",
        "{{ namespace(_a=1) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ 1 | no_such_filter }}",
        "{% break %}",
        "{% for loop in [1] %}{% endfor %}",
    ] {
        assert!(render(source, Map::new()).is_err(), "{source}");
    }
}

/// Templates that repeat or nest one thing very often.
fn nested() -> Vec<(&'static str, String)> {
    let around = |before: &str, within: &str, after: &str, times: usize| {
        format!("{{{{ {}{within}{} }}}}", before.repeat(times), after.repeat(times))
    };
    let mut all = Vec::new();
    for times in [190, 20_000] {
        all.extend([
            ("calls", around("", "f", "()", times)),
            ("filters", around("", "1", "|abs", times)),
            ("not", around("not ", "1", "", times)),
            ("minus", around("-", "1", "", times)),
            ("ternaries", around("1 if 1 else ", "1", "", times)),
            ("parentheses", around("(", "1", ")", times)),
            ("lists", around("[", "1", "]", times)),
            ("dicts", around("{1:", "1", "}", times)),
            ("arguments", around("f(", "1", ")", times)),
            ("dots", around("", "a", ".a", times)),
            ("items", around("", "a", "[0]", times)),
            ("powers", around("", "1", "**1", times)),
            ("sums", around("", "1", "+1", times)),
            ("tests", around("", "1", " is none|int", times)),
            ("ands", around("", "1", " and 1", times)),
            ("tildes", around("", "1", "~1", times)),
            ("ifs", "{% if 1 %}".repeat(times) + &"{% endif %}".repeat(times)),
            ("loops", "{% for i in [1] %}".repeat(times) + &"{% endfor %}".repeat(times)),
            ("elifs", "{% if 0 %}".to_owned() + &"{% elif 0 %}".repeat(times) + "{% endif %}"),
            ("targets", format!("{{% set {}a{} = 1 %}}", "(".repeat(times), ")".repeat(times))),
            ("names", (0..times).map(|i| format!("{{% set a{i} = {i} %}}")).collect()),
            (
                "parameters",
                format!(
                    "{{% macro m({}) %}}{{% endmacro %}}",
                    (0..times).map(|i| format!("a{i},")).collect::<String>()
                ),
            ),
            ("long name", format!("{{{{ {}.y }}}}", "x".repeat(times))),
            ("braces", "{{".repeat(times)),
        ]);
    }
    all.push(("long", "x".repeat(1 << 20)));
    // Names are compared and copied byte by byte.
    let name = "a".repeat(40_000);
    let again = |body: String| {
        format!("{{% for i in range(100000) %}}{{% for j in range(10) %}}{body}{{% endfor %}}{{% endfor %}}")
    };
    let names: String = (0..8).map(|i| format!("'{name}{i}': 1,")).collect();
    all.push(("attribute", format!("{{% set d = {{{names}}} %}}") + &again(format!("{{{{ d.{name}9 }}}}"))));
    let keyword = again(format!("{{{{ m({name}=1) }}}}"));
    all.push(("keyword", format!("{{% macro m({name}) %}}{{% endmacro %}}{keyword}")));
    all
}

#[test]
fn templates_that_mean_harm_end_soon_in_an_answer_or_an_error() {
    let files = std::fs::read_dir(data("chat/hostile")).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.display().to_string(), std::fs::read_to_string(&path).unwrap())
    });
    let nested = nested().into_iter().map(|(name, source)| (name.to_owned(), source));
    // A small stack shows what nests without a bound.
    let threads = files.chain(nested).map(|(name, source)| {
        std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
            let before = peak_bytes();
            let begin = Instant::now();
            let outcome = render(&source, Map::new());
            // A second where the machine is free and the build is optimised.
            assert!(begin.elapsed() < Duration::from_secs(20), "{name} took {:?}", begin.elapsed());
            let grown = peak_bytes().saturating_sub(before);
            assert!(grown < 64 << 20, "{name} took {} MiB", grown >> 20);
            match outcome {
                Ok(text) => assert!(text.len() < 32 << 20, "{name}"),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::TemplateSyntax | ErrorKind::TemplateRender));
                    let message = error.to_string();
                    assert!(message.len() < 600, "{name}: {} bytes", message.len());
                    assert!(message.contains("(line ") || message.contains("KiB"), "{name}: {message}");
                }
            }
        })
    });
    for thread in threads {
        thread.unwrap().join().unwrap();
    }
}

/// What sorting, groups, indexes and lists of one item take beside the values themselves was not counted: 70 MiB at the bound of 32.
#[test]
fn lists_and_texts_take_little_more_than_is_counted() {
    let before = peak_bytes();
    for name in ["sort_groupby", "group_sort", "lists_of_one", "dict_index"] {
        let source = std::fs::read_to_string(data(&format!("chat/hostile/{name}.jinja"))).unwrap();
        let _ = render(&source, Map::new());
        let grown = peak_bytes().saturating_sub(before);
        assert!(grown < 52 << 20, "{name} took {} MiB", grown >> 20);
    }
}

/// The most memory the process had so far; 0 where the system does not tell.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

#[test]
fn an_error_names_the_line_it_is_on() {
    for (source, line) in [
        ("a\n{{ 1 }}\n{{ nothing.at.all }}", 3),
        ("{% for i in range(99999) %}\n{% for j in range(99999) %}\n{{ j }}{% endfor %}{% endfor %}", 3),
        ("{% macro m() %}\n\n{{ 1 // 0 }}{% endmacro %}\n\n{{ m() }}", 3),
        ("\n\n{% if %}{% endif %}", 3),
        ("{{ [1,\n2,\n3] | first | no_such }}", 3),
    ] {
        let error = render(source, Map::new()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(line {line})")), "{source}: {error}");
    }
}

#[test]
fn a_long_conversation_is_far_from_the_bounds() {
    let source = std::fs::read_to_string(data("chat/templates/qwen3.jinja")).unwrap();
    let template = ChatTemplate::new(&source, Specials::default()).unwrap();
    let turn = |at: usize| {
        Message::new(if at.is_multiple_of(2) { "user" } else { "assistant" }, "word ".repeat(400))
    };
    let messages: Vec<Message> = (0..1500).map(turn).collect();
    let text = template.render(&messages, true, Map::new()).unwrap();
    assert!(text.len() > 3_000_000);
}

#[test]
fn a_variable_that_a_part_sets_before_it_reads_it_is_undefined_there_until_then() {
    let given = || json!({"a": "given"}).as_object().cloned().unwrap();
    for (source, want) in [
        ("{% set a %}{{ a }}.{% endset %}{{ a }}", "."),
        ("{{ a }}{% set a %}{{ a }}.{% endset %}{{ a }}", "givengiven."),
        ("{% macro m() %}{{ a }}{% endmacro %}{{ m() }}{% set a = 1 %}{{ m() }}", "1"),
        ("{% if false %}{% set a = 1 %}{% endif %}{{ a }}", "given"),
        ("{% for i in [1, 2] %}{{ a }}{% set a = i %}{{ a }};{% endfor %}", "given1;given2;"),
    ] {
        assert_eq!(render(source, given()).unwrap(), want, "{source}");
    }
}
