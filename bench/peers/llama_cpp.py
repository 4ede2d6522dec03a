"""llama.cpp: `llama-batched-bench` for streamed steps, `llama-bench` where the model is resident.

Install (needs a C++ compiler; the release of the Python bindings carries the sources):
    pip install cmake==4.4.4
    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
    tar xf llama_cpp_python-0.3.36.tar.gz && cd llama_cpp_python-0.3.36/vendor/llama.cpp
    cmake -B BUILD -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF
    cmake --build BUILD --target llama-bench llama-batched-bench llama-quantize
and give BUILD/bin to run.py as --llama.
"""

import json

import box

PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-quantize")


def batched(folder, model, rows, steps, prompt_tokens, threads):
    """`rows` sequences of their own that decode together, over the mapped file."""
    context = -(-rows * (prompt_tokens + steps) // 256) * 256
    return [folder / "llama-batched-bench", "-m", model, "-c", context, "-t", threads, "-ngl", 0, "-npp",
            prompt_tokens, "-ntg", steps, "-npl", rows, "-kvu", "--output-format", "jsonl"]


def batched_result(output, steps):
    """Seconds of one step of generation, which it measures itself."""
    told = next((json.loads(line) for line in output.splitlines() if line.startswith("{")), None)
    if told is None:
        raise box.Failed("llama-batched-bench printed no result")
    return {"step_seconds": told["t_tg"] / steps}


def resident(folder, model, prompt, generate, threads):
    return [folder / "llama-bench", "-m", model, "-p", prompt, "-n", generate, "-t", threads, "-r", 2, "-ngl", 0,
            "-o", "json"]


def resident_result(output):
    """Tokens per second of the prompt and of generation."""
    rates = {}
    for test in json.loads(output):
        rates["prompt_tokens_per_second" if test["n_prompt"] else "tokens_per_second"] = test["avg_ts"]
    return rates
