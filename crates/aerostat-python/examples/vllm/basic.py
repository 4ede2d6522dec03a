"""Prompts and answers that are sampled. As vLLM's examples/basic/offline_inference/basic.py."""

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams

PROMPTS = ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"]


def main() -> None:
    llm = LLM(model="demo")
    for output in llm.generate(PROMPTS, SamplingParams(temperature=0.8, top_p=0.95)):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
