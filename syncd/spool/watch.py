"""Noticing what happens in a folder, without polling where the system can tell."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from asyncinotify import Event, Inotify, Mask

from syncd.spool.ready import Stage

log = structlog.get_logger()

_MASK = (
    Mask.CREATE
    | Mask.OPEN
    | Mask.CLOSE
    | Mask.MOVE
    | Mask.ATTRIB
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
    | Mask.DONT_FOLLOW
)
# Attributes: what could not be read may be readable now.
_NEWS = Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.DELETE | Mask.ATTRIB
_GONE = Mask.MOVED_FROM | Mask.DELETE
LOOK_S = 5.0  # as the daemon looks for its socket
_QUIET_S = 0.001  # no event for so long: there is none to come; less would not let one be read
_BURST = 1000  # events taken in before the folder is looked at, however many more there are
_LOST = Mask.IGNORED | Mask.UNMOUNT | Mask.DELETE_SELF | Mask.MOVE_SELF


class Watch:
    """The events of one folder. `stages` is what they have told about the files in it."""

    def __init__(self, folder: Path, *, fallback_s: float, look_s: float = LOOK_S) -> None:
        """Without inotify, `wait` returns every `fallback_s` seconds. With it, the folder is looked
        for in its place every `look_s`."""
        self.stages: dict[str, Stage] = {}
        self._folder = folder
        self._fallback_s = fallback_s
        self._look_s = look_s
        self._inotify: Inotify | None = None
        self._watched: tuple[int, int] | None = None
        self._event: asyncio.Task[Event] | None = None
        self._complained = False

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def wait(self, seconds: float) -> None:
        """Return when there is something new to see in the folder, or after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not await self._has_news(min(self._look_s, deadline - loop.time())):
            if loop.time() >= deadline:
                return

    async def _has_news(self, seconds: float) -> bool:
        """Whether there is something within so many seconds, as may be where no event tells."""
        # That a folder above was moved, or another mounted here, no event tells.
        if self._inotify is not None and await asyncio.to_thread(self._there) != self._watched:
            await self._close()
            self._open()
            return True  # whatever is in the new one is news
        if self._inotify is None:
            self._open()
        if self._inotify is None:
            await asyncio.sleep(min(seconds, self._fallback_s))
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        news = False
        for _ in range(_BURST):
            event = await self._next(_QUIET_S if news else deadline - loop.time())
            if event is None:
                return news
            news = self._note(event) or news
            if not self._is_watching:
                return True
        return True

    @property
    def _is_watching(self) -> bool:
        return self._inotify is not None

    def _open(self) -> None:
        try:
            self._inotify = Inotify()
            self._watched = self._there()  # before: what takes its place meanwhile is noticed
            self._inotify.add_watch(self._folder, _MASK)
        except OSError as error:
            self._release()
            if not self._complained:
                log.warning("spool.unwatched", folder=str(self._folder), error=str(error))
            self._complained = True
        else:
            self._complained = False

    def _there(self) -> tuple[int, int] | None:
        try:
            status = self._folder.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _close(self) -> None:
        if self._event is not None:
            self._event.cancel()
            await asyncio.wait({self._event})
            self._event = None
        self._release()

    def _release(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self.stages.clear()

    async def _next(self, seconds: float) -> Event | None:
        # One task outlives several calls: cancelling a read that is just done would lose events.
        if self._event is None:
            assert self._inotify is not None
            self._event = asyncio.create_task(self._inotify.get())
        done, _ = await asyncio.wait({self._event}, timeout=max(_QUIET_S, seconds))
        if not done:
            return None
        event, self._event = self._event.result(), None
        return event

    def _note(self, event: Event) -> bool:
        """Remember what an event says; whether it makes the folder worth a look."""
        mask = event.mask
        if mask & Mask.Q_OVERFLOW:
            self.stages.clear()
            return True
        if mask & _LOST:  # the folder itself was removed or renamed: the next wait looks anew
            self._release()
            return True
        if event.name is None:
            return False
        name = str(event.name)
        if mask & _GONE:
            self.stages.pop(name, None)
        else:
            self.stages[name] = advance(self.stages.get(name, Stage.UNSEEN), mask)
        return bool(mask & _NEWS)


def advance(stage: Stage, mask: Mask) -> Stage:
    """The stage of a file after an event."""
    if mask & (Mask.CLOSE_WRITE | Mask.MOVED_TO):
        return Stage.CLOSED
    if mask & Mask.CREATE:
        return Stage.CREATED
    if mask & Mask.OPEN:
        return {Stage.CREATED: Stage.OPENED, Stage.CLOSED: Stage.REOPENED}.get(stage, stage)
    if mask & Mask.CLOSE_NOWRITE:
        return {Stage.OPENED: Stage.CREATED, Stage.REOPENED: Stage.CLOSED}.get(stage, stage)
    return stage
