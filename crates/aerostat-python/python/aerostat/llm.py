"""``LLM``: many prompts at a time, in the shape of vLLM's offline inference."""

from __future__ import annotations

import json
import math
import os
from typing import Any, AsyncIterator, Callable, Iterator, Sequence

from . import _encoder, frames
from ._checks import check_flag, check_path, check_text, check_token, check_whole, items
from ._core import Core, Counter, Result, find, raised, succeeded
from ._llm_options import default_params, draft_of, look_at, look_at_quantization, template_of
from ._options import EngineOptions, affordable, log, unknown
from ._pairs import cosines, pair_scores
from ._prompts import Encode, Prompt, Rows, read_conversations, read_prompts
from ._requests import Batch, distilled, results_bytes, score_request, shares
from .errors import Interrupted, TextError, UsageError
from .outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    DistilOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    LikelihoodOutput,
    RequestOutput,
    ScoringRequestOutput,
)
from .params import SAMPLING_NAMES, PoolingParams, SamplingParams
from .tokenizer import Tokenizer, tool_list

PromptLike = Any
#: Keywords of vLLM's calls that change nothing here.
_NOTED = ("tokenization_kwargs", "prompt_adapter_request", "mm_processor_kwargs", "arrival_time", "trace_headers", "priority", "prompt_text",
          "data_parallel_rank")  # fmt: skip


class LLM:
    """A model for many prompts. Headers and tokenizer are read at once, weights at the first call.

    ``memory`` bounds the whole process (``"4GiB"``), of which ``headroom`` is kept for Python's own. ``max_model_len`` and
    ``max_num_seqs`` say for how much the model is opened at least; they limit nothing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        seed: int | None = 0,
        hf_token: str | None = None,
        chat_template: str | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_cache_dtype: str | None = None,
        download_dir: str | os.PathLike[str] | None = None,
        skip_tokenizer_init: bool = False,
        quantization: str | None = None,
        pooler_config: Any = None,
        generation_config: str | os.PathLike[str] = "auto",
        override_generation_config: dict[str, Any] | None = None,
        speculative_config: dict[str, Any] | None = None,
        progress: bool = True,
        **keywords: Any,
    ) -> None:
        options = EngineOptions.take(keywords)
        look_at(keywords)
        seed = 0 if seed is None else seed
        max_model_len = None if max_model_len in (-1, "auto") else max_model_len
        check_whole("seed", seed, -(1 << 63), (1 << 64) - 1)
        counts = {"max_model_len": max_model_len, "max_num_seqs": max_num_seqs, "max_num_batched_tokens": max_num_batched_tokens}
        for name, value in counts.items():
            if value is not None:
                check_whole(name, value, 1, 1 << 40)
        options.draft = draft_of(speculative_config) if options.draft is None else options.draft
        options.rows_max = max_num_batched_tokens if options.rows_max is None else options.rows_max
        name = check_path("model", model)
        download_dir = None if download_dir is None else check_path("download_dir", download_dir)
        if tokenizer is not None and check_path("tokenizer", tokenizer) != name:
            raise UsageError("tokenizer: a model runs with its own tokenizer; pass token ids to use another")
        self._given = {
            "model": name, "revision": revision, "seed": seed, "chat_template": chat_template,
            "max_model_len": max_model_len, "max_num_seqs": max_num_seqs, "kv_cache_dtype": kv_cache_dtype,
            "download_dir": download_dir, "skip_tokenizer_init": skip_tokenizer_init, "quantization": quantization,
            "pooler_config": pooler_config, "generation_config": generation_config,
            "override_generation_config": override_generation_config, "progress": progress,
            **{name: getattr(options, name) for name in EngineOptions.NAMES},
        }  # fmt: skip
        kinds = {"fp16": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "fp8": "q8", "int8": "q8"}
        if kv_cache_dtype not in (None, "auto") and options.kv is None:
            options.kv = kinds.get(str(kv_cache_dtype), str(kv_cache_dtype))
        path = find(name, revision, check_token("hf_token", hf_token), download_dir, progress)
        floor = (max_model_len or 1, max_num_seqs or 1) if max_model_len or max_num_seqs else (1, 0)
        self._core = Core(path, options, floor, progress)
        if quantization is not None:
            look_at_quantization(quantization, path, self._core.facts)
        self._seed = seed
        self._max_model_len = max_model_len
        self._calls = Counter()
        self._skip_tokenizer = skip_tokenizer_init
        self._tokenizer = Tokenizer(self._core)
        self._tokenizer.chat_template = template_of(chat_template)
        self._pooling = _encoder.Pooling.of(self._core.facts, pooler_config)
        self._default_params = default_params(self._core.facts, generation_config, override_generation_config)

    # Life

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self._given['model']!r})"

    def __getstate__(self) -> dict[str, Any]:
        # What a caller set on the tokenizer is part of how conversations are written.
        return {**self._given, "chat_template": None, "tokenizer_settings": self._tokenizer.settings()}

    def __setstate__(self, given: dict[str, Any]) -> None:
        options = dict(given)
        settings = options.pop("tokenizer_settings")
        self.__init__(**options)  # type: ignore[misc]
        self._tokenizer.set(settings)

    def close(self) -> None:
        """Gives the memory of weights and cache back; the next call opens the model again."""
        self._core.close()

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's makers recommend, else the defaults of ``SamplingParams``."""
        return self._default_params.clone()

    def start_profile(self, *_args: Any, **_keywords: Any) -> None:
        """Counters are kept all the time; :meth:`stop_profile` tells them."""

    def stop_profile(self) -> None:
        """The engine's counters, to the logger ``aerostat``."""
        log.info("%s", json.dumps(self.stats()))

    def reset_prefix_cache(self, *_args: Any, **_keywords: Any) -> bool:
        """Nothing: what is kept of prompts changes no result."""
        return True

    def stats(self) -> dict[str, Any] | None:
        """Counters and times since the model was opened."""
        return self._core.stats()

    # Answers

    def generate(
        self,
        prompts: PromptLike,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        on_error: str = "raise",
        lora_request: Any = None,
        priority: Any = None,
        **unknown_keywords: Any,
    ) -> list[RequestOutput]:
        """Answers for prompts: texts, lists of token ids, ``{"prompt": …}`` or ``{"prompt_token_ids": …}``. They share
        passes over the weights. A prompt that cannot be served raises before anything runs, or with
        ``on_error="return"`` is an output with an ``error``."""
        self._refuse(lora_request, unknown_keywords)
        read = read_prompts(prompts, self._core)
        return self._generate(read, sampling_params, bool(use_tqdm), on_error)

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        *,
        on_error: str = "raise",
        **unknown_keywords: Any,
    ) -> list[RequestOutput]:
        """Answers to a conversation (a list of messages), or to several."""
        self._refuse(lora_request, unknown_keywords)
        read = self._conversations(
            messages, chat_template, add_generation_prompt, continue_final_message, tools, chat_template_kwargs,
            chat_template_content_format,
        )  # fmt: skip
        return self._generate(read, sampling_params, bool(use_tqdm), on_error)

    def as_completed(
        self,
        prompts: PromptLike,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> Iterator[tuple[int, RequestOutput]]:
        """``(index, output)`` of each prompt as soon as it has all its answers. A prompt that cannot be served comes
        first, with an ``error``."""
        read = read_prompts(prompts, self._core)
        batch = self._batch(read, sampling_params, "return")
        return batch.as_completed(self._core, use_tqdm)

    def stream(
        self, prompt: PromptLike, sampling_params: SamplingParams | None = None, *, chat: bool = False
    ) -> Iterator[str]:
        """The text of one prompt's answer, piece by piece; with ``chat`` the prompt is a list of messages."""
        request = self._streamed(prompt, sampling_params, chat)
        return _pieces(self._core.events([request], follow=True, show=False))

    async def agenerate(
        self, prompts: PromptLike, sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *, on_error: str = "raise",
    ) -> list[RequestOutput]:  # fmt: skip
        """:meth:`generate` for an event loop; calls of several tasks share sweeps, cancelling one leaves the others."""
        batch = self._batch(read_prompts(prompts, self._core), sampling_params, on_error)
        return batch.outputs(self._core, await self._core.aresults(batch.requests), on_error)

    async def achat(
        self, messages: Sequence[Any], sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *, on_error: str = "raise", tools: Sequence[Any] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:  # fmt: skip
        """:meth:`chat` for an event loop."""
        read = self._conversations(messages, None, True, False, tools, chat_template_kwargs)
        batch = self._batch(read, sampling_params, on_error)
        return batch.outputs(self._core, await self._core.aresults(batch.requests), on_error)

    async def astream(
        self, prompt: PromptLike, sampling_params: SamplingParams | None = None, *, chat: bool = False
    ) -> AsyncIterator[str]:
        """:meth:`stream` for an event loop."""
        request = self._streamed(prompt, sampling_params, chat)
        async for _, kind, told in self._core.aevents([request], follow=True):
            error = raised((kind, told)) if kind == "failed" else None
            if error is not None:
                raise error
            if kind == "text":
                yield told

    def run_batch(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        errors: str | os.PathLike[str] | None = None,
        max_new_tokens: int = 256,
        lenient: bool = False,
        restart: bool = False,
        retry_errors: bool = False,
    ) -> dict[str, int]:
        """Works through an OpenAI Batch file as ``aerostat batch`` does, line by line durable; the same call goes on where
        an earlier one was stopped. Gives ``{"total", "done", "failed"}``."""
        from ._progress import Progress

        target = check_path("output", output)
        given = {
            "input": check_path("input", input), "output": target, "errors": None if errors is None else check_path("errors", errors),
            "name": self._given["model"], "context": self._max_model_len, "seed": self._seed,
            "max_new_tokens": check_whole("max_new_tokens", max_new_tokens, 1, 1 << 40), "lenient": check_flag("lenient", lenient),
            "restart": check_flag("restart", restart), "retry_errors": check_flag("retry_errors", retry_errors),
        }  # fmt: skip
        bar = Progress(0, "batch", enabled=self._core.progress)
        try:
            self._core.look_who_asks()
            with self._core.explaining(), self._core.guest():
                told = self._core.engine.run_batch(json.dumps(given), lambda done, failed, total: bar.at(done + failed, total))
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted; the same call goes on with {target}") from error
        finally:
            bar.close()
        counts: dict[str, int] = json.loads(told)
        return counts

    # Numbers about texts

    def embed(
        self, prompts: PromptLike, *, pooling_params: PoolingParams | Sequence[PoolingParams] | None = None, use_tqdm: bool = True,
        on_error: str = "raise", **keywords: Any,
    ) -> list[EmbeddingRequestOutput]:  # fmt: skip
        """A vector for each prompt: the last token's, of length 1, unless the model's files say otherwise. Encoders, and
        models whose files say how vectors are made, cut texts that are too long. Parameters are for all, or for each."""
        return self._embed(prompts, pooling_params, use_tqdm, on_error, keywords)

    def encode(
        self, prompts: PromptLike, pooling_params: PoolingParams | Sequence[PoolingParams] | None = None, *,
        pooling_task: str = "embed", use_tqdm: bool = True, on_error: str = "raise", **keywords: Any,
    ) -> list[EmbeddingRequestOutput]:  # fmt: skip
        """:meth:`embed`, or with ``pooling_task="token_embed"`` a vector for each token."""
        if pooling_task not in ("embed", "token_embed"):
            raise UsageError(f"pooling_task is {pooling_task!r}; expected 'embed' or 'token_embed'")
        return self._embed(prompts, pooling_params, use_tqdm, on_error, keywords, pooling_task == "token_embed")

    def classify(
        self, prompts: PromptLike, labels: Sequence[str] | None = None, *, template: str | None = None,
        measure: str = "sum", calibrate: str | None = None, use_tqdm: bool = True, on_error: str = "raise",
    ) -> list[ClassificationRequestOutput]:  # fmt: skip
        """The label that the model finds likeliest after each prompt. ``template`` has ``{text}`` where the prompt goes;
        ``measure`` is ``"sum"`` of log-probabilities, ``"mean"`` for each token, or ``"calibrated"`` by a text that says
        nothing (``calibrate``)."""
        labels = [] if labels is None else [check_text(f"label {n}", label) for n, label in enumerate(items("labels", labels))]
        if not labels:
            raise UsageError("labels: give the texts to choose from, such as labels=['positive', 'negative']")
        if measure not in ("sum", "mean", "calibrated") or (measure == "calibrated") != bool(calibrate):
            raise UsageError("measure is 'sum', 'mean' or 'calibrated'; the last with calibrate='a text that says nothing'")
        if calibrate is not None:
            check_text("calibrate", calibrate)
        read = read_prompts(prompts, self._core, template=template)
        _raise_first(read, on_error)
        ends = [self._ids(label) for label in labels]
        neutral = [self._ids(calibrate, True)] if calibrate else []
        prefixes = [p.token_ids for p in read if p.error is None]
        requests = [score_request(prefix, end) for prefix in [*prefixes, *neutral] for end in ends]
        results = self._results(requests, "labels", use_tqdm, lambda some: _labelled(read, some, labels, measure, "return"))
        return _labelled(read, results, labels, measure, on_error)

    def score(
        self, data_1: Any, data_2: Any, /, *, use_tqdm: bool = True, **keywords: Any
    ) -> list[ScoringRequestOutput]:
        """How alike texts are: one to each of a list, or two lists pair by pair. Of a model with a head for pairs of texts
        what that says, of others the cosine of their vectors."""
        self._refuse(keywords.pop("lora_request", None), keywords)
        first, second = (
            [data] if isinstance(data, (str, dict)) else items(name, data, "a text or several")
            for name, data in (("data_1", data_1), ("data_2", data_2))
        )
        if len(first) not in (1, len(second)):
            raise UsageError(f"score takes 1 to N or N to N texts, not {len(first)} to {len(second)}")
        if self._core.facts["scores_pairs"]:
            return pair_scores(self, zip(first * len(second) if len(first) == 1 else first, second), None, use_tqdm)
        # Each is a text, also where all are whole numbers.
        try:
            vectors = self.embed(Rows([*first, *second]), pooling_params=PoolingParams(normalize=True), use_tqdm=use_tqdm)
        except Interrupted as error:
            error.outputs = cosines(error.outputs, len(first))
            raise
        return cosines(vectors, len(first))

    def rerank(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None, use_tqdm: bool = True
    ) -> list[ScoringRequestOutput]:
        """How well each document answers a query, between 0 and 1 as a rule: by a model's head for pairs of texts, or by how
        likely a causal model finds yes and no, as Qwen's rerankers are asked. ``instruction`` says what a document is to do."""
        return pair_scores(self, [(query, document) for document in items("documents", documents)], instruction, use_tqdm)

    def log_likelihood(
        self, contexts: Sequence[PromptLike], continuations: Sequence[str | Sequence[int]], *, use_tqdm: bool = True
    ) -> list[LikelihoodOutput]:
        """How likely each continuation is after its context."""
        contexts, continuations = items("contexts", contexts), items("continuations", continuations)
        if len(contexts) != len(continuations):
            raise UsageError(f"there are {len(contexts)} contexts and {len(continuations)} continuations")
        read = read_prompts(Rows(contexts), self._core)
        _raise_first(read, "raise")
        # Of a text without what a tokenizer puts before one.
        following = read_prompts(Rows(continuations), self._core, self._ids)
        wrong = next((number for number, one in enumerate(following) if one.error is not None), None)
        if wrong is not None:
            raise UsageError(f"continuation {wrong}: {str(following[wrong].error).partition(': ')[2]}")
        ends = [one.token_ids for one in following]
        requests = [score_request(p.token_ids, end) for p, end in zip(read, ends)]

        def shaped(results: list[Any]) -> list[Any]:
            return [_likelihood(end, result) if succeeded(result) else None for end, result in zip(ends, results)]

        results = self._results(requests, "likelihoods", use_tqdm, shaped)
        _raise_failed(results)
        return shaped(results)

    def distil(
        self, prompts: PromptLike, k: int = 20, *, use_tqdm: bool = True, on_error: str = "raise"
    ) -> list[DistilOutput]:
        """The ``k`` likeliest tokens after each token of given texts: targets to train smaller models on. The targets at
        position i are for the token at i + 1."""
        read = read_prompts(prompts, self._core)
        _raise_first(read, on_error)
        k = check_whole("k", k, 1, self._core.facts["vocab"])
        requests = [{"tokens": p.token_ids, "want": {"topk": {"k": k, "from": 0}}} for p in read if p.error is None]
        results = self._results(requests, "texts", use_tqdm, lambda some: _distilled(read, some))
        if on_error == "raise":
            _raise_failed(results)
        return _distilled(read, results)

    def as_encoder(self) -> "_encoder.Encoder":
        """Embeddings in sentence-transformers' shape: ``.encode(texts)``."""
        return _encoder.Encoder(self)

    # Tables and datasets

    @property
    def embedding_size(self) -> int:
        """Elements of a vector."""
        return int(self._pooling.dimensions or self._pooling.width)

    def generate_frame(self, frame: Any, column: str, output: str = "answer", sampling_params: SamplingParams | None = None, **how: Any) -> Any:
        """A table of pandas, polars or pyarrow with a column of answers. ``chat=True`` asks each as a user's message (after
        ``system=``), ``template=`` has ``{text}`` where the value goes, ``errors=`` names a column for rows that cannot be
        served, which otherwise raise."""
        return frames.generate_frame(self, frame, column, output, sampling_params, **how)

    def embed_frame(self, frame: Any, column: str, output: str = "embedding", pooling_params: PoolingParams | None = None, **how: Any) -> Any:
        """A table with a column of vectors: lists of fixed size in pyarrow and polars. ``errors=`` names a column for rows
        that cannot be served, which otherwise raise."""
        return frames.embed_frame(self, frame, column, output, pooling_params, **how)

    def classify_frame(self, frame: Any, column: str, labels: Sequence[str], output: str = "label", **how: Any) -> Any:
        """A table with a column of labels; ``template``, ``measure`` and ``calibrate`` as in :meth:`classify`,
        ``probability=`` names a column for the share of the chosen label."""
        return frames.classify_frame(self, frame, column, labels, output, **how)

    def mapper(
        self, column: str, output: str = "answer", sampling_params: SamplingParams | None = None, *, chat: bool = False,
        system: str | None = None, template: str | None = None, errors: str | None = None,
    ) -> frames.Mapper:  # fmt: skip
        """A function for ``datasets.Dataset.map(…, batched=True)``. With ``errors=``, the name of a column, rows that cannot
        be served have an empty answer, and there why; the others have nothing there."""
        how = {"chat": chat, "system": system, "template": template, "errors": errors}
        return frames.Mapper(self, column, output, sampling_params, **how)

    # Inside

    def _vector_ids(self) -> Encode | None:
        """How a text of which a vector is made becomes tokens, where that is not as elsewhere."""
        if not self._core.facts["embedding"].get("cuts"):
            return None
        return lambda text: self._core.model.encode_for_vector(text)[0]

    def _refuse(self, lora_request: Any, keywords: dict[str, Any]) -> None:
        if lora_request is not None:
            raise UsageError("lora_request: adapters are not supported here")
        for name in keywords:
            if name not in _NOTED:
                if name in SAMPLING_NAMES:
                    raise TypeError(f"{name!r} is a member of SamplingParams: give SamplingParams({name}=…)")
                raise unknown("this method", name, ("use_tqdm", "on_error", "sampling_params"))
            log.info("%s is ignored", name)

    def _ids(self, text: str, add_special: bool = False) -> list[int]:
        ids: list[int] = self._core.model.encode(text, add_special)
        if not ids:
            raise UsageError(f"{text!r} has no tokens")
        return ids

    def _results(
        self, requests: list[dict[str, Any]], what: str, use_tqdm: bool, shape: Callable[[list[Any]], list[Any]] | None = None
    ) -> list[Result]:
        """``shape`` makes what an interrupted call has into what the call gives; what has no result is ``None``."""
        affordable(self._core.options, results_bytes(requests, self._core.facts["hidden"]), "give fewer prompts at a time")
        try:
            return self._core.results(requests, what, show=self._core.progress and bool(use_tqdm))
        except Interrupted as error:
            error.outputs = error.outputs if shape is None else shape(error.outputs)
            raise

    def _conversations(
        self, messages: Sequence[Any], template: str | None, generation: bool, final: bool,
        tools: Sequence[Any] | None, variables: dict[str, Any] | None, content_format: str = "auto",
    ) -> list[Prompt]:  # fmt: skip
        if not isinstance(variables, (dict, type(None))):
            raise UsageError(f"chat_template_kwargs: expected a dict, not {type(variables).__name__}")
        extra = dict(variables or {})
        if tools is not None:
            extra["tools"] = tool_list(tools)
        own = template_of(template)
        return read_conversations(messages, self._tokenizer, self._core, own, generation, final, extra, content_format)

    def _batch(
        self, read: list[Prompt], params: SamplingParams | Sequence[SamplingParams] | None, on_error: str
    ) -> Batch:
        _raise_first(read, on_error)
        given = self.get_default_sampling_params() if params is None else params
        if not isinstance(given, (SamplingParams, list, tuple)):
            raise UsageError(f"sampling_params: expected SamplingParams, one or a list, not {type(given).__name__}")
        every = [given] * len(read) if isinstance(given, SamplingParams) else list(given)
        if len(every) != len(read):
            raise UsageError(f"there are {len(read)} prompts and {len(every)} sampling parameters")
        checked: dict[int, SamplingParams] = {}
        for one in every:
            if not isinstance(one, SamplingParams):
                raise UsageError(f"sampling_params: expected SamplingParams, not {type(one).__name__}")
            # Members may have been set since it was made.
            if id(one) not in checked:
                checked[id(one)] = one.clone()
        every = [checked[id(one)] for one in every]
        batch = Batch(self._core, read, every, self._seed, self._calls.next())
        _raise_first(read, on_error)
        return batch

    def _generate(
        self, read: list[Prompt], params: SamplingParams | Sequence[SamplingParams] | None, use_tqdm: bool, on_error: str
    ) -> list[RequestOutput]:
        batch = self._batch(read, params, on_error)
        results = self._results(batch.requests, "answers", use_tqdm, lambda some: batch.some_outputs(self._core, some))
        return batch.outputs(self._core, results, on_error)

    def _requests_of(self, prompt: PromptLike, params: SamplingParams | None) -> Batch:
        """One prompt's."""
        read = read_prompts([prompt] if isinstance(prompt, (str, dict)) else prompt, self._core)
        if len(read) != 1:
            raise UsageError(f"expected one prompt, not {len(read)}")
        return self._batch(read, params, "raise")

    def _streamed(self, prompt: PromptLike, params: SamplingParams | None, chat: bool) -> dict[str, Any]:
        if chat:
            read = self._conversations(prompt, None, True, False, None, None)
        else:
            read = read_prompts([prompt] if isinstance(prompt, (str, dict)) else prompt, self._core)
        if len(read) != 1:
            raise UsageError("stream takes one prompt; as_completed takes several")
        batch = self._batch(read, params, "raise")
        if len(batch.requests) != 1:
            raise UsageError("stream gives one answer: n has no place in it")
        return batch.requests[0]

    def _embed(
        self, prompts: PromptLike, params: Any, use_tqdm: bool, on_error: str, keywords: dict[str, Any], apart: bool = False
    ) -> list[EmbeddingRequestOutput]:
        """A vector of each prompt, or one for each of its tokens."""
        self._refuse(keywords.pop("lora_request", None), keywords)
        read = read_prompts(prompts, self._core, self._vector_ids())
        every = _encoder.params_of(params, len(read))
        _raise_first(read, on_error)
        usual = PoolingParams(normalize=False) if apart else None
        requests = [self._pooling.request(p.token_ids, how or usual, apart) for p, how in zip(read, every) if p.error is None]
        results = self._results(requests, "embedding", use_tqdm, lambda some: self._embeddings(read, some, "return", apart))
        return self._embeddings(read, results, on_error, apart)

    def _embeddings(self, read: list[Prompt], results: Sequence[Any], on_error: str, apart: bool = False) -> list[Any]:
        """Prompts' vectors; nothing for those that have no result."""
        left = iter(results)
        return [self._embedded(number, prompt, left, on_error, apart) for number, prompt in enumerate(read)]

    def _embedded(
        self, number: int, prompt: Prompt, results: Iterator[Any], on_error: str, apart: bool
    ) -> EmbeddingRequestOutput | None:
        failed: Exception | None = prompt.error
        vector = None
        if failed is None:
            result = next(results)
            if result is None:
                return None
            failed = raised(result, number)
            vector = None if failed else EmbeddingOutput(_encoder.vectors(result, apart))
        if failed is not None and on_error == "raise":
            raise failed
        return EmbeddingRequestOutput(str(number), vector, prompt.token_ids, True, failed)


def _raise_first(read: list[Prompt], on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise UsageError(f"on_error is {on_error!r}; expected 'raise' or 'return'")
    error = next((prompt.error for prompt in read if prompt.error is not None), None)
    if error is not None and on_error == "raise":
        raise error


def _raise_failed(results: list[Result]) -> None:
    """Of calls in which each prompt has one result."""
    for number, result in enumerate(results):
        error = raised(result, number)
        if error is not None:
            raise error


def _likelihood(tokens: list[int], result: Result) -> LikelihoodOutput:
    values = [value for value in result[1]["logprobs"] if value is not None]
    return LikelihoodOutput(math.fsum(values), tokens, values)


def _distilled(read: list[Prompt], results: list[Any]) -> list[Any]:
    """What is expected after each token of prompts; nothing for those that have no result."""
    left = iter(results)
    outputs: list[Any] = []
    for number, prompt in enumerate(read):
        result = None if prompt.error is not None else next(left)
        if prompt.error is None and result is None:
            outputs.append(None)
            continue
        failed = prompt.error if result is None else raised(result, number)
        outputs.append(distilled(prompt.token_ids, None if failed else result, failed))
    return outputs


def _pieces(events: Iterator[tuple[int, str, Any]]) -> Iterator[str]:
    try:
        for _, kind, told in events:
            error = raised((kind, told)) if kind == "failed" else None
            if error is not None:
                raise error
            if kind == "text":
                yield told
    except KeyboardInterrupt as error:
        # All that came was given.
        raise Interrupted() from error


def _sum(result: Result) -> float:
    error = raised(result)
    if error is not None:
        raise error
    return math.fsum(value for value in result[1]["logprobs"] if value is not None)


def _labelled(read: list[Prompt], results: list[Any], labels: list[str], measure: str, on_error: str) -> list[Any]:
    """Prompts' labels; nothing for those that lack results."""
    count = sum(prompt.error is None for prompt in read) * len(labels)
    neutral = results[count:]
    missing = None in neutral
    plain = None if missing else [_sum(result) for result in neutral] or None
    groups = iter([results[i : i + len(labels)] for i in range(0, count, len(labels))])
    outputs: list[Any] = []
    for number, prompt in enumerate(read):
        failed: Exception | None = prompt.error
        chosen = None
        if failed is None:
            group = next(groups)
            if missing or None in group:
                outputs.append(None)
                continue
            failed = next((e for e in (raised(one, number) for one in group) if e is not None), None)
            chosen = None if failed else _chosen(group, labels, measure, plain)
        if failed is not None and on_error == "raise":
            raise failed
        outputs.append(ClassificationRequestOutput(str(number), chosen, prompt.token_ids, True, failed))
    return outputs


def _chosen(group: list[Result], labels: list[str], measure: str, plain: list[float] | None) -> ClassificationOutput:
    sums = [_sum(result) for result in group]
    scores = sums
    if measure == "mean":
        counts = [sum(value is not None for value in result[1]["logprobs"]) for result in group]
        scores = [total / max(count, 1) for total, count in zip(sums, counts)]
    elif plain is not None:
        scores = [total - neutral for total, neutral in zip(sums, plain)]
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    return ClassificationOutput(labels[best], best, scores, shares(scores))
