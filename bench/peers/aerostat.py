"""Aerostat: every command that is measured, and what is read from its output. Build: cargo build --release."""

import json

# Left to the kernel's own memory in the cgroup; the rest of the limit is the budget.
SLACK_BYTES = 60_000_000


def streamed(binary, model, prompts, steps, memory_bytes, threads):
    """Greedy generation from token ids; all prompts share every sweep."""
    # Answers of random models repeat themselves, which is easily guessed: a token a sweep, as the others have it.
    argv = [binary, "run", model, "--json", "--quiet", "--ignore-eos", "--draft", "none", "--temperature", 0,
            "--max-new-tokens", steps, "--threads", threads]
    for ids in prompts:
        argv += ["--token-ids", ",".join(map(str, ids))]
    return argv + (["--memory", f"{memory_bytes}B"] if memory_bytes else [])


def streamed_result(output, _steps=None):
    """Seconds of all sweeps together, without loading; the first also carries the prompts."""
    told = json.loads(output)
    return {"all_steps_seconds": told["stats"]["sweep_seconds"], "tokens": told["results"][0]["token_ids"]}


def resident(binary, model, prompt, generate, threads):
    """A prompt in one sweep, and an answer to a prompt of one token, as llama-bench has them."""
    return [binary, "bench", "throughput", model, "--prompt", prompt, "--generate", generate, "--threads", threads,
            "--rounds", 2, "--json", "--quiet"]


def resident_result(output):
    """Tokens per second of the prompt and of generation."""
    rates = {point["test"]: point["tokens_per_second"] for point in json.loads(output)["points"]}
    return {"prompt_tokens_per_second": rates["prompt"], "tokens_per_second": rates["generate"]}
