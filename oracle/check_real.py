#!/usr/bin/env python3
"""Compare an aerostat binary with transformers on real models.

usage: check_real.py MODELS BINARY [NAME ...]

MODELS holds, for each NAME (smollm2 and gemma3 when none is given): NAME.gguf, NAME.gguf.expected.json, the folder
NAME in Hugging Face layout, and NAME/expected.json (prompts with `ids`, `greedy`, `logprobs`, `top_ids`,
`top_logits`). Prints one table and exits 1 when anything differs by more than the bounds below. Only when greedy
tokens part does it load the model in transformers, to see whether the choice was a tie.
"""

import argparse
import json
import pathlib
import subprocess
import sys

NAMES = ["smollm2", "gemma3"]
LOGPROB_ERROR_MAX = 2e-3
LOGIT_ERROR_MAX = 2e-2
TIE_GAP_MAX = 5e-3
CHATS = ["What is the weather like today?", "  Count to 12.\n\n", "Où est le ballon ? 🎈 \"<b>\" {{ x }}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("binary")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    rows = []
    for name in args.names or NAMES:
        for form in (args.models / f"{name}.gguf", args.models / name):
            if not form.exists():
                rows.append((form.name, "", "model", False, "missing"))
                continue
            rows += check_form(args.binary, form, args.models / name)
    print_table(rows)
    sys.exit(0 if rows and all(row[3] for row in rows) else 1)


def check_form(binary, form, folder):
    """Rows (model, prompt, what, passed, detail) of one model in one form."""
    expected_at = form / "expected.json" if form.is_dir() else form.with_name(form.name + ".expected.json")
    label = form.name + ("/" if form.is_dir() else "")
    rows = []
    for number, want in enumerate(json.loads(expected_at.read_text())["prompts"]):
        rows += [(label, f"ids {number}", *row) for row in check_prompt(binary, form, want)]
    for number, text in enumerate(CHATS):
        rows.append((label, f"text {number}", "token ids", *check_tokens(binary, form, folder, text)))
    return rows


def check_prompt(binary, form, want):
    ids = ",".join(map(str, want["ids"]))
    scored, error = aerostat(binary, "score", form, "--token-ids", ids, "--logits")
    if error:
        return [("score", False, error)]
    result = scored["results"][0]
    worst = max(abs(a - b) for a, b in zip(result["logprobs"][1:], want["logprobs"], strict=True))
    rows = [("log-probs", worst <= LOGPROB_ERROR_MAX, f"worst error {worst:.1e}")]
    worst = max(abs(result["logits_last"][i] - v) for i, v in zip(want["top_ids"], want["top_logits"]))
    rows.append(("top-20 logits", worst <= LOGIT_ERROR_MAX, f"worst error {worst:.1e}"))
    count = str(len(want["greedy"]))
    ran, error = aerostat(binary, "run", form, "--token-ids", ids, "--max-new-tokens", count, "--temperature", "0", "--ignore-eos")
    if error:
        return [*rows, ("greedy", False, error)]
    return [*rows, ("greedy", *compare_greedy(form, want, ran["results"][0]["token_ids"]))]


def compare_greedy(form, want, got):
    same = next((i for i, (a, b) in enumerate(zip(want["greedy"], got)) if a != b), min(len(want["greedy"]), len(got)))
    if same == len(want["greedy"]):
        return True, f"{same} tokens equal"
    if same == len(got):
        return False, f"stopped after {same} of {len(want['greedy'])} tokens"
    gap = top_gap(form, want["ids"] + want["greedy"][:same], got[same])
    if gap < TIE_GAP_MAX:
        return True, f"{same} tokens equal, then a tie (gap {gap:.1e})"
    return False, f"token {same}: {got[same]}, not {want['greedy'][same]} (gap {gap:.1e})"


def top_gap(form, ids, chosen):
    """How far transformers puts the logit of `chosen` below its best one, after `ids`."""
    import torch
    model = load(form)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].float()
    return float(logits.max() - logits[chosen])


def load(form, cache={}):
    if form not in cache:
        import torch
        from transformers import AutoModelForCausalLM, GgufConfig
        if form.is_dir():
            cache[form] = AutoModelForCausalLM.from_pretrained(form, dtype=torch.float32)
        else:
            cache[form] = AutoModelForCausalLM.from_pretrained(
                form.parent, gguf_file=form.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
    return cache[form]


def check_tokens(binary, form, folder, text):
    """Prompt token ids: through the chat template where the model has one, else as plain text."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        want = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    else:
        want = tokenizer(text)["input_ids"]
    ran, error = aerostat(binary, "run", form, text, "--max-new-tokens", "1")
    if error:
        return False, error
    got = ran["results"][0]["prompt_token_ids"]
    return got == want, f"{len(want)} ids equal" if got == want else f"{got} not {want}"


def aerostat(binary, command, form, *flags):
    """The JSON of one call, or a message."""
    call = [binary, command, str(form), *flags, "--json", "--kv", "f32"]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return None, f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    return json.loads(done.stdout), None


def print_table(rows):
    titles = ("model", "prompt", "what", "", "detail")
    cells = [titles, *((m, p, w, "ok" if passed else "FAILED", d) for m, p, w, passed, d in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    for row in cells:
        print("  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[4]]))


if __name__ == "__main__":
    main()
