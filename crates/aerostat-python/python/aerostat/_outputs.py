"""What ``AutoModel`` gives, in transformers' shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import tensors

if TYPE_CHECKING:
    from ._generate import Ask
    from ._hooks import Gathered


class Output(dict[str, Any]):
    """A dict whose members are attributes; numbers and slices index its values, as transformers' outputs do."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name in ("logits", "scores", "hidden_states", "loss", "attentions", "past_key_values"):
                return None
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())


class TextAnswers(list[Any]):
    """Answers to texts, with their tokens (``sequences``), ``finish_reasons`` and the engine's ``stats``."""

    def __init__(self, texts: list[str], sequences: list[list[int]], finish_reasons: list[str], stats: Any) -> None:
        super().__init__(texts)
        self.sequences, self.finish_reasons, self.stats = sequences, finish_reasons, stats


class GenerateOutput(Output):
    """``sequences`` and, if asked for, ``logits``, ``scores`` and ``hidden_states``."""

    @classmethod
    def of(
        cls, sequences: Any, gathered: list["Gathered"], prompts: list[int], padded: Any, steps: int, given: Any, ask: "Ask"
    ) -> "GenerateOutput":
        """``prompts`` are the lengths of prompts without padding. Steps after a sequence's end hold NaN."""
        output = cls(sequences=sequences)
        for name, processed, wanted in (("scores", True, "output_scores"), ("logits", False, "output_logits")):
            if ask.known[wanted]:
                rows = [one.logits(processed) for one in gathered]
                output[name] = tuple(tensors.like(_step(rows, step), given) for step in range(steps))
        if ask.known["output_hidden_states"]:
            output["hidden_states"] = _states(gathered, prompts, padded, steps, given, ask)
        return output


def _step(rows: list[Any], step: int) -> Any:
    """``[batch, width]``: one row of each sequence."""
    import numpy as np

    return np.stack([row[step] if step < len(row) else np.full(row.shape[1], np.nan, dtype=np.float32) for row in rows])


def _states(gathered: list["Gathered"], prompts: list[int], padded: Any, steps: int, given: Any, ask: "Ask") -> Any:
    import numpy as np

    from ._generate import all_layers

    length = padded.shape[1]
    layers = [[one.hidden(layer) for one in gathered] for layer in all_layers(ask.core.facts)]
    whole = []
    for step in range(steps):
        of_step = []
        for rows in layers:
            if step == 0:
                # The prompt, its padding's states zero; where it stands, the mask said: here all of one side.
                block = np.zeros((len(rows), length, rows[0].shape[1]), dtype=np.float32)
                for number, (row, prompt) in enumerate(zip(rows, prompts)):
                    start = ask.starts[number // ask.known["num_return_sequences"]]
                    block[number, start : start + prompt] = row[:prompt]
            else:
                rest = [row[prompt:] for row, prompt in zip(rows, prompts)]
                block = _step(rest, step - 1)[:, None, :]
            of_step.append(tensors.like(block, given))
        whole.append(tuple(of_step))
    return tuple(whole)
