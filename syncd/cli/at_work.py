"""A verb at work in the daemon, from its command's side: a signal ends it after a step."""

import json
import os
import signal
from contextlib import ExitStack, suppress
from typing import Any

from syncd.cli.door import Door, aloud
from syncd.cli.signals import Heard, Stopped, heeding, ignore
from syncd.cli.wire import PATIENT_S, Asked
from syncd.errors import SyncdError

ENDING = (signal.SIGINT, signal.SIGTERM)
HEARD_S = 1.0  # a daemon that hangs does not hear it
STEP_S = 3.0  # the step that it is in, on a slow disk


def by_daemon(to: Door, verb: str, asked: dict[str, Any], heard: Heard) -> dict[str, Any] | None:
    """What the daemon says it has done; None if it is down.

    Raises SyncdError where a signal has come and the daemon does not say how far it is.
    """
    ticket = {"ticket": os.urandom(8).hex()}
    body = json.dumps(asked | ticket).encode()
    with ExitStack() as stack:
        sent: Asked | None = None
        try:
            with aloud(), heeding(*ENDING):
                wire = to.wire.asked("POST", f"/verbs/{verb}", body, timeout=PATIENT_S)
                sent = stack.enter_context(wire)
                if sent is None:
                    return None
                if not sent.is_answered(PATIENT_S):
                    raise TimeoutError
                ignore(*ENDING)  # too late: it is done
        except Stopped as stopped:
            heard.exit_code = stopped.exit_code
            if sent is None or not _stopped(to, ticket, sent):
                raise _Unknown(stopped.exit_code) from None
        answer: dict[str, Any] = json.loads(sent.answer())
    return answer


class _Unknown(SyncdError):
    """How far the verb came is not known. Ends as the signal does."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped, and the daemon has not said how far it is: see `syncd status`")
        self.exit_code = exit_code


def _stopped(to: Door, ticket: dict[str, str], sent: Asked) -> bool:
    """Have the daemon end it; whether it says in time what was done."""
    heard = None
    with suppress(SyncdError):  # one that an upgrade has not restarted yet does not know how
        heard = to.wire.ask("POST", "/verbs/stop", json.dumps(ticket).encode(), timeout=HEARD_S)
    return sent.is_answered(STEP_S if heard is not None else 0.0)
