"""Prompts with a common beginning. As vLLM's examples/features/automatic_prefix_caching/prefix_caching_offline.py."""

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams
from aerostat.vllm.distributed import cleanup_dist_env_and_memory  # was: from vllm.distributed import …

PREFIX = "You lead a school and look for a teacher of mathematics. Go on with this text: "
PROMPTS = [PREFIX + end for end in ("Hello, my name is", "The president of the United States is", "The capital of France is")]


def main() -> None:
    params = SamplingParams(temperature=0.0)
    plain = LLM(model="demo", enable_prefix_caching=False, gpu_memory_utilization=0.4)
    first = [output.outputs[0].text for output in plain.generate(PROMPTS, params)]
    del plain
    cleanup_dist_env_and_memory()

    cached = LLM(model="demo", enable_prefix_caching=True, gpu_memory_utilization=0.4)
    cached.generate(PROMPTS[0], params)
    second = [output.outputs[0].text for output in cached.generate(PROMPTS, params)]
    for text in second:
        print(repr(text))
    print(f"the same: {first == second}")


if __name__ == "__main__":
    main()
