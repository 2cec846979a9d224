"""One small network and one batch, for every peer library."""

import contextlib
import importlib
import warnings

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)

# Warnings are errors here, and those of other people's modules on import are not ours to mend.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for library in ("diffusers", "flow_matching.path", "flow_matching.solver", "torchcfm.models"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)


class Network(nn.Module):
    """Any function of (x, t); the frequency of time is high enough to tell times apart."""

    def __init__(self, dim: int = 3, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 2, width), nn.SiLU(), nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.expand(x.shape[:-1]).unsqueeze(-1)
        out: Tensor = self.net(torch.cat([x, torch.sin(6.0 * t), torch.cos(6.0 * t)], -1))
        return out


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().double().requires_grad_(False)


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
