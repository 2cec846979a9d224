"""Names of version 0.1: accepted with a warning, and kept in files."""

import warnings
from dataclasses import dataclass

import pytest

from bench import suites
from bench.agents import AGENTS, TRQAMConfig
from bench.agents.settings import setting
from bench.cli import _warnings_in_a_line
from bench.cli._options import build
from bench.cli.offline import Offline
from bench.experiment import OfflineRequest, SweepRequest, build_request
from bench.recorded import FORMER, former_names, recorded
from bench.speed.__main__ import parse
from bench.suites import Domain
from bench.training.settings import parse_overrides, resolve
from bench.training.sweep import plan_sweep

DOMAIN = Domain("pointmaze-medium-navigate", 100_000)


def test_an_option_by_its_former_name() -> None:
    with pytest.warns(FutureWarning, match="--horizon is now --chunk-length; version 0.3"):
        assert build(Offline, ["--horizon", "3"], "bench offline").chunk_length == 3
    with pytest.warns(FutureWarning, match="--critics is now --num-critics"):
        assert parse(["--critics=4"]).num_critics == 4
    with pytest.warns(FutureWarning, match="horizon is now chunk_length"):
        assert build_request(OfflineRequest, None, {"horizon": 2}).chunk_length == 2


@pytest.mark.parametrize("agent", AGENTS)
def test_a_setting_by_its_former_name(agent: str) -> None:
    config = AGENTS[agent].config
    for former, today in former_names(config).items():
        with pytest.warns(FutureWarning, match=f"{former} is now {today}"):
            given = parse_overrides(config, agent, [f"{former}=1"])
        assert given == {today: 1}
        with pytest.warns(FutureWarning, match=f"{former} is now {today}"):
            found = resolve(config, agent, DOMAIN, {former: 1})
        assert getattr(found, today) == 1
    settings = {"critics": 2, "discount": 0.9}  # of a suite from outside
    if "num_critics" in AGENTS[agent].settings:
        with pytest.warns(FutureWarning, match="critics is now num_critics"):
            found = resolve(config, agent, Domain("mine", 10, settings=settings), {})
        assert found.num_critics == 2


def test_files_keep_the_names_of_the_first_version() -> None:
    assert set(FORMER.values()) - {"horizon"} <= recorded(TRQAMConfig()).keys()
    assert not recorded(TRQAMConfig()).keys() & FORMER.keys()
    assert recorded(TRQAMConfig(rho=0.25))["pessimism"] == 0.25
    assert recorded(Domain("mine", 10, 5))["horizon"] == 5


def test_sweeps_go_on_in_their_folders() -> None:
    request = SweepRequest(suite="quick", preset="smoke", over=("critics=2,3",), device="cpu")
    with pytest.warns(FutureWarning, match="critics is now num_critics"):
        former = plan_sweep(request)
    today = plan_sweep(
        SweepRequest(suite="quick", preset="smoke", over=("num-critics=2,3",), device="cpu")
    )
    assert [pack.name for pack in former.packs] == [pack.name for pack in today.packs]
    assert {pack.variant for pack in today.packs} == {("critics=2",), ("critics=3",)}
    assert {today.configs[pack.name].num_critics for pack in today.packs} == {2, 3}


@dataclass(frozen=True)
class TheirConfig:
    """A config from outside, some of whose settings happen to have such names."""

    critics: int = setting(3, "of the gods")
    tau: float = 0.5


def test_names_of_others_are_their_own() -> None:
    assert former_names(TheirConfig) == {}
    assert recorded(TheirConfig()) == {"critics": 3, "tau": 0.5}
    assert parse_overrides(TheirConfig, "theirs", ["critics=4", "tau=0.25"]) == {
        "critics": 4,
        "tau": 0.25,
    }
    # Beside an agent of ours the name means theirs.
    assert "critics" not in former_names(TheirConfig, TRQAMConfig)


def test_classes_of_suites_by_their_former_names() -> None:
    with pytest.warns(FutureWarning, match=r"bench\.suites\.Protocol is now .*TrainingProtocol"):
        former: object = suites.Protocol
    assert former is suites.TrainingProtocol
    with pytest.raises(AttributeError, match="no attribute 'Protocoll'"):
        suites.Protocoll  # noqa: B018


def test_users_see_one_line() -> None:
    usual = warnings.formatwarning
    with _warnings_in_a_line():
        assert warnings.formatwarning("x", FutureWarning, "f.py", 1) == "warning: x\n"
        assert "f.py" in warnings.formatwarning("x", UserWarning, "f.py", 1)
    assert warnings.formatwarning is usual
