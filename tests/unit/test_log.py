"""Lines of the log: their form, their length, and what never stands in them."""

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from syncd import log

SECRET = 'sk_"se\\cret'

Written = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The set-up is the process's own: every test leaves it as it was."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    structlog.reset_defaults()
    root.handlers[:] = before
    log._secrets.clear()
    log._repeats.all()


@pytest.fixture
def stream() -> io.StringIO:
    out = io.StringIO()
    log.setup(stream=out, environ={})
    return out


@pytest.fixture
def written(stream: io.StringIO) -> Written:
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_on_a_line(stream: io.StringIO, written: Written) -> None:
    structlog.get_logger().info("relay.deferred", run="workflow_run_1", attempt=2)

    (event,) = written()
    assert stream.getvalue().endswith("}\n")
    assert list(event) == ["timestamp", "level", "event", "run", "attempt"]
    assert event["timestamp"].endswith("Z")
    assert event["event"] == "relay.deferred"
    assert event["attempt"] == 2


def test_the_level_holds_and_can_be_changed_while_running(written: Written) -> None:
    logger = structlog.get_logger()

    logger.debug("a.hidden")
    log.set_level("debug")
    logger.debug("b.shown")
    log.set_level("error")
    logger.warning("c.hidden")

    assert [event["event"] for event in written()] == ["b.shown"]


def test_what_repeats_every_second_is_said_once_then_counted(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of a full disk, looked at every second: a line every five minutes."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    logger = structlog.get_logger()

    for second in range(3600):
        now = float(second)
        logger.error("store.unavailable", doing="page", error="full")
        log.summarise()

    events = written()
    assert len(events) == 12
    assert sum(event.get("repeated", 0) + 1 for event in events) == pytest.approx(3600, abs=300)
    assert {event["error"] for event in events} == {"full"}


def test_what_was_left_out_is_said_when_its_time_is_over_though_nothing_comes_any_more(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(50):
        structlog.get_logger().info("gate.throttled", pause_s=1.0)
    now = 300.0

    log.summarise()
    log.summarise()

    assert [event.get("repeated") for event in written()] == [None, 49]


def test_outages_that_come_and_go_do_not_hide_that_another_trouble_is_over(
    written: Written,
) -> None:
    logger = structlog.get_logger()
    for _ in range(10):
        logger.warning("gate.shut", cause="server")
        logger.warning("gate.open", cause="server")

    logger.warning("gate.shut", cause="credentials")
    logger.warning("gate.open", cause="credentials")

    story = [(event["event"], event["cause"]) for event in written()]
    assert story[-2:] == [("gate.shut", "credentials"), ("gate.open", "credentials")]


def test_a_reload_tells_what_was_left_out_and_makes_everything_new(written: Written) -> None:
    logger = structlog.get_logger()
    for _ in range(3):
        logger.error("gate.blocked", reason="INVALID_API_KEY")

    log.summarise(start_over=True)
    logger.error("gate.blocked", reason="INVALID_API_KEY")

    assert [event.get("repeated") for event in written()] == [None, 2, None]


def test_lines_for_single_attempts_are_all_there_at_debug(written: Written) -> None:
    log.set_level("debug")

    for _ in range(1000):
        structlog.get_logger().debug("relay.deferred", run="r", reason="HTTP_500")

    assert len(written()) == 1000


def test_what_the_log_is_sparing_with_are_events_that_there_are() -> None:
    package = Path(log.__file__).parent
    sources = "".join(file.read_text() for file in package.rglob("*.py"))

    for event in log.REPEATING:
        assert f'"{event}",' in sources or f'"{event}")' in sources, event


def test_a_traceback_stays_inside_its_line(written: Written) -> None:
    try:
        raise ValueError("of no use")
    except ValueError:
        structlog.get_logger().exception("relay.failed", run="r")

    (event,) = written()
    assert event["level"] == "error"
    assert event["exception"].splitlines()[-1] == "ValueError: of no use"


def test_what_json_has_no_form_for_is_written_as_text(written: Written) -> None:
    circle: list[object] = []
    circle.append(circle)

    structlog.get_logger().info(
        "spool.found",
        name="caf\udce9.json",
        huge=10**30,
        circle=circle,
        path=Path("/x"),
        error=OSError(28, "full"),
        small=7,
        keys={1: {2}},
    )

    (event,) = written()
    assert event["name"] == "caf\\udce9.json"
    assert event["huge"] == str(10**30)
    assert event["circle"] == "[[...]]"
    assert event["path"] == "/x"
    assert "full" in event["error"]
    assert event["small"] == 7
    assert event["keys"] == {"1": "{2}"}


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_token_is_struck_out_wherever_it_turns_up(format: str) -> None:
    out = io.StringIO()
    log.setup(format=format, stream=out)
    log.redact("sk_secret")
    logger = structlog.get_logger()

    try:
        raise RuntimeError("Authorization: Bearer sk_secret")
    except RuntimeError:
        logger.exception("x.sk_secret", value="sk_secret", headers={"sk_secret": ["a sk_secret b"]})
    logging.getLogger("aiohttp").error("header %r", {"Authorization": "Bearer sk_secret"})

    assert "sk_secret" not in out.getvalue()
    assert out.getvalue().count("<token>") >= 6


def test_a_token_with_signs_that_json_escapes_is_struck_out(written: Written) -> None:
    log.redact(SECRET)

    structlog.get_logger().info("a.b", value=f"x {SECRET} y", level_of="level")

    (event,) = written()
    assert event["value"] == "x <token> y"


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_token_is_struck_out_however_it_is_written(format: str) -> None:
    """As a library may quote it that was given bytes, an address or UTF-16."""
    log.redact(SECRET)
    out = io.StringIO()
    log.setup(format=format, stream=out)

    spelled = ["".join(way.format(one, ord(one)) for one in SECRET) for way in ("{}\0", "%{1:02x}")]
    structlog.get_logger().info("a.b", text=f"-{repr(SECRET)[1:-1]}-", spelled=spelled)

    line = out.getvalue()
    assert line.count("<token>") == 3
    assert "-<token>-" in line


def test_a_token_like_a_piece_of_json_does_not_break_the_line(written: Written) -> None:
    log.redact(":")
    log.redact("7")

    structlog.get_logger().info("a.b", value="a:7", number=7)

    (event,) = written()
    assert event["value"] == "a<token><token>"
    assert event["number"] == 7


def test_old_tokens_stay_struck_out_after_a_rotation(written: Written) -> None:
    log.redact("first_token")
    log.redact("second_token")

    structlog.get_logger().info("a.b", value="first_token second_token")

    assert written()[0]["value"] == "<token> <token>"


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x" * 100_000 + "THE END"},
        {"text": ["\x01" * 100_000, "THE END"]},
        {f"key_{n}": "ä" * 2000 for n in range(50)} | {"text": "THE END"},
    ],
)
def test_a_long_line_is_cut_to_what_journald_takes(
    stream: io.StringIO, written: Written, data: dict[str, Any]
) -> None:
    structlog.get_logger().info("a.long", **data)

    (event,) = written()
    assert len(stream.getvalue().encode()) <= 48 * 1024
    assert event["event"] == "a.long"
    assert event["cut"] is True
    assert "THE END" in event["text"]


def test_a_line_with_no_end_of_keys_keeps_its_name(written: Written) -> None:
    structlog.get_logger().info("a.wide", **{f"key_{n}": n for n in range(10_000)})

    (event,) = written()
    assert set(event) == {"timestamp", "level", "event", "cut"}


def test_a_cut_never_leaves_half_of_the_token(stream: io.StringIO) -> None:
    log.redact("sk_secret")

    structlog.get_logger().info("a.long", text="sk_secret" * 20_000)

    assert "sk_" not in stream.getvalue()
    assert "secret" not in stream.getvalue()


def test_warnings_of_libraries_come_the_same_way(written: Written) -> None:
    logging.getLogger("asyncio").warning("slow: %d ms", 7)
    logging.getLogger("aiohttp.access").info("not this")

    (event,) = written()
    assert event["event"] == "library.logged"
    assert event["logger"] == "asyncio"
    assert event["message"] == "slow: 7 ms"
    assert event["level"] == "warning"


def test_a_library_s_wrong_format_is_no_error_of_ours(written: Written) -> None:
    alone = logging.Logger("clumsy")  # pytest's own handler at the root would raise
    alone.addHandler(log._Libraries())

    alone.error("wrong %d", "number")

    (event,) = written()
    assert event["message"] == "wrong %d"


def test_setting_up_again_does_not_double_the_lines(written: Written, stream: io.StringIO) -> None:
    log.setup(stream=stream, environ={})

    logging.getLogger("asyncio").warning("once")

    assert len(written()) == 1


def test_priorities_stand_before_the_lines_under_journald(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    with file.open("w") as out:
        status = os.fstat(out.fileno())
        log.setup(
            "debug", stream=out, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        )
        logger = structlog.get_logger()
        for level in ("debug", "info", "warning", "error", "critical"):
            logger.log(getattr(logging, level.upper()), "a.b")

    lines = file.read_text().splitlines()
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{"]
    assert json.loads(lines[0][3:])["level"] == "debug"


def test_no_priorities_where_the_stream_is_not_the_journal_s(tmp_path: Path) -> None:
    """A child inherits the variable, but its output may go into a file."""
    file = tmp_path / "elsewhere"
    with file.open("w") as out:
        log.setup(stream=out, environ={"JOURNAL_STREAM": "8:12345"})
        structlog.get_logger().info("a.b")

    assert file.read_text().startswith("{")


def test_a_terminal_gets_lines_for_people() -> None:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as out:
        log.setup(stream=out, environ={"NO_COLOR": "1"})
        structlog.get_logger().info("relay.deferred", name="\x1b[2Jx")
        text = os.read(leader, 4096).decode()
    os.close(leader)

    assert "relay.deferred" in text
    assert not text.startswith("{")
    assert "\x1b" not in text


def test_the_console_shows_no_local_variables() -> None:
    out = io.StringIO()
    log.setup(format="console", stream=out)
    hidden_local = "a local value " + str(len(sys.argv) + 100_000)
    try:
        raise ValueError("short")
    except ValueError:
        structlog.get_logger().exception("a.b")

    assert "ValueError: short" in out.getvalue()
    assert hidden_local not in out.getvalue()


def test_a_locale_of_ascii_loses_no_line(tmp_path: Path) -> None:
    file = tmp_path / "out"
    with file.open("w", encoding="ascii") as out:
        log.setup(stream=out, environ={})
        structlog.get_logger().info("a.b", name="ä")

    assert json.loads(file.read_text().replace("\\x", "\\u00"))["name"] == "ä"


def test_a_full_disk_does_not_reach_the_caller() -> None:
    with open("/dev/full", "w") as out, open(os.devnull, "w") as elsewhere:
        log.setup(stream=out, environ={})
        structlog.get_logger().info("a.b")
        structlog.get_logger().info("c.d")
        # Closing flushes once more, which fails as it should.
        with pytest.raises(OSError, match="No space left"):
            out.flush()
        os.dup2(elsewhere.fileno(), out.fileno())


def test_a_closed_stream_does_not_reach_the_caller() -> None:
    out = io.StringIO()
    log.setup(stream=out, environ={})

    out.close()

    structlog.get_logger().info("a.b")
