"""Two questions about one long table. As vLLM's automatic_prefix_caching/automatic_prefix_caching_offline.py."""

import time

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams

ROWS = "".join(f"| {number} | Name {number} | {20 + number} |\n" for number in range(1, 9))
TABLE = "This is a table.\n| ID | Name | Age |\n|----|------|-----|\n" + ROWS


def timed(llm: LLM, params: SamplingParams, prompt: str) -> None:
    begun = time.time()
    output = llm.generate(prompt, sampling_params=params)
    print(repr(output[0].outputs[0].text))
    assert time.time() >= begun


def main() -> None:
    llm = LLM(model="demo", enable_prefix_caching=True)
    params = SamplingParams(temperature=0, max_tokens=20)
    for number in (1, 8):
        timed(llm, params, TABLE + f"Question: how old is Name {number}? Answer: ")


if __name__ == "__main__":
    main()
