"""The same answers at every run. As vLLM's examples/features/batch_invariance/reproducibility_offline.py."""

import os
import random

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_BATCH_INVARIANT"] = "1"


def main() -> None:
    random.seed(5)
    llm = LLM(model="demo")
    params = SamplingParams(temperature=0.8, top_p=0.95)
    for output in llm.generate(["Hello, my name is", "The capital of France is"], params):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")
    print(random.randint(0, 100))


if __name__ == "__main__":
    main()
