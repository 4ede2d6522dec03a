//! Requests as clients send them: what is taken, and that nothing is taken in silence.

use std::path::Path;

use aerostat::{ModelFiles, TokenLogprobs};
use aerostat_openai::{
    ApiRequest, Endpoint, Finish, Generation, More, Part, PartResult, Refusal, Rules, Setting, Shape, Stamp,
    Task,
};
use serde_json::{Map, Value, json};

const RULES: Rules = Rules { context: None, max_new_tokens: 24, seed: 0, lenient: false };

/// A model with a tokenizer and a chat template, 320 tokens, a context of 512.
fn setting(lenient: bool) -> Setting {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
    Setting::new(&ModelFiles::open(&path).unwrap(), "tiny", Rules { lenient, ..RULES }).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// A chat with more members.
fn chat(setting: &Setting, more: Value) -> Result<ApiRequest, Refusal> {
    let mut body = object(json!({"messages": [{"role": "user", "content": "hello"}]}));
    body.extend(object(more));
    setting.read(Endpoint::Chat, body, 0)
}

fn generation(request: &ApiRequest) -> &Generation {
    match &request.task {
        Task::Chat(generation) | Task::Completions(generation) => generation,
        other => panic!("{other:?}"),
    }
}

fn format(more: Value) -> Value {
    let mut inner = object(json!({"name": "a", "schema": {"type": "integer"}}));
    inner.extend(object(more));
    json!({"response_format": {"type": "json_schema", "json_schema": inner}})
}

/// A list of messages whose one message has more members.
fn message(more: Value) -> Value {
    let mut message = object(json!({"role": "assistant", "content": "a"}));
    message.extend(object(more));
    json!({"messages": [{"role": "user", "content": "q"}, message, {"role": "user", "content": "q"}]})
}

#[test]
fn members_that_are_not_known_are_named_by_their_path() {
    let setting = setting(false);
    for (body, path) in [
        (json!({"telepathy": 1}), "telepathy"),
        (json!({"response_format": {"type": "text", "foo": 1}}), "response_format.foo"),
        (json!({"response_format": {"type": "json_object", "foo": 1}}), "response_format.foo"),
        (format(json!({"foo": 1})), "response_format.json_schema.foo"),
        (json!({"structured_outputs": {"foo": 1}}), "structured_outputs.foo"),
        (json!({"structured_outputs": {"regex": "a", "foo": 1}}), "structured_outputs.foo"),
        (json!({"stream_options": {"include_usage": true, "foo": 1}}), "stream_options.foo"),
        (message(json!({"foo": 1})), "messages[1].foo"),
        (message(json!({"audio": {"id": "a"}})), "messages[1].audio"),
        (
            message(
                json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "foo": 1}]}),
            ),
            "messages[1].content[1].foo",
        ),
        (message(json!({"tool_calls": [{"id": "a", "foo": 1}]})), "messages[1].tool_calls[0].foo"),
        (
            message(json!({"tool_calls": [{"function": {"name": "f", "arguments": "{}", "foo": 1}}]})),
            "messages[1].tool_calls[0].function.foo",
        ),
        (message(json!({"function_call": {"name": "f", "foo": 1}})), "messages[1].function_call.foo"),
        (json!({"tools": [{"type": "function", "foo": 1}]}), "tools[0].foo"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "foo": 1}}]}),
            "tools[0].function.foo",
        ),
        // They are known, and what they ask for is not done.
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), "tools"),
        (
            json!({"structured_outputs": {"json": {}, "disable_additional_properties": true}}),
            "structured_outputs.disable_additional_properties",
        ),
    ] {
        let refusal = chat(&setting, body.clone()).unwrap_err();
        assert_eq!((refusal.code(), refusal.param()), ("unsupported_parameter", Some(path)), "{body}");
        assert!(refusal.message().contains(path), "{refusal}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_named_by_their_path() {
    let setting = setting(false);
    for (body, path) in [
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": 3}}),
            "response_format.json_schema",
        ),
        (format(json!({"schema": "text"})), "response_format.json_schema.schema"),
        (format(json!({"strict": "yes"})), "response_format.json_schema.strict"),
        (json!({"response_format": {"type": "json_object", "schema": 3}}), "response_format.schema"),
        (json!({"structured_outputs": {"json": "{"}}), "structured_outputs.json"),
        (json!({"stream_options": true}), "stream_options"),
        (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (message(json!({"tool_calls": "f()"})), "messages[1].tool_calls"),
        (message(json!({"tool_calls": [{"function": "f"}]})), "messages[1].tool_calls[0].function"),
        // These once went to the template as they were.
        (message(json!({"name": 5})), "messages[1].name"),
        (message(json!({"tool_call_id": {}})), "messages[1].tool_call_id"),
        (message(json!({"reasoning_content": ["hm"]})), "messages[1].reasoning_content"),
        (message(json!({"tool_calls": ["f"]})), "messages[1].tool_calls[0]"),
        (message(json!({"tool_calls": [null]})), "messages[1].tool_calls[0]"),
        (message(json!({"tool_calls": [{"id": 7}]})), "messages[1].tool_calls[0].id"),
        (
            message(json!({"tool_calls": [{"function": {"name": true}}]})),
            "messages[1].tool_calls[0].function.name",
        ),
        (
            message(json!({"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]})),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (message(json!({"function_call": {"name": 1}})), "messages[1].function_call.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "description": {}}}]}),
            "tools[0].function.description",
        ),
        (json!({"guided_decoding_backend": 5}), "guided_decoding_backend"),
        (json!({"guided_json": {}, "guided_whitespace_pattern": 5}), "guided_whitespace_pattern"),
        (json!({"guided_json": {}, "guided_whitespace_pattern": "x"}), "guided_whitespace_pattern"),
        (structured(json!({"whitespace_pattern": " +"})), "structured_outputs.whitespace_pattern"),
        (structured(json!({"disable_fallback": "zz"})), "structured_outputs.disable_fallback"),
        (json!({"logit_bias": {"+5": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 1, "05": 2}}), "logit_bias"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]}),
            "tools[0].function.strict",
        ),
    ] {
        let refusal = chat(&setting, body.clone()).unwrap_err();
        assert_eq!((refusal.code(), refusal.param()), ("invalid_value", Some(path)), "{body}");
    }
}

/// Clients send back what they got, nulls included, and hints to servers that cache or route.
#[test]
fn what_clients_send_and_what_means_nothing_here_is_taken() {
    let setting = setting(false);
    for body in [
        json!({"user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "flex", "priority": 3,
            "safety_identifier": "s", "prompt_cache_key": "k", "request_id": "r", "parallel_tool_calls": true}),
        json!({"stream": false, "stream_options": {"include_usage": true}}),
        json!({"stream_options": null, "telepathy": null, "response_format": null}),
        json!({"tools": [], "tool_choice": "auto", "functions": [], "modalities": ["text"]}),
        format(json!({"strict": true, "description": "an integer"})),
        json!({"structured_outputs": {"regex": "a", "disable_fallback": true, "whitespace_pattern": "[ ]?",
            "disable_any_whitespace": true, "disable_additional_properties": false}}),
        message(
            json!({"name": "n", "refusal": null, "audio": null, "function_call": null, "tool_calls": null,
            "annotations": [], "reasoning_content": "hm"}),
        ),
        message(
            json!({"content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "b"]}),
        ),
        message(json!({"content": "", "tool_calls": [{"id": "c", "type": "function", "index": 0,
            "function": {"name": "f", "arguments": "{}"}}]})),
    ] {
        let request = chat(&setting, body.clone()).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert!(request.ignored.is_empty());
    }
}

fn structured(more: Value) -> Value {
    let mut members = object(json!({"json": {"type": "integer"}}));
    members.extend(object(more));
    json!({"structured_outputs": members})
}

#[test]
fn temperatures_end_at_two_unless_the_reading_is_lenient() {
    let asked = |lenient: bool, t: f64| {
        let request = chat(&setting(lenient), json!({"temperature": t}))?;
        Ok::<f32, Refusal>(generation(&request).sampling.temperature)
    };
    assert_eq!(asked(false, 2.0).unwrap(), 2.0);
    let refusal = asked(false, 2.1).unwrap_err();
    assert_eq!((refusal.code(), refusal.param()), ("invalid_value", Some("temperature")));
    assert_eq!(refusal.message(), "`temperature` is 2.1; it must be a number from 0 to 2");
    assert_eq!(asked(true, 2.1).unwrap(), 2.1);
    assert_eq!(asked(true, 1e30).unwrap(), 1e30);
    assert!(asked(true, 1e39).is_err() && asked(true, -0.1).is_err() && asked(false, -0.1).is_err());
}

#[test]
fn a_lenient_reading_says_what_it_ignored() {
    let setting = setting(true);
    let mut body = object(format(json!({"foo": 1})));
    body.extend(object(json!({"telepathy": 1, "stream_options": {"bar": 2}})));
    body.extend(object(message(json!({"tool_name": "left to the template"}))));
    let request = chat(&setting, body.into()).unwrap();
    assert_eq!(request.ignored, ["response_format.json_schema.foo", "stream_options.bar", "telepathy"]);
    // What would change the answer is not ignored by anybody.
    for body in [
        json!({"thinking_token_budget": 5}),
        json!({"length_penalty": 2.0}),
        json!({"top_p": 2}),
        json!({"structured_outputs": {"structural_tag": "{}"}}),
    ] {
        assert!(chat(&setting, body.clone()).is_err(), "{body}");
    }
}

#[test]
fn every_name_of_a_shape_means_it() {
    let setting = setting(false);
    let schema = json!({"type": "integer"});
    for (body, want) in [
        (format(json!({})), Some(Shape::Schema(schema.clone()))),
        (json!({"response_format": {"type": "text"}}), None),
        (json!({"response_format": {"type": "json_object"}}), Some(Shape::JsonObject)),
        // Once the schema was ignored.
        (
            json!({"response_format": {"type": "json_object", "schema": schema}}),
            Some(Shape::Schema(schema.clone())),
        ),
        (json!({"guided_json": schema.to_string()}), Some(Shape::Schema(schema.clone()))),
        (json!({"structured_outputs": {"json": schema}}), Some(Shape::Schema(schema.clone()))),
        (json!({"guided_regex": "a"}), Some(Shape::Regex("a".to_owned()))),
        (
            json!({"structured_outputs": {"choice": ["a", "b"]}}),
            Some(Shape::Choice(vec!["a".into(), "b".into()])),
        ),
        (json!({"guided_grammar": "start: \"a\""}), Some(Shape::Lark("start: \"a\"".to_owned()))),
    ] {
        let request = chat(&setting, body.clone()).unwrap();
        assert_eq!(generation(&request).shape, want, "{body}");
    }
}

#[test]
fn answers_are_as_long_as_is_asked_for_or_as_fits() {
    let setting = setting(false);
    let prompt = generation(&chat(&setting, json!({})).unwrap()).prompts[0].len();
    let length = |body| chat(&setting, body).map(|r| generation(&r).max_new_tokens);
    assert_eq!(length(json!({})).unwrap(), 24);
    assert_eq!(length(json!({"max_tokens": 3})).unwrap(), 3);
    assert_eq!(length(json!({"max_tokens": 3, "max_completion_tokens": 4})).unwrap(), 4);
    assert_eq!(length(json!({"max_tokens": 512 - prompt})).unwrap(), 512 - prompt);
    assert_eq!(length(json!({"max_tokens": 513 - prompt})).unwrap_err().code(), "context_length_exceeded");
    let completion = |ids: usize| {
        let body = object(json!({"prompt": vec![5; ids]}));
        setting.read(Endpoint::Completions, body, 0).map(|r| generation(&r).max_new_tokens)
    };
    assert_eq!([completion(100).unwrap(), completion(500).unwrap(), completion(511).unwrap()], [16, 12, 1]);
    assert_eq!(completion(512).unwrap_err().code(), "context_length_exceeded");
    let embedding =
        |ids: usize| setting.read(Endpoint::Embeddings, object(json!({"input": vec![5; ids]})), 0);
    assert!(embedding(512).is_ok());
    assert_eq!(embedding(513).unwrap_err().code(), "context_length_exceeded");
}

/// Members that users of vLLM send.
#[test]
fn rules_about_tokens_are_read_as_vllm_reads_them() {
    let setting = setting(false);
    let body = json!({"min_tokens": 3, "allowed_token_ids": [7, 5], "bad_words": ["hill", " the"], "ignore_eos": true,
        "stop_token_ids": [9], "include_stop_str_in_output": true, "skip_special_tokens": false, "prompt_logprobs": 2});
    let request = chat(&setting, body).unwrap();
    let part = request.task.part(0).unwrap();
    let rules = &part.sampling.rules;
    assert_eq!((rules.min_tokens, rules.allowed_token_ids.as_deref()), (3, Some(&[7, 5][..])));
    assert_eq!(
        (part.end_tokens.is_empty(), part.ignore_eos, &part.stop_token_ids[..]),
        (false, true, &[9][..])
    );
    assert_eq!((part.include_stop, part.keep_special_tokens, part.prompt_logprobs), (true, true, Some(2)));
    let tokenizer = setting.tokenizer().unwrap();
    let mut want = Vec::new();
    for word in ["hill", "the"] {
        let (bare, spaced) =
            (tokenizer.encode(word, false).unwrap(), tokenizer.encode(&format!(" {word}"), false).unwrap());
        want.push(bare.clone());
        want.extend(Some(spaced).filter(|s| s[0] != bare[0] && s.len() == bare.len()));
    }
    assert_eq!(rules.bad_words, want);
    for (body, param) in [
        (json!({"min_tokens": 25}), "min_tokens"),
        (json!({"min_tokens": 4, "max_tokens": 3}), "min_tokens"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (json!({"allowed_token_ids": [320]}), "allowed_token_ids"),
        (json!({"bad_words": [""]}), "bad_words"),
        (json!({"bad_words": 7}), "bad_words"),
        (json!({"prompt_logprobs": 21}), "prompt_logprobs"),
        (json!({"truncate_prompt_tokens": 0}), "truncate_prompt_tokens"),
        (json!({"truncate_prompt_tokens": -2}), "truncate_prompt_tokens"),
        (json!({"echo": true}), "echo"),
    ] {
        assert_eq!(chat(&setting, body.clone()).unwrap_err().param(), Some(param), "{body}");
    }
}

#[test]
fn prompts_are_cut_to_their_last_tokens() {
    let setting = setting(false);
    let read = |more: Value| {
        let mut body = object(json!({"prompt": (5..105).collect::<Vec<u32>>(), "max_tokens": 450}));
        body.extend(object(more));
        setting.read(Endpoint::Completions, body, 0)
    };
    assert_eq!(read(json!({})).unwrap_err().code(), "context_length_exceeded");
    let kept = |more| generation(&read(more).unwrap()).prompts[0].clone();
    assert_eq!(kept(json!({"truncate_prompt_tokens": 3})), [102, 103, 104]);
    assert_eq!(kept(json!({"truncate_prompt_tokens": -1})).len(), 62);
    assert_eq!(kept(json!({"truncate_prompt_tokens": 400, "max_tokens": 4})).len(), 100);
}

/// Texts to embed are cut at their ends, and keep the special tokens around them.
#[test]
fn texts_to_embed_are_cut_to_their_first_tokens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sentences/cls");
    let bert = Setting::new(&ModelFiles::open(&path).unwrap(), "tiny", RULES).unwrap();
    let inputs = |setting: &Setting, body: Value| match setting.read(Endpoint::Embeddings, object(body), 0) {
        Ok(ApiRequest { task: Task::Embeddings(embedding), .. }) => embedding.inputs,
        other => panic!("{other:?}"),
    };
    let text = "the cat sat on the mat";
    let whole = inputs(&bert, json!({"input": text})).remove(0);
    let cut = inputs(&bert, json!({"input": text, "truncate_prompt_tokens": 4})).remove(0);
    assert_eq!(cut, [&whole[..3], &whole[whole.len() - 1..]].concat());
    assert_eq!(inputs(&bert, json!({"input": text, "truncate_prompt_tokens": -1})), [whole]);
    let setting = setting(false);
    let ids: Vec<u32> = (5..605).collect::<Vec<u32>>().into_iter().map(|id| id % 300).collect();
    let long = json!({"input": ids.clone()});
    assert_eq!(
        setting.read(Endpoint::Embeddings, object(long), 0).unwrap_err().code(),
        "context_length_exceeded"
    );
    assert_eq!(
        inputs(&setting, json!({"input": ids.clone(), "truncate_prompt_tokens": 3})),
        [ids[..3].to_vec()]
    );
    assert_eq!(
        inputs(&setting, json!({"input": ids.clone(), "truncate_prompt_tokens": -1})),
        [ids[..512].to_vec()]
    );
    let none = json!({"input": text, "truncate_prompt_tokens": 0});
    assert_eq!(
        setting.read(Endpoint::Embeddings, object(none), 0).unwrap_err().param(),
        Some("truncate_prompt_tokens")
    );
}

/// What evaluation harnesses send: the prompt's log-probabilities, and one token or none.
#[test]
fn echoed_prompts_come_with_their_log_probabilities() {
    let setting = setting(false);
    let body = json!({"prompt": ["the hills", [5, 6, 7]], "echo": true, "max_tokens": 0, "logprobs": 2,
        "prompt_logprobs": 0});
    let request = setting.read(Endpoint::Completions, object(body), 0).unwrap();
    // Two tokens whose texts are the same, since they are parts of characters.
    let top = vec![(228, -0.25), (229, -0.5)];
    let known = |logprob| Some(TokenLogprobs { logprob, rank: 2, top: top.clone() });
    let parts: Vec<Part> = (0..2)
        .map(|i| {
            let asked = request.task.part(i).unwrap();
            assert_eq!((asked.max_new_tokens, asked.prompt_logprobs), (0, Some(2)));
            let all = asked.token_ids.iter().enumerate().map(|(i, _)| known(-(i as f32)).filter(|_| i > 0));
            let more = More { prompt_logprobs: Some(all.collect()), stop_reason: None };
            let result = PartResult::Text { text: Some(String::new()), finish: Finish::Length, more };
            Part { tokens: Vec::new(), result }
        })
        .collect();
    let stamp = Stamp { id: "x".to_owned(), created: 0 };
    let body = setting.respond(&request, &parts, &stamp).unwrap();
    let choices = &body["choices"];
    assert_eq!((&choices[0]["text"], &choices[0]["stop_reason"]), (&json!("the hills"), &Value::Null));
    assert_eq!(choices[1]["logprobs"]["token_logprobs"], json!([null, -1.0, -2.0]));
    assert_eq!(
        choices[1]["logprobs"]["top_logprobs"],
        json!([null, {"\u{fffd}": -0.25}, {"\u{fffd}": -0.25}])
    );
    assert_eq!(choices[1]["prompt_logprobs"][0], Value::Null);
    assert_eq!(choices[1]["prompt_logprobs"][2]["7"]["rank"], 2);
    assert_eq!(body["usage"]["completion_tokens"], 0);
    let body = json!({"prompt": "a", "max_tokens": 0});
    assert!(setting.read(Endpoint::Completions, object(body), 0).is_err());
}

/// A text of one token has no log-probability, and no score of -0.
#[test]
fn the_score_of_nothing_is_zero() {
    let setting = setting(false);
    let body = json!({"text_1": [5], "text_2": [[]]});
    let request = setting.read(Endpoint::Score, object(body), 0).unwrap();
    let part = Part { tokens: Vec::new(), result: PartResult::Logprobs(vec![None]) };
    let stamp = Stamp { id: "x".to_owned(), created: 0 };
    let body = setting.respond(&request, &[part], &stamp).unwrap();
    assert_eq!(body["data"][0]["score"].to_string(), "0.0");
}
