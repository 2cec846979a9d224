"""Low-rank adapters by peft: the policy without them is the reference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.storage import load_checkpoint

peft = pytest.importorskip("peft", reason="needs the dependency group `peers`")
SIZE, H, A = 3, 2, 1


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(SIZE, 8), nn.Linear(8 + H * A + 1, H * A)

    def encode(self, observations: Tensor) -> Tensor:
        out: Tensor = self.encoder(observations)
        return out.tanh()

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([context, x.flatten(1), t[:, None]], -1))
        return out.reshape(x.shape)


def adapted() -> nn.Module:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["encoder", "head"])
    wrapped: nn.Module = peft.get_peft_model(Policy(), config)
    return wrapped


def test_a_policy_with_lora_is_held_to_itself_without(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 4 * 11
    data = {
        "observations": rng.normal(size=(rows, SIZE)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, A)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": (np.arange(rows) + 1) % 11 == 0,
        "masks": np.ones(rows, bool),
    }
    states = {}
    for reference in ("adapters_off", "frozen"):
        tuner = bench.FineTuner(
            adapted, data, chunk_length=H, batch_size=8, device="cpu", reference=reference,
            settings={"num_critics": 2, "critic_hidden": (8,), "flow_steps": 3},
        )  # fmt: skip
        tuner.fit(4, out=tmp_path / reference, progress="none")
        (place,) = (tmp_path / reference).glob("packs/*/checkpoints")
        checkpoint = load_checkpoint(place)
        assert checkpoint is not None
        states[reference] = checkpoint.tensors
    copies = {name: sum("base_layer" in n for n in state) for name, state in states.items()}
    assert copies["frozen"] == 2 * copies["adapters_off"]
    for name, value in tuner.policy.state_dict().items():
        key = f"agent.fast.module.{name}"
        torch.testing.assert_close(states["adapters_off"][key], states["frozen"][key])
        moved = not torch.equal(value, adapted().state_dict()[name])
        assert moved == ("lora" in name), name
