"""What members compute together is what one process computes with the union of their batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from cluster_fixtures import BOUND_S, SCRIPTS, MakeCluster, cluster
from scripts.exercise import CASES, Batch, Case, Lesson
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import ExponentialLR

from lightning_chaos.data.ledger import micro_batches, positions
from lightning_chaos.data.loader import permutation
from lightning_chaos.demo.checks import check_once, digests, stable_rounds
from lightning_chaos.monitor.runlog import LogEvent

__all__ = ["cluster"]


def fits_of(events: Sequence[LogEvent], node: str) -> list[list[LogEvent]]:
    """One node's events, a list for each fit."""
    fits: list[list[LogEvent]] = [[]]
    for event in events:
        if event.node == node:
            fits[-1].append(event)
            if event.event == "end":
                fits.append([])
    return fits[:-1]


def shares(case: Case, event: LogEvent) -> list[Batch]:
    """The micro-batches of a round that count, of all members."""
    data = case.loader().dataset
    order = permutation(event["seed"], event["data_epoch"], case.size, event["shuffle"])
    count = case.trainer_arguments.get("accumulate_grad_batches", 1)
    found = []
    for ranges in event["ranges"]:
        share = positions(tuple((a, b) for a, b in ranges))
        for micro in micro_batches(share, case.batch, count, case.size):
            if not micro.is_idle:
                found.append(list(data[order[list(micro.positions)]]))
    return found


def compute_again(case: Case, rounds: Sequence[LogEvent]) -> Lesson:
    """The same rounds in plain torch: each a step on the mean over all its samples."""
    module = case.module()
    optimizers = module.optimizers_made()
    schedulers = [ExponentialLR(optimizers[0], 0.97)] if module.automatic_optimization else []
    for event in rounds:
        batches = [b for b in shares(case, event) if module.speaks(b)]
        if not batches:
            continue
        for which, optimizer in enumerate(optimizers):

            def closure(which: int = which, batches: list[Batch] = batches) -> torch.Tensor:
                module.zero_grad()
                total = sum(len(b[0]) for b in batches)
                losses = [module.losses(b)[which] * len(b[0]) / total for b in batches]
                loss = torch.stack(losses).sum()
                loss.backward()
                clip(module, case.trainer_arguments)
                return loss

            optimizer.step(closure)
        for scheduler in schedulers:
            scheduler.step()
    return module


def clip(module: Lesson, arguments: dict[str, Any]) -> None:
    limit = arguments.get("gradient_clip_val")
    if limit and arguments.get("gradient_clip_algorithm") == "value":
        clip_grad_value_(module.parameters(), limit)
    elif limit:
        clip_grad_norm_(module.parameters(), limit)


def test_two_members_compute_the_mean_over_the_union_of_their_batches(
    cluster: MakeCluster,
) -> None:
    run = cluster(*CASES, script=SCRIPTS / "exercise.py", CHAOS_MIN_MEMBERS="2")
    run.start("a", "b")
    for node in ("a", "b"):
        assert run.wait_exit(node, 2 * BOUND_S) == 0, run.tail(node, 40)
    fits = {node: fits_of(run.events, node) for node in ("a", "b")}
    for place, (name, case) in enumerate(CASES.items()):
        events = [e for node in fits for e in fits[node][place]]
        assert len(set(digests(events).values())) == 1, name
        states = [torch.load(run.log_dir / f"{node}.{name}.pt") for node in fits]
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0]), name
        rounds = [e for e in fits["a"][place] if e.event == "round"]
        assert {len(e["members"]) for e in rounds} == {2}, name
        stable, failures = stable_rounds(events)
        assert not failures, name
        epochs, missing = check_once(stable)
        if case.loader_arguments.get("drop_last"):
            assert {e.committed for e in epochs} == {61 // 16 * 16}
        else:
            assert not missing, name
        if name != "normed":  # its members' batches are normalised each by itself
            expected = compute_again(case, rounds).state_dict()
            for key, value in expected.items():
                torch.testing.assert_close(states[0][key], value, rtol=1e-4, atol=1e-6, msg=name)


def test_members_that_do_not_step_alike_hear_of_it(cluster: MakeCluster) -> None:
    run = cluster("skipping alone", script=SCRIPTS / "exercise.py", CHAOS_MIN_MEMBERS="2")
    run.start("a", "b")
    for node in ("a", "b"):
        assert run.wait_exit(node, BOUND_S) == 1
        said = run.tail(node, 1)
        assert "OperationMismatch" in said
        assert "a manual training_step without gradients" in said
