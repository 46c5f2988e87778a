"""A machine under a real systemd for the length of a test run: namespaces over the host's files.

    with Machine(tmp_path / "machine", tmp_path / "share") as machine:
        machine.run("systemctl", "start", "syncd")

It boots in half a second, nothing it does reaches the host, and it ends with this process, however
that ends.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
PATIENCE_S = 30.0
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


def unavailable() -> str | None:
    """Why no machine can be booted here; None if it can."""
    if os.geteuid() != 0:
        return "needs root: namespaces and mounts"
    if not SYSTEMD.exists():
        return f"needs systemd: there is no {SYSTEMD}"
    for tool in ("unshare", "nsenter", "setpriv", "ip", "useradd"):
        if shutil.which(tool) is None:
            return f"needs the command {tool}"
    known = Path("/proc/filesystems").read_text().split()
    for name in ("overlay", "cgroup2"):
        if name not in known:
            return f"needs {name} in the kernel"
    if _cgroup2() is None:
        return "needs a mounted cgroup2"
    return None


def sweep() -> None:
    """Remove the empty cgroups that killed runs have left; one that is in use stays."""
    for left in (_cgroup2() or Path()).glob("syncd-test-*"):
        _remove(left)


class Machine:
    """One booted systemd. `share` is a folder that it sees as /run/share."""

    def __init__(self, folder: Path, share: Path) -> None:
        self._share = share
        self._root = folder / "root"
        self._console = folder / "console.log"
        self._root.mkdir(parents=True)
        cgroups = _cgroup2()
        assert cgroups is not None
        self._cgroup = cgroups / f"syncd-test-{os.getpid()}-{time.monotonic_ns()}"
        self._unshare: subprocess.Popen[bytes] | None = None
        self.init = 0

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def run(
        self,
        *command: str | os.PathLike[str],
        user: str | None = None,
        input: str | None = None,
        check: bool = True,
        timeout: float = PATIENCE_S,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as a user with that user's groups; output as text."""
        inside = list(map(os.fspath, command))
        if user is not None:
            inside = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *inside]
        done = subprocess.run(
            [*self._enter(), *inside],
            env=ENVIRONMENT | variables,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}{done.stderr}"
            raise AssertionError(f"{inside} ended with {done.returncode}:\n{said}")
        return done

    def shell(self, script: str, user: str | None = None, *, check: bool = True) -> str:
        """What a shell script says inside, errors and all."""
        return self.run("sh", "-c", f"exec 2>&1\n{script}", user=user, check=check).stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """A file inside, owned by root."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, input=text)

    def read(self, path: str) -> str:
        """A file inside."""
        return self.run("cat", path).stdout

    def _enter(self) -> Sequence[str]:
        return ["nsenter", "--target", str(self.init), *NAMESPACES, "--"]

    def _boot(self) -> None:
        sweep()
        self._cgroup.mkdir()
        # setpriv: the machine ends when this process does, and be it by SIGKILL.
        script = (
            'echo $$ >"$1"/cgroup.procs; shift; '
            'exec setpriv --pdeathsig KILL unshare --fork --kill-child "$@"'
        )
        namespaces = [*NAMESPACES, "--propagation", "private"]
        boot = ["bash", BOOT, self._root, self._share]
        with self._console.open("wb") as console:
            self._unshare = subprocess.Popen(
                ["sh", "-c", script, "sh", self._cgroup, *namespaces, *boot],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_up():
            if self._unshare.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no boot:\n{self._console.read_text(errors='replace')}")
            time.sleep(0.05)

    def _is_up(self) -> bool:
        assert self._unshare is not None
        pid = self._unshare.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            name = Path(f"/proc/{children[0]}/comm").read_text() if children else ""
        except OSError:
            return False
        if name != "systemd\n":
            return False
        self.init = int(children[0])
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _end(self) -> None:
        if self._unshare is not None:
            # The first process of the namespaces takes all others with it.
            self._unshare.send_signal(signal.SIGKILL)
            self._unshare.wait()
        deadline = time.monotonic() + PATIENCE_S
        while self._cgroup.exists() and time.monotonic() < deadline:
            _remove(self._cgroup)
            time.sleep(0.02)


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _remove(cgroup: Path) -> None:
    """Folders of a cgroup go one by one, deepest first, once their processes are gone."""
    for folder in sorted((cgroup, *cgroup.rglob("*/")), key=lambda it: -len(it.parts)):
        try:
            folder.rmdir()
        except OSError:
            return
