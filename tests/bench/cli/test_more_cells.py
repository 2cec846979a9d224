"""One run directory takes more agents, seeds, tasks and phases; what is in it stays as it is."""

import itertools
import random
from pathlib import Path

import polars as pl
import pytest

from bench.cli import main
from bench.data import generate
from bench.experiment import OfflineRequest
from bench.results import TIMING_COLUMNS, final_table
from bench.storage import read_run
from bench.training.options import plan_offline
from bench.training.run_record import record_plan


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    return place


def contents(out: Path) -> dict[Path, tuple[int, int]]:
    """Every file of the packs, with its size and time."""
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in out.glob("packs/*/checkpoints/**/*")
        if file.is_file()
    }


def rows(out: Path, pack: str) -> pl.DataFrame:
    return pl.read_parquet(out / "packs" / pack / "evaluations.parquet").drop(TIMING_COLUMNS)


def test_what_follows_a_first_run_goes_into_its_directory(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    places = ["--preset", "smoke", "--out", str(out), "--data-dir", str(data_dir)]
    assert main(["offline", "--tasks", "1", *places]) == 0
    first = read_run(out)
    before = contents(out)
    known = {pack: rows(out, pack) for pack in first.packs}

    more = ["offline", "--agent", "trqam,rebrac", "--seeds", "2", "--processes", "1", *places]
    assert main([*more, "--dry-run"]) == 0
    assert "pointmaze-medium-navigate--trqam--seeds-0" in capsys.readouterr().out
    assert main(more) == 0
    cells = final_table([out]).cells.filter(phase="offline")
    assert cells["finished"].all()
    assert cells.height == 2 * 2 * 2
    assert before.items() <= contents(out).items()
    assert all(rows(out, pack).equals(known[pack]) for pack in known)
    record = read_run(out)
    assert record.packs.keys() > first.packs.keys()
    assert not record.further  # this command alone makes all that there is
    ran = [(cell.task, cell.agent, cell.seed) for cell in record.cells]
    assert len(ran) == len(set(ran)) == 12

    # Either command again is a continuation, and adds nothing.
    after, text = contents(out), (out / "run.json").read_text()
    assert main(["offline", "--tasks", "1", *places]) == 0
    assert main([*more, "--pack", "1"]) == 0
    assert contents(out) == after
    assert (out / "run.json").read_text() == text

    steps = ["--online-steps", "20", "--warm-up", "10"]
    assert main(["online", "--seeds", "2", "--processes", "1", *steps, *places]) == 0
    assert after.items() <= contents(out).items()
    online = final_table([out]).cells.filter(phase="online")
    assert set(online["agent"]) == {"trqam"}
    assert online.height == 4

    assert len(read_run(out).further) == 1
    capsys.readouterr()
    main(["reproduce", str(out)])
    commands = [line for line in capsys.readouterr().out.splitlines() if line[:1] != "#"]
    assert len(commands) == 2
    for other, said in (
        (["--kl-budget", "1"], "--kl-budget: 0.4 there, 1.0 asked for"),
        (["--first-seed", "7", "--kl-budget", "1"], "--kl-budget: 0.4 there"),
        (["--episodes", "3"], "--episodes: 2 there, 3 asked for"),
    ):
        assert main(["offline", *other, *places]) == 2
        assert said in capsys.readouterr().err
    assert contents(out).items() >= after.items()

    # What another command has left to do there is not this one's failure.
    request = OfflineRequest(preset="smoke", out=out, data_dir=data_dir, seeds=3, device="cpu")
    record_plan(plan_offline(request), ["bench", "offline", "--seeds", "3"])
    assert not final_table([out]).coverage.complete
    assert main(["offline", "--tasks", "1", *places]) == 0
    assert contents(out).items() >= after.items()


def test_packs_never_share_a_run_whatever_is_asked_for_in_turn(tmp_path: Path) -> None:
    chance = random.Random(3)
    for trial in range(6):
        out = tmp_path / str(trial)
        asked: set[tuple[str, int, int]] = set()
        known: set[str] = set()
        for _ in range(4):
            request = OfflineRequest(
                preset="smoke",
                out=out,
                agent=tuple(chance.sample(["trqam", "qam", "bc"], chance.randint(1, 2))),
                tasks=chance.choice([(), (1,), (2,)]),
                seeds=chance.randint(1, 3),
                first_seed=chance.randint(0, 2),
                pack=chance.choice([None, 1, 2, 3]),
                device="cpu",
            )
            plan = plan_offline(request)
            names = [pack.name for pack in plan.in_order]
            assert len(names) == len(set(names))
            assert set(names) == set(plan.configs)
            runs = [(c.agent, c.seed, c.task) for pack in plan.in_order for c in pack.cells]
            assert len(runs) == len(set(runs))
            seeds = range(request.first_seed, request.first_seed + request.seeds)
            wanted = set(itertools.product({*request.agent, "bc"}, seeds, request.tasks or (1, 2)))
            assert wanted <= set(runs)
            for pack in plan.packs:
                clones = plan.pretraining_of(pack)
                assert {s for clone in clones for s in clone.seeds} >= set(pack.seeds)
                assert set(pack.domain.tasks) <= set(plan.suite.domains[0].tasks)
            record_plan(plan, ["bench", "offline"])
            record = read_run(out)
            assert known <= record.packs.keys()
            known = set(record.packs)
            asked |= wanted
            listed = [(c.agent, c.seed, c.task.rpartition("task")[2]) for c in record.cells]
            assert len(listed) == len(set(listed))
            assert asked <= {(a, s, int(t.partition("-")[0])) for a, s, t in listed}
            made = out / "packs" / names[0] / "checkpoints" / "step-000000000"
            made.mkdir(parents=True, exist_ok=True)
            (made / "manifest.json").touch()  # trained, as far as plans are concerned
