"""Texts as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Sequence

from ._checks import check_flag, check_mapping, check_text, check_whole, items, wrong
from ._core import Result
from ._options import unknown
from .errors import ModelError, UsageError
from .params import PoolingParams

if TYPE_CHECKING:
    from .llm import LLM

#: Members of vLLM's configuration of poolers.
_CONFIGURED = ("pooling_type", "seq_pooling_type", "tok_pooling_type", "normalize", "use_activation", "dimensions", "task")
#: vLLM's names of poolings, and ours for them.
_POOLINGS = {"MEAN": "mean", "LAST": "last", "CLS": "cls"}


@dataclass
class Pooling:
    """How a model's texts become vectors, as its files or the caller say."""

    kind: str = "last"
    normalize: bool = True
    dimensions: int | None = None
    #: Elements of a vector that is not cut, and of a token's.
    width: int = 0
    width_of_token: int = 0
    #: Why the model's files do not say.
    error: str | None = None

    @classmethod
    def of(cls, facts: dict[str, Any], config: Any = None) -> "Pooling":
        """Of what is known of a model: encoders, and folders that state how vectors are made, say it themselves."""
        said = facts["embedding"]
        pooling = cls(width=said.get("width", facts["hidden"]), width_of_token=facts["hidden"], error=said.get("error"))
        if said.get("cuts"):
            pooling.kind, pooling.normalize = said["pooling"], said["normalize"]
        for name, value in _configured(config).items():
            if name in ("pooling_type", "seq_pooling_type"):
                if not isinstance(value, str) or value not in _POOLINGS:
                    raise wrong(name, value, "MEAN, LAST or CLS")
                pooling.kind = _POOLINGS[value]
            elif name in ("normalize", "use_activation"):
                pooling.normalize = check_flag(name, value)
            elif name == "dimensions":
                pooling.dimensions = check_whole(name, value, 1)
            elif name == "tok_pooling_type" and value != "ALL":
                raise wrong(name, value, "ALL: every token has its vector")
        return pooling

    def request(self, tokens: list[int], params: PoolingParams | None, apart: bool = False) -> dict[str, Any]:
        """A vector of these tokens, or one for each of them."""
        if self.error is not None and not apart:
            raise ModelError(self.error)
        params = params or PoolingParams()
        normalize = self.normalize
        for said in (params.use_activation, params.normalize):
            normalize = normalize if said is None else said
        dimensions = self.dimensions if params.dimensions is None else params.dimensions
        width = self.width_of_token if apart else self.width
        if dimensions is not None and not 1 <= dimensions <= width:
            raise UsageError(f"dimensions is {dimensions}; the model's vectors have {width} elements")
        want = {"layer": None, "pooling": None if apart else self.kind, "dimensions": dimensions, "normalize": normalize}
        return {"tokens": tokens, "want": {"hidden": want}}


def _configured(config: Any) -> dict[str, Any]:
    """What a dict or an object says of how vectors are made."""
    if config is None:
        return {}
    given = check_mapping("pooler_config", vars(config) if hasattr(config, "__dict__") else config)
    said = {name: value for name, value in given.items() if value is not None}
    strange = next((name for name in said if name not in _CONFIGURED), None)
    if strange is not None and isinstance(config, Mapping):
        raise UsageError(str(unknown("pooler_config", str(strange), _CONFIGURED)))
    if strange is not None:
        raise UsageError(f"pooler_config: {strange} is not supported: leave it out")
    return said


def params_of(given: Any, count: int) -> list[PoolingParams | None]:
    """How each of several texts becomes a vector: one for all of them, or one for each."""
    several = list(given) if isinstance(given, (list, tuple)) else [given] * count
    strange = next((one for one in several if not isinstance(one, (PoolingParams, type(None)))), None)
    if strange is not None:
        raise wrong("pooling_params", strange, "PoolingParams, or a list of them")
    if len(several) != count:
        raise UsageError(f"there are {count} prompts and {len(several)} pooling parameters")
    return several


def look_at_params(given: Any) -> None:
    """Refuses what is not one for all rows of a column."""
    if not isinstance(given, (PoolingParams, type(None))):
        raise wrong("pooling_params", given, "PoolingParams, one for all rows")


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
        prompt_name: str | None = None,
        show_progress_bar: bool | None = None,
        batch_size: int = 32,
    ) -> Any:
        """``[texts, width]`` float32, or ``[width]`` of a single text. Texts come behind ``prompt``, else behind the model's
        own of that name, else behind the one that its makers mean where none is named; they are cut where they are too long."""
        single = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else items("sentences", sentences, "a text or several")
        texts = [check_text(f"sentence {number}", text) for number, text in enumerate(texts)]
        for name, value in (("prompt", prompt), ("prompt_name", prompt_name)):
            if value is not None:
                check_text(name, value)
        encode, usual = self._llm._core.model.encode_for_vector, prompt is None
        rows = [encode((prompt or "") + text, prompt_name if usual else None, usual)[0] for text in texts]
        params = PoolingParams(normalize=normalize_embeddings, dimensions=truncate_dim)
        outputs = self._llm.embed(rows, pooling_params=params, use_tqdm=bool(show_progress_bar))
        import numpy as np

        vectors = [output.outputs.array for output in outputs if output.outputs is not None]
        array = np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
        array = array[0] if single else array
        if convert_to_tensor:
            import torch

            return torch.from_numpy(array.copy())
        return array if convert_to_numpy else array.tolist()

    def encode_query(self, sentences: str | Sequence[str], **how: Any) -> Any:
        """:meth:`encode` behind the model's prompt for queries, if it has one."""
        return self._behind("query", sentences, how)

    def encode_document(self, sentences: str | Sequence[str], **how: Any) -> Any:
        """:meth:`encode` behind the model's prompt for documents, if it has one."""
        return self._behind("document", sentences, how)

    def _behind(self, name: str, sentences: str | Sequence[str], how: dict[str, Any]) -> Any:
        if name in self._llm._core.facts["embedding"].get("prompts", {}):
            how.setdefault("prompt_name", name)
        return self.encode(sentences, **how)

    def similarity(self, a: Any, b: Any) -> Any:
        """``[n, m]`` cosines."""
        import numpy as np

        left, right = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
        left = left / np.linalg.norm(left, axis=1, keepdims=True)
        right = right / np.linalg.norm(right, axis=1, keepdims=True)
        return left @ right.T
