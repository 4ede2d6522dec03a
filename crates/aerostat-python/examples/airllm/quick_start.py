"""One question, as AirLLM's first page asks it."""

from aerostat.airllm import AutoModel  # was: from airllm import AutoModel

LONGEST = 128

model = AutoModel.from_pretrained("demo")

questions = ["What is the capital of United States?"]
tokens = model.tokenizer(questions, return_tensors="pt", return_attention_mask=False, truncation=True, max_length=LONGEST, padding=False)
answer = model.generate(tokens["input_ids"].cuda(), max_new_tokens=20, use_cache=True, return_dict_in_generate=True)

print(model.tokenizer.decode(answer.sequences[0]))
