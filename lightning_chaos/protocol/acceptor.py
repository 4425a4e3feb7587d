"""How one member answers proposals: promises, permits and the freeze (design §4)."""

from __future__ import annotations

from lightning_chaos.protocol.messages import Ack, Nack, Prepare
from lightning_chaos.protocol.values import Ballot, Proposal, Report, Uid


class Acceptor:
    """What one peer has promised since the view it has installed.

    The last proposal ACKed of each proposer is kept and told in every answer: it may be
    committed somewhere without this peer knowing, and whoever proposes next must take it into
    account.  Who proposes again has given its earlier one up.
    """

    def __init__(self, me: Uid) -> None:
        self._me = me
        self.promised = Ballot()
        self.acked: tuple[Proposal, ...] = ()
        self.freezing: Prepare | None = None
        """Unplanned change that waits for the worker to freeze."""
        self.report: Report | None = None
        """What the frozen worker holds; stays true until a view is installed."""
        self.since: float | None = None
        """When the oldest undecided agreement was given."""
        self._answer: Ack | None = None

    @property
    def frozen(self) -> bool:
        """The worker is frozen or has been told to freeze."""
        if self.freezing is not None or self.report is not None:
            return True
        return bool(self.acked) and not all(proposal.planned for proposal in self.acked)

    @property
    def blocked(self) -> int | None:
        """Switch round of a planned change agreed to: no permit from there on.

        The earliest one, if several may still be committed.
        """
        return min((p.view.switch for p in self.acked if p.planned), default=None)

    def prepare(self, now: float, message: Prepare, epoch: int, granted: int) -> Ack | Nack | None:
        """The answer, or None if the worker must freeze first (see :attr:`freezing`)."""
        proposal = message.proposal
        reason = self._objection(proposal, epoch, granted)
        if reason:
            final = proposal.base == epoch and proposal.view.plan_problem is not None
            return self._nack(proposal.ballot, reason, epoch, granted, final)
        if self._answer is not None and self._answer.ballot == proposal.ballot:
            return self._answer
        self.promised = proposal.ballot
        self.acked = tuple(p for p in self.acked if p.ballot.proposer != proposal.ballot.proposer)
        self.since = now if self.since is None else self.since
        self.freezing = None
        if proposal.planned:
            return self._ack(proposal, None)
        self.freezing = message
        return self.frozen_with(self.report) if self.report is not None else None

    def frozen_with(self, report: Report) -> Ack | None:
        """The worker is frozen; the answer to the change that waits for it, if one does."""
        self.report = report
        if self.freezing is None:
            return None
        proposal = self.freezing.proposal
        self.freezing = None
        return self._ack(proposal, report)

    def abort(self, ballot: Ballot) -> None:
        """A planned change will not be committed: permits may go on."""
        self.acked = tuple(p for p in self.acked if p.ballot != ballot)
        if not self.acked and not self.frozen:
            self.since = None

    def installed(self, epoch: int) -> None:
        """A view is installed: every proposal of no later epoch is over.

        One of a later epoch took this view into account, and may still be committed, unless it
        is this peer's own.
        """
        later = (p for p in self.acked if p.view.epoch > epoch)
        self.acked = tuple(p for p in later if p.ballot.proposer != self._me)
        self.freezing, self.report, self._answer = None, None, None
        self.since = self.since if self.acked else None

    def _objection(self, proposal: Proposal, epoch: int, granted: int) -> str:
        if proposal.base != epoch:
            return f"it builds on epoch {proposal.base}, epoch {epoch} is installed here"
        if proposal.ballot < self.promised:
            return f"a higher ballot was promised to {self.promised.proposer}"
        if proposal.view.epoch <= epoch:
            return f"epoch {proposal.view.epoch} is not above {epoch}"
        if (problem := proposal.view.plan_problem) is not None:
            return problem
        if proposal.planned and self.frozen:
            return "the worker is frozen by an unplanned change"
        if proposal.planned and granted >= proposal.view.switch:
            return f"round {granted} is permitted already"
        return ""

    def _nack(self, ballot: Ballot, reason: str, epoch: int, granted: int, final: bool) -> Nack:
        return Nack(ballot, reason, self.promised, epoch, granted, self.acked, final)

    def _ack(self, proposal: Proposal, report: Report | None) -> Ack:
        self._answer = Ack(proposal.ballot, self.acked, report)
        self.acked = (*self.acked, proposal)
        return self._answer
