"""The outbox, the snapshots and the rest of what must survive: all SQL lives here."""

from syncd.store.accept import Accepted, Place
from syncd.store.errors import (
    StoreBusy,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreMoved,
    StoreUnavailable,
)
from syncd.store.page import Cursor, Page
from syncd.store.steps import operate_in_steps
from syncd.store.store import Query, Store
from syncd.store.verbs import Selection, Touched, Verb

__all__ = [
    "Accepted",
    "Cursor",
    "Page",
    "Place",
    "Query",
    "Selection",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreMoved",
    "StoreUnavailable",
    "Touched",
    "Verb",
    "operate_in_steps",
]
