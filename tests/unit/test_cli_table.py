"""Tables: aligned, within the terminal, ids whole, and no more in memory than a block."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.cli.batches import _COLUMNS
from syncd.cli.patches import _ALL, _DEAD, _cells
from syncd.cli.rows import show
from syncd.cli.table import BLOCK, GAP, Column, fitted, shortened, table, width

ID = Column("ID", right=True)
NAME = Column("NAME", least=4)
FILE = Column("FILE", least=6, spare=1)
AGE = Column("AGE", spare=2)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 80 columns."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def total(widths: list[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + len(GAP) * (len(shown) - 1)


def test_tables_are_aligned_by_what_a_terminal_shows() -> None:
    """Numbers to the right; a wide character counts twice."""
    columns = (ID, Column("RUN"), Column("X"))

    lines = list(table(columns, [(1, "運行", "a"), (100, "r", None)]))

    assert lines == [" ID  RUN   X", "  1  運行  a", "100  r"]


def test_what_fits_is_left_as_it_is() -> None:
    assert fitted((ID, NAME, FILE, AGE), (3, 10, 10, 5), 34) == [3, 10, 10, 5]


def test_the_longest_values_are_shortened_first() -> None:
    assert fitted((ID, NAME, FILE, AGE), (3, 10, 40, 5), 40) == [3, 10, 16, 5]
    assert fitted((ID, NAME, FILE, AGE), (3, 40, 40, 5), 30) == [3, 8, 8, 5]


def test_what_can_be_spared_goes_where_shortening_is_not_enough() -> None:
    assert fitted((ID, NAME, FILE, AGE), (3, 40, 40, 5), 20) == [3, 8, 0, 5]
    assert fitted((ID, NAME, FILE, AGE), (3, 40, 40, 5), 10) == [3, 5, 0, 0]


def test_where_the_line_must_be_broken_it_is_no_longer_than_it_must_be() -> None:
    assert fitted((ID, NAME, FILE, AGE), (70, 40, 40, 5), 20) == [70, 4, 0, 0]


@given(
    st.lists(st.integers(1, 300), min_size=4, max_size=4),
    st.integers(1, 200),
)
def test_no_line_is_longer_than_the_room_but_for_ids(widths: list[int], room: int) -> None:
    shown = fitted((ID, NAME, FILE, AGE), widths, room)

    assert shown[0] == widths[0]
    assert total(shown) <= room or shown == [widths[0], min(4, widths[1]), 0, 0]
    assert all(0 <= got <= wanted for got, wanted in zip(shown, widths, strict=True))


@given(st.text(st.characters(codec="utf-8", categories=["L", "N"])), st.integers(1, 30))
def test_a_shortened_value_says_so_and_fits(text: str, size: int) -> None:
    short = shortened(text, size)

    assert width(short) <= size
    assert ("…" in short) == (width(text) > size)


def test_a_name_that_the_next_command_wants_is_shortened_last() -> None:
    """Columns that can be spared go before, and it with them where it is one of those."""
    batch, age = Column("BATCH", least=4, late=True), Column("AGE", spare=2)

    assert fitted((ID, NAME, batch, age), (3, 20, 20, 5), 40) == [3, 6, 20, 5]
    assert fitted((ID, NAME, batch, age), (3, 20, 20, 5), 32) == [3, 5, 20, 0]
    assert fitted((ID, NAME, batch, age), (3, 20, 20, 5), 20) == [3, 4, 9, 0]
    spared = Column("BATCH", least=4, late=True, spare=1)
    assert fitted((ID, NAME, spared, age), (3, 20, 20, 5), 30) == [3, 18, 0, 5]


@pytest.mark.usefixtures("terminal")
def test_a_list_of_trouble_fits_80_columns_with_whole_ids() -> None:
    run = "workflow_run_xKm9pNv3qWsY_jL2tR5Dh"
    values = {
        "ID": 1234,
        "RUN": run,
        "STATE": "deferred",
        "ATTEMPTS": 1,
        "FAILURES": 12,
        "NEXT": "in 12 s",
        "ERROR": "SERVICE_UNAVAILABLE",
        "BATCH": "customer-export-2026-11-24.jsonl",
        "WATCHED": "for 22 min",
        "AGE": "3 h 12 min",
        "MESSAGE": "The workflow run was not found. " * 4,
    }
    for columns in (_ALL, _DEAD):
        lines = list(table(columns, [[values[column.title] for column in columns]] * 2))

        assert max(map(width, lines)) <= 80
        assert all(run in line and "1234" in line and "SERV" in line for line in lines[1:])


def test_what_is_counted_of_a_patch_has_the_name_and_the_number_that_it_has_in_json() -> None:
    """Answers that blame it, and failures of its run in a row: a sum of both would be neither."""
    none = dict.fromkeys(("state", "suspect_until", "next_attempt_at", "last_error", "reason"))
    patch = none | {"id": 1, "workflow_run_id": "r", "batch": None, "created_at": None}
    patch |= {"state": "pending", "attempts": 1, "failures": 3}

    shown = _cells(patch, 0.0)

    assert (shown["ATTEMPTS"], shown["FAILURES"]) == (patch["attempts"], patch["failures"])
    assert {"ATTEMPTS", "FAILURES"} <= {column.title for column in _ALL}


@pytest.mark.parametrize("room", [20, 33, 40, 60])
@pytest.mark.usefixtures("terminal")
def test_a_file_name_is_whole_in_batches_for_as_long_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """`wait --batch` wants it. What can be spared goes, and that is said."""
    monkeypatch.setenv("COLUMNS", str(room))
    values = {"SETTLED": "100%", "BEGUN": "3 h 12 min ago"}
    values |= dict.fromkeys(("PATCHES", "WAITING", "DELIVERED"), "1,000")
    lost: list[str] = []

    def shown(*names: str) -> list[str]:
        rows = [values | {"BATCH": name} for name in names]
        cells = [[row.get(column.title, "0") for column in _COLUMNS] for row in rows]
        return list(table(_COLUMNS, cells, lambda: lost.append("something")))

    lines = shown("orders-1.jsonl", "orders-22.jsonl", "may.csv")
    cut = shown("customer-export-of-the-whole-year-until-2026-11-24.jsonl")[1]

    whole = ["orders-1.jsonl", "orders-22.jsonl", "may.csv"]
    narrow = ["orders-1.js…", "orders-22.j…", "may.csv"]
    assert [line.split()[0] for line in lines[1:]] == (whole if room > 20 else narrow)
    assert max(map(width, lines)) <= max(room, len("orders-22.j…  SETTLED  PATCHES"))
    assert cut.startswith("customer-ex")
    assert cut.split()[0].endswith("…")
    assert lost == ["something"] * 2


@pytest.mark.parametrize("rare", [{"REJECTED"}, {"HELD", "DEAD", "REJECTED"}])
@pytest.mark.usefixtures("terminal")
def test_batches_with_trouble_fit_60_columns(
    rare: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trouble stays; what the share that is settled tells too may go."""
    monkeypatch.setenv("COLUMNS", "60")
    values = {
        "BATCH": "customer-export-2026-11-24.jsonl",
        "SETTLED": "refused",
        "BEGUN": "3 h 12 min ago",
        **dict.fromkeys(("PATCHES", "WAITING", "DELIVERED", *rare), "12,345"),
    }

    lines = list(table(_COLUMNS, [[values.get(column.title, "0") for column in _COLUMNS]]))

    assert max(map(width, lines)) <= 60
    assert {"BATCH", "SETTLED", "PATCHES", *rare} <= {*lines[0].split()}


@pytest.mark.usefixtures("terminal")
def test_a_run_id_that_is_too_long_breaks_its_own_line_only() -> None:
    """The columns of the others stand where they would without it, and it has them all too; alone,
    it has those that cannot be spared."""
    values = {
        "ID": 1234,
        "RUN": "workflow_run_1",
        "STATE": "deferred",
        "ATTEMPTS": "",
        "FAILURES": 12,
        "NEXT": "in 12 s",
        "ERROR": "TIMEOUT",
        "BATCH": "may.csv",
        "WATCHED": "",
        "AGE": "12 s",
    }
    long = values | {"RUN": "x" * 255}

    def shown(*rows: dict[str, object]) -> list[str]:
        return list(table(_ALL, [[row[column.title] for column in _ALL] for row in rows]))

    head, normal = shown(values)

    assert shown(values, long)[:2] == [head, normal]
    mixed, alone = shown(values, long)[-1].split(), shown(long, long)[-1].split()
    assert mixed[:2] == ["1234", "x" * 255]
    assert {"deferred", "12", "in", "TIMEOUT", "may.csv"} <= {*mixed}
    assert alone == ["1234", "x" * 255, "deferred", "TIMEOUT"]


@pytest.mark.usefixtures("terminal")
def test_whether_something_is_not_shown_is_told_at_the_end() -> None:
    lost: list[str] = []

    def cut(*cells: object) -> bool:
        lost.clear()
        list(table((ID, NAME, FILE, AGE), [cells], lambda: lost.append("something")))
        return lost == ["something"]

    assert not cut(1, "x" * 20, "y" * 20, "1 s")
    assert cut(1, "x" * 80, "y" * 20, "1 s")
    assert cut("1" * 70, "x", "file", "")  # FILE is left out
    assert not cut("1" * 70, "x", "", "")  # and nothing would have stood there


def test_who_is_not_shown_all_is_told_how_to_see_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, where a person reads it and no program does."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    for message in ("short", "long " * 30):
        rows = iter([message.encode()])
        show(rows, (ID, NAME), lambda row: (1, row.decode()), as_json=False, none="")

    assert capsys.readouterr().err == "syncd: cut to fit this terminal: --json shows all of it\n"


@pytest.mark.usefixtures("terminal")
def test_a_column_with_nothing_in_it_takes_no_room() -> None:
    columns = (ID, Column("TRIES", rare=True), NAME)

    assert next(table(columns, [(1, "", "x"), (2, "0", "y")])) == "ID  NAME"
    assert next(table(columns, [(1, "", "x"), (2, "3", "y")])) == "ID  TRIES  NAME"


def test_elsewhere_than_on_a_terminal_nothing_is_shortened() -> None:
    long = "x" * 300

    lines = list(table((ID, NAME, FILE, AGE), [(1, long, long, "1 s")]))

    assert lines[1].split() == ["1", long, long, "1", "s"]


def test_rows_are_printed_before_the_last_of_them_has_come() -> None:
    """A block of them is looked at for its widths; what is wider later on stays whole."""
    taken = 0

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal taken
        for taken in range(1, 10 * BLOCK + 1):
            yield taken, "x" * taken

    lines = table((ID, NAME), rows())

    assert next(lines).split() == ["ID", "NAME"]
    assert taken == BLOCK
    assert [len(line.split()[1]) for line in lines] == list(range(1, 10 * BLOCK + 1))
