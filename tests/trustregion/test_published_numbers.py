"""Path KL and dual descent against the numbers of the published TRQAM implementation."""

import json
from pathlib import Path as File

import numpy as np
import pytest
import torch

from flowsde import MemorylessEuler
from trustregion import DualDescent, path_kl, path_kl_steps

REFERENCE = File(__file__).parents[1] / "reference"


def load(name):
    arrays = np.load(REFERENCE / f"{name}.npz", allow_pickle=False)
    return arrays, json.loads(str(arrays["config"]))


def dual_of(arrays, config):
    dual = DualDescent(
        budget=config["kl_budget"],
        rate=config["eta_lambda"],
        ema=config["kl_ema_coef"],
        clip=config["kl_clip_coef"],
        bounds=(config["lambda_min"], config["lambda_max"]),
        scale=config["lam_scale"],
        initial=float(arrays["state/lam_before"]),
    )
    dual.kl_ema.fill_(float(arrays["state/kl_ema_before"]))
    return dual


def close(value, expected):
    torch.testing.assert_close(
        value.squeeze(), torch.as_tensor(expected).squeeze(), rtol=2e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", ["A1_trqam", "A2_trqam_chunked"])
def test_path_kl_and_one_dual_update(name):
    arrays, config = load(name)
    fine = torch.from_numpy(arrays["expect/v_fine"])
    base = torch.from_numpy(arrays["expect/v_base"])
    kernel = MemorylessEuler(config["flow_steps"])
    close(path_kl_steps(kernel, fine, base), arrays["expect/kl_per_step"])
    chunk = config["horizon_length"] if config["action_chunking"] else 1
    kl = path_kl(kernel, fine, base).mean() / chunk
    close(kl, arrays["expect/path_kl"])

    dual = dual_of(arrays, config)
    close(dual.lambda_, arrays["state/lambda_before"])
    metrics = dual.update(kl.reshape(1))
    close(metrics["lam"], arrays["state/lam_after"])
    close(metrics["kl_ema"], arrays["state/kl_ema_after"])
    close(metrics["lambda"], arrays["state/lambda_after"])
    close(metrics["kl_capped"], arrays["state/kl_estimate_clipped"])
    close(metrics["kl_cap_active"], arrays["state/kl_clipped"])


def test_twenty_dual_updates():
    arrays, config = load("A10_trqam_trace20")
    dual = dual_of(arrays, config)
    for i, kl in enumerate(torch.from_numpy(arrays["trace/path_kl"])):
        metrics = dual.update(kl.reshape(1))
        for key in ("lam", "kl_ema", "lambda"):
            close(metrics[key], arrays[f"trace/{key}"][i])
    assert int(dual.step) == 20
