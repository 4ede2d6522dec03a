"""Answers of a given form. As vLLM's examples/features/structured_outputs/structured_outputs_offline.py."""

from aerostat.vllm import LLM, SamplingParams  # was: from vllm import LLM, SamplingParams
from aerostat.vllm.sampling_params import StructuredOutputsParams  # was: from vllm.sampling_params import …

SCHEMA = {
    "type": "object",
    "properties": {"brand": {"type": "string", "maxLength": 8}, "kind": {"enum": ["sedan", "SUV", "truck"]}},
    "required": ["brand", "kind"],
    "additionalProperties": False,
}
GRAMMAR = """
root ::= statement
statement ::= "SELECT " column " from " table " where " condition
column ::= "col_1" | "col_2"
table ::= "table_1" | "table_2"
condition ::= column " = " number  # a comparison
number ::= [1-9] [0-9]?
"""
SHAPES = {
    "choice": (StructuredOutputsParams(choice=["Positive", "Negative"]), "Is this kind? What a day!", None),
    "regex": (StructuredOutputsParams(regex=r"[a-z]{2,6}@[a-z]{2,6}\.com\n"), "An address: ", ["\n"]),
    "json": (StructuredOutputsParams(json=SCHEMA), "A car as JSON: ", None),
    "grammar": (StructuredOutputsParams(grammar=GRAMMAR), "A query: ", None),
}


def main() -> None:
    llm = LLM(model="demo", max_model_len=100)
    for name, (shape, prompt, stop) in SHAPES.items():
        params = SamplingParams(structured_outputs=shape, stop=stop, max_tokens=80)
        print(f"{name}: {llm.generate(prompt, sampling_params=params)[0].outputs[0].text!r}")


if __name__ == "__main__":
    main()
