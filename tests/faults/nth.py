"""Steps that can fail, counted: statements, commits, renames, syncs, reads, sends."""

import errno
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from syncd.core.answer import NoReply
from syncd.spool.folders import SpoolFile

OS_ERRORS = (errno.ENOSPC, errno.EIO)


@dataclass(slots=True)
class Counter:
    """Steps of each kind so far, and which of them fail."""

    kind: str = ""
    nth: range = range(0)
    """Counted from 1; a range of one is one failure, a longer one a bad moment."""
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0

    def fails(self, kind: str) -> int | None:
        """Count a step; its number if it is to fail."""
        n = self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind != self.kind or n not in self.nth:
            return None
        self.failed += 1
        return n


class Sender:
    """The way to the vendor: the n-th request is lost before or after it is applied."""

    def __init__(self, vendor: Any, counter: Counter) -> None:
        self._vendor = vendor
        self._counter = counter

    async def update(self, run_id: str, body: bytes) -> Any:
        n = self._counter.fails("send")
        if n is None:
            return await self._vendor.update(run_id, body)
        if n % 2:
            await self._vendor.update(run_id, body)
        return NoReply("reset", "the connection broke", ambiguous=bool(n % 2))

    async def retrieve(self, run_id: str) -> Any:
        return await self._vendor.retrieve(run_id)


@contextmanager
def fallible_files(counter: Counter):  # type: ignore[no-untyped-def]
    """os.rename, os.fsync and reads of spool files are counted, and fail."""

    def failing(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            n = counter.fails(kind)
            if n is None:
                return real(*arguments, **named)
            raise OSError(OS_ERRORS[n % 2], os.strerror(OS_ERRORS[n % 2]))

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", failing("rename", os.rename))
        patch.setattr(os, "fsync", failing("fsync", os.fsync))
        patch.setattr(SpoolFile, "read", failing("read", SpoolFile.read))
        yield
