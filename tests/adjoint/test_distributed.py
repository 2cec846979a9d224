"""Two processes that share a batch have the gradients of one: DDP and FSDP2, gloo on the CPU."""

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from adjoint import accumulate_gradients, lean_adjoint
from flowsde import MemorylessEuler, module_field, sample_path
from trustregion import KLBudget, path_kl

BATCH = 6


class Network(nn.Module):
    """A field of images with blocks to shard."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 3, padding=1))
            for _ in range(2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x (B, 2, 4, 4), t (B,)."""
        for block in self.blocks:
            x = x + t[:, None, None, None] * block(x)
        return x


def networks() -> tuple[Network, Network]:
    torch.manual_seed(0)
    base, fine = Network().requires_grad_(False), Network()
    return base, fine


def update(base: nn.Module, fine: nn.Module, rows: slice, **options: object) -> Tensor:
    """Gradients in `fine` from some rows of the batch, and the lambda of the next update."""
    kernel, generator = MemorylessEuler(4, event_ndim=3), torch.Generator().manual_seed(1)
    noise = torch.randn(5, BATCH, 2, 4, 4, generator=generator)[:, rows]
    old, new = module_field(base, event_ndim=3), module_field(fine, event_ndim=3)
    with torch.no_grad():
        path = sample_path(kernel, new, noise[0], noise[1:], final_velocity=old)
    adjoints = lean_adjoint(kernel, old, path, path.sample)
    along = accumulate_gradients(kernel, new, old, path, adjoints, 0.5, chunk=2, **options)  # type: ignore[arg-type]
    return KLBudget(0.1).step(path_kl(kernel, along.fine, along.base))


def process(rank: int, file: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    rows = slice(0, 3) if rank == 0 else slice(3, 6)
    results: dict[str, Tensor] = {}

    base, fine = networks()
    calls = 0

    def counted(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        nonlocal calls
        calls += 1
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0] / 2)

    for name in ("ddp", "ddp once"):
        model = DistributedDataParallel(fine)
        model.register_comm_hook(None, counted)
        options = {"no_sync": model.no_sync} if name == "ddp once" else {}
        results[f"{name} lambda"] = update(base, model, rows, **options)
        results[name] = torch.cat(
            [p.grad.flatten() for p in fine.parameters() if p.grad is not None]
        )
        results[f"{name} calls"], calls = torch.tensor(calls), 0
        fine.zero_grad()

    mesh = dist.init_device_mesh("cpu", (2,))
    base, fine = networks()
    for model in (base, fine):
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    results["fsdp lambda"] = update(base, fine, rows)
    results["fsdp"] = torch.cat([p.grad.full_tensor().flatten() for p in fine.parameters()])
    torch.save(results, f"{out}.{rank}")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    files = [str(tmp_path / "meet"), str(tmp_path / "out")]
    command = [sys.executable, "-W", "ignore", __file__]
    workers = [subprocess.Popen([*command, str(rank), *files]) for rank in range(2)]
    base, fine = networks()
    lam = update(base, fine, slice(0, BATCH))
    expected = torch.cat([p.grad.flatten() for p in fine.parameters() if p.grad is not None])
    assert [worker.wait(240) for worker in workers] == [0, 0]
    for rank in range(2):
        results = torch.load(tmp_path / f"out.{rank}", weights_only=True)
        for name in ("ddp", "ddp once", "fsdp"):
            torch.testing.assert_close(results[name], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(results[f"{name} lambda"], lam)
        # Four steps in two graphs: averaged after each of them, or after the last.
        assert results["ddp calls"] == 2 * results["ddp once calls"] > 0


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2], sys.argv[3])
