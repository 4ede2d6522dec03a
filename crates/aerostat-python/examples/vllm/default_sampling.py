"""The model's own generation_config.json, with one value changed. As vLLM's basic_with_model_default_sampling.py."""

from aerostat.vllm import LLM  # was: from vllm import LLM

llm = LLM(model="demo", generation_config="auto")
params = llm.get_default_sampling_params()
params.temperature = 0.5

for output in llm.generate(["Hello, my name is", "The capital of France is"], params):
    print(f"{output.prompt!r} -> {output.outputs[0].text!r}")
