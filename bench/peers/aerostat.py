"""Aerostat: every command that is measured, and what is read from its output. Build: cargo build --release."""

import json

# Left to the kernel's own memory in the cgroup; the rest of the limit is the budget.
SLACK_BYTES = 60_000_000


def streamed(binary, model, prompts, steps, memory_bytes, threads):
    """Greedy generation from token ids; all prompts share every sweep."""
    argv = [binary, "run", model, "--json", "--quiet", "--ignore-eos", "--temperature", 0, "--max-new-tokens", steps,
            "--threads", threads]
    for ids in prompts:
        argv += ["--token-ids", ",".join(map(str, ids))]
    return argv + (["--memory", f"{memory_bytes}B"] if memory_bytes else [])


def streamed_result(output, _steps=None):
    """Seconds of all sweeps together, without loading; the first also carries the prompts."""
    told = json.loads(output)
    return {"all_steps_seconds": told["stats"]["sweep_seconds"], "tokens": told["results"][0]["token_ids"]}


def resident(binary, model, prompt, generate, threads):
    """Two commands: one sweep of a prompt, and generation from nothing but one token, as llama-bench does them."""
    long = [3 + (place * 131) % 31000 for place in range(prompt)]
    return (streamed(binary, model, [long], 1, None, threads),
            streamed(binary, model, [long[:1]], generate, None, threads))


def resident_result(prompt, generate, outputs):
    """Tokens per second of the prompt and of generation."""
    first, second = (streamed_result(output)["all_steps_seconds"] for output in outputs)
    return {"prompt_tokens_per_second": prompt / first, "tokens_per_second": generate / second}
