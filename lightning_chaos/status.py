"""What ``lightning-chaos status`` shows of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from lightning_chaos.protocol import scales
from lightning_chaos.protocol.messages import Gauges, LinkFigures
from lightning_chaos.protocol.values import Host, Uid
from lightning_chaos.visit import Sight


def tables(sight: Sight, gauges: Mapping[Uid, Gauges]) -> Iterator[Table]:
    """Its nodes, and its links if any has been measured.

    Args:
        sight: the run as one node sees it.
        gauges: what nodes measure themselves, of those that tell.
    """
    yield _nodes(sight, gauges)
    links = _links(sight, gauges)
    if links.row_count:
        yield links


def _nodes(sight: Sight, gauges: Mapping[Uid, Gauges]) -> Table:
    view = sight.view
    table = Table(title=_title(sight), title_justify="left")
    for name in ("node", "is", "address"):
        # What is typed into the next command is never cut off.
        table.add_column(name, no_wrap=True, overflow="fold")
    if view.missing:
        table.add_column("no link to")
    if gauges:
        for name in ("cpus", "memory", "network out, in"):
            table.add_column(name)
    for rank, member in enumerate((*view.members, *view.learners)):
        role = "learner" if rank >= len(view.members) else "member" if rank else "lead"
        role += ", slow" if member.uid in sight.status.slow else ""
        lost = [m.node for m in view.members if not view.joins(m.uid, member.uid)]
        cells = [", ".join(lost)] if view.missing else []
        if member.uid in gauges:
            cells += _host(gauges[member.uid].host)
        table.add_row(member.node, role, member.address, *cells)
    return table


def _title(sight: Sight) -> str:
    view = sight.view
    title = f"run {view.run} · epoch {view.epoch} · round {sight.status.round}"
    if view.generation:
        title += f" · generation {view.generation}"
    if view.lineage.island:
        title += f" · {view.lineage.story}"
    if sight.status.finished >= 0:
        title += f" · finished after round {sight.status.finished}"
    if sight.status.waiting:
        title += f" · {sight.node.node} waits: {sight.status.waiting}"
    return title


def _host(host: Host) -> list[str]:
    used, total = (x / 2**30 for x in (host.memory_used_bytes, host.memory_bytes))
    out, in_ = (x * 8e-6 for x in (host.sent_bytes_per_s, host.received_bytes_per_s))
    of = f" of {host.nic_mbit}" if host.nic_mbit else ""
    return [
        f"{host.cpu_percent} % of {host.cpus}",
        f"{used:.1f} of {total:.1f} GiB",
        f"{out:.1f}, {in_:.1f}{of} Mbit/s",
    ]


def _links(sight: Sight, gauges: Mapping[Uid, Gauges]) -> Table:
    """What is known of each link under the view: by who hears, but for the loss."""
    view = sight.view
    table = Table(title="links as measured", title_justify="left")
    for name in ("from", "to", "Mbit/s", "known", "s ago", "round trip, ms", "lost, %"):
        table.add_column(name)
    rows = {uid: told.row for uid, told in gauges.items() if told.row.epoch == view.epoch}
    for hears, member in enumerate(view.members):
        row = rows.get(member.uid)
        if row is None or row.links < len(view.members):
            continue
        for rank, other in enumerate(view.members):
            rate, trip = row.rates[rank], row.trips[rank]
            if not (rate or trip):
                continue
            mbit = f"{scales.RATE.value(rate) * 8e-6:.3g}" if rate else ""
            age_s = f"{scales.AGE.value(row.ages[rank]):.0f}" if rate else ""
            trip_ms = f"{scales.TRIP.value(trip) * 1e3:.2g}" if trip else ""
            lost = _lost(rows.get(other.uid), hears, gauges[member.uid], rank)
            known = row.trusts[rank].name.lower().replace("_", " ") if rate else ""
            table.add_row(other.node, member.node, mbit, known, age_s, trip_ms, lost)
    return table


def _lost(sender: LinkFigures | None, to: int, receiver: Gauges, from_: int) -> str:
    """What its sender had to send again; where that is not known, what heartbeats make believe."""
    if sender is not None and to < len(sender.losses) and (step := sender.losses[to]):
        return f"{100 * scales.LOSS.value(step):.2g}" if step > 1 else "0"
    return f"~{receiver.late[from_]}" if from_ < len(receiver.late) else ""
