"""The fixture that carries a tokenizer: byte-level BPE, a ChatML template, a Llama model, and its GGUF twin."""

import json
import shutil

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import gguf_twin
import make_fixtures

VOCABULARY = 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
CORPUS = [
    "The wind carries the balloon over the hills, and the hills carry the balloon's shadow.",
    "What is the weather like today? It is raining, and the rain will not stop before the evening.",
    "A model that does not fit in memory is read from the disk, once for every sweep of its weights.",
    "One, two, three, four: 1 2 3 4 10 100 1000. Don't count what isn't there; it's all we've got.",
    "Der Wind weht über die Hügel. Où est le ballon ? ¿Qué tiempo hace hoy?",
]
CONVERSATIONS = [
    [{"role": "user", "content": "What is the weather like today?"}],
    [{"role": "system", "content": "You are a balloon."}, {"role": "user", "content": "  Where are you?\n"}],
    [{"role": "user", "content": "Count to 12."}, {"role": "assistant", "content": "1, 2, 3"},
     {"role": "user", "content": "Go on… 🎈"}],
]
TEXTS = ["", " ", "the hills", "Don't stop,\n\n  it's raining!\t12345", "naïve Ærø 漢字 🎈👩‍🚀",
         "<|im_start|>user\nhi<|im_end|>", "a<|im_end", "\u0000\u007f"]


def make(out):
    folder = out / "chat"
    for seed in range(make_fixtures.SEEDS_MAX):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokenizer = train()
        tokenizer.save_pretrained(folder)
        save_model(folder, seed)
        record = expect(folder, tokenizer, seed)
        if all(min(c["greedy_gaps"]) > make_fixtures.GAP_MIN and len(set(c["greedy"])) > 2 for c in record["conversations"]):
            break
    else:
        raise SystemExit("chat: no seed has clear greedy choices")
    text = json.dumps(record, indent=1, ensure_ascii=True)
    (folder / "expected.json").write_text(text + "\n")
    gguf_twin.write(folder / "twin.gguf", make_fixtures.load(folder), "bf16", vocabulary=gguf_twin.bpe_vocabulary(folder))
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"chat: seed {seed}, {make_fixtures.size(folder) / 1024:.0f} KiB", flush=True)


def train():
    """The pre-tokenizer of GPT-2, which GGUF names `gpt-2`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0],
        clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE
    return fast


def save_model(folder, seed):
    entry = {"family": "Llama", "dtype": "bf16", "config": dict(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, max_position_embeddings=512, tie_word_embeddings=True)}
    model = make_fixtures.build(entry, seed)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0, do_sample=True, temperature=0.7, top_k=40, top_p=0.9)
    model.save_pretrained(folder)


def expect(folder, tokenizer, seed):
    model = make_fixtures.load(folder)
    conversations = []
    for messages in CONVERSATIONS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        greedy, gaps = make_fixtures.generate(model, ids, 16)
        conversations.append({
            "messages": messages, "text": text, "ids": ids, "greedy": greedy, "greedy_gaps": gaps,
            "greedy_text": tokenizer.decode(greedy, skip_special_tokens=True),
            "greedy_text_with_specials": tokenizer.decode(greedy, skip_special_tokens=False),
        })
    encodings = [{"text": t, "ids": tokenizer(t, add_special_tokens=False)["input_ids"]} for t in TEXTS]
    for case in encodings:
        case["ids_with_special_tokens"] = tokenizer(case["text"])["input_ids"]
        case["decoded"] = tokenizer.decode(case["ids"], skip_special_tokens=False)
    return {
        "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
        "torch": torch.__version__.split("+")[0], "seed": seed, "dtype": "float32", "eos_token_ids": [2, 0],
        "sampling": {"temperature": 0.7, "top_k": 40, "top_p": 0.9}, "encodings": encodings, "conversations": conversations,
    }
