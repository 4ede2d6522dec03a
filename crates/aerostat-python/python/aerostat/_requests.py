"""Prompts and parameters as requests of the native half, and results as outputs."""

from __future__ import annotations

import json
import math
from typing import Any, Iterator, Sequence

from ._core import Core, Result, raised
from ._prompts import Prompt
from .errors import AerostatError, Interrupted, UsageError
from .outputs import CompletionOutput, DistilOutput, Logprob, RequestOutput
from .params import SamplingParams


def score_request(prefix: Sequence[int], end: Sequence[int]) -> dict[str, Any]:
    """Log-probabilities of ``end`` after ``prefix``."""
    return {"tokens": [*prefix, *end], "want": {"score": {"from": len(prefix), "logits_last": False}}}


def shares(scores: Sequence[float]) -> list[float]:
    """Scores as probabilities that sum to one."""
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def answer_request(core: Core, tokens: list[int], params: SamplingParams, seed: int, stream: int, shared: dict[str, Any]) -> dict[str, Any]:
    """One answer. ``shared`` is what all answers with these parameters are asked for, of :func:`shared_members`."""
    longest = params.max_tokens
    if longest is None:
        longest = core.facts["context_max"] - len(tokens)
        if longest < 1:
            raise UsageError(f"a prompt of {len(tokens)} tokens leaves no room in the model's {core.facts['context_max']}: name max_tokens")
    request = {**shared, "tokens": tokens, "max_new_tokens": longest, "stream": stream}
    request["sampling"] = {**shared["sampling"], "seed": (seed if params.seed is None else params.seed) % (1 << 64)}
    if stream == 0 and params.prompt_logprobs is not None:
        # Once for all answers to a prompt.
        request["prompt_logprobs"] = params.prompt_logprobs
    return request


def shared_members(core: Core, params: SamplingParams) -> dict[str, Any]:
    """What is asked for of every answer with these parameters, as far as it is not what is asked for anyway."""
    if params.structured_outputs is not None:
        core.model.check_shape(json.dumps(params.structured_outputs.shape))
    members = {
        "end_tokens": core.end_tokens,
        "ignore_eos": params.ignore_eos,
        "stop_token_ids": list(params.stop_token_ids or []),
        "stop": list(params.stop or []),
        "include_stop": params.include_stop_str_in_output,
        "keep_special_tokens": not params.skip_special_tokens,
        "logprobs": params.logprobs,
        "rules": token_rules(core, params),
        "shape": None if params.structured_outputs is None else params.structured_outputs.shape,
    }
    asked = {name: value for name, value in members.items() if value is not None and value is not False and value not in ([], {})}
    return {"sampling": params.sampling(0), **asked}


#: What Python takes for one alternative of a token, about: a number, a rank, a text and their places.
_ALTERNATIVE_BYTES = 300


def results_bytes(requests: Sequence[dict[str, Any]], width: int) -> int:
    """What results take at least, of a model whose states have ``width`` elements. Answers may be short: only what a prompt
    alone decides is counted."""
    size = 0
    for request in requests:
        tokens, want = len(request["tokens"]), request.get("want", {})
        if "hidden" in want:
            rows = tokens if want["hidden"]["pooling"] is None else 1
            size += rows * (want["hidden"]["dimensions"] or width) * 4
        elif "topk" in want:
            size += tokens * want["topk"]["k"] * 8
        elif request.get("prompt_logprobs") is not None:
            size += tokens * (request["prompt_logprobs"] + 1) * _ALTERNATIVE_BYTES
    return size


def token_rules(core: Core, params: SamplingParams) -> dict[str, Any]:
    """What parameters say about which tokens may come."""
    rules: dict[str, Any] = {}
    for name, tokens in (("allowed_token_ids", params.allowed_token_ids), ("logit_bias", params.logit_bias)):
        wrong = next((token for token in tokens or () if token >= core.facts["vocab"]), None)
        if wrong is not None:
            raise UsageError(f"{name}: token {wrong} is outside the vocabulary of {core.facts['vocab']} tokens")
    if params.min_tokens:
        rules["min_tokens"] = params.min_tokens
    if params.allowed_token_ids is not None:
        rules["allowed_token_ids"] = [int(token) for token in params.allowed_token_ids]
    if params.bad_words:
        words = []
        for word in params.bad_words:
            # As it stands, and behind a space where that is another first token, as vLLM has it.
            plain = core.model.encode(word.lstrip(), False)
            spaced = core.model.encode(" " + word.lstrip(), False)
            if not plain:
                raise UsageError(f"bad_words: {word!r} has no tokens")
            words.append(plain)
            if len(spaced) == len(plain) and spaced[0] != plain[0]:
                words.append(spaced)
        rules["bad_words"] = words
    return rules


class Batch:
    """Requests of several prompts: for each its answers, and its own log-probabilities where they are wanted."""

    def __init__(
        self, core: Core, prompts: list[Prompt], params: list[SamplingParams], seed: int, call: int
    ) -> None:
        self.prompts, self.params = prompts, params
        self.requests: list[dict[str, Any]] = []
        #: For each prompt, where its requests begin.
        self.starts: list[int] = []
        #: What each parameters' answers have in common.
        shared: dict[int, dict[str, Any]] = {}
        for number, (prompt, how) in enumerate(zip(prompts, params)):
            self.starts.append(len(self.requests))
            if prompt.error is not None:
                continue
            if how.truncate_prompt_tokens is not None:
                prompt.token_ids = prompt.token_ids[-how.truncate_prompt_tokens :]
            own = (seed + (call << 32) + number) % (1 << 63)
            try:
                if id(how) not in shared:
                    shared[id(how)] = shared_members(core, how)
                ids, members = prompt.token_ids, shared[id(how)]
                self.requests += [answer_request(core, ids, how, own, stream, members) for stream in range(how.n)]
            except (AerostatError, ValueError, RecursionError) as error:
                kind = type(error) if isinstance(error, AerostatError) else UsageError
                prompt.error = kind(f"prompt {number}: {error}")

    def _count(self, number: int) -> int:
        following = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.requests)
        return following - self.starts[number]

    def _own(self, number: int, results: list[Any]) -> list[Any]:
        return results[self.starts[number] : self.starts[number] + self._count(number)]

    def outputs(self, core: Core, results: list[Result], on_error: str) -> list[RequestOutput]:
        """What the call gives."""
        outputs = [self._output(core, number, results) for number in range(len(self.prompts))]
        error = next((output.error for output in outputs if output.error is not None), None)
        if error is not None and on_error == "raise":
            raise error
        return outputs

    def some_outputs(self, core: Core, results: list[Any]) -> list[RequestOutput | None]:
        """What an interrupted call has."""
        outputs: list[RequestOutput | None] = []
        for number in range(len(self.prompts)):
            own = self._own(number, results)
            have = self.prompts[number].error is not None or (bool(own) and all(result is not None for result in own))
            outputs.append(self._output(core, number, results) if have else None)
        return outputs

    def as_completed(self, core: Core, use_tqdm: bool) -> Iterator[tuple[int, RequestOutput]]:
        """Outputs as soon as they are whole. An interrupted one ends with those that had not been given, as far as they came."""
        given: set[int] = set()
        results: list[Any] = [None] * len(self.requests)
        try:
            for number in self._ended(core, use_tqdm, results):
                given.add(number)
                yield number, self._output(core, number, results)
        except KeyboardInterrupt as error:
            left = enumerate(self.some_outputs(core, results))
            raise Interrupted(outputs=[(number, one) for number, one in left if one is not None and number not in given]) from error

    def _ended(self, core: Core, use_tqdm: bool, results: list[Any]) -> Iterator[int]:
        """Numbers of prompts as soon as they have all their results."""
        for number, prompt in enumerate(self.prompts):
            if prompt.error is not None:
                yield number
        owner = [number for number in range(len(self.prompts)) for _ in range(self._count(number))]
        left = [self._count(number) for number in range(len(self.prompts))]
        for index, kind, members in core.events(self.requests, what="answers", show=core.progress and use_tqdm):
            results[index] = (kind, members)
            number = owner[index]
            left[number] -= 1
            # Those that Ctrl-C left where they were come with it.
            if left[number] == 0 and not any(map(_was_cut, self._own(number, results))):
                yield number

    def _output(self, core: Core, number: int, results: list[Any]) -> RequestOutput:
        prompt, params = self.prompts[number], self.params[number]
        own = self._own(number, results)
        error = prompt.error or next((e for e in (raised(one, number) for one in own) if e is not None), None)
        if error is not None:
            return RequestOutput(str(number), prompt.text, prompt.token_ids, None, [], True, error=error)
        answers = [answer_output(core, i, members, params) for i, (_, members) in enumerate(own)]
        whole = all(answer.finish_reason != "abort" for answer in answers)
        logprobs = None
        if params.prompt_logprobs is not None:
            logprobs = prompt_logprobs(core, prompt.token_ids, own[0][1]["prompt_logprobs"])
        return RequestOutput(str(number), prompt.text, prompt.token_ids, logprobs, answers, whole)


def _was_cut(result: Result) -> bool:
    return result[0] == "completion" and bool(result[1]["finish_reason"] == "interrupted")


def answer_output(core: Core, index: int, members: dict[str, Any], params: SamplingParams) -> CompletionOutput:
    """One answer."""
    ids, text = members["token_ids"], members["text"]
    reason = members["finish_reason"]
    logprobs = None
    if params.logprobs is not None and members["logprobs"] is not None:
        tops = members["top_logprobs"] or [[] for _ in ids]
        places = zip(ids, members["logprobs"], members["ranks"], tops)
        logprobs = [ranked(core, token, own, rank, top) for token, own, rank, top in places]
    return CompletionOutput(
        index,
        text if text is not None and params.detokenize else "",
        ids,
        math.fsum(members["logprobs"]) if members["logprobs"] is not None else None,
        logprobs,
        "abort" if reason == "interrupted" else reason,
        members["stop_reason"],
    )


def ranked(core: Core, token: int, own: float, rank: int, top: Sequence[tuple[int, float]]) -> dict[int, Logprob]:
    """The log-probability of a token and those of the likeliest, as vLLM gives them: the token's own first."""
    known = core.facts["tokenizer"]
    ranks = {token: rank or None, **{other: place + 1 for place, (other, _) in enumerate(top) if other != token}}
    entries = [(token, own), *((other, value) for other, value in top if other != token)]
    return {
        other: Logprob(value, ranks[other], core.model.decode([other], False) if known else None) for other, value in entries
    }


def prompt_logprobs(core: Core, ids: list[int], places: list[Any] | None) -> list[dict[int, Logprob] | None] | None:
    """Log-probabilities of a prompt's tokens; the first has none."""
    if places is None:
        return None
    return [None if place is None else ranked(core, token, *place) for token, place in zip(ids, places)]


def likeliest(result: Result) -> tuple[Any, Any]:
    """``[tokens, k]`` ids and log-probabilities."""
    members = result[1]
    return members["ids"].reshape(-1, members["k"]), members["logprobs"].reshape(-1, members["k"])


def distilled(tokens: list[int], result: Result | None, error: Exception | None) -> DistilOutput:
    """What is expected after each token."""
    if result is None:
        return DistilOutput(tokens, None, None, error)
    return DistilOutput(tokens, *likeliest(result))
