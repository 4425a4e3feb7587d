"""Plays a storm: real processes behind relays, real signals, and a polite end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_chaos.errors import ChaosError, ConfigError
from lightning_chaos.monitor.runlog import LogEvent, read_log
from lightning_chaos.peer.discovery import DiscoveryDir
from lightning_chaos.storm.crew import Crew
from lightning_chaos.storm.facts import Facts, is_cure
from lightning_chaos.storm.interrupts import Interrupts
from lightning_chaos.storm.meter import Meter
from lightning_chaos.storm.screen import Screen
from lightning_chaos.storm.settings import Settings
from lightning_chaos.storm.watch import Watch
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.director import Director
from lightning_chaos.testing.lab.faults import Fault, Schedule, at
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.survival import survivable
from lightning_chaos.testing.launch import ForkServer, Launcher
from lightning_chaos.visit import ask_to_stop

POLL_S = 0.05
# Generous: what they bound takes a fraction of it unless something is wrong.
FOUND_S = 120.0
BACK_S = 30.0
END_S = 60.0


@dataclass(frozen=True, slots=True)
class Played:
    """A storm that is over, as its logs and its driver tell it."""

    events: list[LogEvent]
    """Of all nodes, in order of time."""
    truth: list[LogEvent]
    """What was done to them."""
    facts: Facts


def play(
    settings: Settings,
    screen: Screen,
    interrupts: Interrupts,
    launcher: Launcher | None = None,
) -> Played:
    """Run the script under the storm, from the first node to the end of the last.

    Args:
        settings: what the user chose.
        screen: shows it.
        interrupts: whether somebody wants it to end now.
        launcher: how nodes start, None for a fork server of its own.

    Raises:
        ConfigError: the schedule names a node that is not there, or the nodes did not come
            together.
    """
    started = ForkServer() if launcher is None else contextlib.nullcontext(launcher)
    with started as how, Relays() as relays:
        relays.shape(settings.shape)
        cluster = LocalCluster(
            settings.script,
            args=settings.script_args,
            directory=settings.directory,
            cwd=settings.cwd,
            launcher=how,
            grace_s=1.0,  # whoever is left then has had END_S
        )
        env = {"CHAOS_MIN_MEMBERS": str(len(settings.nodes))}
        with cluster, Director(settings.schedule, cluster, relays, env=env) as director:
            storm = _Storm(settings, cluster, relays, director, screen, interrupts)
            facts = storm.run()
        return Played(sorted(cluster.events, key=lambda e: e.t), read_log(director.truth), facts)


class _Storm:
    def __init__(
        self,
        settings: Settings,
        cluster: LocalCluster,
        relays: Relays,
        director: Director,
        screen: Screen,
        interrupts: Interrupts,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._relays = relays
        self._director = director
        self._screen = screen
        self._interrupts = interrupts
        self._watch = Watch()
        self._seen = 0
        self._crew = Crew(cluster)
        self._done = 0
        self._meter = Meter()
        self._phase = "the nodes find each other"
        self._problems: list[str] = []

    def run(self) -> Facts:
        verdict = survivable(self._settings.schedule, self._settings.nodes)
        self._found()
        began = time.time()
        ending = self._blow()
        self._cure()
        over = time.time()
        missing = self._wait_back(over)
        finished = bool(self._watch.finished)
        self._end(finished)
        return Facts(
            seed=self._settings.seed,
            minutes=self._settings.minutes,
            planned=self._planned,
            not_survivable="" if verdict.survives else verdict.reason,
            shape=self._settings.shape,
            began=began,
            over=over,
            ending=ending,
            finished_itself=finished,
            missing=missing,
            patience_s=BACK_S,
            problems=self._problems,
            founders=self._settings.nodes,
            exits=self._crew.exits,
            running={n: self._crew.words(n) for n in self._crew.running},
            carried=[(a, b, count) for (a, b), count in self._relays.carried_bytes().items()],
            machine=self._meter.machine(),
            command=self._settings.command,
        )

    # ---- one after another -----------------------------------------------------------------

    def _found(self) -> None:
        """Start the nodes one after another: their ages follow the order of their names."""
        nodes = self._settings.nodes
        watch = self._watch
        deadline = time.monotonic() + FOUND_S
        for place, node in enumerate(nodes):
            self._director.start(node)
            known = watch.pulled if place else watch.started
            self._founding(lambda k=known, n=node: n in k, deadline)  # type: ignore[misc]
        self._founding(lambda: not watch.not_in(nodes, 0.0), deadline)

    def _founding(self, condition: Callable[[], bool], deadline: float) -> None:
        """Wait for a step of it.

        Raises:
            ConfigError: it does not happen.
        """

        def stop() -> bool:
            return condition() or bool(self._crew.exits)

        came = self._until(stop, deadline - time.monotonic()) and condition()
        if came:
            return
        if self._interrupts.got:
            raise ConfigError("ended before the storm began; there is nothing to report")
        node = next(iter(self._crew.exits), self._cluster.nodes[-1])
        end = self._crew.exits.get(node)
        what = "still runs" if end is None else f"ended with {end.code}"
        raise ConfigError(
            f"the nodes did not come together within {FOUND_S:g} s; {node} {what} and printed "
            f"last:\n{self._crew.words(node)}"
        )

    def _blow(self) -> str:
        """The storm itself; why it was over before its time, '' if it was not."""
        self._phase = "storm"
        self._director.begin()
        self._end_at = time.monotonic() + self._settings.minutes * 60
        early = self._until(
            lambda: not self._crew.running or bool(self._watch.finished),
            self._settings.minutes * 60,
            meanwhile=self._direct,
        )
        if self._interrupts.got:
            return f"ended by {self._interrupts.name}"
        if not early:
            return ""
        return "training came to its end" if self._watch.finished else "every node had ended"

    def _direct(self) -> None:
        for fault in self._director.step():
            self._note(fault)

    def _cure(self) -> None:
        """Heal every link and let everybody go on, written down as what was done before."""
        self._phase = "everything is healed"
        cures = Schedule.of(
            at(seconds=0).heal(), *(at(seconds=0).cont(node) for node in sorted(self._crew.stopped))
        )
        with Director(cures, self._cluster, self._relays) as director:
            director.begin()
            for fault in director.step():
                self._note(fault)

    def _wait_back(self, since: float) -> list[str]:
        """Wait until everybody who should be in is in; returns who is not."""
        self._phase = "waiting until all are in"
        if self._watch.finished:
            return []

        def absent() -> list[str]:
            return self._watch.not_in(self._crew.expected, since)

        self._until(lambda: not absent() or bool(self._watch.finished), BACK_S, heeding=False)
        return [] if self._watch.finished else absent()

    def _end(self, finished: bool) -> None:
        """End the run as ``lightning-chaos stop`` does, and wait for the last process."""
        self._phase = "the run ends"
        if not finished and self._crew.running:
            top = Path(self._cluster.command_env()["XDG_RUNTIME_DIR"]) / "lightning-chaos"
            doors = DiscoveryDir(self._cluster.run, top).live()
            try:
                asyncio.run(ask_to_stop(doors, self._cluster.run, "the storm is over"))
            except ChaosError as error:
                self._problems.append(f"the run could not be asked to end: {error}")
        self._until(lambda: not self._crew.running, END_S, heeding=False)
        if left := self._crew.running:
            self._problems.append(
                f"{', '.join(left)} still ran {END_S:g} s after the run was asked to end"
            )

    # ---- at every moment -------------------------------------------------------------------

    def _until(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        *,
        heeding: bool = True,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> bool:
        """Watch until it is so; False if it took too long or somebody wants an end."""
        deadline = time.monotonic() + timeout_s
        while True:
            meanwhile()
            self._look()
            if condition():
                return True
            if time.monotonic() > deadline or (heeding and self._interrupts.got):
                return False
            time.sleep(POLL_S)

    def _look(self) -> None:
        # Exit codes first: whatever an ended node has logged is then read below.
        for node in self._crew.look():
            self._screen.ended(node, self._crew.exits[node].code)
        self._cluster.poll()
        for event in self._cluster.events[self._seen :]:
            self._watch.apply(event)
            self._screen.take(event)
        self._seen = len(self._cluster.events)
        now = time.time()
        self._meter.look(now)
        self._screen.show(now, self._status(now))

    def _note(self, fault: Fault) -> None:
        told = " ".join(str(value) for key, value in fault.plain().items() if key != "at")
        self._screen.tell(time.time(), f"---- {told}")
        self._done += not is_cure(fault.deed, self._settings.shape)
        self._crew.meet(fault.deed)

    @property
    def _planned(self) -> int:
        faults = self._settings.schedule.faults
        return sum(not is_cure(fault.deed, self._settings.shape) for fault in faults)

    def _status(self, now: float) -> str:
        parts = [self._phase]
        if self._phase == "storm":
            left = max(0, round(self._end_at - time.monotonic()))
            parts.append(f"{left // 60}:{left % 60:02} left")
        parts += [
            f"members: {len(self._watch.members)}",
            f"{self._watch.rounds_per_s(now):.1f} rounds/s",
            f"{self._done} of {self._planned} faults",
        ]
        return " · ".join(parts)
