"""Run directories made by version 0.1 report, resume and act with the numbers that they had.

Made at commit befd8a2 by `bench offline --preset smoke --suite quick --tasks 1 --device cpu
--precision float32`, once to its end and once killed after update 12, and by `bench online` with
the same options. Host and folders are replaced; of the checkpoints the newest are kept, and of the
online run none. `actions.json` is what that version's policies did. These files are never made
again.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import bench
from bench.data import generate
from bench.export import find_policy
from bench.policies import Policy
from bench.results import TIMING_COLUMNS
from bench.storage import load_checkpoint, read_log

STORED = Path(__file__).parents[1] / "results" / "data" / "runs-0.1"
PACK = "pointmaze-medium-navigate--trqam--seeds-0"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finished", [("bc", "pretrain", 20, None), ("trqam", "offline", 20, 0.0011334977)]),
        (
            "online",
            [
                ("bc", "pretrain", 20, None),
                ("trqam", "offline", 20, 0.0011334977),
                ("trqam", "online", 40, 0.0013378809),
            ],
        ),
    ],
)
def test_reports_have_their_numbers(
    name: str, expected: list[tuple[str, str, int, float | None]], tmp_path: Path
) -> None:
    result = bench.report(STORED / name, out=tmp_path)
    assert result.complete
    assert result.failures == ()
    assert result.page is not None
    assert result.page.is_file()
    found = result.cells.select("agent", "phase", "step", "path_kl").rows()
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    for (*_, kl), (*_, known) in zip(found, expected, strict=True):
        assert kl == (None if known is None else pytest.approx(known, rel=1e-6))
    assert set(result.cells["return_mean"]) == {-1000.0}


@pytest.mark.parametrize(
    ("name", "agent", "key"),
    [
        ("finished", None, "finished"),
        ("interrupted", None, "interrupted"),
        ("finished", "bc", "finished bc"),
    ],
)
def test_policies_act_as_they_did(name: str, agent: str | None, key: str) -> None:
    known = json.loads((STORED / "actions.json").read_text())[key]
    trained = find_policy(STORED / name, agent=agent)
    assert (trained.phase, trained.step) == (known["phase"], known["step"])
    policy = Policy(trained)
    with torch.no_grad():
        actions = policy(*policy.example(3, seed=7))
    np.testing.assert_allclose(actions.flatten(1), known["actions"], rtol=0, atol=2e-6)


def test_a_loaded_policy_is_a_seeded_function_of_arrays_and_tensors() -> None:
    policy = bench.load_policy(STORED / "finished", task=1)
    assert "trqam on" in repr(policy)
    assert "offline step 20" in repr(policy)
    rows = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    chunk = policy(rows[0])
    assert chunk.shape == (policy.chunk_length, policy.action_dim) == (5, 2)
    assert chunk.dtype == np.float32
    assert np.abs(chunk).max() <= 1.0
    chunks = policy(torch.from_numpy(rows))
    assert isinstance(chunks, torch.Tensor)
    assert chunks.shape == (3, 5, 2)
    policy.reset(0)
    np.testing.assert_array_equal(policy(rows[0]), chunk)
    other = bench.load_policy(STORED / "finished", task=1, noise_seed=1)
    assert np.abs(other(rows[0]) - chunk).max() > 1e-3
    with pytest.raises(ValueError, match=r"expected observations of shape \(2,\)"):
        policy(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        policy(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="--agent bc or trqam"):
        bench.load_policy(STORED / "finished", agent="fql")


@pytest.mark.slow
def test_an_interrupted_run_resumes_by_a_call_that_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    shutil.copytree(STORED / "interrupted", tmp_path / "run")
    shutil.copytree(STORED / "pretrained", tmp_path / "pretrained")
    generate("pointmaze-medium-navigate-5k-v0", tmp_path / "data", transitions=5_000, processes=1)
    logger = logging.getLogger("bench")
    threads = max(1, torch.get_num_threads() - 1)
    torch.set_num_threads(threads)
    before = (os.environ.get("MUJOCO_GL"), list(logger.handlers), logger.level)
    random = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "bench.progress"):
        result = bench.offline(
            suite="quick",
            preset="smoke",
            tasks=1,
            device="cpu",
            precision="float32",
            out=str(tmp_path / "run"),
            data_dir=tmp_path / "data",
            progress="log",
        )
    assert (os.environ.get("MUJOCO_GL"), list(logger.handlers), logger.level) == before
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_float32_matmul_precision() == "highest"
    assert any("trqam on pointmaze-medium-navigate" in line for line in caplog.messages)
    assert result.complete

    whole = bench.report(STORED / "finished", out=tmp_path / "report")
    by = ["agent", "seed", "phase", "step"]
    # The clone of the stored run was found beside it, so that it logged no cloning.
    logged = (result.metrics, whole.metrics.filter(agent="trqam"))
    for mine, known in ((result.curves, whole.curves), logged):
        keys = [*by, *({"metric"} & set(mine.columns))]
        assert mine.select(keys).sort(keys).equals(known.select(keys).sort(keys))
        numbers = [
            name
            for name, kind in mine.schema.items()
            if kind.is_float() and name not in TIMING_COLUMNS
        ]
        np.testing.assert_allclose(
            mine.sort(keys).select(numbers).fill_null(0.0).to_numpy(),
            known.sort(keys).select(numbers).fill_null(0.0).to_numpy(),
            rtol=1e-3,
            atol=1e-5,
        )
    # The stored checkpoint of update 20 was trained without a break.
    place = Path("packs", PACK, "checkpoints")
    resumed, unbroken = (
        load_checkpoint(run / place, set_aside=False)
        for run in (tmp_path / "run", STORED / "finished")
    )
    assert resumed is not None
    assert unbroken is not None
    assert resumed.step == unbroken.step == 20
    assert set(resumed.tensors) == set(unbroken.tensors)
    for name, tensor in unbroken.tensors.items():
        torch.testing.assert_close(resumed.tensors[name], tensor, rtol=1e-3, atol=1e-5)

    # The record has the command line that asks for the same.
    (event,) = (e for e in read_log(tmp_path / "run/log.jsonl") if e.get("event") == "continued")
    expected = "bench offline --suite quick --preset smoke --tasks 1 --out"
    assert " ".join(event["command"]).startswith(expected)
    assert isinstance(result.tasks, pl.DataFrame)
    result.show()
    assert "trqam" in result._repr_html_()
    assert bench.status(tmp_path / "run").runs["done"].to_list() == [2]
    same = bench.compare(tmp_path / "run", STORED / "finished")
    assert same.methods["difference"].to_list() == [0.0] * same.methods.height
    same.show()
