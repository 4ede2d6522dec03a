"""Baichuan, InternLM, Mistral and the others."""

from aerostat.airllm import AutoModel  # was: from airllm import AutoModel

model = AutoModel.from_pretrained("demo")

tokens = model.tokenizer(["What is the capital of China?"], return_tensors="pt", return_attention_mask=False, truncation=True, max_length=128)
answer = model.generate(tokens["input_ids"].cuda(), max_new_tokens=5, use_cache=True, return_dict_in_generate=True)
print(model.tokenizer.decode(answer.sequences[0]))
