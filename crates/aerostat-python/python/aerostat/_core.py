"""A model and its engine, and calls to it: what ``AutoModel`` and ``LLM`` share."""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import Any, AsyncIterator, Callable, Iterator, Sequence

from . import _aerostat
from ._checks import check_path, check_text
from ._journal import Entry, Journal
from ._options import EngineOptions, expert_file, log, own_cache
from ._progress import Progress
from .errors import AerostatError, BudgetError, Cancelled, Interrupted, UsageError, of_class

#: A result of the native half: its kind, and its members.
Result = tuple[str, dict[str, Any]]
#: A request, as messages of the engine name it.
_NUMBERED = re.compile(r"\bprompt \d{9,}\b")
#: Seconds after which results that came are made durable, where a journal is kept.
KEEP_EVERY = 0.2


def find(
    model: str | os.PathLike[str],
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> str:
    """The folder or file of a model, downloaded if need be."""
    name = check_path("the model's name", model)
    if revision is not None:
        check_text("revision", revision)
    name = os.path.expanduser(name) if name.startswith("~") else name
    bar: list[Progress] = []

    def told(here: int, total: int, notes: list[str]) -> None:
        for note in notes:
            log.info("%s", note)
        if total and progress:
            if not bar:
                bar.append(Progress(total, f"downloading {name}", "B"))
            bar[0].at(here, total)

    cache = None if cache_dir is None else check_path("cache_dir", cache_dir)
    try:
        return str(_aerostat.find(name, own_cache(), token, cache, revision, told))
    finally:
        for shown in bar:
            shown.close()


class Core:
    """A model's files and its engine. The engine is opened at the first call, and shared by threads and event loops."""

    def __init__(self, path: str, options: EngineOptions, floor: tuple[int, int], progress: bool) -> None:
        self.path = path
        self.options = options
        self.floor = floor
        self.progress = progress
        self.model = _aerostat.Model(path, options.memory_bytes())
        #: Where results are kept, if they are.
        self.journal: Journal | None = None
        #: Threads on which the caller's own hooks run right now.
        self.asking: set[int] = set()
        #: Calls under way for which the native half calls Python.
        self.guests: set[object] = set()
        self.facts: dict[str, Any] = json.loads(self.model.describe())
        experts = expert_file(path) if self.facts["experts"] else None
        draft = None if options.draft is None else check_path("draft", options.draft)
        draft = draft if draft in (None, "auto", "texts", "none") else find(draft, progress=progress)
        self.engine = _aerostat.Engine(self.model, options.as_json(experts, draft), *floor)
        if self.facts["tokenizer_error"]:
            log.warning("going on without the tokenizer: %s", self.facts["tokenizer_error"])
        _leave_at_exit(self)

    @property
    def end_tokens(self) -> list[int]:
        return list(self.facts["end_tokens"])

    def close(self) -> None:
        """Lets what is under way finish, and gives memory back; the next call opens the model again."""
        self.look_who_asks()
        self.engine.close()

    def look_who_asks(self) -> None:
        if threading.get_ident() in self.asking:
            raise UsageError(
                "a logits processor or stopping criterion cannot ask or close the model that waits for it; open another for it"
            )

    def stats(self) -> dict[str, Any] | None:
        """What was done since the model was opened."""
        status = self.status()
        begun = time.monotonic()
        # Counters are told when nothing is left to do, which is a moment after the last result.
        while _behind(status) and time.monotonic() - begun < 2:
            time.sleep(0.002)
            status = self.status()
        stats: dict[str, Any] | None = status["stats"]
        return stats

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.engine.status())
        for note in status["notes"]:
            log.info("%s", note)
        return status

    def call(self, requests: Sequence[dict[str, Any]], follow: bool = False, hooks: Any = None) -> _aerostat.Call:
        self.look_who_asks()
        with self.explaining():
            return self.engine.call(json.dumps(requests), follow, hooks)

    @contextmanager
    def guest(self, called: bool = True) -> Iterator[None]:
        """While the native half calls Python, if it does: the process would end by a fault where the interpreter is taken
        down under such a call."""
        if called and _leaving and threading.current_thread() is not threading.main_thread():
            raise UsageError("the interpreter is ending")
        name = object()
        if called:
            self.guests.add(name)
        try:
            yield
        finally:
            self.guests.discard(name)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Errors of the engine in the words of the options that callers know."""
        try:
            yield
        except BudgetError as error:
            raise self.options.explained(error) from None

    def error(self, members: dict[str, Any]) -> AerostatError:
        """The exception of what the engine says went wrong."""
        return self.options.explained(of_class(members["class"], members["message"]))

    def events(
        self,
        requests: Sequence[dict[str, Any]],
        follow: bool = False,
        what: str = "requests",
        show: bool | None = None,
        until: float | None = None,
        hooks: Any = None,
        idle: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, str, Any]]:
        """What becomes of requests, as it comes. ``until`` is a time (``time.monotonic()``) at which they are cancelled:
        answers that have not ended then come as far as they are. Ctrl-C gives what is there, too, and is raised again.
        ``idle`` is called when all that came was given, and while nothing comes."""
        if not requests:
            return
        shown = self.progress if show is None else show
        with self.guest(hooks is not None):
            call = self.call(requests, follow, hooks)
            bar = Progress(len(requests), what, enabled=shown)
            try:
                yield from self._events(call, bar, until, idle)
            finally:
                bar.close()
                call.cancel()

    def _events(
        self, call: _aerostat.Call, bar: Progress, until: float | None, idle: Callable[[], None] | None
    ) -> Iterator[tuple[int, str, Any]]:
        signal: KeyboardInterrupt | None = None
        finished: set[int] = set()
        looked = time.monotonic()
        while True:
            try:
                events = call.next(0.25 if until is None else min(max(until - time.monotonic(), 0.01), 0.25))
            except KeyboardInterrupt as error:
                # A second one is not waited for.
                if signal is not None:
                    raise
                signal = error
                self.engine.interrupt()
                continue
            for index, kind, members in events:
                if kind == "end" or kind == "ended":
                    yield from self._rest(call, finished)
                    if signal is not None:
                        raise signal
                    if kind == "ended" and not (members["class"] == "Cancelled" and until is not None):
                        raise self.error(members)
                    return
                if signal is None and until is None:
                    _look_whether_whole(kind, members)
                if kind not in ("text", "tokens"):
                    finished.add(index)
                    bar.advance()
                try:
                    yield index, kind, members
                except KeyboardInterrupt as error:
                    signal = error
                    self.engine.interrupt()
            if idle is not None:
                idle()
            if until is not None and time.monotonic() > until:
                call.cancel()
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                bar.sweep(self.status())

    def _rest(self, call: _aerostat.Call, finished: set[int]) -> Iterator[tuple[int, str, Any]]:
        """Answers that have not ended, as far as they came."""
        for index, tokens in call.partial():
            if index not in finished:
                yield index, "completion", self.cut(tokens)

    def cut(self, tokens: list[int]) -> dict[str, Any]:
        """An answer that was left where it was."""
        text = self.model.decode(tokens, True) if self.facts["tokenizer"] else None
        return {
            "token_ids": tokens,
            "text": text,
            "finish_reason": "interrupted",
            "stop_reason": None,
            "logprobs": None,
            "top_logprobs": None,
            "ranks": None,
            "prompt_logprobs": None,
        }

    def results(
        self,
        requests: Sequence[dict[str, Any]],
        what: str = "requests",
        show: bool | None = None,
        until: float | None = None,
        hooks: Any = None,
    ) -> list[Result]:
        """What becomes of requests, in their order. Raises :class:`Interrupted` with results, ``None`` for those that have
        none, on Ctrl-C."""
        if self.journal is not None and hooks is None and until is None:
            return self._journaled(self.journal.call(requests), requests, what, show)
        results: list[Any] = [None] * len(requests)
        try:
            for index, kind, members in self.events(requests, what=what, show=show, until=until, hooks=hooks):
                results[index] = (kind, members)
        except KeyboardInterrupt as error:
            raise Interrupted(outputs=results) from error
        if until is None:
            return _whole(results)
        empty = ("completion", self.cut([]))
        return [empty if result is None else result for result in results]

    def _journaled(
        self, entry: Entry, requests: Sequence[dict[str, Any]], what: str, show: bool | None
    ) -> list[Result]:
        """Results of which those that are kept are not asked for again."""
        results: list[Any] = [entry.known.get(place) for place in range(len(requests))]
        left = [place for place, result in enumerate(results) if result is None]
        new: list[tuple[int, Result]] = []
        kept_at = time.monotonic()

        def keep() -> None:
            nonlocal kept_at
            if time.monotonic() - kept_at > KEEP_EVERY:
                entry.keep(new)
                new.clear()
                kept_at = time.monotonic()

        try:
            for index, kind, members in self.events([requests[place] for place in left], what=what, show=show, idle=keep):
                place = left[index]
                results[place] = (kind, members)
                if kind != "failed" and members.get("finish_reason") != "interrupted":
                    new.append((place, (kind, members)))
        except KeyboardInterrupt as error:
            raise Interrupted(outputs=results) from error
        finally:
            entry.keep(new)
            entry.close()
        return _whole(results)

    async def aevents(
        self, requests: Sequence[dict[str, Any]], follow: bool = False
    ) -> AsyncIterator[tuple[int, str, Any]]:
        """:meth:`events` for an event loop, which never waits. Leaving it cancels these requests and no others."""
        if not requests:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        told: asyncio.Queue[list[tuple[int, str, Any]]] = asyncio.Queue()
        call = self.call(requests, follow)
        try:
            _listen(call, lambda events: loop.call_soon_threadsafe(told.put_nowait, events))
            while True:
                for index, kind, members in await told.get():
                    if kind == "end":
                        return
                    if kind == "ended":
                        raise self.error(members)
                    _look_whether_whole(kind, members)
                    yield index, kind, members
        finally:
            call.cancel()

    async def aresults(self, requests: Sequence[dict[str, Any]]) -> list[Result]:
        results: list[Any] = [None] * len(requests)
        async for index, kind, members in self.aevents(requests):
            results[index] = (kind, members)
        return _whole(results)


def raised(result: Result, number: int | None = None) -> AerostatError | None:
    """The exception of a request that failed, to the prompt of this number."""
    kind, members = result
    if kind != "failed":
        return None
    # The engine numbers requests of all calls together.
    own = "the prompt" if number is None else f"prompt {number}"
    return of_class(members["class"], _NUMBERED.sub(own, members["message"], count=1))


def succeeded(result: Result | None) -> bool:
    """Whether a request has a result that is no failure; that of one that was interrupted is none."""
    return result is not None and result[0] != "failed"


def _look_whether_whole(kind: str, members: Any) -> None:
    """Of a call that nobody interrupted. Ctrl-C comes to one thread and ends what all have asked of the model: what the others
    have then is no result."""
    if kind == "completion" and members["finish_reason"] == "interrupted":
        raise _cancelled()


def _cancelled() -> Cancelled:
    return Cancelled("another call to this model was interrupted, which ends all of them; ask again")


def _whole(results: list[Any]) -> list[Result]:
    """Results of a call that nobody interrupted."""
    if None in results:
        raise _cancelled()
    return results


def _behind(status: dict[str, Any]) -> bool:
    """The counters lack sweeps that were made, and nothing is under way that would make more."""
    if status["calls"] or not status["progress"]:
        return False
    stats = status["stats"]
    return stats is None or bool(stats["sweeps"] < status["progress"]["sweep"])


def _listen(call: _aerostat.Call, tell: Callable[[list[tuple[int, str, Any]]], object]) -> None:
    """Tells what becomes of requests, on a thread of its own. That is one of Python's: a thread of the native half that calls
    Python while the interpreter is taken down ends the process by a fault."""

    def listen() -> None:
        last = False
        while not last:
            try:
                events = call.next()
            except AerostatError as error:
                events = [(0, "ended", {"class": type(error).__name__, "message": str(error)})]
            last = bool(events) and events[-1][1] in ("end", "ended")
            try:
                tell(events)
            except RuntimeError:
                # The loop is closed: nobody wants to know.
                return

    threading.Thread(target=listen, name="aerostat-call", daemon=True).start()


#: All models, once there is one. Not a ``WeakSet``: that calls Python when one is forgotten, and Ctrl-C at that moment would be lost.
_open: list[weakref.ref[Core]] = []
#: The interpreter is ending.
_leaving = False


def _leave_at_exit(core: Core) -> None:
    if not _open:
        atexit.register(_leave)
    _open.append(weakref.ref(core))
    for gone in [one for one in _open if one() is None]:
        # Another thread may have.
        with suppress(ValueError):
            _open.remove(gone)


def _leave() -> None:
    """Ends what would call Python while it is being taken down, which ends the process by a fault."""
    global _leaving
    _leaving = True
    for core in [one() for one in _open]:
        if core is not None and core.guests:
            try:
                core.engine.interrupt()
                core.engine.close()
            except AerostatError:
                # In a forked child, which has none of its parent's threads.
                continue
            until = time.monotonic() + 1
            while core.guests and time.monotonic() < until:
                time.sleep(0.005)
    if threading.active_count() > 1:
        _aerostat.leave()


class Counter:
    """Numbers calls, from any thread."""

    def __init__(self) -> None:
        self._next, self._lock = 0, threading.Lock()

    def next(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1

