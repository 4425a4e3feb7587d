"""What a worker may do at the begin of a round, as views and permits come."""

from __future__ import annotations

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.values import Decision, Member, OpId, View
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.turns import Apart, Go, Gone, Hold, Turn

A, B, C, D = (Member(name, 1, "127.0.0.1", 1) for name in "abcd")


def view(
    epoch: int, members: tuple[Member, ...], switch: int, learners: tuple[Member, ...] = ()
) -> View:
    plan = mesh_plan([m.uid for m in members])
    return View("run", 0, epoch, members, learners, switch, plan)


def decision(finished: OpId, data_from: int) -> Decision:
    return Decision(finished, (), (), {}, (), data_from)


def member(first: View, permit: int = 100) -> Course:
    course = Course(A.uid, first, newcomer=False)
    course.permit(permit)
    return course


def learner(first: View) -> Course:
    return Course(C.uid, first, newcomer=True)


def turn(course: Course, round_: int, apart: str = "", frozen: bool = False) -> Turn | None:
    return course.turn(round_, apart=apart, frozen=frozen)


def test_a_round_begins_only_with_a_permit_and_never_between_freeze_and_install() -> None:
    course = member(view(1, (A, B), 0), permit=4)
    assert isinstance(turn(course, 4), Go)
    assert turn(course, 5) is None
    assert turn(course, 4, frozen=True) is None


def test_members_stand_still_at_the_switch_round_of_a_view_with_learners_not_before() -> None:
    course = member(view(1, (A, B), 0))
    course.install(view(2, (A, B), 6, (C,)), None, "c starts to learn")
    assert isinstance(turn(course, 5), Go)
    assert isinstance(turn(course, 6), Hold)


def test_a_hold_ends_with_its_own_learners_even_if_others_learn_by_then() -> None:
    """The next newcomer is planned while this worker has not noticed that the first has a seat."""
    course = member(view(1, (A, B), 0))
    course.install(view(2, (A, B), 6, (C,)), None, "c starts to learn")
    hold = turn(course, 6)
    assert isinstance(hold, Hold)
    assert not course.held_enough(hold)
    course.install(view(3, (A, B, C), 6), None, "c joins")
    course.install(view(4, (A, B, C), 7, (D,)), None, "d starts to learn")
    assert course.held_enough(hold)
    go = turn(course, 6)
    assert isinstance(go, Go)
    assert go.sharers == (A.uid, B.uid, C.uid)
    course.enter(6)
    assert isinstance(turn(course, 7), Hold)


def test_a_hold_lasts_while_one_of_its_learners_is_left() -> None:
    course = member(view(1, (A, B), 0))
    course.install(view(2, (A, B), 6, (C, D)), None, "c and d start to learn")
    hold = turn(course, 6)
    assert isinstance(hold, Hold)
    course.install(view(3, (A, B), 6, (D,)), decision(OpId(5, 0), 6), "c is gone")
    assert not course.held_enough(hold)


def test_planned_views_come_into_force_with_their_rounds() -> None:
    first, second, third = (view(1, (A, B), 0), view(2, (A, B, C), 3), view(3, (A, B), 5))
    course = member(first)
    course.install(second, None, "c joins")
    course.install(third, None, "c leaves")
    assert course.enter(2) == []
    assert course.in_force == first
    assert course.enter(3) == [(second, "c joins")]
    assert course.in_force == second
    assert course.enter(5) == [(third, "c leaves")]


def test_an_unplanned_view_is_in_force_at_once_and_voids_what_was_planned() -> None:
    course = member(view(1, (A, B, C), 0))
    course.install(view(2, (A, B), 9), None, "c leaves")
    crash = view(3, (A, C), 9)
    course.install(crash, decision(OpId(4, 0), 6), "b is gone")
    assert course.in_force == crash
    assert course.enter(9) == []


def test_samples_are_shared_by_the_old_members_up_to_the_furthest_round_that_was_begun() -> None:
    course = member(view(1, (A, B), 0))
    course.install(view(2, (A,), 0), decision(OpId(4, 0), 7), "b is gone")
    assert [go.sharers for go in map(lambda r: turn(course, r), (6, 7)) if isinstance(go, Go)] == [
        (A.uid, B.uid),
        (A.uid,),
    ]


def test_a_seat_stands_from_the_view_that_gives_it_though_later_ones_came_before_training() -> None:
    course = learner(view(1, (A, B), 0))
    assert isinstance(turn(course, 0), Apart)
    course.install(view(2, (A, B), 6, (C,)), None, "c starts to learn")
    course.install(view(3, (A, B, C), 6), None, "c joins")
    course.install(view(4, (A, B, C), 8, (D,)), None, "d starts to learn")
    course.permit(7)
    assert course.seated
    go = turn(course, 6)
    assert isinstance(go, Go)
    assert go.sharers == (A.uid, B.uid, C.uid)


def test_what_a_learner_pulled_is_void_if_the_others_did_its_last_operation_again() -> None:
    course = learner(view(1, (A, B), 0))
    course.install(view(2, (A, B), 6, (C,)), None, "c starts to learn")
    course.pulling = True
    course.install(view(3, (A,), 6, (C,)), decision(OpId(4, 0), 6), "b is gone")
    assert course.outlived(OpId(5, 0))
    assert not course.outlived(OpId(4, 0))


def test_a_leaver_works_up_to_its_switch_round_and_goes_at_once_if_the_run_is_gone() -> None:
    course = member(view(1, (A, B), 0))
    course.leaving = True
    course.install(view(2, (B,), 4), None, "a leaves")
    assert isinstance(turn(course, 3), Go)
    assert isinstance(turn(course, 4), Gone)
    assert isinstance(turn(course, 3, apart="removed"), Gone)


def test_who_wants_to_leave_before_it_has_joined_just_goes() -> None:
    course = learner(view(1, (A, B), 0))
    course.leaving = True
    assert isinstance(turn(course, 0, apart="it leaves before it has joined"), Gone)


def test_who_is_alone_and_leaves_asks_nobody() -> None:
    course = member(view(1, (A,), 0))
    course.leaving = True
    assert isinstance(turn(course, 0), Gone)


def test_who_fell_out_without_wanting_to_is_told_so() -> None:
    assert turn(member(view(1, (A, B), 0)), 1, apart="its peer died") == Apart("its peer died")


def test_who_is_alone_knows_of_no_other_member_in_any_view_to_come() -> None:
    course = member(view(1, (A,), 0))
    assert course.alone
    course.install(view(2, (A,), 3, (C,)), None, "c starts to learn")
    assert course.alone
    course.install(view(3, (A, C), 3), None, "c joins")
    assert not course.alone
    course.install(view(4, (A,), 5), None, "c leaves")
    course.enter(3)
    assert not course.alone
    course.enter(5)
    assert course.alone
