"""The precision of a plan is that of its products."""

from dataclasses import replace

import pytest
import torch

from bench.experiment import OfflineRequest
from bench.training.job import Job
from bench.training.options import plan_offline
from bench.training.precision import autocast, float32_products


def test_a_job_multiplies_in_the_precision_of_its_plan() -> None:
    plan = plan_offline(OfflineRequest(preset="smoke"))
    before = torch.get_float32_matmul_precision()
    with Job(plan).training(0):
        assert torch.get_float32_matmul_precision() == "highest"
    gpu = replace(plan, device=torch.device("cuda"), precision="tf32")
    with Job(gpu).training(0):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_only_bfloat16_casts() -> None:
    device = torch.device("cpu")
    for precision in ("float32", "tf32", "bfloat16"):
        with autocast(precision, device):
            assert torch.is_autocast_enabled("cpu") == (precision == "bfloat16")
    with pytest.raises(ValueError, match="tf32 needs a GPU"), float32_products("tf32", device):
        pass
