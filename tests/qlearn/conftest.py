"""Reference numbers of the published implementations, as tensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)

REFERENCE = Path(__file__).parents[1] / "reference"


class Reference:
    def __init__(self, name: str) -> None:
        with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
            self.tensors = {k: torch.from_numpy(file[k]) for k in file.files if k != "config"}
            self.config: dict[str, Any] = json.loads(str(file["config"]))

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def network(self, name: str) -> dict[str, Tensor]:
        """Parameters of one network under qlearn's names, with the replica axis R = 1."""
        kinds = {
            "dense/kernel": "kernels",
            "dense/bias": "biases",
            "ln/scale": "scales",
            "ln/bias": "shifts",
        }
        found = {}
        for key, value in self.tensors.items():
            if key.startswith(f"init/{name}/"):
                layer, part = key.removeprefix(f"init/{name}/").split("/")
                kind = layer.rstrip("0123456789")
                if f"{kind}/{part}" in kinds:
                    number = layer.removeprefix(kind)
                    found[f"{kinds[f'{kind}/{part}']}.{number}"] = value.unsqueeze(0)
        return found


@pytest.fixture(scope="session")
def chunked() -> Reference:
    return Reference("A2_trqam_chunked")


@pytest.fixture(scope="session")
def edit() -> Reference:
    return Reference("A4_qam_edit")
