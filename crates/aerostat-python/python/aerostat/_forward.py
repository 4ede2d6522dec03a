"""``model(ids)``: logits, loss and hidden states of given tokens."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import tensors
from ._checks import shown
from ._core import raised
from ._generation import _IGNORED, _REFUSED, asks_for
from ._hooks import Gathered
from ._options import affordable, log
from ._outputs import Output
from .errors import UsageError

if TYPE_CHECKING:
    from .auto import AutoModel

#: The label of tokens that do not count.
IGNORED_LABEL = -100


def forward(
    model: "AutoModel", input_ids: Any, attention_mask: Any, labels: Any, output_hidden_states: bool,
    logits_to_keep: Any, return_dict: bool, keywords: dict[str, Any],
) -> Any:  # fmt: skip
    """See ``AutoModel.__call__``."""
    keywords = keywords if labels is None else {**keywords, "labels": labels}
    input_ids, attention_mask, keywords = taken_apart(input_ids, attention_mask, keywords)
    labels = keywords.pop("labels", None)
    _look_at(keywords)
    input_ids = tensors.plain(input_ids)
    if input_ids is None:
        raise UsageError("input_ids are missing")
    from ._generate import all_layers, unpadded

    core = model._core
    array = tensors.to_ids(input_ids)
    # Without a mask nothing is padding, as in transformers.
    rows, starts = unpadded(array, attention_mask, None, [])
    length, vocab = array.shape[1], core.facts["vocab"]
    if hasattr(logits_to_keep, "__index__") and not getattr(logits_to_keep, "ndim", 0):
        logits_to_keep = operator.index(logits_to_keep)
    whole = isinstance(logits_to_keep, int)
    chosen = None if whole else _places(logits_to_keep, length)
    if whole and logits_to_keep < 0:
        raise UsageError(f"logits_to_keep is {logits_to_keep}; expected 0 for all, or how many of the last")
    first = max(length - logits_to_keep, 0) if whole and logits_to_keep > 0 else 0
    if labels is not None and (not whole or logits_to_keep):
        raise UsageError("labels need the logits of all tokens: leave logits_to_keep out")
    layers = all_layers(core.facts) if output_hidden_states else []
    size = len(array) * ((length - first) * vocab + length * core.facts["hidden"] * len(layers)) * 4
    affordable(model._options, size, "logits_to_keep=1 gives the last token's logits alone; give fewer rows at a time")
    requests = []
    for row, start in zip(rows, starts):
        want = {"logits": {"from": max(first - start, 0)}}
        requests.append({"tokens": row, "want": want, "collect": {"logits": True, "processed": False}, "layers": layers})
    gathered = []
    for result in core.results(requests, "texts", show=False):
        error = raised(result)
        if error is not None:
            raise error
        gathered.append(Gathered(result[1]["gathered"], core.facts))
    import numpy as np

    if len(rows) == 1 and len(rows[0]) == length:
        logits = gathered[0].logits()[None]
    else:
        logits = np.zeros((len(rows), length - first, vocab), dtype=np.float32)
        for place, one, row, start in zip(logits, gathered, rows, starts):
            begin, end = max(first, start), start + len(row)
            if begin < end:
                place[begin - first : end - first] = one.logits()
    output = Output()
    if labels is not None:
        output["loss"] = _scalar(_loss(logits, tensors.to_ids(labels, "labels"), rows, starts), input_ids)
    kept = logits if chosen is None else logits[:, chosen]
    output["logits"] = tensors.like(kept, input_ids)
    if output_hidden_states:
        output["hidden_states"] = tuple(
            tensors.like(_padded([one.hidden(layer) for one in gathered], starts, length), input_ids) for layer in layers
        )
    return output if return_dict else output.to_tuple()


def taken_apart(inputs: Any, attention_mask: Any, keywords: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Token ids, mask and keywords; what a tokenizer gave, where it is handed over whole, is all of them."""
    if not isinstance(inputs, Mapping):
        return inputs, attention_mask, keywords
    more = dict(inputs)
    if "input_ids" not in more:
        raise UsageError(f"the dict has no input_ids; it has {', '.join(map(str, more)) or 'nothing'}")
    ids, mask = more.pop("input_ids"), more.pop("attention_mask", None)
    if mask is not None and attention_mask is not None:
        raise UsageError("attention_mask is given twice: in the dict and beside it")
    twice = next((name for name in more if name in keywords), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice: in the dict and beside it")
    return ids, attention_mask if mask is None else mask, {**{str(name): value for name, value in more.items()}, **keywords}


def _look_at(keywords: dict[str, Any]) -> None:
    for name, value in keywords.items():
        if name in _REFUSED:
            if asks_for(name, value):
                raise UsageError(f"{name} is {shown(value)}, which is not supported: leave it out")
        elif name in _IGNORED or name == "cache_position":
            log.info("%s has no effect here", name)
        else:
            raise TypeError(f"the model got an unexpected keyword argument {name!r}")


def _places(given: Any, length: int) -> Any:
    """The positions that were chosen by number, or by true and false."""
    places = tensors.to_numpy(given)
    if places.ndim != 1 or places.dtype.kind not in "iub":
        raise UsageError(f"logits_to_keep is {given!r}; expected 0 for all, how many of the last, or positions")
    right = len(places) == length if places.dtype.kind == "b" else ((-length <= places) & (places < length)).all()
    if not right:
        raise UsageError(f"logits_to_keep names positions that texts of {length} tokens do not have")
    return places


def _padded(rows: list[Any], starts: list[int], length: int) -> Any:
    import numpy as np

    if len(rows) == 1 and len(rows[0]) == length:
        return rows[0][None]
    block = np.zeros((len(rows), length, rows[0].shape[1]), dtype=np.float32)
    for place, row, start in zip(block, rows, starts):
        place[start : start + len(row)] = row
    return block


def _loss(logits: Any, labels: Any, rows: list[list[int]], starts: list[int]) -> float:
    """The mean cross-entropy of each token after those before it; tokens that are labelled -100, and those that padding
    stands before, do not count."""
    import numpy as np

    if labels.shape != logits.shape[:2]:
        raise UsageError(f"labels are {list(labels.shape)}, input_ids {list(logits.shape[:2])}")
    total, count = 0.0, 0
    for number, (row, start) in enumerate(zip(rows, starts)):
        end = start + len(row)
        outside = np.concatenate([labels[number, :start], labels[number, end:]])
        if (outside != IGNORED_LABEL).any():
            raise UsageError(f"row {number}: its padding has labels; give them the label {IGNORED_LABEL}")
        for place in range(start + 1, end):
            label = int(labels[number, place])
            if label == IGNORED_LABEL:
                continue
            if not 0 <= label < logits.shape[2]:
                raise UsageError(f"row {number}: label {label} is outside the vocabulary")
            values = logits[number, place - 1].astype(np.float64)
            top = values.max()
            total += top + np.log(np.exp(values - top).sum()) - values[label]
            count += 1
    return total / count if count else float("nan")


def _scalar(value: float, given: Any) -> Any:
    import numpy as np

    return tensors.torch().tensor(value, dtype=tensors.torch().float32) if tensors.is_torch(given) else np.float32(value)
