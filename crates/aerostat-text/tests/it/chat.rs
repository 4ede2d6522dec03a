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
fn named_templates_without_a_default_are_an_error_and_not_no_template() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"chat_template": [{"name": "rag", "template": "x"}, {"name": "b"}]}"#)
        .unwrap();
    let error = ChatTemplate::from_hugging_face(Some(file.path()), None, None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("(rag, b)"), "{error}");
}

#[test]
fn a_refusal_of_the_template_is_an_error_with_its_words() {
    let template = ChatTemplate::new("\n{{ raise_exception('no such role') }}", Specials::default()).unwrap();
    let error = template.render(&[], false, Map::new()).unwrap_err();
    assert_eq!(error.to_string(), "chat template: no such role (line 2)");
}
