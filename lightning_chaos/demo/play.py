"""Plays the demo: real processes, public commands, signals, and a picture of it all."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live

from lightning_chaos.demo.board import Board
from lightning_chaos.demo.report import Facts, Replayed, Report, make_report
from lightning_chaos.demo.scenario import Order, Pace, Scenario
from lightning_chaos.demo.timings import Deed
from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays

POLL_S = 0.05
COMMAND_TIMEOUT_S = 20.0
LINK_DELAY_MS = 5.0
OUR_ARGS = ("--padding-mb", "64", "--max-epochs", "10000")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user can choose.

    Args:
        nodes: nodes that start first; one more joins them.
        script: what they train, None for our digits.
        script_args: command line of the script.
        link_rate_mbit: Mbit/s that each link is paced to.
        keep_logs: directory for logs and output, None to keep nothing.
        limit_s: seconds after which the demo fails.
        pace: rounds between the events.
        replay: recompute the run from its logs at the end.
        links_mbit: Mbit/s of the newcomer's link to each of the first nodes, through relays instead
            of pacing; none for links that are all alike.
    """

    nodes: int = 3
    script: Path | None = None
    script_args: Sequence[str] = ()
    link_rate_mbit: float = 200.0
    keep_logs: Path | None = None
    limit_s: float = 180.0
    pace: Pace = field(default_factory=Pace)
    replay: bool = False
    links_mbit: Sequence[float] = ()

    @property
    def founders(self) -> list[str]:
        """Names of the nodes that start first."""
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    @property
    def newcomer(self) -> str:
        """Name of the one that joins them."""
        return f"n{self.nodes + 1}"

    @property
    def about_links(self) -> str:
        """How fast they are, for people."""
        if not self.links_mbit:
            return f"each link paced to {self.link_rate_mbit:g} Mbit/s by our own sender"
        rates = ", ".join(f"{rate:g}" for rate in self.links_mbit)
        return (
            f"the newcomer's links carry {rates} Mbit/s with a round trip of "
            f"{2 * LINK_DELAY_MS:g} ms, through a relay"
        )


def rates_of(links: str) -> tuple[float, ...]:
    """Rates as on the command line, Mbit/s.

    Raises:
        ConfigError: not numbers with commas between them.
    """
    try:
        return tuple(float(rate) for rate in links.split(",")) if links else ()
    except ValueError:
        raise ConfigError(
            f"--links {links}: give one rate for each node, in Mbit/s, as 200,100,50"
        ) from None


def play(settings: Settings, console: Console) -> Report:
    """Run the demo and judge it.

    Raises:
        ConfigError: the script does not exist, the log directory holds an older run, the rate is
            no number, or the links are not one for each node, or too fast for the relay.
    """
    script = settings.script or our_script()
    if not script.is_file():
        raise ConfigError(f"{script} does not exist; name a training script with --script FILE.py")
    if settings.keep_logs and any((settings.keep_logs / "logs").glob("*.jsonl")):
        raise ConfigError(f"{settings.keep_logs} holds the logs of an older run; take another")
    if settings.links_mbit and len(settings.links_mbit) != settings.nodes:
        raise ConfigError(
            f"--links has {len(settings.links_mbit)} rates, and {settings.nodes} nodes start "
            "(--nodes): give one rate for each"
        )
    if not math.isfinite(settings.link_rate_mbit):
        raise ConfigError(f"--link-rate {settings.link_rate_mbit}: give a rate, in Mbit/s")
    with contextlib.ExitStack() as stack:
        relays = None
        if settings.links_mbit:
            relays = stack.enter_context(Relays())
            for node, rate in zip(settings.founders, settings.links_mbit, strict=True):
                shape = Shape(rate_mbit=rate, delay_ms=LINK_DELAY_MS)
                relays.shape(shape, node, settings.newcomer)
        directory = settings.keep_logs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-demo-"))
        )
        args = [*settings.script_args]
        if settings.script is None:
            args = [*OUR_ARGS, "--out-dir", str(directory.resolve() / "out"), *args]
        cluster = stack.enter_context(
            LocalCluster(
                script,
                args=args,
                directory=directory,
                env={"CHAOS_LINK_RATE": "0" if relays else f"{settings.link_rate_mbit:g}"},
                cwd=None if settings.script is None else Path.cwd(),
            )
        )
        facts = _Play(settings, cluster, relays, console).run()
        return make_report(sorted(cluster.events, key=lambda e: e.t), facts)


def our_script() -> Path:
    """``examples/digits.py``: a wheel carries it here, a checkout has it at its place."""
    packed = Path(__file__).with_name("digits.py")
    return packed if packed.is_file() else Path(__file__).parents[2] / "examples" / "digits.py"


class _Play:
    def __init__(
        self, settings: Settings, cluster: LocalCluster, relays: Relays | None, console: Console
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._console = console
        self._relays = relays
        self._founders, self._newcomer = settings.founders, settings.newcomer
        self._scenario = Scenario(self._founders, self._newcomer, settings.pace)
        self._deeds: list[Deed] = []
        self._exits: dict[str, int] = {}
        self._t0 = time.time()
        title = (
            f"lightning-chaos demo · {settings.nodes} nodes and a newcomer · "
            f"{settings.about_links} · run {cluster.run}"
        )
        self._board = Board(title, [*self._founders, self._newcomer], self._t0)

    def run(self) -> Facts:
        begin = time.monotonic()
        problem = ""
        self._start_nodes()
        with self._screen() as live:
            while not problem and not self._over():
                if time.monotonic() - begin > self._settings.limit_s:
                    problem = (
                        f"{self._settings.limit_s:g} s have passed; still waiting for "
                        f"{self._scenario.waiting_for}"
                    )
                    break
                # Exit codes first: whatever an ended node has logged is then read below.
                self._note_exits()
                events = self._cluster.poll()
                self._say(self._board.apply(e) for e in events)
                problem = self._unexpected_end()
                for order in self._scenario.step(events):
                    problem = problem or self._carry_out(order)
                if live is not None:
                    live.update(self._board.render())
                time.sleep(POLL_S)
        return Facts(
            nodes=self._cluster.nodes,
            newcomer=self._newcomer,
            deeds=self._deeds,
            exits=self._exits,
            problem=problem,
            seconds=time.monotonic() - begin,
            accuracy_required=self._settings.script is None,
            plan_required=bool(self._settings.links_mbit),
            replayed=None if problem or not self._settings.replay else self._replay(),
        )

    def _start_nodes(self) -> None:
        env = {"CHAOS_MIN_MEMBERS": str(len(self._founders))}
        for node in self._founders:
            self._cluster.start(node, env=env | self._road_for(node))
        env["CHAOS_JOIN_AT"] = str(self._settings.pace.join_at)
        self._cluster.start(self._newcomer, env=env | self._road_for(self._newcomer))

    def _road_for(self, node: str) -> dict[str, str]:
        return self._relays.env_for(node) if self._relays else {}

    @contextlib.contextmanager
    def _screen(self) -> Iterator[Live | None]:
        """The live picture on a terminal; elsewhere the story goes out line by line."""
        if not self._console.is_terminal:
            self._console.print(self._board.title, highlight=False, soft_wrap=True)
            yield None
            return
        with Live(self._board.render(), console=self._console, refresh_per_second=10) as live:
            yield live

    def _say(self, lines: Iterable[str | None]) -> None:
        for line in lines:
            if line is not None and not self._console.is_terminal:
                self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _over(self) -> bool:
        return self._scenario.done and len(self._exits) == len(self._cluster.nodes)

    def _note_exits(self) -> None:
        for node in self._cluster.nodes:
            code = self._cluster.exit_code(node)
            if code is not None and node not in self._exits:
                self._exits[node] = code
                self._board.rows[node].state = f"ended ({code})"

    def _unexpected_end(self) -> str:
        """Why the demo cannot go on: a node ended that nobody had sent away."""
        hit = {d.node for d in self._deeds}
        for node, code in self._exits.items():
            if node not in hit and (code != 0 or not self._scenario.done):
                return (
                    f"{node} ended with exit code {code} while the demo was waiting for "
                    f"{self._scenario.waiting_for}; it printed last:\n{self._cluster.tail(node)}"
                )
        return ""

    def _carry_out(self, order: Order) -> str:
        """Do it; returns the problem if it could not be done."""
        t = time.time()
        self._deeds.append(Deed(order.kind, order.node, t))
        match order.kind:
            case "kill":
                self._cluster.kill(order.node)
                text = f"SIGKILL to {order.node}, worker and peer"
            case "leave":
                self._cluster.leave(order.node)
                text = f"SIGTERM to {order.node}"
            case "stop":
                text = f"lightning-chaos stop --run {self._cluster.run}"
        self._say([self._board.tell(t, text)])
        return self._stop() if order.kind == "stop" else ""

    def _stop(self) -> str:
        """End the run as a user would, through the public command."""
        try:
            done = self._command("stop", "--run", self._cluster.run, timeout_s=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"lightning-chaos stop did not end within {COMMAND_TIMEOUT_S:g} s"
        return f"lightning-chaos stop: {done.stderr.strip()}" if done.returncode else ""

    def _replay(self) -> Replayed:
        """Recompute the run as a user would."""
        begin = time.monotonic()
        self._say(
            [self._board.tell(time.time(), f"lightning-chaos replay {self._cluster.log_dir}")]
        )
        limit_s = self._settings.limit_s
        try:
            done = self._command("replay", str(self._cluster.log_dir), timeout_s=limit_s)
        except subprocess.TimeoutExpired:
            return Replayed(False, f"did not end within {limit_s:g} s", limit_s)
        text = done.stdout if done.returncode in (0, 1) else done.stderr
        last = next(iter(reversed(text.strip().splitlines())), f"exit code {done.returncode}")
        return Replayed(done.returncode == 0, last, time.monotonic() - begin)

    def _command(self, *words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """A ``lightning-chaos`` command in the environment of the nodes."""
        return subprocess.run(
            [sys.executable, "-m", "lightning_chaos.cli", *words],
            env=self._cluster.command_env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
