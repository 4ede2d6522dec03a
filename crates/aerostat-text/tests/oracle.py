#!/usr/bin/env python3
"""Make the fixtures of aerostat-text: what transformers says ids, texts and renderings are.

usage: oracle.py          needs: pip install transformers tokenizers jinja2; writes tests/data beside this script

Trains a few tiny tokenizers and records, for a set of nasty strings, the ids and the texts that
`transformers.AutoTokenizer` gives; likewise the rendering of our own chat templates. Deterministic.
"""
import datetime, json, os, shutil

import jinja2, tokenizers, transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "data")
VERSIONS = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "jinja2": jinja2.__version__}
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they're for; we'll see, I'd say: don't!",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "for (int i = 0; i < 1024; i++) {\n\tsum += values[i] * 3.14159;\n}\r\n",
    "In 1984, 365 days; 2024 has 366. Call 0123456789 or 99999 at 12:34:56.",
    "Die Katze läuft über die Straße, während Größe und Übermut zunehmen.",
    "L'été, où naît la forêt, ça brûle. El niño comió piña en la montaña.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "今日は良い天気ですね。東京の空は青い。 我们在北京学习中文。 안녕하세요 세계",
    "مرحبا بالعالم    שלום עולם   नमस्ते दुनिया",
    "emoji 😀😃😄 👍🏽 👩‍👩‍👧‍👦 🇩🇪 and text   with   many    spaces     inside",
    "HELLO WORLD Hello World hello world the the the and and of of to to in in",
] * 3

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n", "\n ", "\r\n", "a", " a", "a ", "  a  b   c    d",
    "Hello world", " Hello world", "Hello  world ", "hello, world! It's they'RE WE'LL don't I'D 'tis 's",
    "def f(x):\n    return x  # twice\n\n\n\tdone\n", "{\"k\": [1, 2.5e-3, null]}", "a_b-c/d\\e|f<g>h",
    "0", "12", "123", "1234", "12345678901234567890", "1,234,567.89", "v1.2.3-rc4", "²³ ½ ① Ⅷ ٣٤٥ ५६",
    "naïve café", "nai\u0308ve cafe\u0301", "Ǆ ǅ ß ẞ ſ ŉ İ ı", "Größe STRASSE straße", "\u1e9b\u0323 \ufb01 \u212b",
    "😀", "😀😃", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "a😀b", "\u200d\u200b\ufeff\u00a0\u2003\u3000x", "\u202eabc\u202c",
    "今日は", "東京タワー", "中文,混合English文字123", "안녕하세요", "ᄒ\u1161\u11ab", "नमस्ते", "ไทย", "مرحبا", "שלום",
    "\u0000\u0001\u0007\u001b[0m\u007f\u0085", "\ud7ff\ue000\ufffd\uffff", "\U0010ffff\U0001d11e𝔘𝔫𝔦",
    "<s>", "</s>", "<s>Hello</s>", "<|im_start|>user\nHi <|im_end|> there<|im_end|>\n", "< s > <|im_start", "<unk>",
    "x<s> y </s>z  <s>", "<tool>call</tool>", "  <tool>  ", "▁under ▁score", "_▁_", "<0x41><0x0A>", "Ġthe Ċ",
    "supercalifragilisticexpialidocious " * 3, "a" * 50, "ab" * 30, " " * 33, "\n" * 9, "-" * 40, "😀" * 9,
    "The quick brown fox jumps over the lazy dog.", "Съешь ещё этих мягких", "¿Qué? ¡Sí! «oui» „ja“ …—–",
]

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(split, size, normalizer=None, bos=False, **model):
    tok = Tokenizer(models.BPE(**model))
    tok.normalizer = normalizer
    tok.pre_tokenizer = split
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return with_tool(tok)


def words(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def with_tool(tok):
    tok.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", normalized=False)])
    return tok


def sentence_piece(size, kind):
    """BPE with byte fallback as Llama-2 ("prepend"), Gemma ("plain") and newer Llama files ("metaspace") have it."""
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    spaces = {"prepend": [normalizers.Prepend("▁")], "plain": [], "metaspace": []}[kind]
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Sequence(spaces + [normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    corpus = [line for line in CORPUS if not any(ord(c) > 0x2fff for c in line)]
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS + bytes_, show_progress=False))
    state = json.loads(trained.to_str())
    state["added_tokens"] = state["added_tokens"][:len(SPECIALS)]
    tok = Tokenizer.from_str(json.dumps(state))
    strip = [] if kind == "plain" else [decoders.Strip(" ", 1, 0)]
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + strip)
    tok.pre_tokenizer = None
    if kind == "metaspace":
        tok.normalizer = None
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return with_tool(tok)


def affixes():
    """BPE whose words end with a suffix and whose inner tokens begin with a prefix."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.decoder = decoders.BPEDecoder(suffix="</w>")
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIALS, continuing_subword_prefix="##", end_of_word_suffix="</w>", show_progress=False))
    return with_tool(tok)


def unigram():
    """A model that is left to the library."""
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.NFKC()
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    tok.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False))
    return with_tool(tok)


def make_tokenizers():
    gpt2 = lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])
    yield "gpt2", byte_level(gpt2(), 520), {"pre": "gpt-2"}, {}
    yield "smollm", byte_level(digits(), 500), {"pre": "smollm"}, {}
    yield "llama3", byte_level(words(LLAMA3), 560, bos=True, ignore_merges=True), {"pre": "llama-bpe"}, {}
    yield "qwen2", byte_level(words(QWEN2), 540, normalizer=normalizers.NFC()), None, {"add_bos_token": False}
    yield "prepend", sentence_piece(560, "prepend"), {"space": True}, {"add_bos_token": True, "add_eos_token": True}
    yield "plain", sentence_piece(560, "plain"), {"space": False}, {}
    yield "affixes", affixes(), None, {}
    yield "unigram", unigram(), None, {}
    yield "metaspace", sentence_piece(520, "metaspace"), None, {}


def gguf_twin(tok, how):
    """The vocabulary as a GGUF file would hold it; scores are those of the order in which SentencePiece merges."""
    state = json.loads(tok.to_str())
    vocab = dict(state["model"]["vocab"]) | {t["content"]: t["id"] for t in state["added_tokens"]}
    tokens = [None] * (max(vocab.values()) + 1)
    for text, id_ in vocab.items():
        tokens[id_] = text
    special = {t["content"]: t["special"] for t in state["added_tokens"]}
    byte = {f"<0x{b:02X}>" for b in range(256)} if "space" in how else set()
    types = [2 if t == "<unk>" and "space" in how else 3 if special.get(t) else 4 if t in special else 6 if t in byte else 1 for t in tokens]
    twin = {"tokens": tokens, "types": types, "bos": 1, "eos": 2, "unknown": 0}
    merges = [" ".join(m) for m in state["model"]["merges"]]
    if "pre" in how:
        return twin | {"model": "gpt2", "pre": how["pre"], "merges": merges}
    rank = {}
    for at, merge in enumerate(state["model"]["merges"]):
        rank.setdefault("".join(merge), at)
    scores = [0.0 if k != 1 else -float(rank.get(t, 10000)) for t, k in zip(tokens, types)]
    return twin | {"model": "llama", "scores": scores, "add_space_prefix": how["space"]}


def expected(folder):
    auto = AutoTokenizer.from_pretrained(folder)
    cases = []
    for text in TEXTS:
        plain, full = auto.encode(text, add_special_tokens=False), auto.encode(text)
        case = {"text": text, "ids": plain, "decoded": auto.decode(plain, skip_special_tokens=False)}
        if full != plain:
            case["with_special"] = full
        skipped = auto.decode(plain, skip_special_tokens=True)
        if skipped != case["decoded"]:
            case["skipped"] = skipped
        cases.append(case)
    return {"class": type(auto).__name__, "cases": cases}


def tokenizer_fixtures():
    for name, tok, how, config in make_tokenizers():
        folder = os.path.join(DATA, "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        state = json.loads(tok.to_str())
        write(os.path.join(folder, "tokenizer.json"), state)
        write(os.path.join(folder, "tokenizer_config.json"), {
            "bos_token": "<s>", "eos_token": {"content": "</s>", "__type": "AddedToken", "lstrip": False, "normalized": False,
            "rstrip": False, "single_word": False, "special": True}, "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"} | config)
        write(os.path.join(folder, "expected.json"), VERSIONS | expected(folder))
        if how:
            write(os.path.join(folder, "gguf.json"), gguf_twin(tok, how))


def write(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 13, 5, 9)


def render(source, case, specials):
    messages, extra = case["messages"], dict(case.get("extra", {}))
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], tools=extra.pop("tools", None), documents=extra.pop("documents", None), chat_template=source,
            add_generation_prompt=case.get("add_generation_prompt", False), **(specials | extra))
        return {"rendered": rendered[0]}
    except Exception as error:
        return {"error": str(error) if type(error).__name__ == "TemplateError" else ""}


def chat_fixtures():
    chat_template_utils.datetime = Clock
    folder = os.path.join(DATA, "chat")
    conversations = json.load(open(os.path.join(folder, "conversations.json"), encoding="utf-8"))
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for name in sorted(os.listdir(os.path.join(folder, "templates"))):
        source = open(os.path.join(folder, "templates", name), encoding="utf-8", newline="").read()
        renderings = {key: render(source, case, specials) for key, case in conversations.items()}
        write(os.path.join(folder, "expected", name.removesuffix(".jinja") + ".json"), VERSIONS | {"renderings": renderings})


if __name__ == "__main__":
    for part in ("tokenizers", "chat/expected"):
        shutil.rmtree(os.path.join(DATA, part), ignore_errors=True)
        os.makedirs(os.path.join(DATA, part))
    tokenizer_fixtures()
    chat_fixtures()
