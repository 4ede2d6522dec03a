//! Tokens that end a turn, and added tokens, whatever the types that files give them.

use aerostat_text::{GgufVocab, Strings, Tokenizer};

/// A SentencePiece vocabulary of the tokens after `<unk>`, `<s>`, `</s>` and the letters, with these types.
fn vocab(tokens: &[(&str, i32)]) -> GgufVocab {
    let first = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("\u{2581}", 1), ("a", 1)];
    let all: Vec<(&str, i32)> = first.iter().chain(tokens).copied().collect();
    GgufVocab {
        model: "llama".into(),
        tokens: all.iter().map(|(text, _)| text).collect::<Strings>(),
        scores: Some(all.iter().map(|_| -1.0).collect()),
        types: Some(all.iter().map(|(_, kind)| *kind).collect()),
        add_bos: Some(false),
        add_space_prefix: Some(false),
        ..GgufVocab::default()
    }
}

fn ends(tokens: &[(&str, i32)]) -> Vec<u32> {
    Tokenizer::from_gguf(vocab(tokens)).unwrap().turn_ends()
}

#[test]
fn a_token_that_looks_like_the_end_of_a_turn_is_one_whatever_its_type() {
    for kind in [1, 3, 4, 5] {
        let tokenizer = Tokenizer::from_gguf(vocab(&[("<|im_end|>", kind)])).unwrap();
        assert_eq!(tokenizer.turn_ends(), [2, 5], "type {kind}");
        assert!(tokenizer.is_special(5), "type {kind}");
        assert_eq!(tokenizer.encode("a<|im_end|>", false).unwrap(), [4, 5], "type {kind}");
        assert_eq!(tokenizer.decode(&[4, 5], true), "a");
    }
}

#[test]
fn harmony_ends_a_turn_with_return_and_call_and_not_with_end() {
    assert_eq!(ends(&[("<|end|>", 3)]), [2, 5]);
    assert_eq!(ends(&[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3)]), [2, 6, 7]);
    assert_eq!(ends(&[("<|end|>", 3), ("<|flush|>", 3), ("<|calls|>", 3)]), [2, 6, 7]);
    let harmony = vocab(&[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 4)]);
    assert_eq!(Tokenizer::from_gguf(harmony).unwrap().message_end(), Some((5, vec![6, 7])));
    let gemma = [("<eos>", 3), ("<turn|>", 3), ("<|tool_response>", 3)];
    assert_eq!(ends(&gemma), [5, 6, 7], "</s> is a token like others there");
}

#[test]
fn runs_of_spaces_take_the_longest_token_first() {
    let runs: Vec<String> = (2..=31).map(|n| " ".repeat(n)).collect();
    let tokens: Vec<(&str, i32)> = runs.iter().map(|run| (run.as_str(), 4)).collect();
    let tokenizer = Tokenizer::from_gguf(vocab(&tokens)).unwrap();
    let id = |spaces: usize| spaces as u32 + 3;
    for (spaces, want) in
        [(1, vec![3]), (2, vec![id(2)]), (31, vec![id(31)]), (32, vec![id(31), 3]), (40, vec![id(31), id(9)])]
    {
        assert_eq!(tokenizer.encode(&" ".repeat(spaces), false).unwrap(), want, "{spaces} spaces");
    }
}

#[test]
fn lists_longer_than_the_tokens_are_cut_and_shorter_ones_refused() {
    let whole = vocab(&[]);
    let mut longer = vocab(&[]);
    longer.types.as_mut().unwrap().extend([4; 3]);
    longer.scores.as_mut().unwrap().extend([0.0; 3]);
    let [whole, longer] =
        [whole, longer].map(|v| Tokenizer::from_gguf(v).unwrap().encode("a a", false).unwrap());
    assert_eq!(whole, longer);
    let mut shorter = vocab(&[]);
    shorter.types.as_mut().unwrap().pop();
    assert!(Tokenizer::from_gguf(shorter).is_err());
}
