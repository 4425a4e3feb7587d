"""What a neighbour did not get, because the link was lost meanwhile, goes through others."""

from __future__ import annotations

from transcript import Town

from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import Action, FromWorker, Send, Unlinked
from lightning_chaos.protocol.messages import Carry, Unreachable, decode


def sends(actions: list[Action]) -> list[Send]:
    return [action for action in actions if isinstance(action, Send)]


def test_the_lead_hears_at_once_of_a_link_whose_data_failed_before_its_control_connection() -> None:
    town = Town()
    town.play("cluster a b c")
    c, (a_uid, b_uid) = town.nodes["c"], (town.uids["a"], town.uids["b"])
    broken = FromWorker(local.Broken(a_uid, "connection reset", mended=False))
    said = [s for s in sends(c.step(town.now, broken)) if s.to == a_uid]
    assert [type(send.message) for send in said] == [Unreachable]
    unsent = tuple(send.message for send in said)
    (again,) = sends(c.step(town.now, Unlinked(a_uid, "connection reset", unsent)))
    assert again.to == b_uid
    assert isinstance(again.message, Carry)
    assert again.message.to == a_uid
    assert decode(again.message.content) == unsent[0]


def test_what_was_to_be_passed_on_takes_another_way() -> None:
    town = Town()
    town.play("cluster a b c d")
    uids, d = town.uids, town.nodes["d"]
    carry = Carry(uids["d"], uids["b"], 3, b"")
    d.step(town.now, Unlinked(uids["b"], "connection reset"))
    actions = d.step(town.now, Unlinked(uids["a"], "connection reset", (carry,)))
    assert Send(uids["c"], carry) in sends(actions)
