"""Counters of a call. As vLLM's examples/features/profiling/simple_profiling_offline.py."""

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams


def main() -> None:
    llm = LLM(model="demo", tensor_parallel_size=1, profiler_config={"profiler": "torch", "torch_profiler_dir": "profile"})
    llm.start_profile()
    outputs = llm.generate(["Hello, my name is", "The future of AI is"], SamplingParams(temperature=0.8, top_p=0.95))
    llm.stop_profile()
    for output in outputs:
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
