"""Write a Hugging Face folder as a BF16 GGUF file without a vocabulary: gguf_of.py FOLDER FILE."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

sys.path.append(str(Path(__file__).parents[2] / "oracle"))
import gguf_twin


def main():
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    part = file.with_suffix(".part")
    gguf_twin.write(part, model, "bf16")
    part.rename(file)


main()
