"""Texts as vectors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from ._core import Result
from .errors import UsageError
from .params import PoolingParams
from .tokenizer import read_json

if TYPE_CHECKING:
    from .llm import LLM

#: Names of poolings, sentence-transformers' and vLLM's, and ours for them.
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_max_tokens": "max",
    "MEAN": "mean",
    "LAST": "last",
    "CLS": "cls",
}


@dataclass
class Pooling:
    """How a model's texts become vectors, as its files or the caller say."""

    kind: str = "last"
    normalize: bool = True
    dimensions: int | None = None
    #: Elements of a vector that is not cut.
    width: int = 0

    @classmethod
    def of(cls, path: str, width: int, config: Any = None) -> "Pooling":
        """Of a model's folder: ``modules.json`` and the configuration of its pooling, where it has them."""
        pooling = cls(width=width)
        modules = _modules(path)
        for kind, folder in modules:
            if kind == "Pooling":
                named = read_json(os.path.join(path, folder, "config.json"))
                chosen = [ours for name, ours in _POOLINGS.items() if named.get(name) is True]
                if len(chosen) != 1:
                    raise UsageError(f"{path}: its pooling is none of mean, last, cls, weighted mean and max")
                pooling.kind = chosen[0]
        if modules:
            pooling.normalize = any(kind == "Normalize" for kind, _ in modules)
        given = config if isinstance(config, dict) or config is None else vars(config)
        for name, value in (given or {}).items():
            if name in ("pooling_type", "seq_pooling_type") and value is not None:
                if value not in _POOLINGS:
                    raise UsageError(f"pooling_type is {value!r}; expected MEAN, LAST or CLS")
                pooling.kind = _POOLINGS[value]
            elif name in ("normalize", "use_activation") and value is not None:
                pooling.normalize = bool(value)
            elif name == "dimensions" and value is not None:
                pooling.dimensions = int(value)
        return pooling

    def request(self, tokens: list[int], params: PoolingParams | None, apart: bool = False) -> dict[str, Any]:
        """A vector of these tokens, or one for each of them."""
        params = params or PoolingParams()
        normalize = self.normalize
        for said in (params.use_activation, params.normalize):
            normalize = normalize if said is None else said
        dimensions = self.dimensions if params.dimensions is None else params.dimensions
        if dimensions is not None and not 1 <= dimensions <= self.width:
            raise UsageError(f"dimensions is {dimensions}; the model's vectors have {self.width} elements")
        want = {"layer": None, "pooling": None if apart else self.kind, "dimensions": dimensions, "normalize": normalize}
        return {"tokens": tokens, "want": {"hidden": want}}


def _modules(path: str) -> list[tuple[str, str]]:
    import json

    try:
        with open(os.path.join(path, "modules.json"), encoding="utf-8") as file:
            listed = json.load(file)
        return [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def vectors(result: Result, apart: bool = False) -> Any:
    """``[width]`` of a pooled result, or ``[tokens, width]``."""
    members = result[1]
    return members["values"].reshape(members["rows"], -1) if apart else members["values"]


class Encoder:
    """Embeddings in sentence-transformers' shape."""

    def __init__(self, llm: "LLM") -> None:
        self._llm = llm

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        show_progress_bar: bool | None = None,
        batch_size: int = 32,
    ) -> Any:
        """``[texts, width]`` float32, or ``[width]`` of a single text."""
        single = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        if prompt:
            texts = [prompt + text for text in texts]
        params = PoolingParams(normalize=normalize_embeddings, dimensions=truncate_dim)
        outputs = self._llm.embed(texts, pooling_params=params, use_tqdm=bool(show_progress_bar))
        import numpy as np

        rows = [output.outputs.array for output in outputs if output.outputs is not None]
        array = np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
        array = array[0] if single else array
        if convert_to_tensor:
            import torch

            return torch.from_numpy(array.copy())
        return array if convert_to_numpy else array.tolist()

    def similarity(self, a: Any, b: Any) -> Any:
        """``[n, m]`` cosines."""
        import numpy as np

        left, right = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
        left = left / np.linalg.norm(left, axis=1, keepdims=True)
        right = right / np.linalg.norm(right, axis=1, keepdims=True)
        return left @ right.T
