"""How events become lines: for people on a terminal, as JSON elsewhere, ranked for journald.

Code logs through `structlog.get_logger()`: a constant event name, data in keys. Hold that lazy
logger and not a bound one: only the lazy one follows `set_level`.

What may come again every second for an hour stands in REPEATING: it is said a few times, then only
counted, and the next line of it, in five minutes at the latest, says `"repeated": N`.
"""

import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import orjson
import structlog

from syncd.core.redaction import Redaction
from syncd.core.repeats import Repeats

LINE_BYTES = 48 * 1024 - 4  # journald splits a longer line; the priority and the line end count
TEXT_SIZES = (8000, 1000, 100)  # characters left of each text in a line that was too long

# The keys that make two of an event different things, and the lines each may have in five minutes.
REPEATING: Mapping[str, tuple[tuple[str, ...], int]] = {
    "gate.throttled": ((), 1),
    "gate.disregarded": ((), 1),
    "gate.blocked": (("reason",), 1),
    "gate.shut": (("cause",), 3),
    "gate.open": (("cause",), 3),
    "relay.recalled": ((), 3),
    "relay.taken_apart": ((), 3),
    "patch.dead": (("reason",), 10),
    "fence.unconfirmed": ((), 10),
    "fence.gone": ((), 10),
    "fence.unreadable": (("reason",), 10),
    "file.left": (("file",), 1),
    "store.unavailable": (("doing",), 1),
    "store.available": ((), 3),
    "intake.waits": ((), 3),
    "intake.goes_on": ((), 3),
    "control.failed": (("path",), 3),
    "control.deaf": ((), 1),
    "control.listens_again": ((), 3),
    "library.logged": (("logger", "message"), 1),
}

# Rotation brings new tokens; the one before may still be in an error under way.
_secrets: deque[tuple[str, Redaction]] = deque(maxlen=4)

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_Event = MutableMapping[str, Any]
_repeats: Repeats[tuple[str, _Event]] = Repeats()
_Render = Callable[[Any, str, _Event], str]


def setup(
    level: str = "info",
    format: str = "auto",
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Write every event of `level` or above to `stream` (standard output), libraries' warnings too.

    `format` is "console", "json" or "auto". Calling it again replaces what was set up before.
    """
    out = sys.stdout if stream is None else stream
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a locale of ASCII must not lose a line
    terminal = out.isatty()
    if format == "console" or (format == "auto" and terminal):
        render = _console(colors=terminal and not environ.get("NO_COLOR"))
    else:
        render = _json_with_priority if _is_journal(out, environ) else _json
    structlog.configure(
        processors=[
            _sparing,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(out),
        # Not cached, so that a new level reaches every lazy logger.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries(logging.WARNING))


def set_level(level: str) -> None:
    """Change the level of a running daemon."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))


def redact(secret: str) -> None:
    """Have "<token>" written instead of `secret`, wherever in a line it turns up, and however."""
    if secret and all(secret != known for known, _ in _secrets):
        _secrets.append((secret, Redaction(secret)))


def summarise(*, start_over: bool = False) -> None:
    """Say what was left out in the last minutes; to be called now and then.

    With `start_over` not only where those minutes are over, and what comes next is new: for a
    reload and for the end.
    """
    told = _repeats.all() if start_over else _repeats.due(time.monotonic())
    for (method, event), left_out in told:
        getattr(structlog.get_logger(), method)(**event, repeated=left_out)
    if start_over:
        _repeats.all()


def _sparing(_: Any, method: str, event: _Event) -> _Event:
    """Leave out what is said often."""
    names, most = REPEATING.get(event["event"], ((), 0))
    if not most:
        return event
    key = (event["event"], *(str(event.get(name))[:200] for name in names))
    # A traceback is told once; it would keep alive whatever its frames hold.
    kept = {name: value for name, value in event.items() if name not in ("exc_info", "repeated")}
    left_out = _repeats.heard(key, (method, kept), time.monotonic(), most=most)
    if "repeated" in event:
        return event
    if left_out is None:
        raise structlog.DropEvent
    return {**event, "repeated": left_out} if left_out else event


class _Lines:
    """Writes lines. A full disk or a reader that left is no reason to stop delivering."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = msg


class _Libraries(logging.Handler):
    """Brings what aiohttp, asyncio and others log into the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        level = min(record.levelno // 10 * 10, logging.CRITICAL)
        structlog.get_logger().log(
            level, "library.logged", logger=record.name, message=message, exc_info=record.exc_info
        )


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Children inherit the variable even when their output goes elsewhere: compare the file."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _console(*, colors: bool) -> _Render:
    pretty = structlog.dev.ConsoleRenderer(
        colors=colors,
        # Quoted texts cannot steer the terminal.
        repr_native_str=True,
        # The default prints the local variables too, and one of them may be the token.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: Any, method: str, event: _Event) -> str:
        line = pretty(logger, method, event)
        return _without_secrets(line)

    return render


def _json_with_priority(logger: Any, method: str, event: _Event) -> str:
    return f"<{_PRIORITIES.get(event['level'], 6)}>{_json(logger, method, event)}"


def _json(logger: Any, method: str, event: _Event) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    line = _dumps({**first, **structlog.processors.format_exc_info(logger, method, event)})
    if any(redaction.of_bytes(line) is not line for _, redaction in _secrets):
        line = orjson.dumps(_map_texts(orjson.loads(line), _without_secrets))
    if len(line) > LINE_BYTES:
        line = _cut(orjson.loads(line))
    return line.decode()


def _dumps(event: Mapping[str, Any]) -> bytes:
    try:
        return _encoded(event)
    except orjson.JSONEncodeError:
        return _encoded({name: _encodable(value) for name, value in event.items()})


def _encoded(value: Any) -> bytes:
    return orjson.dumps(value, default=_text, option=orjson.OPT_NON_STR_KEYS)


def _encodable(value: Any) -> Any:
    """Text instead of what JSON has no form for: names not in UTF-8, huge integers, circles."""
    try:
        _encoded(value)
    except orjson.JSONEncodeError:
        return _text(value).encode(errors="backslashreplace").decode()
    return value


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | os.PathLike) else repr(value)


def _cut(event: dict[str, Any]) -> bytes:
    """Shorten the long values, keeping both ends of each: a traceback's last lines say the most."""
    line = b""
    for size in TEXT_SIZES:
        shorter = {name: _shortened(value, size) for name, value in event.items()}
        line = orjson.dumps({**shorter, "cut": True})
        if len(line) <= LINE_BYTES:
            return line
    named = {name: _shortened(event[name], 100) for name in ("timestamp", "level", "event")}
    return orjson.dumps({**named, "cut": True})


def _shortened(value: Any, size: int) -> Any:
    text = orjson.dumps(value).decode() if isinstance(value, list | dict) else value
    if not isinstance(text, str) or len(text) <= size:
        return value
    return f"{text[: size // 2]} … {len(text) - size} characters cut … {text[-size // 2 :]}"


def _without_secrets(text: str) -> str:
    for _, redaction in _secrets:
        text = redaction.of(text)
    return text


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case list():
            return [_map_texts(each, change) for each in value]
        case dict():
            return {change(name): _map_texts(each, change) for name, each in value.items()}
        case _:
            return value
