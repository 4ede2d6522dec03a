"""The model's tokenizer in the shape of transformers'."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, Sequence

from . import _aerostat, tensors
from ._checks import check_flag, check_mapping, check_text, check_whole, items, shown, wrong
from ._options import log, unknown
from .errors import ModelError, TextError, UsageError

_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
#: What a caller may set.
_SETTINGS = ("_named", "chat_template", "padding_side", "model_max_length")
#: Arguments of transformers' tokenizers that cannot be had, and the values that ask for nothing.
_REFUSED: dict[str, Any] = {
    "stride": 0, "return_overflowing_tokens": False, "return_special_tokens_mask": False, "return_offsets_mapping": False,
    "return_length": False, "is_split_into_words": False, "pad_to_multiple_of": None, "text_target": None, "text_pair_target": None,
    "split_special_tokens": False, "return_token_type_ids": False, "text_pair": None,
}  # fmt: skip
#: Those that change nothing here, and are noted.
_IGNORED = ("verbose", "clean_up_tokenization_spaces", "spaces_between_special_tokens", "use_source_tokenizer")
_PADDINGS = (True, False, None, "longest", "max_length", "do_not_pad")
_TRUNCATIONS = (True, False, None, "longest_first", "only_first", "do_not_truncate")


def _look_at(keywords: dict[str, Any], known: Iterable[str]) -> None:
    """Notes, refuses or does not know arguments of transformers' tokenizers."""
    for name, value in keywords.items():
        if name in _IGNORED:
            log.info("the tokenizer ignores %s", name)
        elif name not in _REFUSED:
            raise unknown("the tokenizer", name, (*known, *_REFUSED, *_IGNORED))
        elif value is not None and value != _REFUSED[name]:
            raise UsageError(f"{name} is {shown(value)}, which is not supported: leave it out")


class BatchEncoding(dict[str, Any]):
    """What a tokenizer gives: a dict whose members are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, *args: Any, **keywords: Any) -> "BatchEncoding":
        return BatchEncoding({name: value.to(*args, **keywords) if hasattr(value, "to") else value for name, value in self.items()})


def read_json(path: str) -> dict[str, Any]:
    """A JSON object, or an empty one if there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: it cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: the JSON is not an object")
    return value


def _settings(path: str) -> dict[str, Any]:
    """The same of a file that a model runs without."""
    try:
        return read_json(path)
    except ModelError as error:
        log.warning("going on without what it says: %s", error)
        return {}


def _text(token: Any) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


class _Files:
    """What a tokenizer looks at of a model, without an engine: in another process than the model's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.model = _aerostat.Model(path)
        self.facts: dict[str, Any] = json.loads(self.model.describe())


class Tokenizer:
    """Text to token ids and back, as the model's own files say."""

    def __init__(self, core: Any, token_ids: dict[str, Any] | None = None) -> None:
        self._core = core
        self._model = core.model
        self._named: dict[str, str | None] = dict.fromkeys(_NAMED)
        self.padding_side = "right"
        self.chat_template: str | None = None
        folder = core.path if os.path.isdir(core.path) else None
        config = {} if folder is None else _settings(os.path.join(folder, "tokenizer_config.json"))
        mapped = {} if folder is None else _settings(os.path.join(folder, "special_tokens_map.json"))
        for name in _NAMED:
            self._named[name] = _text(config.get(name)) or _text(mapped.get(name))
        for name, key in (("bos_token", "bos"), ("eos_token", "eos")):
            if self._named[name] is None and core.facts[key] is not None and core.facts["tokenizer"]:
                self._named[name] = self._model.token_text(core.facts[key])
        if config.get("padding_side") in ("left", "right"):
            self.padding_side = config["padding_side"]
        length = config.get("model_max_length")
        self.model_max_length = int(length) if isinstance(length, (int, float)) and length < 1e9 else core.facts["context_max"]
        self.name_or_path = core.path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_core", "_model")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._core = _Files(self.name_or_path)
        self._model = self._core.model

    def settings(self) -> str:
        """What a caller may have set, as JSON; :meth:`set` sets it on another of the same model."""
        return json.dumps({name: getattr(self, name) for name in _SETTINGS}, sort_keys=True)

    def set(self, settings: str) -> None:
        """Takes the settings of another."""
        vars(self).update(json.loads(settings))

    # Special tokens

    def _id(self, name: str) -> int | None:
        token = self._named[name]
        found = None if token is None else self._model.token_id(token)
        return None if found is None else int(found)

    def _set(self, name: str, token: str | None) -> None:
        if token is not None and self._model.token_id(check_text(name, token)) is None:
            raise UsageError(f"{name}: the vocabulary has no token {token!r}")
        self._named[name] = token

    def _set_id(self, name: str, token: int | None) -> None:
        text = None if token is None else self._model.token_text(self._whole(token))
        if token is not None and text is None:
            raise UsageError(f"{name}_id: {token} is outside the vocabulary")
        self._named[name] = text

    bos_token = property(lambda self: self._named["bos_token"], lambda self, value: self._set("bos_token", value))
    eos_token = property(lambda self: self._named["eos_token"], lambda self, value: self._set("eos_token", value))
    unk_token = property(lambda self: self._named["unk_token"], lambda self, value: self._set("unk_token", value))
    pad_token = property(lambda self: self._named["pad_token"], lambda self, value: self._set("pad_token", value))
    bos_token_id = property(lambda self: self._id("bos_token"), lambda self, value: self._set_id("bos_token", value))
    eos_token_id = property(lambda self: self._id("eos_token"), lambda self, value: self._set_id("eos_token", value))
    unk_token_id = property(lambda self: self._id("unk_token"), lambda self, value: self._set_id("unk_token", value))
    pad_token_id = property(lambda self: self._id("pad_token"), lambda self, value: self._set_id("pad_token", value))

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return {name: token for name, token in self._named.items() if token is not None}

    @property
    def all_special_ids(self) -> list[int]:
        ids = {self._id(name) for name in _NAMED}
        return sorted(token for token in ids if token is not None)

    @property
    def vocab_size(self) -> int:
        return int(self._model.vocab_size())

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer({self.name_or_path!r})"

    def get_vocab(self) -> dict[str, int]:
        texts = ((self._model.token_text(token), token) for token in range(self.vocab_size))
        return {text: token for text, token in texts if text is not None}

    # Text to ids

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """The token ids of a text."""
        ids = self._model.encode(check_text("text", text), add_special_tokens)
        if truncation:
            longest = self.model_max_length if max_length is None else check_whole("max_length", max_length, 0)
            ids = ids[:longest]
        if return_tensors is None:
            return ids
        import numpy as np

        return tensors.host(np.asarray([ids], dtype=np.int64), return_tensors)

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        padding_side: str | None = None,
        **more: Any,
    ) -> BatchEncoding:
        """Token ids and mask of a text, or of several."""
        more.update(text_pair=text_pair, return_token_type_ids=return_token_type_ids)
        _look_at(more, ("padding", "truncation", "max_length", "return_tensors", "add_special_tokens", "return_attention_mask"))
        for name, value, values in (("padding", padding, _PADDINGS), ("truncation", truncation, _TRUNCATIONS)):
            if value not in values:
                raise wrong(name, value, f"one of {', '.join(map(repr, values))}")
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else items("text", text, "a text or several")
        cut = bool(truncation) and truncation != "do_not_truncate"
        rows = [self.encode(one, add_special_tokens, cut, max_length) for one in texts]
        masks = [[1] * len(row) for row in rows]
        if padding and padding != "do_not_pad":
            longest = max((len(row) for row in rows), default=0)
            if padding == "max_length":
                longest = max(longest, self.model_max_length if max_length is None else check_whole("max_length", max_length, 0))
            self._pad(rows, masks, longest, padding_side or self.padding_side)
        given: dict[str, Any] = {"input_ids": rows, "attention_mask": masks}
        if return_attention_mask is False:
            del given["attention_mask"]
        if return_tensors is not None:
            import numpy as np

            if len({len(row) for row in rows}) > 1:
                raise UsageError("texts differ in length; padding=True makes one tensor of them")
            given = {name: tensors.host(np.asarray(value, dtype=np.int64), return_tensors) for name, value in given.items()}
        elif single:
            given = {name: value[0] for name, value in given.items()}
        return BatchEncoding(given)

    def _pad(self, rows: list[list[int]], masks: list[list[int]], length: int, side: str) -> None:
        if side not in ("left", "right"):
            raise wrong("padding_side", side, "'left' or 'right'")
        pad = self.pad_token_id
        if all(len(row) == length for row in rows):
            return
        if pad is None:
            raise UsageError("the tokenizer has no padding token: set tokenizer.pad_token = tokenizer.eos_token")
        for row, mask in zip(rows, masks):
            missing = length - len(row)
            at = 0 if side == "left" else len(row)
            row[at:at] = [pad] * missing
            mask[at:at] = [0] * missing

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        return [self._piece(token) for token in self._model.encode(check_text("text", text), add_special_tokens)]

    # Ids to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **more: Any) -> Any:
        """The text of token ids: a number, a list, an array or a tensor."""
        _look_at(more, ("skip_special_tokens",))
        if isinstance(token_ids, (list, tuple)) and token_ids and isinstance(token_ids[0], (list, tuple)):
            return self.batch_decode(token_ids, skip_special_tokens)
        if getattr(token_ids, "ndim", 0) == 2:
            return self.batch_decode(token_ids, skip_special_tokens)
        return self._model.decode(self._flat(token_ids), skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Any], skip_special_tokens: bool = False, **more: Any) -> list[str]:
        _look_at(more, ("skip_special_tokens",))
        rows = items("sequences", sequences, "lists of token ids")
        return [self._model.decode(self._flat(row), skip_special_tokens) for row in rows]

    def _flat(self, ids: Any) -> list[int]:
        """Token ids of a number, a list, an array or a tensor of one dimension."""
        return [self._whole(token) for token in (items("token_ids", ids, "token ids") if hasattr(ids, "__iter__") else [ids])]

    def _whole(self, token: Any) -> int:
        """A token id, also written with a point and nothing behind it, as arrays of numbers may."""
        try:
            whole = int(token)
        except (TypeError, ValueError, OverflowError):
            whole = -1
        # Models have tokens that their tokenizer has no text for.
        count = max(self.vocab_size, self._core.facts["vocab"])
        if isinstance(token, (str, bool)) or whole != token or not 0 <= whole < count:
            raise UsageError(f"{shown(token)} is no token id; expected a whole number below {count}")
        return whole

    def _piece(self, token: int) -> str:
        text = self._model.token_text(token)
        return "" if text is None else str(text)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        if isinstance(ids, int):
            return self._model.token_text(self._whole(ids))
        kept = (token for token in self._flat(ids) if not (skip_special_tokens and self._model.is_special(token)))
        return [self._model.token_text(token) for token in kept]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        if isinstance(tokens, str):
            found = self._model.token_id(check_text("tokens", tokens))
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in items("tokens", tokens)]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        return str(self._model.decode([token for token in self.convert_tokens_to_ids(items("tokens", tokens)) if token is not None], False))

    # Conversations

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        **variables: Any,
    ) -> Any:
        """A conversation (a list of messages), or several, as the model's template writes it: text, or token ids."""
        talk = items("conversation", conversation, "a list of messages, or several")
        several = bool(talk) and isinstance(talk[0], (list, tuple))
        conversations = [items("conversation", one, "a list of messages") for one in talk] if several else [talk]
        if tools is not None:
            variables["tools"] = tool_list(tools)
        if documents is not None:
            variables["documents"] = items("documents", documents, "a list of documents")
        texts = [
            self.render(one, chat_template, add_generation_prompt, continue_final_message, variables)
            for one in conversations
        ]
        if not tokenize:
            return texts if several else texts[0]
        encoded = self(
            texts if several or return_tensors is not None else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
        )
        return encoded if return_dict else encoded["input_ids"]

    def render(
        self,
        messages: list[Any],
        chat_template: str | None,
        add_generation_prompt: bool,
        continue_final_message: bool,
        variables: dict[str, Any],
    ) -> str:
        """One conversation as text."""
        for name, value in (("add_generation_prompt", add_generation_prompt), ("continue_final_message", continue_final_message)):
            check_flag(name, value)
        for number, message in enumerate(messages):
            check_text(f"message {number}: role", check_mapping(f"message {number}", message).get("role"))
        if add_generation_prompt and continue_final_message:
            raise UsageError("add_generation_prompt and continue_final_message exclude each other")
        template = chat_template if chat_template is not None else self.chat_template
        if template is not None:
            check_text("chat_template", template)
            variables = {**self.special_tokens_map, **variables}
        try:
            extra = json.dumps(variables, allow_nan=False)
            given = json.dumps(messages, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"messages and variables of a template must be JSON: {error}") from error
        text = str(self._model.render(given, bool(add_generation_prompt), extra, template))
        return _continued(text, messages) if continue_final_message else text


def _continued(text: str, messages: list[Any]) -> str:
    """The text up to the end of the last message, which is to be continued."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = parts[-1].get("text") if parts else None
    if not isinstance(content, str) or content.strip() not in text:
        raise TextError("continue_final_message: the template does not show the last message as it is")
    end = text.rindex(content.strip()) + len(content.strip())
    kept = text[:end]
    if text[end - len(content.strip()) :].startswith(content.lstrip()):
        kept += content[len(content.rstrip()) :] if text[end:].startswith(content[len(content.rstrip()) :]) else ""
    return kept


def tool_list(tools: Any) -> list[Any]:
    """Descriptions of functions."""
    if isinstance(tools, (str, dict)) or not hasattr(tools, "__iter__"):
        raise UsageError(f"tools: expected a list of JSON objects, not {type(tools).__name__}")
    given = list(tools)
    for tool in given:
        if not isinstance(tool, dict):
            raise UsageError(f"tools: expected a JSON object for each, not {type(tool).__name__}")
    return given
