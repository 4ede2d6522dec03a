"""AirLLM, one layer at a time from its own split copy of the model; and the same without its garbage collections.

AirLLM collects garbage after every layer, which is most of its time on a CPU. `--no-gc` takes that out: the honest
rival. (Not called airllm.py: a script's folder comes first where Python looks for modules.)

Install: python -m venv ENV && ENV/bin/pip install airllm==4.0.0 torch==2.15.0 transformers==5.23.0
"""

import contextlib
import sys

import airllm
import airllm.airllm_base
import steps


def main():
    options = steps.arguments()
    if options.no_gc:
        airllm.airllm_base.clean_memory = lambda: None
    with contextlib.redirect_stdout(sys.stderr):
        model = airllm.AutoModel.from_pretrained(options.model, device="cpu", layer_shards_saving_path=options.split)
    if not options.prepare:
        steps.generate(model, options)


main()
