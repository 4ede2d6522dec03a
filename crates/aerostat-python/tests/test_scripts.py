"""Scripts of AirLLM and vLLM with one import changed, each run as a program: ``examples/airllm``, ``examples/vllm``. What
they print is what the command answers with the same seeds."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aerostat import LLM, SamplingParams
from aerostat._gbnf import to_lark

from conftest import FIXTURES, Batch

EXAMPLES = Path(os.environ.get("AEROSTAT_EXAMPLES", Path(__file__).resolve().parents[1] / "examples"))
FOUR = ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"]
CALL = 1 << 32


def run(name: str, model: str, tmp_path: Path, *arguments: str, torch: str = "as it is") -> list[str]:
    """The lines that a script prints. The model's name is its only other change."""
    source = (EXAMPLES / name).read_text()
    assert source.count('"demo"') >= 1 and "aerostat" in source
    script = tmp_path / Path(name).name
    without = "import sys\nsys.modules['torch'] = None\n" if torch == "without" else ""
    script.write_text(without + source.replace('"demo"', repr(model)))
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def texts(lines: list[str]) -> list[Any]:
    """The values that lines end with."""
    return [ast.literal_eval(re.split(r" -> |^\w[\w-]*: ", line)[-1]) for line in lines]


def sampled(prompts: list[str], call: int = 0, **how: Any) -> list[dict[str, Any]]:
    """Bodies with the seeds that ``LLM`` gives them."""
    return [{"prompt": p, "max_tokens": 16, "top_k": 0, "seed": (call * CALL) + i, **how} for i, p in enumerate(prompts)]


# vLLM


def test_basic(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = texts(run("vllm/basic.py", chat, tmp_path))
    assert [[text] for text in found] == batch(chat, sampled(FOUR, temperature=0.8, top_p=0.95))


def test_generate(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = texts(run("vllm/generate.py", chat, tmp_path, "--max_tokens", "9", "--temperature=0.6", "--seed", "3"))
    named = {"temperature": 0.6, "top_k": 40, "top_p": 0.9, "max_tokens": 9}
    config = json.loads((FIXTURES / "chat" / "generation_config.json").read_text())
    named.update({name: config[name] for name in ("top_k", "top_p")})
    bodies = [{**body, **named, "seed": 3 + i} for i, body in enumerate(sampled(FOUR))]
    assert [[text] for text in found] == batch(chat, bodies)


def test_default_sampling(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = texts(run("vllm/default_sampling.py", chat, tmp_path))
    bodies = [{"prompt": p, "max_tokens": 16, "temperature": 0.5, "seed": i} for i, p in enumerate([FOUR[0], FOUR[2]])]
    assert [[text] for text in found] == batch(chat, bodies)


def test_chat(chat: str, batch: Batch, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    found = [ast.literal_eval(line) for line in run("vllm/chat.py", chat, tmp_path, "--max-tokens", "6", "--chat-template-path", str(own))]
    talk = [
        {"role": "system", "content": "You are a helpful assistant"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help?"},
        {"role": "user", "content": "Write a line about schools."},
    ]
    seeds = [0, *(CALL + i for i in range(4))]
    wanted = batch(chat, [{"messages": talk, "max_tokens": 6, "seed": seed} for seed in seeds])
    plain = "".join(f"{m['role']}: {m['content']}\n" for m in talk) + "assistant:"
    # A template's text brings its own special tokens: none are added.
    llm = LLM(chat, progress=False)
    ids = llm.get_tokenizer().encode(plain, add_special_tokens=False)
    params = [llm.get_default_sampling_params() for _ in range(4)]
    for i, one in enumerate(params):
        one.max_tokens, one.seed = 6, 2 * CALL + i
    wanted += [[o.outputs[0].text] for o in llm.generate([ids] * 4, params)]
    assert [[text] for text in found] == wanted


def vectors(command: str, model: str, prompts: list[str]) -> Any:
    """What ``aerostat embed`` gives."""
    asked = [command, "embed", model, "--pooling", "last", "--normalize", "--json", *(f"--prompt={p}" for p in prompts)]
    told = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout)
    return np.asarray([row["embedding"] for row in told["results"]], dtype=np.float32)


def test_embed(chat: str, command: str, tmp_path: Path) -> None:
    found = run("vllm/embed.py", chat, tmp_path)
    wanted = vectors(command, chat, FOUR)
    for line, prompt, vector in zip(found, FOUR, wanted, strict=True):
        assert line == f"{prompt!r}: [{', '.join(str(float(value)) for value in vector[:4])}, …] (size={len(vector)})"


def test_embed_matryoshka(chat: str, command: str, tmp_path: Path) -> None:
    prompts = ["Follow the white rabbit.", "Sigue al conejo blanco.", "Suis le lapin blanc."]
    for line, vector in zip(run("vllm/embed_matryoshka.py", chat, tmp_path), vectors(command, chat, prompts), strict=True):
        found = np.asarray(ast.literal_eval(line.partition(": ")[2].partition(" (")[0]))
        cut = vector[:8].astype(np.float64)
        assert line.endswith("(size=8)") and np.allclose(found, cut / np.linalg.norm(cut), atol=1e-6)


def test_score(chat: str, command: str, tmp_path: Path) -> None:
    found = [float(line.rpartition(": ")[2]) for line in run("vllm/score.py", chat, tmp_path)]
    query, *documents = vectors(
        command, chat, ["What is the capital of France?", "The capital of Brazil is Brasilia.", "The capital of France is Paris."]
    ).astype(np.float64)
    assert found == [float(query @ document) for document in documents]


def test_multi_vector_retrieval(chat: str, tmp_path: Path) -> None:
    found = run("vllm/multi_vector_retrieval.py", chat, tmp_path)
    tokenizer = LLM(chat, progress=False).get_tokenizer()
    assert found[0].endswith(f"({len(tokenizer.encode(FOUR[0]))}, 32)") and float(found[2]) == pytest.approx(1.0)


def test_structured_outputs(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = run("vllm/structured_outputs.py", chat, tmp_path)
    sys.path.insert(0, str(EXAMPLES / "vllm"))
    try:
        import structured_outputs
    finally:
        sys.path.pop(0)
    shapes = {
        "choice": {"choice": ["Positive", "Negative"]},
        "regex": {"regex": r"[a-z]{2,6}@[a-z]{2,6}\.com\n"},
        "json": {"json": structured_outputs.SCHEMA},
        "grammar": {"grammar": to_lark(structured_outputs.GRAMMAR)},
    }
    bodies = []
    for call, (name, (_, prompt, stop)) in enumerate(structured_outputs.SHAPES.items()):
        (body,) = sampled([prompt], call, temperature=1.0, top_p=1.0, max_tokens=80, structured_outputs=shapes[name])
        bodies.append({**body, "stop": stop} if stop else body)
    answers = texts(found)
    assert [[text] for text in answers] == batch(chat, bodies)
    assert answers[0] in ("Positive", "Negative") and re.fullmatch(r"[a-z]{2,6}@[a-z]{2,6}\.com", answers[1])
    assert json.loads(answers[2])["kind"] in ("sedan", "SUV", "truck")
    assert re.fullmatch(r"SELECT col_[12] from table_[12] where col_[12] = [1-9][0-9]?", answers[3])


def test_reproducibility(chat: str, batch: Batch, tmp_path: Path) -> None:
    *found, number = run("vllm/reproducibility.py", chat, tmp_path)
    assert [[text] for text in texts(found)] == batch(chat, sampled([FOUR[0], FOUR[2]], temperature=0.8, top_p=0.95))
    # The caller's own random state is left alone.
    import random

    assert int(number) == random.Random(5).randint(0, 100)


def test_prefix_caching(chat: str, batch: Batch, tmp_path: Path) -> None:
    *found, same = run("vllm/prefix_caching.py", chat, tmp_path)
    prefix = "You lead a school and look for a teacher of mathematics. Go on with this text: "
    bodies = [{"prompt": prefix + p, "max_tokens": 16, "temperature": 0} for p in FOUR[:3]]
    assert [[ast.literal_eval(line)] for line in found] == batch(chat, bodies) and same == "the same: True"


def test_automatic_prefix_caching(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = [ast.literal_eval(line) for line in run("vllm/automatic_prefix_caching.py", chat, tmp_path)]
    rows = "".join(f"| {n} | Name {n} | {20 + n} |\n" for n in range(1, 9))
    table = "This is a table.\n| ID | Name | Age |\n|----|------|-----|\n" + rows
    prompts = [f"{table}Question: how old is Name {n}? Answer: " for n in (1, 8)]
    assert [[text] for text in found] == batch(chat, [{"prompt": p, "max_tokens": 20, "temperature": 0} for p in prompts])


def test_async_llm_streaming(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = texts(run("vllm/async_llm_streaming.py", chat, tmp_path))
    how = {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "seed": 42, "max_tokens": 24}
    assert [[text] for text in found] == batch(chat, [{"prompt": p, **how} for p in ("The future of AI is", "In a galaxy far away")])


def test_llm_engine(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = dict(line.split(": ", 1) for line in run("vllm/llm_engine.py", chat, tmp_path))
    bodies = [
        {"prompt": "A robot may not injure a human being", "temperature": 0.0},
        {"prompt": "To be or not to be,", "temperature": 0.8, "top_k": 5, "presence_penalty": 0.2, "seed": 3},
        {"prompt": "What is the meaning of life?", "n": 2, "temperature": 0.8, "top_p": 0.95, "frequency_penalty": 0.1, "seed": 4},
    ]
    wanted = batch(chat, [{"max_tokens": 16, "top_k": 0, "top_p": 1.0, **body} for body in bodies])
    assert [ast.literal_eval(found[str(n)]) for n in range(3)] == wanted


def test_simple_profiling(chat: str, batch: Batch, tmp_path: Path) -> None:
    found = texts(run("vllm/simple_profiling.py", chat, tmp_path))
    assert [[text] for text in found] == batch(chat, sampled([FOUR[0], FOUR[3]], temperature=0.8, top_p=0.95))


# AirLLM

#: Whether torch is there: a script runs with it and without.
TORCH = ["without", pytest.param("with", marks=pytest.mark.needs_torch)]


@pytest.fixture
def letters(tmp_path: Path) -> dict[str, Any]:
    """A tokenizer whose tokens are printable characters, for models of 128 tokens."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{c: 3 + i for i, c in enumerate([*map(chr, range(33, 127)), "\u0120"])}}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": i, "content": t, **special} for i, t in enumerate(["<pad>", "<s>", "</s>"])],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": []},
    }  # fmt: skip


def with_letters(name: str, letters: dict[str, Any], tmp_path: Path) -> str:
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder, ignore=shutil.ignore_patterns("*.gguf", "expected.json"))
    (folder / "tokenizer.json").write_text(json.dumps(letters))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return str(folder)


@pytest.mark.parametrize("torch", TORCH)
@pytest.mark.parametrize(
    ("script", "family", "tokens", "question"),
    [
        ("quick_start", "llama", 20, "What is the capital of United States?"),
        ("chatglm", "chatglm", 5, "What is the capital of China?"),
        ("qwen", "qwen", 5, "What is the capital of China?"),
        ("baichuan", "baichuan", 5, "What is the capital of China?"),
        ("baichuan", "internlm", 5, "What is the capital of China?"),
        ("baichuan", "mistral", 5, "What is the capital of China?"),
    ],
)
def test_airllms_scripts(script: str, family: str, tokens: int, question: str, torch: str, letters: dict[str, Any], tmp_path: Path) -> None:
    model = with_letters(family, letters, tmp_path)
    (found,) = run(f"airllm/{script}.py", model, tmp_path, torch=torch)
    llm = LLM(model, progress=False)
    answer = llm.generate(question, SamplingParams(temperature=0, max_tokens=tokens))[0]
    assert found == llm.get_tokenizer().decode([*(answer.prompt_token_ids or []), *answer.outputs[0].token_ids])
    assert found.startswith(question)


@pytest.mark.parametrize("torch", TORCH)
def test_the_articles_script(torch: str, letters: dict[str, Any], tmp_path: Path) -> None:
    model = with_letters("llama_gqa_bf16", letters, tmp_path)
    (found,) = run("airllm/article.py", model, tmp_path, torch=torch)
    assert len(ast.literal_eval(found)) == 1


def test_each_script_changes_nothing_but_its_import() -> None:
    for path in sorted(EXAMPLES.rglob("*.py")):
        lines = path.read_text().splitlines()
        changed = [line for line in lines if "aerostat" in line]
        assert changed and all(re.fullmatch(r"from aerostat\.(vllm|airllm)[\w.]* import .*  # was: from .*", line) for line in changed), path
    assert len(list((EXAMPLES / "vllm").glob("*.py"))) >= 10


def blocks(page: Path) -> list[str]:
    """The pieces of Python on a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_what_the_pages_print_runs(chat: str, tmp_path: Path) -> None:
    """Each block of the page, one after the other as a reader would type them, with the names of a model and of tables that
    the reader has, and the files that the commands before it make."""
    for library in ("pandas", "datasets"):
        pytest.importorskip(library)
    root = FIXTURES.parent
    own = """
from pandas import DataFrame
from datasets import Dataset
table = {"question": ["Why?", "How?"], "text": ["Good", "Bad"]}
frame, dataset = DataFrame(table), Dataset.from_dict(table)
import json, numpy
numpy.save("reviews.npy", numpy.eye(4, dtype="float32"))
json.dump({"results": [{"embedding": [0, 1, 0, 0]}]}, open("query.json", "w"))
"""
    code = [own, *blocks(root / "README.md"), *blocks(root / "docs/python.md")]
    assert len(code) == 7
    last = "\nassert list(frame) == ['question', 'text', 'answer', 'error', 'embedding', 'label', 'p'], list(frame)\n"
    last += "assert set(dataset.column_names) == {'question', 'text', 'answer'}, dataset\n"
    script = tmp_path / "page.py"
    script.write_text("\n".join(code).replace('"org/name"', repr(chat)) + last)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The sky is blue because →" in done.stdout
