"""Messages as a reader of a story wants them."""

from __future__ import annotations

import re

from lightning_chaos.protocol import local
from lightning_chaos.protocol.messages import Carry, LinkFigures, Message, ViewNews, decode
from lightning_chaos.protocol.values import Ballot, View


def show(message: Message | local.Local) -> str:
    """A message as a reader wants it: the tag and what distinguishes it."""
    if isinstance(message, Carry):
        return f"for {clean(message.to)}: {show(decode(message.content))}"
    name = type(message).__name__
    proposal = getattr(message, "proposal", None)
    parts: list[str] = []
    if proposal is not None:
        view = proposal.view
        parts.append(f"{ballot(proposal.ballot)} epoch {view.epoch} from {view.switch}:")
        parts.append(",".join(m.node for m in view.members))
        parts += [f"learning {m.node}" for m in view.learners]
        parts += [*without(view), *kin(view)]
        parts.append("planned" if proposal.planned else "unplanned")
    for field in ("ballot", "reason", "setting", "uid", "uids", "round", "epoch"):
        value = getattr(message, field, None)
        if value in (None, "", ()) or (proposal is not None and field == "epoch"):
            continue
        if field == "ballot":
            value = ballot(value)
        parts.append(f"{value}" if field == "ballot" else f"{field}={clean(value)}")
    if prior := getattr(message, "prior", ()):
        parts.append("prior=" + ",".join(ballot(p.ballot) for p in prior))
    if isinstance(message, local.Install):
        view = message.view
        parts = [f"epoch {view.epoch} from {view.switch}: {','.join(m.node for m in view.members)}"]
        parts += [f"learning {m.node}" for m in view.learners]
        parts += [*without(view), *kin(view)]
    if isinstance(message, LinkFigures):
        rows = ",".join(map(str, message.rates)), ",".join(map(str, message.trips))
        parts.append(f"rates {rows[0]} trips {rows[1]}")
    if isinstance(message, ViewNews):
        parts += kin(message.view)
    if isinstance(message, local.Standing):
        parts = ["as newcomer" if message.newcomer else "as founder"]
    decision = getattr(message, "decision", None)
    if decision is not None:
        parts.append(f"finish {decision.finished}")
        if decision.behind:
            parts.append(
                f"{clean(','.join(decision.sources))} passes it to {clean(decision.behind)}"
            )
        if decision.held:
            parts.append(f"keep chunks {clean(decision.held)}")
        parts.append(f"data from {decision.data_from}")
    return " ".join([name, *parts])


def without(view: View) -> list[str]:
    """Links that the view has given up."""
    return [f"without {clean(a)}-{clean(b)}" for a, b in view.missing]


def kin(view: View) -> list[str]:
    """Whose island it is, and what it claims."""
    claim, island = view.lineage.claim, view.lineage.island
    parts = [f"island of {clean(island)}"] if island else []
    return parts + ([f"claim {claim.samples}"] if claim is not None else [])


def ballot(b: Ballot) -> str:
    """``3a``: the third counter, proposed by a."""
    return f"{b.counter}{b.proposer.partition('/')[0]}"


def clean(value: object) -> str:
    """Without incarnations, which only repeat."""
    return re.sub(r"/[0-9a-f]+", "", str(value)).replace("'", "")
