"""The spool: where producers drop files, and where those files end."""

from syncd.spool.folders import Candidate, Outlook, Spool, Taken, printable
from syncd.spool.lock import lock
from syncd.spool.opened import no_folder
from syncd.spool.ready import Refuse

__all__ = ["Candidate", "Outlook", "Refuse", "Spool", "Taken", "lock", "no_folder", "printable"]
