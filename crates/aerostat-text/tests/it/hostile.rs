use std::path::Path;

use aerostat_text::{ChatTemplate, ErrorKind, GgufVocab, Message, Specials, Strings, Tokenizer};
use serde_json::{Map, Value, json};

use super::tokenizers::gguf_vocab;
use crate::data;

fn load(text: &[u8]) -> Result<Tokenizer, aerostat_text::Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Tokenizer::from_hugging_face(file.path(), None)
}

/// A whole small tokenizer with one thing replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut file: Value = crate::json("tokenizers/prepend/tokenizer.json");
    *file.pointer_mut(pointer).unwrap() = value;
    file.to_string().into_bytes()
}

#[test]
fn a_tokenizer_cut_anywhere_is_an_error() {
    let whole = std::fs::read(data("tokenizers/prepend/tokenizer.json")).unwrap();
    assert!(load(&whole).is_ok());
    for end in (0..whole.len() - 2).step_by(whole.len() / 97) {
        let error = load(&whole[..end]).err().unwrap_or_else(|| panic!("cut at {end}"));
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
}

#[test]
fn a_tokenizer_that_contradicts_itself_is_an_error() {
    for (pointer, value) in [
        ("/model", json!(null)),
        ("/model", json!({"type": "BPE"})),
        ("/model", json!({"type": "Magic", "vocab": {}})),
        ("/model/vocab", json!({"a": -1})),
        ("/model/vocab", json!({"a": 4_000_000_000u32})),
        ("/model/vocab", json!([["a", 0.5]])),
        ("/model/merges", json!(["a"])),
        ("/model/merges", json!(["a b c"])),
        ("/model/merges", json!([["a", "b", "c"]])),
        ("/model/merges", json!([["nothing", "known"]])),
        ("/model/unk_token", json!("<none>")),
        ("/model/dropout", json!(0.5)),
        ("/normalizer", json!({"type": "Nonsense"})),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        ("/decoder", json!({"type": "Sequence", "decoders": 7})),
        ("/decoder", json!(7)),
        ("/post_processor/special_tokens", json!({})),
        ("/added_tokens", json!([{"id": 1}])),
    ] {
        let error = load(&with(pointer, value.clone())).err().unwrap_or_else(|| panic!("{pointer} {value}"));
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
    let missing = Tokenizer::from_hugging_face(Path::new("/nowhere/tokenizer.json"), None).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(missing.to_string().contains("/nowhere/tokenizer.json"));
}

#[test]
fn the_order_of_the_fields_of_a_model_does_not_matter() {
    let usual = load(&std::fs::read(data("tokenizers/prepend/tokenizer.json")).unwrap()).unwrap();
    let mut file: Value = crate::json("tokenizers/prepend/tokenizer.json");
    let model = file["model"].as_object().unwrap().clone();
    for order in [["vocab", "merges", "type"], ["merges", "type", "vocab"], ["merges", "vocab", ""]] {
        let mut turned: Map<String, Value> = Map::new();
        turned.extend(
            order.iter().filter(|key| !key.is_empty()).map(|key| ((*key).to_owned(), model[*key].clone())),
        );
        turned.extend(model.clone().into_iter().filter(|(key, _)| key != "type" || order.contains(&"type")));
        file["model"] = turned.into();
        let text = "The caf\u{e9} \u{1F600} of 2024";
        let tokenizer = load(file.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), usual.encode(text, true).unwrap());
    }
}

#[test]
fn ids_outside_the_vocabulary_give_no_text() {
    for name in ["gpt2", "prepend"] {
        let tokenizer = Tokenizer::from_gguf(gguf_vocab(name)).unwrap();
        let mut ids = tokenizer.encode("ab", false).unwrap();
        let text = tokenizer.decode(&ids, false);
        ids.splice(1..1, [tokenizer.vocab_size() as u32, u32::MAX]);
        assert_eq!(tokenizer.decode(&ids, false), text);
        let mut stream = tokenizer.stream(false);
        assert_eq!(ids.iter().map(|id| stream.push(*id)).collect::<String>(), text);
    }
}

#[test]
fn a_gguf_vocabulary_that_contradicts_itself_is_an_error() {
    let strings = |list: &[&str]| list.iter().collect::<Strings>();
    let (bytes, pieces) = (|| gguf_vocab("gpt2"), || gguf_vocab("prepend"));
    for (vocab, kind) in [
        (GgufVocab::default(), ErrorKind::Malformed),
        (GgufVocab { model: "rwkv".into(), ..bytes() }, ErrorKind::Unsupported),
        (GgufVocab { pre: Some("unheard-of".into()), ..bytes() }, ErrorKind::Unsupported),
        (GgufVocab { merges: None, ..bytes() }, ErrorKind::Malformed),
        (GgufVocab { merges: Some(strings(&["ab"])), ..bytes() }, ErrorKind::Malformed),
        (GgufVocab { merges: Some(strings(&["zz zz"])), ..bytes() }, ErrorKind::Malformed),
        (GgufVocab { types: Some(vec![1]), ..bytes() }, ErrorKind::Malformed),
        (GgufVocab { scores: None, ..pieces() }, ErrorKind::Malformed),
        (GgufVocab { scores: Some(vec![0.0; 3]), ..pieces() }, ErrorKind::Malformed),
    ] {
        let error = Tokenizer::from_gguf(vocab).err().expect("an error");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let odd = GgufVocab {
        model: "llama".into(),
        tokens: [&b"\xff"[..], b"a", b"", b"a"].into_iter().collect(),
        scores: Some(vec![f32::NAN; 4]),
        bos: Some(99),
        unknown: Some(u32::MAX),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf(odd).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [3]);
    assert_eq!(tokenizer.decode(&[0], false), "\u{fffd}");
}

#[test]
fn templates_that_are_broken_or_never_end_are_errors() {
    for source in
        ["{% for %}", "{{ 'open }}", "{% if x %}", "{{ x | no_such_filter }}", "{% endgeneration %}"]
    {
        let error = ChatTemplate::new(source, Specials::default()).err();
        let error = error.or_else(|| {
            ChatTemplate::new(source, Specials::default()).unwrap().render(&[], false, Map::new()).err()
        });
        let kind = error.unwrap_or_else(|| panic!("{source}")).kind();
        assert!(matches!(kind, ErrorKind::TemplateSyntax | ErrorKind::TemplateRender), "{source}");
    }
    let turns = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}";
    for source in [
        format!("{turns}{{% endfor %}}{{% endfor %}}{{% endfor %}}"),
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}".to_owned(),
        "{{ messages[7].content }}".to_owned(),
        "{{ messages.no_such_method() }}".to_owned(),
        "{{ nothing | tojson }}".to_owned(),
        "{{ 'a' + 1 }}".to_owned(),
    ] {
        let template = ChatTemplate::new(&source, Specials::default()).unwrap();
        let error = template.render(&[Message::new("user", "hi")], true, Map::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TemplateRender, "{error}");
    }
}
