"""Which rows a reader has asked for: the conditions of a search, and the queries that find ids.

Parameters: :state, :run, :batch, :now, :since and :in_flight, a JSON array of ids.
"""

from collections.abc import Iterator, Sequence

import orjson

_FIND = (
    "SELECT o.id FROM outbox AS o"
    "  LEFT JOIN lanes AS l ON l.workflow_run_id = o.workflow_run_id AND o.state = 'pending'"
)
_IN_FLIGHT = "(SELECT value FROM json_each(:in_flight))"


def fits(state: str | None) -> str:
    """Whether patch o, with l as the trouble of its run, is in a state as people call it."""
    match state:
        case None:
            return "1"
        case "in_flight":
            return f"o.state = 'pending' AND o.id IN {_IN_FLIGHT}"
        case "pending":
            return f"o.state = 'pending' AND o.id NOT IN {_IN_FLIGHT}"
        case "deferred":
            return "o.state = 'pending' AND l.due_at > :now"
        case _:
            return "o.state = :state"


SETTLED_SINCE = "(:since IS NULL OR o.settled_at >= :since)"


def patches(state: str | None, run: str | None, batch: str | None) -> Iterator[str]:
    """Queries in the order in which their rows are shown, no patch in two of them.

    Each one uses an index of what it shows, or stops at the limit.
    """
    if run is not None:
        sources = _of_run()
    elif batch is not None:
        sources = iter([_OF_BATCH])
    else:
        sources = _in_state(state)
    for source, order in sources:
        yield f"{source} AND {fits(state)} AND {SETTLED_SINCE} ORDER BY {order}"


def runs(status: str | None, where: Sequence[tuple[str, str]]) -> tuple[str, dict[str, str]]:
    """Whether snapshot s matches, and the parameters of that."""
    conditions, given = ["1"], {}
    if status is not None:
        conditions.append("s.status = :status")
        given["status"] = status
    for number, (key, value) in enumerate(where):
        k, v, t = f"key{number}", f"value{number}", f"text{number}"
        given |= {k: key, v: value, t: _text(value)}
        conditions.append(
            f"EXISTS (SELECT 1 FROM json_each(s.metadata) AS m WHERE m.key = :{k}"
            f" AND CASE m.type WHEN 'text' THEN m.value IN (:{v}, :{t})"
            f"                 WHEN 'true' THEN :{v} = 'true' WHEN 'false' THEN :{v} = 'false'"
            f"                 WHEN 'null' THEN :{v} = 'null'"
            # The path of a key with a quote in it is one that SQLite does not find: NULL.
            f"                 ELSE CAST(m.value AS TEXT) = :{v}"
            f"                      OR s.metadata -> m.fullkey = :{v} END)"
        )
    return " AND ".join(conditions), given


def _text(value: str) -> str:
    """What a JSON string says; else the value itself."""
    if not value.startswith('"'):
        return value
    try:
        return str(orjson.loads(value))
    except ValueError:
        return value


_OF_BATCH = (
    _FIND + " WHERE o.id >= (SELECT min(first_id) FROM batches WHERE name = :batch)"
    " AND o.id <= (SELECT max(last_id) FROM batches WHERE name = :batch)"
    " AND o.batch_id IN (SELECT id FROM batches WHERE name = :batch)",
    "o.state <> 'dead', o.state <> 'held', o.state = 'delivered', o.id DESC",
)


def _of_run() -> Iterator[tuple[str, str]]:
    yield (
        _FIND + " WHERE ((o.stretch IN stretches AND o.workflow_run_id = :run"
        "         AND o.state = 'pending')"
        "     OR (o.workflow_run_id = :run AND o.state IN ('dead', 'held', 'discarded')))",
        "o.state <> 'dead', o.state <> 'held', o.state = 'discarded', o.id DESC",
    )
    yield (
        "WITH RECURSIVE chain (id) AS ("
        "  SELECT last_patch_id FROM snapshots WHERE workflow_run_id = :run"
        "  UNION SELECT p.previous_id FROM chain JOIN outbox AS p ON p.id = chain.id"
        "         WHERE p.previous_id IS NOT NULL) "
        + _FIND
        + " WHERE o.id IN (SELECT id FROM chain) AND o.state = 'delivered'",
        "o.id DESC",
    )


def _in_state(state: str | None) -> Iterator[tuple[str, str]]:
    for trouble in ("dead", "held"):
        if state in (None, trouble):
            yield (
                _FIND + f" WHERE o.state IN ('dead', 'held') AND o.state = '{trouble}'",
                "o.id DESC",
            )
    if state in (None, "deferred"):
        yield (
            _FIND + " WHERE o.stretch IN stretches AND o.state = 'pending' AND o.workflow_run_id"
            " IN (SELECT workflow_run_id FROM lanes WHERE due_at > :now)",
            "l.failed_at DESC",
        )
    if state == "in_flight":
        yield _FIND + f" WHERE o.id IN {_IN_FLIGHT}", "o.id"
    if state == "pending":
        yield _FIND + " WHERE o.state = 'pending'", "o.priority DESC, o.id"
    if state is None:
        yield (
            _FIND + " WHERE o.state = 'pending' AND (l.due_at IS NULL OR l.due_at <= :now)",
            "o.priority DESC, o.id",
        )
        yield _FIND + " WHERE o.state IN ('delivered', 'discarded')", "o.id DESC"
    if state == "delivered":
        yield _FIND + " WHERE o.state = 'delivered'", "o.id DESC"
    if state == "discarded":
        yield (
            # By +id: an index by id would be the whole table.
            _FIND + " WHERE o.state IN ('dead', 'held', 'discarded') AND o.state = 'discarded'",
            "+o.id DESC",
        )
