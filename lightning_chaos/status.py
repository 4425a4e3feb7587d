"""What ``lightning-chaos status`` shows of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from lightning_chaos.protocol.figures import RATE_UNIT, TRIP_UNIT_S, value_of
from lightning_chaos.protocol.messages import Gauges
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
        table.add_column(name)
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
    """What comes to each member, as it has measured it under the view."""
    view = sight.view
    table = Table(title="links as measured", title_justify="left")
    for name in ("from", "to", "Mbit/s", "round trip, ms", "lost, %"):
        table.add_column(name)
    for member in view.members:
        told = gauges.get(member.uid)
        if told is None or told.row.epoch != view.epoch:
            continue
        figures = zip(view.members, told.row.rates, told.row.trips, told.late, strict=False)
        for other, rate, trip, late in figures:
            if rate or trip:
                mbit = f"{value_of(rate, RATE_UNIT) * 8e-6:.3g}" if rate else ""
                trip_ms = f"{value_of(trip, TRIP_UNIT_S) * 1e3:.2g}" if trip else ""
                lost = str(late) if trip else ""
                table.add_row(other.node, member.node, mbit, trip_ms, lost)
    return table
