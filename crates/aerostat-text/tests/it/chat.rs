use aerostat_text::{ChatTemplate, ErrorKind, Message, Specials};
use serde_json::{Map, Value};

use crate::{data, json};

const TEMPLATES: [&str; 8] =
    ["llama2", "llama3", "qwen3", "mistral", "gemma", "chatml", "deepseek", "features"];

/// Friday, 26 July 2024, 13:05:09, the clock of the oracle.
const NOW: i64 = 1_721_999_109;

fn specials() -> Specials {
    let token = |text: &str| Some(text.to_owned());
    Specials {
        bos_token: token("<s>"),
        eos_token: token("</s>"),
        unk_token: token("<unk>"),
        ..Specials::default()
    }
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let conversations = json("chat/conversations.json");
    let mut wrong = Vec::new();
    for name in TEMPLATES {
        let source = std::fs::read_to_string(data(&format!("chat/templates/{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, specials()).unwrap().at(NOW);
        let expected = json(&format!("chat/expected/{name}.json"));
        for (key, case) in conversations.as_object().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let extra: Map<String, Value> =
                case.get("extra").and_then(Value::as_object).cloned().unwrap_or_default();
            let prompt = case.get("add_generation_prompt").is_some_and(|flag| flag == true);
            let want = &expected["renderings"][key];
            let got = template.render(&messages, prompt, extra);
            match (&got, want["rendered"].as_str()) {
                (Ok(got), Some(want)) if got == want => {}
                (Err(error), None) if error.to_string().contains(want["error"].as_str().unwrap()) => {
                    assert_eq!(error.kind(), ErrorKind::TemplateRender);
                }
                _ => wrong.push(format!("{name}, {key}:\n got {got:?}\nwant {want}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_folder_names_its_template_and_tokens_in_several_ways() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let render = |template: Option<ChatTemplate>| {
        template.map(|template| template.render(&[], false, Map::new()).unwrap())
    };
    let string = write(
        "string.json",
        r#"{"chat_template": "{{ bos_token }}1{{ image_token }}", "bos_token": "<b>",
        "extra_special_tokens": {"image_token": "<i>"}}"#,
    );
    let list = write(
        "list.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ bos_token }}2"}], "bos_token": {"content": "<o>", "lstrip": false}}"#,
    );
    let none = write("none.json", r#"{"chat_template": null}"#);
    let map = write("map.json", r#"{"bos_token": {"content": "<m>"}}"#);
    let file = write("chat_template.jinja", "{{ bos_token }}3\n");
    let (string, list, none, map, file) = (&*string, &*list, &*none, &*map, &*file);
    for (config, jinja, specials, want) in [
        (Some(string), None, None, Some("<b>1<i>")),
        (Some(list), None, Some(map), Some("<o>2")),
        (Some(list), Some(file), None, Some("<o>3")),
        (Some(none), Some(file), Some(map), Some("<m>3")),
        (None, Some(file), None, Some("3")),
        (Some(none), None, Some(map), None),
        (None, None, None, None),
    ] {
        let template = ChatTemplate::from_hugging_face(config, jinja, specials).unwrap();
        assert_eq!(render(template).as_deref(), want);
    }
}

#[test]
fn of_several_templates_one_is_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer_config.json");
    let render = |field: &str, name: Option<&str>, extra: Value| {
        std::fs::write(&file, format!(r#"{{"chat_template": {field}}}"#)).unwrap();
        let template = ChatTemplate::named_from_hugging_face(Some(&file), None, None, name)?;
        let extra = extra.as_object().cloned().unwrap_or_default();
        template.map(|template| template.render(&[], false, extra)).transpose()
    };
    let both = r#"[{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]"#;
    let keyed = r#"{"rag": "r", "default": "d", "tool_use": "t"}"#;
    for field in [both, keyed] {
        for (name, extra, want) in [
            (None, Value::Null, "d"),
            (None, serde_json::json!({"tools": []}), "t"),
            (Some("rag"), serde_json::json!({"tools": []}), "r"),
            (Some("default"), serde_json::json!({"tools": []}), "d"),
        ] {
            assert_eq!(render(field, name, extra).unwrap().as_deref(), Some(want), "{name:?}");
        }
        let error = render(field, Some("none"), Value::Null).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
    let error =
        render(r#"[{"name": "rag", "template": "x"}, {"name": "b"}]"#, None, Value::Null).unwrap_err();
    assert!(error.to_string().contains("(rag, b)"), "{error}");
    let error = render(r#""one""#, Some("rag"), Value::Null).unwrap_err();
    assert!(error.to_string().contains("rag"), "{error}");
    assert_eq!(render(r#""one""#, Some("default"), Value::Null).unwrap().as_deref(), Some("one"));
}

#[test]
fn chat_template_json_is_read_where_nothing_else_names_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let [json, config] = ["chat_template.json", "tokenizer_config.json"].map(|name| folder.path().join(name));
    std::fs::write(&json, r#"{"chat_template": "from json"}"#).unwrap();
    let render = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let template = ChatTemplate::from_hugging_face(Some(&config), Some(&json), None).unwrap().unwrap();
        template.render(&[], false, Map::new()).unwrap()
    };
    assert_eq!(render("{}"), "from json");
    assert_eq!(render(r#"{"model_max_length": Infinity, "x": "Infinity"}"#), "from json");
    assert_eq!(render(r#"{"chat_template": "from config"}"#), "from config");
}

#[test]
fn a_refusal_of_the_template_is_an_error_with_its_words() {
    let template = ChatTemplate::new("\n{{ raise_exception('no such role') }}", Specials::default()).unwrap();
    let error = template.render(&[], false, Map::new()).unwrap_err();
    assert_eq!(error.to_string(), "chat template: no such role (line 2)");
}
