"""The daemon: builds the parts, gives every task an owner; start, drain, stop."""

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import structlog

from syncd import __version__, log, notify, process
from syncd.api import Api, Endpoint
from syncd.clock import Wall, boot
from syncd.config import Config, Paths, locate
from syncd.control import Control
from syncd.core import liveness
from syncd.core.sentence import sentence
from syncd.errors import SyncdError
from syncd.fence import Fence
from syncd.gate import Gate
from syncd.intake import Intake
from syncd.relay import Relay
from syncd.settings import Settings
from syncd.spool import Spool, lock
from syncd.status import Status
from syncd.store import Store, StoreUnavailable
from syncd.store.facts import PAUSED, STOPPED, fact
from syncd.store.lock import daemon_of
from syncd.upkeep import close_abandoned, keep_listening, keep_time, sweep

logger = structlog.get_logger()

LOOK_S = 5.0  # the database has that long to say how things stand
CLOSE_S = 10.0  # after the drain; whatever still hangs then is left as after a kill
WATCH_AGAIN_S = 1.0
MUTE_S = 1.0  # for longer a start does not wait for the database without a word


def run(config: Config, environ: Mapping[str, str], config_path: str | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code; raises SyncdError if it cannot start."""
    log.setup(config.log.level, config.log.format, environ=environ)
    process.prepare()
    daemon = Daemon(config, environ, config_path)
    failure: SyncdError | None = None
    try:
        with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
            runner.run(daemon.serve())
    except* SyncdError as group:
        failure = _first(group)
    finally:
        daemon.deadline.cancel()
    if failure is not None:
        # Not from within `except*`: some Pythons make a group of it again.
        raise failure from None
    return 0


class Daemon:
    """One daemon on one store. `serve` is its life."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        config_path: str | None = None,
        *,
        wall: Wall | None = None,
    ) -> None:
        self._paths: Paths = locate(config, environ)
        self._settings = Settings(config, environ, config_path)
        self._notify = notify.Notify.from_environ(environ)
        self._wall = wall or Wall()
        self._stop = asyncio.Event()
        self._watching = asyncio.Event()
        self._begun_clean = False
        self._ready = False
        self._reload_then = False
        """A reload was asked for before it was ready."""
        self._told_anew = asyncio.Event()
        self.deadline = threading.Timer(0.0, _cut_off)
        """Set for the end; never started before."""

    async def serve(self) -> None:
        """Start everything, say so, and stop it in order when asked to."""
        self._settings.heed_token()
        async with AsyncExitStack() as stack:
            try:
                await self._build(stack)
            except SyncdError:
                if self._begun_clean:  # nothing was sent, and the next start shall know that
                    with suppress(StoreUnavailable):
                        await self._store.end()
                raise
            self._on_signals()
            async with asyncio.TaskGroup() as tasks:
                relaying = tasks.create_task(self._relay.run())
                vouching = tasks.create_task(notify.vouch(self._notify, self._stuck))
                others = [
                    tasks.create_task(work)
                    for work in (
                        self._watch(),
                        self._intake.run(),
                        self._fence.run(),
                        sweep(self._store, self._wall, self._retention_days),
                        close_abandoned(self._store, lambda: self._control.attended),
                        keep_listening(self._control.listener.go_on),
                        keep_time(self._store, self._wall, self._relay.wake),
                        self._summarise(),
                        self._announce(),
                    )
                ]
                await self._stop.wait()
                self._begin_to_end()
                for task in others:
                    task.cancel()
                self._relay.stop()
                await relaying
                self._notify.status("stopping: closing the database")
                await self._end()
                vouching.cancel()
        log.summarise(start_over=True)
        logger.info("daemon.stopped")

    async def _build(self, stack: AsyncExitStack) -> None:
        settings, config = self._settings, self._settings.config
        with _aloud(self._paths.store):
            async with notify.extending(self._notify, "starting: opening the database"):
                self._store = await Store.open(
                    self._paths.store, self._wall, group_access=config.store.group_access
                )
        stack.push_async_callback(self._store.close)
        self._spool = Spool(self._paths.spool, config.spool.settle_s, config.spool.max_file_bytes)
        with suppress(OSError):  # intake says so, and waits
            await asyncio.to_thread(self._spool.prepare)
        if (locked := await asyncio.to_thread(lock, self._paths.spool)) is not None:
            stack.callback(os.close, locked)
        with _aloud(self._paths.store):
            unclean = await self._store.begin(settings.suspect_s, boot(), self._wall.booted_at)
        self._begun_clean = not unclean
        if unclean:
            logger.warning("daemon.unclean_start", meaning="what was in flight may be applied late")
        self._gate = Gate(
            settings.limits,
            time.monotonic,
            started=await self._sent_until(unclean),
            closed_for_s=await self._store.closed_for_s(),
        )
        if await self._store.read(lambda db: fact(db, PAUSED)) is not None:
            self._gate.pause()
        endpoint = Endpoint(
            config.api.url,
            config.api.version_header,
            config.api.workspace_id or None,
            config.api.timeout_s,
        )
        api = Api.open(endpoint, settings.bearer, self._gate.connected)
        stack.push_async_callback(api.close)
        self._relay = Relay(self._store, api, self._gate, settings.policy, wall=self._wall)
        self._fence = Fence(self._store, api, self._gate, self._relay, wall=self._wall)
        self._intake = Intake(self._store, self._spool)
        self._status = Status(
            self._store,
            self._gate,
            self._relay,
            self._spool,
            troubles=self._troubles,
            wall=self._wall,
        )
        self._control = Control(
            self._store, self._relay, self._gate, self._status, self._status.sending
        )
        await self._control.listen(self._paths.socket, stack)
        if address := config.control.metrics_address:
            from syncd import metrics  # noqa: PLC0415  only who asks for it pays for it

            await metrics.listen(address, self._status, stack)

    async def _sent_until(self, unclean: bool) -> float:
        """When another daemon may have sent last, on the monotonic clock."""
        stopped = await self._store.read(lambda db: fact(db, STOPPED))
        if unclean:
            return process.started()
        if stopped is None:
            return -math.inf  # nobody ever did
        wall, uptime = map(float, stopped.split())
        # Either clock may have been set anew since; the smaller span is the safe one.
        gone_s = min(time.time() - wall, time.clock_gettime(time.CLOCK_BOOTTIME) - uptime)
        return min(process.started(), time.monotonic() - gone_s)

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGINT, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _asked_to_stop(self) -> None:
        """Who asks again while it drains does not want to wait for that."""
        if self._status.draining:
            self._relay.cut_short()
        self._stop.set()

    def reload(self) -> None:
        """Take in what may change while running; a bad configuration changes nothing at all."""
        if self._stop.is_set():
            return  # it would be told that it is ready again
        if not self._ready:
            self._reload_then = True
            return
        self._notify.reloading()
        if self._settings.read_again():
            self._gate.limit(self._settings.limits)
            self._relay.policy = self._settings.policy
            self._gate.hurry()
            self._relay.wake()
        self._notify.ready("; ".join(self._troubles()) or None)
        self._told_anew.set()

    def _retention_days(self) -> float:
        return self._settings.config.store.retention_days

    async def _end(self) -> None:
        """Leave word that nothing was left in flight, if so."""
        if self._relay.cut:
            return
        now = f"{time.time()} {time.clock_gettime(time.CLOCK_BOOTTIME)}"
        try:
            await self._store.remember(STOPPED, now)
            await self._store.end()
        except StoreUnavailable as error:
            logger.warning("store.unavailable", doing="end", error=str(error))

    async def _watch(self) -> None:
        while True:
            try:
                async for _ in self._store.changes():
                    self._watching.set()
                    self._relay.wake()
            except StoreUnavailable as error:
                logger.warning("store.unavailable", doing="watch", error=str(error))
                await asyncio.sleep(WATCH_AGAIN_S)

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(notify.EVERY_S)
            log.summarise()

    async def _announce(self) -> None:
        """Say that it is ready once whatever comes is noticed; from then on, how things stand."""
        self._notify.status("starting: preparing the spool")
        await self._watching.wait()
        await self._intake.watching.wait()
        paths = self._paths
        logger.info(
            "daemon.ready",
            version=__version__,
            store=str(paths.store),
            spool=str(paths.spool),
            socket=str(paths.socket),
        )
        self._notify.ready(await self._sentence())
        self._ready = True
        if self._reload_then:
            self.reload()
        process.collect_rarely()
        await notify.tell(self._notify, self._sentence, self._told_anew)

    async def _sentence(self) -> str:
        try:
            async with asyncio.timeout(LOOK_S):
                status = await self._status()
        except (TimeoutError, SyncdError) as error:
            return f"the database does not answer: {error}".rstrip(": ")
        return sentence(status)

    def _troubles(self) -> Iterator[str]:
        yield from self._settings.troubles()
        if deaf := self._control.listener.trouble:
            yield deaf
        intake = self._intake.figures
        if intake.trouble:
            yield f"the spool waits: {intake.trouble}"
        if intake.left:
            yield f"{len(intake.left)} in the spool cannot be taken: {intake.left[0]}"
        if undone := self._fence.trouble():
            yield undone

    def _stuck(self) -> str | None:
        if self._status.draining:
            return None
        allowance = self._settings.allowance(self._notify.still_s)
        return liveness.stuck(self._relay.standing, allowance)

    def _begin_to_end(self) -> None:
        """Answers that are out are waited for; but the process ends in time whatever hangs."""
        drain_s = self._settings.config.delivery.drain_s
        self._status.draining = True
        self.deadline = threading.Timer(drain_s + CLOSE_S, _cut_off)
        self.deadline.daemon = True
        self.deadline.start()
        self._notify.stopping(f"stopping: waiting for answers, up to {drain_s:g} s")
        self._notify.extend(drain_s + CLOSE_S)
        logger.info(
            "daemon.draining",
            in_flight=len(self._relay.in_flight),
            drain_s=drain_s,
            meaning="it waits so long for answers; a second signal ends that",
        )


@contextmanager
def _aloud(store: Path) -> Iterator[None]:
    """Who looks on shall know what a start waits for, before it is refused: at once if that is a
    daemon, which says so in the lock and is not likely to end."""
    loop = asyncio.get_running_loop()
    saying = loop.call_later(0.0 if daemon_of(store) else MUTE_S, _say_what_is_waited_for, store)
    try:
        yield
    finally:
        saying.cancel()


def _say_what_is_waited_for(store: Path) -> None:
    meaning = f"another process may keep it locked: `fuser -v {store}` names who has it open"
    if (pid := daemon_of(store)) not in (None, os.getpid()):
        meaning = f"another syncd, pid {pid}, holds this database: stop it, or name another one"
    logger.warning("daemon.waits", store=str(store), meaning=meaning)


def _cut_off() -> None:
    logger.error("daemon.cut_off", meaning="something hangs: as after a kill, nothing is lost")
    os._exit(1)


def _first(group: BaseExceptionGroup[SyncdError]) -> SyncdError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SyncdError)
    return error
