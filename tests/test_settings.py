"""Arguments and variables: which wins, what is filled in, and what is said of a wrong one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_chaos import ChaosStrategy
from lightning_chaos.errors import AddressError, ChaosError, ConfigError
from lightning_chaos.skin.settings import resolve


def test_nothing_given_is_a_run_of_ones_own_on_loopback() -> None:
    settings = resolve({})
    assert settings.host == "127.0.0.1"
    assert (settings.port, settings.peers, settings.min_members) == (0, (), 1)
    assert settings.link_rate_bytes_per_s is None
    assert not settings.insecure
    assert settings.run == resolve({}).run


def test_variables_fill_in_what_is_left_out() -> None:
    settings = resolve(
        {
            "CHAOS_RUN": "r",
            "CHAOS_NODE": "n",
            "CHAOS_PEERS": "127.0.0.1:5000, localhost:5001,",
            "CHAOS_PORT": "7000",
            "CHAOS_MIN_MEMBERS": "3",
            "CHAOS_TIMEOUT": "0.5",
            "CHAOS_WORKER_TIMEOUT": "60",
            "CHAOS_QUORUM_TIMEOUT": "90",
            "CHAOS_LINGER": "0",
            "CHAOS_LINK_RATE": "8",
            "CHAOS_LOG": "logs",
            "CHAOS_JOIN_AT": "12",
            "CHAOS_SAVERS": "2",
            "CHAOS_VERIFY_EVERY": "5",
        }
    )
    assert (settings.run, settings.node, settings.port) == ("r", "n", 7000)
    assert [str(address) for address in settings.peers] == ["127.0.0.1:5000", "localhost:5001"]
    assert (settings.min_members, settings.join_at_round, settings.savers) == (3, 12, 2)
    assert (settings.timeout_s, settings.worker_timeout_s, settings.linger_s) == (0.5, 60, 0)
    assert (settings.verify_every, settings.quorum_timeout_s) == (5, 90)
    assert settings.link_rate_bytes_per_s == 1e6
    assert settings.log_dir == "logs"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CHAOS_MIN_MEMBER", "CHAOS_MIN_MEMBERS"),
        ("CHAOS_PEER", "CHAOS_PEERS"),
        ("CHAOS_LOG_DIR", "CHAOS_LOG"),
        ("CHAOS_JOIN_AT_ROUND", "CHAOS_JOIN_AT"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} means nothing: write {meant}, or"):
        resolve({name: "1"})


def test_variables_of_others_are_nobodys_business() -> None:
    resolve({"CHAOS_MONKEY": "1", "CHAOS_FAULTS_SEED": "2", "MYCHAOS_PEER": "3"})


def test_a_side_without_a_quorum_waits_unless_told_otherwise() -> None:
    assert resolve({}).quorum == "majority"
    assert resolve({"CHAOS_QUORUM": "any"}).quorum == "any"
    assert resolve({"CHAOS_QUORUM": "any"}, quorum="majority").quorum == "majority"
    with pytest.raises(ConfigError, match=r"quorum='some'.*CHAOS_QUORUM.*majority, any"):
        resolve({}, quorum="some")


def test_arguments_win_over_variables(tmp_path: Path) -> None:
    environ = {"CHAOS_RUN": "r", "CHAOS_PORT": "7000", "CHAOS_PEERS": "nonsense", "CHAOS_LOG": "x"}
    settings = resolve(
        environ, run="mine", port=0, peers=["127.0.0.1:1"], insecure=False, log_dir=tmp_path
    )
    assert (settings.run, settings.port, settings.log_dir) == ("mine", 0, str(tmp_path))
    assert [str(address) for address in settings.peers] == ["127.0.0.1:1"]


def test_the_default_run_goes_by_script(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = set()
    for script in ("/somewhere/one.py", "/somewhere/two.py"):
        monkeypatch.setattr(sys, "argv", [script])
        runs.add(resolve({}).run)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("environ", "arguments", "said"),
    [
        ({"CHAOS_PORT": "http"}, {}, "CHAOS_PORT='http' is not a number"),
        ({"CHAOS_PORT": "70000"}, {}, "CHAOS_PORT='70000' is out of range: 0 to 65535"),
        ({"CHAOS_PORT": "nan"}, {}, "CHAOS_PORT='nan'"),
        ({"CHAOS_MIN_MEMBERS": "inf"}, {}, "CHAOS_MIN_MEMBERS='inf'"),
        ({"CHAOS_MIN_MEMBERS": "0"}, {}, "CHAOS_MIN_MEMBERS='0' is out of range: 1 to 10000"),
        ({"CHAOS_MIN_MEMBERS": "1e30"}, {}, "CHAOS_MIN_MEMBERS='1e30' is out of range"),
        ({"CHAOS_MIN_MEMBERS": "1.5"}, {}, "CHAOS_MIN_MEMBERS='1.5' must be a whole number"),
        ({"CHAOS_TIMEOUT": "0"}, {}, "CHAOS_TIMEOUT='0' is out of range"),
        ({"CHAOS_TIMEOUT": "nan"}, {}, "CHAOS_TIMEOUT='nan'"),
        ({"CHAOS_WORKER_TIMEOUT": "-1"}, {}, "CHAOS_WORKER_TIMEOUT='-1' is out of range"),
        ({"CHAOS_QUORUM_TIMEOUT": "0"}, {}, "CHAOS_QUORUM_TIMEOUT='0' is out of range"),
        ({"CHAOS_JOIN_AT": "-2"}, {}, "CHAOS_JOIN_AT='-2' is out of range"),
        ({"CHAOS_LINGER": "soon"}, {}, "CHAOS_LINGER='soon' is not a number"),
        ({"CHAOS_LINK_RATE": "-8"}, {}, "CHAOS_LINK_RATE='-8' is out of range"),
        ({"CHAOS_INSECURE": "maybe"}, {}, "CHAOS_INSECURE='maybe': write 1 or 0"),
        ({"CHAOS_JOIN_AT": "x"}, {}, "CHAOS_JOIN_AT='x' is not a number"),
        ({"CHAOS_VERIFY_EVERY": "-1"}, {}, "CHAOS_VERIFY_EVERY='-1' is out of range: at least 0"),
        ({}, {"port": -1}, "port=-1 is out of range"),
        ({}, {"min_members": 0}, "min_members=0 is out of range"),
        ({}, {"savers": 0}, "savers=0 is out of range"),
        ({}, {"timeout": float("inf")}, "timeout=inf"),
        ({}, {"buffers": "median"}, "buffers='median': choose one of mean, first, local"),
        ({}, {"node": "a/b"}, "must not contain a slash"),
        ({"CHAOS_NODE": "a\udcff"}, {}, r"'a\udcff' (node=, CHAOS_NODE) cannot be a name"),
        ({}, {"run": "a\nb"}, r"'a\nb' (run=, CHAOS_RUN) cannot be a name"),
    ],
)
def test_what_cannot_work_is_named(
    environ: dict[str, str], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(environ, **arguments)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["here", "here:", ":5000", "here:port", "here:70000", "h:1:2"])
def test_a_malformed_address_is_named(text: str) -> None:
    with pytest.raises(AddressError) as error:
        resolve({"CHAOS_PEERS": f"127.0.0.1:5000,{text}"})
    assert text in str(error.value)


def test_whoever_is_not_on_this_machine_needs_a_word_of_consent() -> None:
    for arguments in ({"peers": "192.0.2.1:5000"}, {"host": "0.0.0.0"}):
        with pytest.raises(AddressError, match="insecure=True or set CHAOS_INSECURE=1"):
            resolve({}, **arguments)
        assert resolve({"CHAOS_INSECURE": "1"}, **arguments).insecure


def test_the_strategy_complains_before_anything_starts() -> None:
    with pytest.raises(ChaosError, match="min_members=0"):
        ChaosStrategy(min_members=0)
    with pytest.raises(TypeError, match="min_member"):
        ChaosStrategy(min_member=2)
