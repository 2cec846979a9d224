"""`bench reproduce` finds data of one's own that lie elsewhere now."""

from pathlib import Path

import numpy as np
import pytest

from bench.data import inspect_file
from bench.results import check_data
from bench.storage import RunRecord, collect_provenance, record_data, write_run

from .make_runs import cell, make_run


@pytest.mark.parametrize("by", ["path", "name"])
def test_moved_data_are_found_where_they_are(by: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    states = np.arange(12.0).reshape(6, 2)
    np.savez(old / "swing.npz", observations=states, actions=0 * states, terminals=[0, 0, 1] * 2)
    fingerprint = inspect_file(old / "swing.npz").fingerprint
    run = make_run(tmp_path / "run", [(cell(), {100: 45})])
    write_run(run, RunRecord(["bench"], {}, collect_provenance([])))
    dataset = str(old / "swing.npz") if by == "path" else "swing"
    origin = {"fingerprint": fingerprint, "source": "imported", "folder": str(old)}
    record_data(run, dataset, origin)
    assert [check.found for check in check_data(run)] == [old]
    old.rename(new)
    (lost,) = check_data(run)
    assert lost.found is None
    assert "swing" in lost.problem
    assert "not a dataset name" not in lost.problem
    assert [check.found for check in check_data(run, new)] == [new]
