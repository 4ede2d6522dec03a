"""``AutoModel.generate``: rows of token ids or texts to requests, and results to what transformers gives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Sequence

from . import tensors
from ._checks import check_text, wrong
from ._core import raised
from ._generation import NEW_TOKENS_DEFAULT, ids_of, rules, sampling, settle
from ._hooks import Gathered, kept, processor, stopper
from ._options import affordable, log
from ._outputs import GenerateOutput, TextAnswers
from .errors import Interrupted, UsageError

if TYPE_CHECKING:
    from .auto import AutoModel


class Ask:
    """A call of ``generate``."""

    def __init__(
        self, model: "AutoModel", config: Any, keywords: dict[str, Any], processors: Any, criteria: Any, streamer: Any
    ) -> None:
        self.model, self.core = model, model._core
        self.processors = called("logits_processor", processors)
        self.criteria = called("stopping_criteria", [criteria] if callable(criteria) and not isinstance(criteria, list) else criteria)
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise wrong("streamer", streamer, "an object with put and end")
        self.streamer = streamer
        #: What processors and criteria raised.
        self.faults: list[BaseException] = []
        self.known = settle(model.generation_config, config, keywords)
        self.call = model._calls.next()
        ends = self.known["eos_token_id"]
        self.ends = self.core.end_tokens if ends is None else ids_of(ends, "eos_token_id")
        # Some models' files name -1, and mean that there is none.
        pads = ids_of(self.known["pad_token_id"], "pad_token_id", -(1 << 31))
        #: The padding that was named, and that which answers are padded with.
        self.named_pad = pads[0] if pads else None
        self.pad = self.named_pad if self.named_pad is not None else (self.ends[0] if self.ends else 0)
        self.stops: list[str] = self.known["stop_strings"] or []
        #: Where each row begins after its padding.
        self.starts: list[int] = []

    # Texts

    def texts(self, prompts: list[str]) -> TextAnswers:
        """Answers alone."""
        if self.known["return_dict_in_generate"]:
            log.info("return_dict_in_generate has no effect on texts: answers have .sequences and .finish_reasons")
        rows = [self.core.model.encode(check_text(f"prompt {number}", prompt), True) for number, prompt in enumerate(prompts)]
        empty = next((number for number, row in enumerate(rows) if not row), None)
        if empty is not None:
            raise UsageError(f"prompt {empty} has no tokens")
        results = self._run(rows, [len(row) for row in rows], name="text")
        answers = [members for _, members in results]
        return TextAnswers(
            [members["text"] for members in answers],
            [members["token_ids"] for members in answers],
            [members["finish_reason"] for members in answers],
            self.model.stats(),
        )

    # Token ids

    def ids(self, given: Any, attention_mask: Any) -> Any:
        """Sequences, as transformers has them."""
        import numpy as np

        array = tensors.to_ids(given)
        rows, self.starts = unpadded(array, attention_mask, self.named_pad, self.ends)
        results = self._run(rows, [array.shape[1]] * len(rows), array)
        times = self.known["num_return_sequences"]
        answers = [members["token_ids"] for _, members in results]
        longest = max((len(answer) for answer in answers), default=0)
        block = np.full((len(answers), longest), self.pad, dtype=np.int64)
        for row, answer in zip(block, answers):
            row[: len(answer)] = answer
        sequences = np.concatenate([np.repeat(array, times, axis=0), block], axis=1)
        sequences = tensors.like(sequences, given)
        if not self.known["return_dict_in_generate"]:
            return sequences
        gathered = [Gathered(members.get("gathered"), self.core.facts) for _, members in results]
        return GenerateOutput.of(sequences, gathered, [len(row) for row in rows for _ in range(times)], array, longest, given, self)

    # Both

    def _run(self, rows: list[list[int]], lengths: Sequence[int], padded: Any = None, name: str = "token_ids") -> list[Any]:
        """Results of all rows. What an interrupted call has are the answers of this name, or ``None`` for those that did not begin."""
        try:
            return self._results(rows, lengths, padded)
        except Interrupted as error:
            error.outputs = [result[1][name] if result is not None and name in result[1] else None for result in error.outputs]
            raise

    def _results(self, rows: list[list[int]], lengths: Sequence[int], padded: Any) -> list[Any]:
        requests = []
        times = self.known["num_return_sequences"]
        for number, (row, length) in enumerate(zip(rows, lengths)):
            for stream in range(times):
                requests.append(self._request(row, length, number, stream))
        self._look_at_size(requests)
        hooks = self._hooks(len(requests))
        if self.streamer is not None and len(requests) != 1:
            raise UsageError("a streamer takes one sequence")
        until = None if self.known["max_time"] is None else time.monotonic() + float(self.known["max_time"])
        if self.streamer is not None:
            results = self._streamed(requests, hooks, padded if padded is not None else rows, until)
        else:
            results = self.core.results(requests, "answers", until=until, hooks=hooks)
        for result in results:
            error = raised(result)
            if error is not None:
                raise self.faults[0] if self.faults else error
        return results

    def _request(self, row: list[int], length: int, number: int, stream: int) -> dict[str, Any]:
        known = self.known
        seed = self.model._loading.seed + (self.call << 32) + number
        request = {
            "tokens": row,
            "max_new_tokens": self._longest(length),
            "sampling": sampling(known, seed),
            "stream": stream,
            "end_tokens": self.ends,
            "stop": self.stops,
        }
        rule = rules(known, length)
        if rule:
            request["rules"] = rule
        if known["return_dict_in_generate"]:
            collect = {"logits": bool(known["output_logits"]), "processed": bool(known["output_scores"])}
            if any(collect.values()):
                request["collect"] = collect
            if known["output_hidden_states"]:
                request["layers"] = all_layers(self.core.facts)
        return request

    def _longest(self, length: int) -> int:
        new, whole = self.known["max_new_tokens"], self.known["max_length"]
        if new is not None:
            return int(new)
        if whole is None:
            log.warning("neither max_new_tokens nor max_length is set: answers end after %d tokens", NEW_TOKENS_DEFAULT)
            return NEW_TOKENS_DEFAULT
        if length >= whole:
            raise UsageError(f"the prompt has {length} tokens, padding included, and max_length is {whole}: raise max_length, or use max_new_tokens")
        return int(whole) - length

    def _look_at_size(self, requests: list[dict[str, Any]]) -> None:
        """Refuses logits and states that cannot be held, before anything is opened."""
        facts, size = self.core.facts, 0
        for request in requests:
            steps = request["max_new_tokens"]
            size += sum(request.get("collect", {}).values()) * steps * facts["vocab"] * 4
            size += len(request.get("layers", ())) * (steps + len(request["tokens"])) * facts["hidden"] * 4
        if size:
            affordable(self.model._options, size, "fewer new tokens or fewer rows take less")

    def _hooks(self, count: int) -> list[Any] | None:
        """What of the caller's own is asked at each token."""
        if not self.processors and not self.criteria:
            return None
        process = kept(processor(self.processors), self.faults, self.core.asking) if self.processors else None
        stops = kept(stopper(self.criteria), self.faults, self.core.asking) if self.criteria else None
        return [(process, stops)] * count

    def _streamed(self, requests: list[Any], hooks: Any, prompt: Any, until: float | None) -> list[Any]:
        """One answer, its tokens given to the streamer as they come."""
        import numpy as np

        library = tensors.torch()

        def piece(ids: Any) -> Any:
            array = np.asarray(ids, dtype=np.int64)
            return library.from_numpy(array) if library is not None else array

        result = None
        self.streamer.put(piece(prompt))
        try:
            for _, kind, told in self.core.events(requests, follow=True, show=False, until=until, hooks=hooks):
                if kind == "tokens":
                    for token in told[0]:
                        self.streamer.put(piece([token]))
                elif kind != "text":
                    result = (kind, told)
        except KeyboardInterrupt as error:
            raise Interrupted(outputs=[result]) from error
        finally:
            self.streamer.end()
        return [("completion", self.core.cut([])) if result is None else result]


def called(name: str, given: Any) -> list[Any]:
    """A list of functions. (transformers' own lists of them can be called, too.)"""
    several = [] if given is None else given
    if not isinstance(several, (list, tuple)) or not all(map(callable, several)):
        raise wrong(name, given, "a list of functions")
    return list(several)


def all_layers(facts: dict[str, Any]) -> list[int | None]:
    """The layers of transformers' ``hidden_states``: the embeddings, after each block but the last, after the final norm."""
    return [*range(facts["blocks"]), None]


def unpadded(array: Any, attention_mask: Any, pad: int | None, ends: list[int]) -> tuple[list[list[int]], list[int]]:
    """The tokens of each row without padding, and where they begin in it."""
    import numpy as np

    if attention_mask is None:
        inferred = pad is not None and bool((array == pad).any()) and pad not in ends
        mask = array != pad if inferred else np.ones(array.shape, dtype=bool)
    else:
        try:
            mask = tensors.to_numpy(tensors.plain(attention_mask))
        except ValueError as error:
            raise UsageError(f"attention_mask cannot be read: {error}") from error
        if mask.dtype.kind not in "biuf" or not ((mask == 0) | (mask == 1)).all():
            raise UsageError("attention_mask is to hold 1 for tokens and 0 for padding, and nothing else")
        mask = (mask[None, :] if mask.ndim == 1 else mask) != 0
        if mask.shape != array.shape:
            raise UsageError(f"attention_mask is {list(mask.shape)}, input_ids {list(array.shape)}")
    rows, starts = [], []
    for number, (row, seen) in enumerate(zip(array, mask)):
        places = np.flatnonzero(seen)
        if places.size == 0:
            raise UsageError(f"row {number} is empty" + (": its attention_mask hides all of it" if array.size else ""))
        if places[-1] - places[0] + 1 != places.size:
            raise UsageError(f"row {number}: its attention_mask has a hole, and texts with holes cannot run")
        rows.append([int(token) for token in row[places[0] : places[-1] + 1]])
        starts.append(int(places[0]))
    return rows, starts
