"""Texts in, texts out, from a copy in four bits."""

from aerostat.airllm import AutoModel  # was: from airllm import AutoModel

model = AutoModel.from_pretrained("demo")
output = model.generate(["What is the capital of France?"], max_length=50, compression="4bit")
print(output)
