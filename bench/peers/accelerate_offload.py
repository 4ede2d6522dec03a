"""accelerate's `disk_offload`: every module reads its weights before it runs and drops them after.

The index points into the model's own file, so nothing is written twice.

Install: python -m venv ENV && ENV/bin/pip install torch==2.15.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0
"""

import json
import tempfile
from pathlib import Path

import steps
import torch
from accelerate import disk_offload, init_empty_weights
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM


def main():
    options = steps.arguments()
    config = AutoConfig.from_pretrained(options.model)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "index.json").write_text(json.dumps(index(Path(options.model))))
        disk_offload(model, folder, execution_device=torch.device("cpu"))
        steps.generate(model, options)


def index(model):
    """Where each tensor is, as accelerate's own loader writes it."""
    places = {}
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                places[name] = {"safetensors_file": str(path), "weight_name": name, "dtype": "bfloat16"}
    return places


main()
