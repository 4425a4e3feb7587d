"""``lightning-chaos plan``: what it prints and draws, and its one line for every bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lightning_chaos import cli
from lightning_chaos.plan.cluster_file import read_cluster
from lightning_chaos.planning.policies import POLICIES

EXAMPLES = Path(__file__).parent.parent / "examples/clusters"
GOOD = """\
members: [a, b]
newcomers: [new]
state_mb: 64
shard_kib: [1024, 512]
links:
  a -> new: {rate_mbit: 100, latency_ms: 0}
  b <-> new: {rate_mbit: 300, latency_ms: 0}
"""


def plan(cluster: Path, *options: str) -> str:
    """What the command prints when all is well."""
    result = CliRunner().invoke(cli.main, ["plan", str(cluster), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def failing(cluster: Path, *options: str) -> str:
    """What it says when it fails as it should: one line, exit code 2."""
    result = CliRunner().invoke(cli.main, ["plan", str(cluster), *options])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("lightning-chaos: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def row(printed: str, first: str) -> list[str]:
    """The cells of the table's row that begins with this one."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines())
    return next(cells for cells in rows if cells and cells[0] == first)


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Two newcomers with a fast link between them."""
    path = tmp_path / "twins.yaml"
    path.write_text(
        GOOD.replace("[new]", "[new, two]") + "  a -> two: {rate_mbit: 100, latency_ms: 0}\n"
        "  b -> two: {rate_mbit: 300, latency_ms: 0}\n"
        "  new <-> two: {rate_mbit: 1000, latency_ms: 0}\n"
        "caps: {a: {up_mbit: 100}, b: {up_mbit: 300}}\n"
    )
    return path


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD)
    return path


def test_the_schedule_the_prediction_and_all_policies_are_shown(cluster: Path) -> None:
    printed = plan(cluster)
    # 123 shards of 512 KiB over 100 and 300 Mbit/s: 31 and 92, the slower done last
    assert row(printed, "a") == ["a", "100", "0.000 s", "31", "16.3", "25.2%", "1.300 s"]
    assert row(printed, "b") == ["b", "300", "0.000 s", "92", "48.2", "74.8%", "1.286 s"]
    assert "predicted 1.300 s; bound 1.280 s (1.016 × of it)" in printed
    assert row(printed, "elan") == ["elan", "b alone", "1.707 s", "1.333", "1.707 s"]
    assert row(printed, "autoscaling")[2] == "2.560 s"
    assert row(printed, "autoscaling-counts")[1].startswith("a split by tensors needs the size")
    assert {name for name in POLICIES if row(printed, name)} == set(POLICIES)


def test_another_policys_schedule_is_shown_if_asked_for(cluster: Path) -> None:
    printed = plan(cluster, "--policy", "autoscaling")
    assert row(printed, "a") == ["a", "100", "0.000 s", "", "32.0", "50.0%", "2.560 s"]
    assert "predicted 2.560 s; bound 1.280 s (2.000 × of it)" in printed


def test_the_solver_proves_the_same_time(cluster: Path) -> None:
    printed = " ".join(plan(cluster, "--exact").split())
    assert "no schedule of whole shards ends before 1.300234 s (shards of 512 KiB)" in printed
    assert "the greedy's ends at 1.300234 s" in printed


def test_the_solver_is_asked_about_the_rates_that_fit_the_newcomers_card(cluster: Path) -> None:
    cluster.write_text(GOOD + "caps: {new: {down_mbit: 200}}\n")
    printed = " ".join(plan(cluster, "--exact").split())
    _, _, told = printed.partition("ends before ")
    assert told.split(" s ")[0] in told.partition("the greedy's ends at ")[2]


@pytest.mark.parametrize("name", ["chart.png", "chart"])
def test_the_donors_are_drawn_into_the_file_that_is_named(
    cluster: Path, tmp_path: Path, name: str
) -> None:
    chart = tmp_path / name
    assert f"chart: {chart}" in plan(cluster, "--plot", str(chart))
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["edge", "wan", "mixed"])
def test_the_examples_can_be_planned(name: str) -> None:
    printed = plan(EXAMPLES / f"{name}.yaml")
    assert float(printed.partition(" × of it")[0].rpartition("(")[2]) <= 1.05


def test_several_newcomers_pass_on_what_they_have() -> None:
    printed = plan(EXAMPLES / "mixed.yaml")
    assert "3 newcomers pull" in printed
    assert row(printed, "spot-2")[1] == "spot-1"
    assert {name for name in POLICIES if row(printed, name)} == set(POLICIES)


def test_under_the_policies_of_others_several_newcomers_share_the_donors(twins: Path) -> None:
    printed = plan(twins, "--policy", "elan")
    # b alone, 64 MB at half of 300 Mbit/s for each of the two: a alone has only 100
    told = " ".join(printed.split())
    for newcomer in ("new", "two"):
        assert f"elan: {newcomer} pulls 64.0 MB, b alone ┏" in told
    assert row(printed, "b") == ["b", "150", "0.000 s", "", "64.0", "100.0%", "3.413 s"]
    assert "predicted 3.413 s" in printed
    assert row(printed, "elan")[2:] == ["3.413 s", "2.667", "3.413 s"]
    # half of it from a, at half of 100 Mbit/s
    assert row(printed, "autoscaling")[2] == "5.120 s"
    # written, 30 s, and read by four at 1 Gbit/s, once for all
    assert row(printed, "pollux")[2] == f"{30 + 5 * 0.512:.1f} s"


def test_under_elan_newcomers_take_different_members_where_that_is_quicker(twins: Path) -> None:
    text = twins.read_text().replace("a: {up_mbit: 100}, ", "")
    for way in ("a -> new", "a -> two"):
        text = text.replace(f"{way}: {{rate_mbit: 100", f"{way}: {{rate_mbit: 250")
    twins.write_text(text)
    printed = plan(twins, "--policy", "elan")
    # 64 MB each, one from b at 300, one from a at 250 Mbit/s
    assert row(printed, "elan")[1:] == ["b alone, a alone", "2.048 s", "3.200", "2.048 s"]


def test_the_solver_proves_what_each_of_several_newcomers_could_have_alone(twins: Path) -> None:
    printed = " ".join(plan(twins, "--exact").split())
    for newcomer in ("new", "two"):
        _, _, told = printed.partition(f"if {newcomer} pulls from donors alone and is the only one")
        assert "ends before 1.300234 s" in told


@pytest.mark.parametrize("policy", ["chaos", "elan"])
def test_what_several_newcomers_get_is_drawn(twins: Path, tmp_path: Path, policy: str) -> None:
    chart = tmp_path / "chart.svg"
    plan(twins, "--policy", policy, "--plot", str(chart))
    drawn = chart.read_text()
    ways = ["new → two", "two → new"] if policy == "chaos" else ["b → new", "b → two"]
    assert all(f"<!-- {way} -->" in drawn for way in ways)
    assert f"{policy}: each of new, two has its state after" in drawn


def test_a_number_may_have_an_exponent(cluster: Path) -> None:
    cluster.write_text(GOOD.replace("rate_mbit: 100", "rate_mbit: 1e2"))
    assert row(plan(cluster), "a")[1] == "100"


def test_a_state_of_many_shards_takes_no_longer(cluster: Path) -> None:
    cluster.write_text(GOOD.replace("state_mb: 64", "state_mb: 1e12"))
    assert row(plan(cluster), "chaos-v1")[3] == "1.000"


def test_a_name_is_shown_as_it_is(cluster: Path, tmp_path: Path) -> None:
    text = GOOD.replace("[a, b]", r"['[/a]', '$\oops$']")
    text = text.replace("a -> new:", "'[/a] -> new':").replace("b <->", r"$\oops$ <->")
    cluster.write_text(text)
    printed = plan(cluster, "--plot", str(tmp_path / "x.png"))
    assert row(printed, "[/a]")[1] == "100"
    assert row(printed, r"$\oops$")[1] == "300"


def test_the_file_is_read_as_it_is_meant(cluster: Path) -> None:
    cluster.write_text(GOOD + "release_ms: {a: 50}\noverhead_ms: 2\ncaps: {b: {up_mbit: 80}}\n")
    (a, b) = read_cluster(cluster).scene("new").donors
    assert (a.rate_bytes_per_s, a.release_s, a.overhead_s) == (12.5e6, 0.05, 0.002)
    assert b.rate_bytes_per_s == 10e6


BAD = {
    "zero rate": ("rate_mbit: 100", "rate_mbit: 0", "link a -> new: 0.0 Mbit/s is not a rate"),
    "negative rate": ("rate_mbit: 100", "rate_mbit: -5", "link a -> new: -5.0 Mbit/s"),
    "NaN rate": ("rate_mbit: 100", "rate_mbit: .nan", "link a -> new: nan Mbit/s"),
    "no rate": ("rate_mbit: 100, ", "", "missing required field `rate_mbit`"),
    "no donor": ("members: [a, b]", "members: []", "no donor"),
    "no newcomer": ("newcomers: [new]", "newcomers: []", "newcomers: none"),
    "nobody's newcomer": ("a -> new: ", "a -> b: ", "newcomer new is disconnected"),
    "empty state": ("state_mb: 64", "state_mb: 0", "the state is empty"),
    "negative state": ("state_mb: 64", "state_mb: -1", "state_mb: -1.0 MB"),
    "NaN state": ("state_mb: 64", "state_mb: .nan", "state_mb: nan MB"),
    "no state": ("state_mb: 64\n", "", "give the size of the state once"),
    "no size of a state": ("state_mb: 64", "state_mb: 1e308", "state_mb: 1e+308 MB"),
    "no size of a tensor": ("state_mb: 64", "tensors_mb: [1e308]", "tensors_mb: 1e+308 MB"),
    "rate that is none": ("rate_mbit: 100", "rate_mbit: 1e-320", "link a -> new: 1e-320 Mbit/s"),
    "rate in words": ("rate_mbit: 100", "rate_mbit: fast", "Expected `float`, got `str`"),
    "two states": ("state_mb: 64", "state_mb: 64\ntensors_mb: [64]", "give the size of the state"),
    "shard over the state": ("[1024, 512]", "[65536]", "is more than the 64000000 in all"),
    "no chain": ("[1024, 512]", "[1024, 500]", "each a divisor of the one before"),
    "two of one name": ("[a, b]", "[a, b, a]", "two members have the name a"),
    "newcomer and member": ("[a, b]", "[a, b, new]", "two members have the name new"),
    "link of a stranger": ("a -> new", "c -> new", "c is not a member of the cluster"),
    "no arrow": ("a -> new", "a - new", "'a - new' names no link"),
    "link twice": ("a -> new", "b -> new", "links: b -> new is given twice"),
    "link twice in one spelling": (
        "  b <->",
        "  a -> new: {rate_mbit: 1, latency_ms: 0}\n  b <->",
        "a -> new is given twice",
    ),
    "field twice": ("state_mb: 64", "state_mb: 64\nstate_mb: 6", "state_mb is given twice"),
    "late stranger": ("state_mb", "release_ms: {c: 1}\nstate_mb", "release_ms is given for c"),
    "negative release": ("state_mb", "release_ms: {a: -1}\nstate_mb", "donor a: release"),
    "negative overhead": ("state_mb", "overhead_ms: -1\nstate_mb", "overhead of -0.001 s"),
    "capless": ("state_mb", "caps: {new: {down_mbit: 0}}\nstate_mb", "caps of new"),
    "bad costs": ("state_mb", "costs: {store_mbit: 0}\nstate_mb", "store_mbit"),
    "unknown field": ("state_mb", "colour: red\nstate_mb", "unknown field `colour`"),
    "no YAML": ("members: [a, b]", "members: [a, b", "is not a cluster file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_says_what_is_wrong(cluster: Path, case: str) -> None:
    good, bad, told = BAD[case]
    text = GOOD.replace(good, bad, 1)
    if case == "nobody's newcomer":
        text = text.replace("b <-> new", "new -> b")
    assert text != GOOD
    cluster.write_text(text)
    assert told in failing(cluster)


def test_a_missing_file_is_an_error_of_use(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["plan", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [("pulp", ("--exact",), "[exact]"), ("matplotlib.figure", ("--plot", "x.png"), "[plot]")],
)
def test_a_missing_library_is_told_with_the_way_to_get_it(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, module: str, options: tuple[str], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(cli.main, ["plan", str(cluster), *options])
    assert result.exit_code == 2
    assert extra in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_policy_without_donors_cannot_be_drawn(cluster: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli.main, ["plan", str(cluster), "--policy", "edl", "--plot", str(tmp_path / "x.png")]
    )
    assert told.exit_code == 2
    assert "edl has no schedule of donors to draw" in told.stderr


@pytest.mark.parametrize("name", ["nowhere/x.png", "x.nonsense", None])
def test_a_chart_that_cannot_be_written_is_one_line(
    cluster: Path, tmp_path: Path, name: str | None
) -> None:
    chart = str(tmp_path / name) if name else ""
    assert "the chart cannot be written" in failing(cluster, "--plot", chart)
