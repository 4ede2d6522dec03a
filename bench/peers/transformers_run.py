"""Plain transformers: weights are views of the mapped file; the kernel pages them in and out.

Install: python -m venv ENV && ENV/bin/pip install torch==2.15.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0
"""

import steps
import torch
from transformers import AutoModelForCausalLM


def main():
    options = steps.arguments()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
    steps.generate(model, options)


main()
