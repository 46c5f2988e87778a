"""What a made-up document says: the synthetic results inside a WorkflowRun's answer."""

import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

_LETTERS = string.ascii_letters + string.digits + "_-"
_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is told of a run; always the same for the same run id."""

    ids: tuple[str, ...]  # tails of the ids of what belongs to the run
    amount: float
    invoice: str
    corner: tuple[float, float]  # of the cited text on the page, in points
    confidence: float
    pages: int
    created: str
    started: str
    ended: str
    reviewed: str


def facts(run_id: str) -> Facts:
    """Draw the facts of a run from its id."""
    draw = Random(run_id)
    created = _EPOCH + timedelta(milliseconds=draw.randrange(365 * 86_400_000))
    started = created + timedelta(milliseconds=draw.randrange(100, 900))
    ended = started + timedelta(milliseconds=draw.randrange(4_000, 90_000))
    return Facts(
        ids=tuple("".join(draw.choices(_LETTERS, k=21)) for _ in range(5)),
        amount=round(draw.uniform(10, 90_000), 2),
        invoice=str(draw.randrange(10_000, 99_999)),
        corner=(round(draw.uniform(40, 430), 3), round(draw.uniform(40, 720), 3)),
        confidence=round(draw.uniform(0.9, 0.999), 3),
        pages=draw.randrange(1, 9),
        created=_stamp(created),
        started=_stamp(started),
        ended=_stamp(ended),
        reviewed=_stamp(ended + timedelta(milliseconds=draw.randrange(60_000, 9_000_000))),
    )


def output(of: Facts, *, file_id: str | None = None) -> dict[str, object]:
    """An extraction's value and metadata; with a file id, citations in the form of 2026-02-09."""
    total = f"TOTAL ${of.amount:,}"
    heading = f"Invoice #{of.invoice}"
    return {
        "value": {
            "amount": {"amount": of.amount, "iso_4217_currency_code": "USD"},
            "invoice_number": of.invoice,
        },
        "metadata": {
            "amount": _evidence(
                of,
                total,
                f"The total amount is shown as '{total}' in the table summary and at the bottom "
                "right of the document. The currency symbol '$' indicates the currency is USD.",
                file_id,
            ),
            "invoice_number": _evidence(
                of,
                heading,
                f"The invoice number is clearly labeled as '{heading}' at the top right of the "
                "document.",
                file_id,
            ),
        },
    }


def _evidence(of: Facts, cited: str, reasoning: str, file_id: str | None) -> dict[str, object]:
    x, y = of.corner
    corners = ((x, y), (x + 37.109, y + 0.058), (x + 37.094, y + 8.914), (x - 0.014, y + 8.856))
    citation: dict[str, object] = {
        "page": 1,
        "polygon": [{"x": across, "y": down} for across, down in corners],
        "referenceText": cited,
    }
    if file_id is not None:
        citation |= {"fileId": file_id, "page": {"number": 1, "width": 612, "height": 792}}
    return {
        "insights": [{"type": "reasoning", "content": reasoning}],
        "citations": [citation],
        "ocrConfidence": of.confidence,
        "logprobsConfidence": 1,
    }


def _stamp(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
