"""Run directories of version 0.1 go on: what it recorded is what the same command records now."""

import json
from pathlib import Path

from bench.experiment import OnlineRequest
from bench.recorded import recorded
from bench.results._protocol import protocol_differences
from bench.storage import PlannedCell, RunRecord, read_run
from bench.suites import SUITES
from bench.training.online_options import plan_online
from bench.training.recorder import protocol_fingerprint

STORED = Path(__file__).parents[1] / "results" / "data" / "runs-2026-11" / "online"


def test_the_same_command_records_the_same_settings_and_fingerprints() -> None:
    agents = ("fql", "rebrac", "rlpd")
    request = OnlineRequest(suite="quick", preset="smoke", agent=agents, tasks=(1,), processes=1)
    plan = plan_online(request)
    settings = json.loads(json.dumps(plan.settings()))
    stored = read_run(STORED).settings
    for found, theirs in ((settings, stored), (settings["online"], stored["online"])):
        assert found["protocol"] == theirs["protocol"]
        for name, pack in theirs["packs"].items():
            assert found["packs"][name] == pack
    # As version 0.1 printed them.
    fingerprints = {
        "bc--seeds-0": "35ff61d6dfbefda5",
        "fql--seeds-0": "5e0e440dc689c21a",
        "rebrac--seeds-0": "d249b610098b3537",
        "fql--seeds-0--online": "d61b879b48a68aef",
        "rebrac--seeds-0--online": "41867dadd865a0ae",
        "rlpd--seeds-0--online": "89eca01e5153fe03",
    }
    assert {
        pack.name.partition("--")[2]: protocol_fingerprint(pack, plan.configs[pack.name])
        for pack in plan.in_order
    } == fingerprints


def test_an_online_phase_of_version_0_1_is_not_by_the_published_protocol() -> None:
    name = "cube-quadruple-play"
    suite = SUITES["ogbench50"]
    protocol = recorded(suite.protocol)
    del protocol["online"]
    online = {"steps": 500_000, "warm_up": 5_000, "updates_per_step": 1, "replay": "auto"}
    pack = {"agent": "trqam", "dataset": suite.domain(name).dataset}
    settings = {
        "suite": "ogbench50",
        "protocol": protocol,
        "packs": {"offline": pack},
        "online": {"protocol": online, "packs": {"online": pack}},
    }
    cells = [
        PlannedCell("ogbench50", name, f"{name}-1", "trqam", 0, {phase: 1}, phase, "")
        for phase in ("offline", "online")
    ]
    assert protocol_differences(RunRecord([], settings, {}, cells)) == {
        "offline": "",
        "online": "online data all instead of shard; online warm up 5,000 instead of 4,999",
    }
