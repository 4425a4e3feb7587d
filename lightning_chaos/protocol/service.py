"""What a peer does for its own worker, and hears from it."""

from __future__ import annotations

from lightning_chaos.protocol import local
from lightning_chaos.protocol.agreement import Agreement
from lightning_chaos.protocol.events import Level, Quit
from lightning_chaos.protocol.messages import AskCommit, LastWord
from lightning_chaos.protocol.requests import Requests
from lightning_chaos.protocol.standing import QUORUM_ADVICE, START_ADVICE, Role, Standing
from lightning_chaos.protocol.values import View
from lightning_chaos.protocol.wait import Wait


class Service:
    """Permits, news and the end of the worker.

    Args:
        standing: shared with the other parts of this peer.
        requests: what the worker wants.
        agreement: what it is frozen for.
        min_members: members needed before the first round may start.
        linger_s: how long a finished run is told to latecomers, seconds.
        start_timeout_s: how long the first round may wait for members, and they for this worker
            to be ready, seconds.
        quorum_timeout_s: how long to wait for a quorum once it is lost, seconds.
    """

    def __init__(
        self,
        standing: Standing,
        requests: Requests,
        agreement: Agreement,
        *,
        min_members: int,
        linger_s: float,
        start_timeout_s: float,
        quorum_timeout_s: float,
    ) -> None:
        self._standing = standing
        self._requests = requests
        self._agreement = agreement
        self._min_members = min_members
        self._linger_s = linger_s
        self._start_timeout_s = start_timeout_s
        self._quorum_timeout_s = quorum_timeout_s
        self._no_quorum_since: float | None = None
        self._gated_since: float | None = None
        self._unready_since: float | None = None
        self._gone_at: float | None = None
        self._quit = False
        self._told_timeout_s = standing.timeouts.least_s
        self._all_done = False
        self._unneeded_since: float | None = None

    # ---- from the worker -------------------------------------------------------------------

    def hear(self, said: local.AnyLocal) -> None:
        """The worker says something."""
        standing, requests = self._standing, self._requests
        match said:
            case local.AskSeat():
                requests.seat = said
                if standing.role is Role.MEMBER:  # it founded the run: this is the run's state
                    standing.samples = max(said.samples, standing.samples or 0)
                self._agreement.lead.drafts.fingerprint = said.fingerprint
            case local.Begun(round=round_, samples=samples):
                standing.samples = samples
                self._on_begun(round_)
            case local.Slow(uids=uids):
                standing.slow = uids
            case local.Frozen():
                self._agreement.on_frozen(said)
            case local.Pulling(bytes=bytes_, total=total):
                requests.pulling(bytes_, total)
            case local.Pulled(epoch=epoch, round=round_):
                requests.ready(epoch, round_)
            case local.Broken(uid=uid, reason=reason, mended=mended):
                if mended:
                    standing.evidence.restored(uid)
                    requests.flush(reason)
                else:
                    standing.evidence.no_data(uid, reason)
            case local.Restored(uid=uid):
                standing.evidence.restored(uid)
            case local.Late():
                self._on_late(said)
            case local.Allowance(seconds=seconds):
                standing.allowance_s = seconds
            case local.SawEpoch(uid=uid, epoch=epoch):
                standing.send(uid, AskCommit(epoch))
            case local.Word(uid=uid, reason=reason):
                standing.evidence.declare_dead(uid, reason)
                standing.send_all(LastWord(uid, reason))
            case local.Leaving():
                requests.leave()
            case local.Done(round=round_):
                standing.finished = round_
                standing.beat()
            case local.Farewell(reason=reason):
                self.gone(reason)
            case _:
                standing.log(f"the worker said {type(said).__name__}", Level.DEBUG)

    def _on_begun(self, round_: int) -> None:
        standing = self._standing
        standing.permits.begin(standing.now, round_)
        view = standing.view
        standing.evidence.settle(view.missing if view is not None else ())
        self._requests.begun(round_)
        if view is not None and len(standing.linked) + 1 > len(view.members):
            # Newcomers may wait for this round.
            for uid in standing.linked:
                if view.find(uid) is None:
                    standing.beat(uid)

    def _on_late(self, late: local.Late) -> None:
        """Complain of whoever takes longer than it allows itself.

        One that may be waiting for others has their time, too: the one next to the worker that
        hangs must be the first to complain, and it does not know which that is.
        """
        standing, view = self._standing, self._standing.view
        if view is None:
            return
        longest = max(standing.allowed_s(uid) for uid in view.uids)
        for uid, workers in late.owing.items():
            bound = standing.allowed_s(uid) if workers == 1 else workers * longest
            if late.seconds > bound:
                why = f"its worker gave nothing to operation {late.operation} for {bound:.3g} s"
                standing.evidence.complain(uid, why)

    def gone(self, reason: str) -> None:
        """The worker process ended."""
        if self._gone_at is None:
            self._gone_at = self._standing.now
            if self._standing.finished < 0:
                self._standing.send_all(LastWord(self._standing.me.uid, reason))
                self._standing.role = Role.OUT

    def tick(self) -> None:
        """A peer without a worker ends; after a finished run it tells latecomers for a while."""
        self._check_leaver()
        self._check_start()
        self._check_quorum()
        self._tell_timeout()
        if self._gone_at is None or self._quit:
            return
        finished = self._standing.finished >= 0
        if not finished or self._standing.now - self._gone_at >= self._linger_s:
            self._quit = True
            self._standing.do(Quit("the worker is gone"))

    def _check_start(self) -> None:
        """Neither does a member wait for ever for the first round, nor do others for its worker."""
        standing, view, bound = self._standing, self._standing.view, self._start_timeout_s
        if standing.role is not Role.MEMBER or view is None or standing.permits.begun >= 0:
            return
        now = standing.now
        ready = self._requests.seat is not None
        self._unready_since = None if ready else self._unready_since or now
        self._gated_since = (self._gated_since or now) if ready and self._gated(view) else None
        if self._unready_since is not None and now - self._unready_since > bound:
            standing.resign(f"its worker was not ready to train within {bound:g} s")
        elif self._gated_since is not None and now - self._gated_since > bound:
            names = ", ".join(m.node for m in view.members)
            what = f"waited {bound:g} s for {self._min_members} members, here are only {names}"
            standing.send_all(LastWord(standing.me.uid, what))
            standing.role = Role.OUT
            standing.tell(local.Refused(f"{what}. {START_ADVICE}"))

    def _check_quorum(self) -> None:
        """The others may never come back: who waits for them gives up some day, and says so."""
        standing, bound = self._standing, self._quorum_timeout_s
        paused = standing.active and standing.finished < 0 and not standing.alone
        lack = standing.lacks_quorum if paused else ""
        if not lack:
            self._no_quorum_since = None
        elif self._no_quorum_since is None:
            self._no_quorum_since = standing.now
        elif standing.now - self._no_quorum_since > bound:
            reason = f"{lack} for {bound:g} s in vain"
            standing.send_all(LastWord(standing.me.uid, reason))
            standing.role = Role.OUT
            standing.tell(local.GaveUp(f"{reason}. {QUORUM_ADVICE}"))

    def _tell_timeout(self) -> None:
        """The worker dials, too; small changes are not worth a message."""
        timeout_s = self._standing.timeout_s
        if (
            self._standing.view is not None
            and abs(timeout_s - self._told_timeout_s) > 0.1 * self._told_timeout_s
        ):
            self._told_timeout_s = timeout_s
            self._standing.tell(local.Timeout(timeout_s))

    def _check_leaver(self) -> None:
        """Nobody needs a leaver any more: it goes, even if it still lacks its last result.

        With a link that was lost, that result may have been; nobody sends it again.
        """
        standing, view, last = self._standing, self._standing.view, self._agreement.leaves_at
        if standing.role is not Role.LEAVING or view is None or last is None:
            return
        known = [standing.statuses.get(uid) for uid in view.uids]
        if not all(status is not None and status.round >= last for status in known):
            self._unneeded_since = None
        elif self._unneeded_since is None:
            self._unneeded_since = standing.now
        elif standing.now - self._unneeded_since > 2 * standing.timeout_s:
            standing.drop_out(f"all others have begun round {last} without it")

    # ---- to the worker ---------------------------------------------------------------------

    def grant(self, view: View) -> None:
        """Renew the permit, as far as agreements allow."""
        standing = self._standing
        if standing.acceptor.frozen or self._gated(view) or self._requests.seat is None:
            return
        limits = [standing.acceptor.blocked]
        if standing.role is Role.LEAVING:
            limits.append(self._agreement.leaves_at)
        elif view.learners:
            limits.append(view.switch)
        known = [limit for limit in limits if limit is not None]
        upto = standing.permits.extend(min(known) if known else None)
        if upto is not None:
            standing.tell(local.Permit(upto))

    def _gated(self, view: View) -> bool:
        """The first round waits for more members; where one has begun it, it waits for us."""
        standing = self._standing
        if standing.permits.begun >= 0 or len(view.members) >= self._min_members:
            return False
        known = (standing.statuses.get(uid) for uid in view.uids)
        return all(status is None or status.round < 0 for status in known)

    def wait(self, reason: str, hint: str = "") -> None:
        """Say why it waits, when that changes and now and then while it lasts.

        Args:
            reason: what an open change waits for, '' for nothing.
            hint: what could be done about it, or how long that goes on.
        """
        standing, view = self._standing, self._standing.view
        if missing := standing.lacks_quorum:
            reason, hint = missing, "quorum='any' would go on alone"
            if standing.alone:
                hint = "quorum='any': soon going on alone"
        elif not reason and view is not None and standing.active and self._gated(view):
            reason = f"{len(view.members)} of {self._min_members} members are here"
            hint = f"giving up after {self._start_timeout_s:g} s"
        if not reason:
            if standing.wait is not None:
                standing.wait = None
                standing.tell(local.Waiting(""))
            return
        if standing.wait is None:
            standing.wait = Wait(reason, standing.now)
        standing.wait.reason, standing.wait.hint = reason, hint
        if standing.wait.due(standing.now):
            text = standing.wait.text(standing.now)
            standing.tell(local.Waiting(text))
            standing.log(f"waiting: {text}")

    def check_all_done(self, view: View) -> None:
        """Tell it when every member has finished or is gone."""
        standing = self._standing
        if standing.finished < 0 or self._all_done:
            return
        here = standing.evidence.side(standing.now, view.seated, view.missing)
        for uid in view.uids:
            status = standing.statuses.get(uid)
            if uid == standing.me.uid or uid not in here:
                continue
            if status is None or status.finished < 0:
                return
        self._all_done = True
        standing.tell(local.AllDone())
