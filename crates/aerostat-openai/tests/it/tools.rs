//! Functions that a chat may call: grammars that answers follow, and what answers are taken apart into.

use std::path::Path;

use aerostat::{Constraint, ModelFiles, Tokenizer};
use aerostat_openai::{
    ApiRequest, Delta, Endpoint, Finish, LazyGrammars, More, Part, PartResult, Refusal, Rules, Setting, Stamp,
};
use serde_json::{Map, Value, json};

/// The tiny model with another chat template, which may have words that are special tokens.
fn setting(template: &str, special: &[&str]) -> Setting {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let templates = root.join("crates/aerostat-text/tests/data/chat/templates");
    setting_of(&std::fs::read_to_string(templates.join(template)).unwrap(), special)
}

/// The same with the template itself.
fn setting_of(template: &str, special: &[&str]) -> Setting {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root.join("fixtures/chat")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // They take the places of the last tokens that are put together.
    for (id, word) in (300..320).rev().zip(special) {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let old = vocab.iter().find(|(_, value)| **value == id).unwrap().0.clone();
        vocab.remove(&old);
        vocab.insert((*word).to_owned(), id.into());
        let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
        merges.retain(|merge| {
            merge.as_array().unwrap().iter().filter_map(Value::as_str).collect::<String>() != old
        });
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.push(json!({"id": id, "content": word, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}));
    }
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    // Some templates show functions at length.
    let rules = Rules { context: Some(4096), max_new_tokens: 24, seed: 0, lenient: false };
    Setting::new(&ModelFiles::open(folder.path()).unwrap(), "tiny", rules).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

fn tools() -> Value {
    let weather = json!({"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"const": 3}},
        "required": ["city", "days"], "additionalProperties": false});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": weather}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

fn read(setting: &Setting, more: Value) -> Result<ApiRequest, Refusal> {
    let mut body = object(json!({"messages": [{"role": "user", "content": "hello"}], "tools": tools()}));
    body.extend(object(more));
    setting.read(Endpoint::Chat, body, 0)
}

fn grammar(setting: &Setting, request: &ApiRequest) -> Box<dyn Constraint> {
    let shape = request.task.shape().unwrap();
    Box::new(LazyGrammars::default().constraint(setting, shape).unwrap_or_else(|e| panic!("{e}: {shape:?}")))
}

/// The text of an answer that begins with a text and goes on with tokens that may come, chosen by a number.
fn follow(tokenizer: &Tokenizer, mut grammar: Box<dyn Constraint>, begin: &str, number: usize) -> String {
    let (mut ids, mut left) = (Vec::new(), tokenizer.encode(begin, false).unwrap());
    left.reverse();
    let mut state = number;
    while !grammar.ended() && ids.len() < 600 {
        let mut next = match left.pop() {
            Some(id) => vec![id],
            None => grammar.forced().unwrap(),
        };
        if next.is_empty() {
            let mut logits = vec![0.0; 320];
            grammar.mask(&mut logits).unwrap();
            let allowed: Vec<u32> = (0..320).filter(|id| logits[*id as usize] == 0.0).collect();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let ends = allowed.iter().find(|id| **id == 2).filter(|_| number == 0);
            next = vec![*ends.unwrap_or(&allowed[(state >> 33) % allowed.len()])];
        }
        for id in next {
            grammar.accept(id).unwrap_or_else(|e| panic!("{e}: {:?}", tokenizer.decode(&ids, false)));
            if id != 2 {
                ids.push(id);
            }
        }
    }
    tokenizer.decode(&ids, false)
}

/// The choice that a text becomes; in chunks it is the same.
fn answer(setting: &Setting, request: &ApiRequest, text: &str, finish: Finish) -> Value {
    let result = PartResult::Text { text: Some(text.to_owned()), finish, more: More::default() };
    let stamp = Stamp { id: "0123".to_owned(), created: 1 };
    let part = Part { tokens: Vec::new(), result };
    let choice = setting.respond(request, &[part], &stamp).unwrap()["choices"][0].clone();
    let mut splitter = request.task.splitter().unwrap();
    let mut joined = json!({"content": "", "reasoning_content": "", "tool_calls": []});
    let mut pieces: Vec<_> = text.chars().map(|c| splitter.push(&c.to_string())).collect();
    pieces.push(splitter.finish());
    for pieces in pieces {
        let chunk =
            setting.chunk(request, &stamp, 0, Delta::Pieces { pieces: &pieces, tokens: &[] }).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        for name in ["content", "reasoning_content"] {
            let more = delta[name].as_str().unwrap_or_default();
            joined[name] = format!("{}{more}", joined[name].as_str().unwrap()).into();
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = joined["tool_calls"].as_array_mut().unwrap();
            if call.get("id").is_some() {
                assert_eq!(call["index"], calls.len());
                calls.push(json!({"id": call["id"], "type": call["type"],
                    "function": {"name": call["function"]["name"], "arguments": ""}}));
            }
            let place = &mut calls[call["index"].as_u64().unwrap() as usize]["function"]["arguments"];
            *place =
                format!("{}{}", place.as_str().unwrap(), call["function"]["arguments"].as_str().unwrap())
                    .into();
        }
    }
    let message = &choice["message"];
    assert_eq!(joined["content"], message["content"].as_str().unwrap_or_default(), "{text:?}");
    assert_eq!(
        joined["reasoning_content"],
        message.get("reasoning_content").and_then(Value::as_str).unwrap_or_default()
    );
    assert_eq!(joined["tool_calls"], message.get("tool_calls").cloned().unwrap_or_else(|| json!([])));
    choice
}

/// Names and arguments of the calls of a choice, which must be good ones.
fn calls(choice: &Value) -> Vec<(String, Value)> {
    let calls = choice["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{choice}"));
    let call = |call: &Value| {
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap())
            .unwrap_or_else(|e| panic!("{e}: {call}"));
        let name = call["function"]["name"].as_str().unwrap().to_owned();
        match name.as_str() {
            "weather" => {
                assert!(arguments["days"] == 3 && ["Rome", "Oslo"].iter().any(|c| arguments["city"] == *c))
            }
            "now" => assert_eq!(arguments, json!({})),
            other => panic!("{other}"),
        }
        (name, arguments)
    };
    calls.iter().map(call).collect()
}

const TEMPLATES: [&str; 5] =
    ["qwen3.jinja", "llama3.jinja", "mistral.jinja", "deepseek.jinja", "gemma.jinja"];

#[test]
fn what_must_be_called_is_called_in_the_words_of_each_family() {
    for template in TEMPLATES {
        for special in [&[][..], &["[TOOL_CALLS]", "<tool_call>", "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"]]
        {
            let setting = setting(template, special);
            let tokenizer = setting.tokenizer().unwrap();
            let named = json!({"type": "function", "function": {"name": "weather"}});
            for number in 0..6 {
                let request = read(&setting, json!({"tool_choice": "required"})).unwrap();
                let text = follow(tokenizer, grammar(&setting, &request), "", number);
                let choice = answer(&setting, &request, &text, Finish::Stop);
                assert!(!calls(&choice).is_empty(), "{text}");
                assert_eq!(
                    (&choice["finish_reason"], &choice["message"]["content"]),
                    (&json!("tool_calls"), &Value::Null)
                );
                let one = json!({"tool_choice": named, "parallel_tool_calls": number % 2 == 0});
                let request = read(&setting, one).unwrap();
                let text = follow(tokenizer, grammar(&setting, &request), "", number);
                let found = calls(&answer(&setting, &request, &text, Finish::Stop));
                assert_eq!(
                    found.iter().map(|c| c.0.as_str()).collect::<Vec<_>>(),
                    ["weather"],
                    "{template} {text}"
                );
            }
        }
    }
}

#[test]
fn what_may_be_called_is_held_to_the_grammar_from_its_first_word_on() {
    for (template, begin, thoughts, said) in [
        ("qwen3.jinja", "Well.\n<tool_call>", "", "Well."),
        ("qwen3.jinja", "<think>\nno <tool_call> yet\n</think>\n\n<tool_call>", "no <tool_call> yet", ""),
        ("llama3.jinja", "{\"name\": \"", "", ""),
        ("mistral.jinja", "[TOOL_CALLS]", "", ""),
        ("mistral.jinja", "So: [TOOL_CALLS]", "", "So:"),
    ] {
        for special in [&[][..], &["[TOOL_CALLS]", "<tool_call>"]] {
            let setting = setting(template, special);
            let request = read(&setting, json!({})).unwrap();
            let tokenizer = setting.tokenizer().unwrap();
            if template == "qwen3.jinja" && !special.is_empty() && begin.contains("no <tool_call>") {
                // A special token in thoughts is no text.
                continue;
            }
            for number in 0..6 {
                let text = follow(tokenizer, grammar(&setting, &request), begin, number);
                let choice = answer(&setting, &request, &text, Finish::Stop);
                assert!(!calls(&choice).is_empty(), "{text}");
                let message = &choice["message"];
                assert_eq!(message["content"].as_str().unwrap_or_default(), said, "{text}");
                assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), thoughts, "{text}");
            }
            // Who says something else may, and may end.
            for (begin, said) in [("Hello.", "Hello."), ("{\"a\": [1]}", "{\"a\": [1]}")] {
                let text = follow(tokenizer, grammar(&setting, &request), begin, 0);
                let choice = answer(&setting, &request, &text, Finish::Stop);
                assert_eq!(
                    (&choice["message"]["content"], &choice["finish_reason"]),
                    (&json!(said), &json!("stop"))
                );
                assert_eq!(choice["message"].get("tool_calls"), None);
            }
        }
    }
    // A prompt that begins thoughts.
    let setting = setting("deepseek.jinja", &[]);
    let refused = read(&setting, json!({})).unwrap_err();
    assert_eq!(refused.param(), Some("tools"), "its template shows no functions: {refused}");
}

/// They were refused together.
#[test]
fn an_answer_calls_or_has_the_shape_that_is_wanted_of_it() {
    let schema = json!({"type": "object", "properties": {"a": {"enum": ["<tool_call>", "[TOOL_CALLS]"]}},
        "required": ["a"], "additionalProperties": false});
    let format =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    let wish = |more: Value| {
        let mut body = object(format.clone());
        body.extend(object(more));
        Value::from(body)
    };
    for (template, marker) in [("qwen3.jinja", "<tool_call>"), ("mistral.jinja", "[TOOL_CALLS]")] {
        for special in [&[][..], &["[TOOL_CALLS]", "<tool_call>"]] {
            let setting = setting(template, special);
            let tokenizer = setting.tokenizer().unwrap();
            let request = read(&setting, wish(json!({}))).unwrap();
            for number in 0..6 {
                let text = follow(tokenizer, grammar(&setting, &request), marker, number);
                let choice = answer(&setting, &request, &text, Finish::Stop);
                assert!(!calls(&choice).is_empty() && choice["message"]["content"].is_null(), "{text}");
                let text = follow(tokenizer, grammar(&setting, &request), "{", number);
                let choice = answer(&setting, &request, &text, Finish::Stop);
                let said: Value =
                    serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
                assert!(said["a"].is_string() && said.as_object().unwrap().len() == 1, "{text}");
                assert_eq!(
                    (&choice["finish_reason"], choice["message"].get("tool_calls")),
                    (&json!("stop"), None)
                );
                // Who must call has no answer that could have a shape.
                let forced = read(&setting, wish(json!({"tool_choice": "required"}))).unwrap();
                let text = follow(tokenizer, grammar(&setting, &forced), "", number);
                assert!(!calls(&answer(&setting, &forced, &text, Finish::Stop)).is_empty(), "{text}");
            }
            // As without functions.
            let alone = read(&setting, wish(json!({"tools": null}))).unwrap();
            let none = read(&setting, wish(json!({"tool_choice": "none"}))).unwrap();
            assert_eq!(none.task.shape(), alone.task.shape());
            assert!(none.task.splitter().is_none());
            let any = read(&setting, json!({"response_format": {"type": "json_object"}})).unwrap();
            let text = follow(tokenizer, grammar(&setting, &any), "{}", 0);
            assert_eq!(answer(&setting, &any, &text, Finish::Stop)["message"]["content"], "{}");
        }
    }
    // Its calls are JSON and nothing else.
    let llama = setting("llama3.jinja", &[]);
    assert_eq!(read(&llama, wish(json!({}))).unwrap_err().param(), Some("tools"));
    assert!(read(&llama, wish(json!({"tool_choice": "required"}))).is_ok());
}

#[test]
fn thoughts_are_no_content() {
    let qwen = setting("qwen3.jinja", &[]);
    let deepseek = setting("deepseek.jinja", &["<think>", "</think>"]);
    let gemma = setting("gemma.jinja", &[]);
    let none = json!({"tools": null});
    for (setting, text, thoughts, said) in [
        (&qwen, "<think>\nhm\n</think>\n\nyes", "hm", "yes"),
        (&qwen, "yes", "", "yes"),
        (&deepseek, "hm\n</think>\nyes", "hm", "yes"),
        (&deepseek, "hm", "hm", ""),
    ] {
        let request = read(setting, none.clone()).unwrap();
        let choice = answer(setting, &request, text, Finish::Length);
        let message = &choice["message"];
        assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), thoughts);
        assert_eq!((&message["content"], &choice["finish_reason"]), (&json!(said), &json!("length")));
        // All of an answer that follows a grammar is content.
        assert!(
            read(setting, json!({"tools": null, "guided_choice": ["a"]})).unwrap().task.splitter().is_none()
        );
    }
    assert!(read(&gemma, none).unwrap().task.splitter().is_none());
}

#[test]
fn earlier_calls_reach_the_template_and_functions_that_it_does_not_show_are_told_in_words() {
    let prompt = |setting: &Setting, more: Value| {
        let aerostat_openai::Task::Chat(generation) = read(setting, more).unwrap().task else { panic!() };
        setting.tokenizer().unwrap().decode(&generation.prompts[0], false)
    };
    let qwen = setting("qwen3.jinja", &[]);
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{\"a\": \"b\"}"}});
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "noon"}]},
    ]);
    let text = prompt(&qwen, json!({"messages": messages}));
    assert!(text.contains("{\"name\": \"now\", \"arguments\": {\"a\": \"b\"}}"), "{text}");
    assert!(
        text.contains("<tool_response>\nnoon\n</tool_response>") && text.contains("\"weather\""),
        "{text}"
    );
    let none = prompt(&qwen, json!({"tool_choice": "none"}));
    assert!(!none.contains("weather"), "{none}");
    let gemma = setting("gemma.jinja", &[]);
    let told = prompt(&gemma, json!({"tool_choice": "required"}));
    assert!(told.contains("\"weather\"") && told.contains("hello"), "{told}");
}

/// `reasoning_effort` was once refused whatever the model.
#[test]
fn effort_is_told_to_templates_that_have_a_word_for_it_and_refused_by_others() {
    let template = "{{ reasoning_effort | default('medium') }}: {{ messages[0].content }}";
    let (knows, other) = (setting_of(template, &[]), setting("qwen3.jinja", &[]));
    let read = |setting: &Setting, effort: Value| {
        let messages = json!([{"role": "user", "content": "q"}]);
        setting.read(Endpoint::Chat, object(json!({"messages": messages, "reasoning_effort": effort})), 0)
    };
    for (effort, text) in
        [(json!("low"), "low: q"), (json!("medium"), "medium: q"), (json!(null), "medium: q")]
    {
        let aerostat_openai::Task::Chat(generation) = read(&knows, effort).unwrap().task else { panic!() };
        assert_eq!(knows.tokenizer().unwrap().decode(&generation.prompts[0], false), text);
    }
    let refused = read(&other, json!("low")).unwrap_err();
    assert_eq!((refused.code(), refused.param()), ("unsupported_parameter", Some("reasoning_effort")));
}

#[test]
fn an_answer_goes_on_with_the_last_message() {
    let qwen = setting("qwen3.jinja", &[]);
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "The sky is "}]);
    let read = |more: Value| {
        let mut body = object(json!({"messages": messages, "continue_final_message": true}));
        body.extend(object(more));
        qwen.read(Endpoint::Chat, body, 0)
    };
    let aerostat_openai::Task::Chat(generation) = read(json!({})).unwrap().task else { panic!() };
    let text = qwen.tokenizer().unwrap().decode(&generation.prompts[0], false);
    assert!(text.ends_with("The sky is"), "{text:?}");
    assert!(read(json!({"add_generation_prompt": true})).is_err());
    assert!(read(json!({"messages": [{"role": "user", "content": " "}]})).is_err());
}

#[test]
fn what_is_wrong_with_functions_is_said_by_its_path() {
    let setting = setting("qwen3.jinja", &[]);
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let choice = |choice: Value| json!({"tool_choice": choice, "tools": [{"type": "function", "function": {"name": "f"}}]});
    for (body, param) in [
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0]"),
        (function(json!({"name": ""})), "tools[0].function.name"),
        (function(json!({"name": "a b"})), "tools[0].function.name"),
        (function(json!({"name": "a", "parameters": 3})), "tools[0].function.parameters"),
        (function(json!({"name": "a", "novel": 3})), "tools[0].function.novel"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "none"}}}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {}}}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": 3}}), "tool_choice.function"),
        // Members of a choice were taken in silence.
        (
            choice(json!({"type": "function", "function": {"name": "f", "novel": 3}})),
            "tool_choice.function.novel",
        ),
        (choice(json!({"type": "function", "function": {"name": "f"}, "novel": 3})), "tool_choice.novel"),
        (choice(json!({"type": "custom", "function": {"name": "f"}})), "tool_choice.type"),
        (json!({"tool_choice": "required", "tools": []}), "tool_choice"),
        (json!({"guided_regex": "a"}), "tools"),
        (json!({"response_format": {"type": "json_object"}, "guided_json": {}}), "response_format"),
        (json!({"functions": [{}]}), "functions"),
    ] {
        assert_eq!(read(&setting, body.clone()).unwrap_err().param(), Some(param), "{body}");
    }
    let bad = function(json!({"name": "a", "parameters": {"type": "wishes"}}));
    let request = read(&setting, bad).unwrap();
    let refused = LazyGrammars::default().constraint(&setting, request.task.shape().unwrap()).unwrap_err();
    assert_eq!(refused.param(), Some("tools"));
}
