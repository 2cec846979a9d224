import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    MemorylessEuler,
    TransitionKernel,
    along_path,
    flow_matching_loss,
    ode_sample,
    ode_sample_log_prob,
    path_times,
    sample_path,
    step_log_prob,
    velocities_along,
)

# Chains whose transitions depend on one state, and whose path KL is that of the chain.
ONE_STEP: list[Callable[..., TransitionKernel]] = [MemorylessEuler, FollmerKernel]
KERNELS = [*ONE_STEP, AdamsBashforthKernel]


def mixture_velocity(x: Tensor, t: Tensor) -> Tensor:
    """Exact velocity for data that are -1 or 1 with weights 0.3 and 0.7, plus N(0, 0.2^2)."""
    t = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    variance = 0.04 * t**2 + (1.0 - t) ** 2
    centres = torch.tensor([-1.0, 1.0], dtype=x.dtype)
    log_weights = torch.log(torch.tensor([0.3, 0.7], dtype=x.dtype))
    gap = x[..., None] - t[..., None] * centres
    weights = torch.softmax(log_weights - 0.5 * gap**2 / variance[..., None], dim=-1)
    slope = ((0.04 * t - (1.0 - t)) / variance)[..., None]
    return (weights * (centres + slope * gap)).sum(-1)


def mixture_cdf(x: Tensor) -> Tensor:
    return 0.3 * stats.norm.cdf(x, -1.0, 0.2) + 0.7 * stats.norm.cdf(x, 1.0, 0.2)


@pytest.mark.parametrize("make", KERNELS)
def test_sde_and_ode_share_marginals(make: Callable[..., TransitionKernel], generator) -> None:
    count, kernel = 20_000, make(300)
    noise = torch.randn(count, 1, dtype=torch.float64, generator=generator)
    sde = sample_path(kernel, mixture_velocity, noise, generator=generator)
    # 2 % in the distribution function is above the sampling noise (1.2 % at 99.9 %) and the
    # discretisation, and below what one wrong coefficient does.
    assert stats.kstest(sde.sample[:, 0].numpy(), mixture_cdf).statistic < 0.02
    for k in (100, 200):
        marginal = ode_sample(mixture_velocity, noise, 200, "heun", t1=kernel.times[k])
        distance = stats.ks_2samp(sde.inputs[k, :, 0].numpy(), marginal[:, 0].numpy()).statistic
        assert distance < 0.02


@pytest.mark.parametrize("make", KERNELS)
def test_memoryless_where_the_ode_is_not(make: Callable[..., TransitionKernel], generator) -> None:
    count = 20_000
    noise = torch.randn(count, 1, dtype=torch.float64, generator=generator)
    sample = sample_path(make(60), mixture_velocity, noise, generator=generator).sample
    flow = ode_sample(mixture_velocity, noise, 60)

    def dependence(x: Tensor, y: Tensor) -> float:
        """Largest rank correlation of the start, its square, with the end."""
        signs = (x[:, 0].numpy(), x[:, 0].square().numpy())
        return max(abs(stats.spearmanr(sign, y[:, 0].numpy()).statistic) for sign in signs)

    assert dependence(noise, sample) < 4.0 / math.sqrt(count)
    assert dependence(noise, flow) > 0.99


@pytest.mark.parametrize("make", ONE_STEP)
def test_sampled_chain_follows_its_exact_law(
    make: Callable[..., TransitionKernel], gaussian, chain_law, generator
) -> None:
    data, kernel, count = gaussian(0.7, 0.4), make(8), 40_000
    law = chain_law(kernel, data.velocity)
    noise = torch.randn(count, 1, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, data.velocity, noise, generator=generator)
    for k in range(1, 9):
        error = 4.0 * law.stds[k] / math.sqrt(count)
        assert float(path.states[k].mean()) == pytest.approx(law.means[k], abs=error)
        assert float(path.states[k].std()) == pytest.approx(law.stds[k], abs=error)


@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "event"), [((6,), (3,)), ((2, 5), (4,)), ((3,), (2, 4, 4)), ((7,), ()), ((), (2,))]
)
def test_any_batch_and_event_shape(
    make: Callable[..., TransitionKernel],
    dtype: torch.dtype,
    batch: tuple[int, ...],
    event: tuple[int, ...],
    generator,
) -> None:
    kernel = make(4, event_ndim=len(event))
    seen: list[tuple[torch.Size, torch.dtype]] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append((t.shape, t.dtype))
        return torch.tanh(x) * 0.5

    noise = torch.randn(*batch, *event, dtype=dtype, generator=generator)
    path = sample_path(kernel, field, noise, generator=generator)
    assert path.states.shape == (5, *batch, *event)
    assert path.inputs.shape == (4, *batch, *event)
    assert path.sample.shape == noise.shape
    assert path.sample.dtype == dtype
    assert torch.isfinite(path.states).all()
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    assert seen == [(torch.Size(batch), wide)] * 4
    velocities = velocities_along(kernel, field, path)
    assert velocities.shape == path.inputs.shape
    assert seen[-1] == (torch.Size((4, *batch)), wide)
    log_prob = step_log_prob(kernel, path, velocities)
    assert log_prob.shape == (kernel.noisy_steps, *batch)
    assert torch.isfinite(log_prob).all()


@pytest.mark.parametrize("make", KERNELS)
def test_images_equal_their_flattened_vectors(
    make: Callable[..., TransitionKernel], generator
) -> None:
    noise = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator)
    eps = torch.randn(5, 3, 2, 4, 4, dtype=torch.float64, generator=generator)
    as_image = make(5, event_ndim=3)
    image = sample_path(as_image, lambda x, t: torch.sin(x) * t[:, None, None, None], noise, eps)
    flat = sample_path(
        make(5), lambda x, t: torch.sin(x) * t[:, None], noise.flatten(1), eps.flatten(2)
    )
    torch.testing.assert_close(image.states.flatten(2), flat.states)
    velocities = torch.ones_like(image.inputs)
    torch.testing.assert_close(
        step_log_prob(as_image, image, velocities),
        step_log_prob(make(5), flat, velocities.flatten(2)),
    )


@pytest.mark.parametrize("make", KERNELS)
def test_generator_and_given_noise_are_the_same(
    make: Callable[..., TransitionKernel], gaussian
) -> None:
    kernel, field = make(5), gaussian(0.1, 0.5).velocity
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    eps = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(2))
    drawn = sample_path(kernel, field, noise, generator=torch.Generator().manual_seed(2))
    given = sample_path(kernel, field, noise, eps)
    other = sample_path(kernel, field, noise, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn.states, given.states)
    assert not torch.equal(drawn.states, other.states)


@pytest.mark.parametrize("make", KERNELS)
def test_final_velocity_drives_only_a_noise_free_last_step(
    make: Callable[..., TransitionKernel], gaussian, generator
) -> None:
    kernel = make(5)
    noise = torch.randn(4, 2, generator=generator)
    eps = torch.randn(5, 4, 2, generator=generator)
    fine, base = gaussian(0.1, 0.5).velocity, gaussian(3.0, 0.5).velocity
    alone = sample_path(kernel, fine, noise, eps)
    ended = sample_path(kernel, fine, noise, eps, final_velocity=base)
    assert torch.equal(alone.states[:-1], ended.states[:-1])
    noise_free = kernel.noisy_steps < kernel.steps
    assert torch.equal(alone.sample, ended.sample) is not noise_free


@pytest.mark.parametrize("make", KERNELS)
def test_velocities_along_equal_step_by_step_calls(
    make: Callable[..., TransitionKernel], gaussian, generator
) -> None:
    kernel, field = make(6), gaussian(0.3, 0.7).velocity
    noise = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, field, noise, generator=generator)
    velocities = velocities_along(kernel, field, path)
    times = path_times(kernel, path)
    assert times.shape == (6, 2, 3)
    for k in range(6):
        assert times[k].unique().tolist() == [kernel.times[k]]
        torch.testing.assert_close(velocities[k], field(path.inputs[k], times[k]))


@pytest.mark.parametrize("make", ONE_STEP)
def test_step_log_prob_is_that_of_normal_transitions(
    make: Callable[..., TransitionKernel], gaussian, generator
) -> None:
    kernel, field = make(6), gaussian(0.3, 0.7).velocity
    noise = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, field, noise, generator=generator)
    velocities = velocities_along(kernel, field, path)
    log_prob = step_log_prob(kernel, path, velocities)
    for k in range(kernel.noisy_steps):
        mean = kernel.mean(path.states[k], velocities[k], k)
        law = torch.distributions.Normal(mean, kernel.noise_stds[k])
        torch.testing.assert_close(log_prob[k], law.log_prob(path.states[k + 1]).sum(-1))


@pytest.mark.parametrize("make", ONE_STEP)
def test_mean_log_ratio_is_the_sum_of_step_divergences(
    make: Callable[..., TransitionKernel], gaussian, generator
) -> None:
    kernel = make(6)
    fine, base = gaussian(0.6, 0.7).velocity, gaussian(0.3, 0.7).velocity
    noise = torch.randn(40_000, 1, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, fine, noise, generator=generator)
    controlled, free = (velocities_along(kernel, field, path) for field in (fine, base))
    ratio = step_log_prob(kernel, path, controlled) - step_log_prob(kernel, path, free)
    weights = along_path(
        [g**2 / (2.0 * s**2) for g, s in zip(kernel.gains, kernel.stds, strict=True)], free
    )
    divergences = (weights * (controlled - free) ** 2).sum(-1)[: kernel.noisy_steps]
    total, error = ratio.sum(0), 4.0 * float(ratio.sum(0).std()) / math.sqrt(40_000)
    assert float(total.mean()) == pytest.approx(float(divergences.sum(0).mean()), abs=error)
    assert float(divergences.sum(0).mean()) > 5.0 * error


def test_one_published_step_has_no_density() -> None:
    kernel = MemorylessEuler(1)
    path = sample_path(kernel, lambda x, t: -x, torch.ones(4, 2))
    assert step_log_prob(kernel, path, torch.zeros(1, 4, 2)).shape == (0, 4)


def test_gradients_flow_through_a_path() -> None:
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    noise, eps = torch.ones(2, 1, dtype=torch.float64), torch.ones(3, 2, 1, dtype=torch.float64)

    def end(value: Tensor) -> Tensor:
        return sample_path(FollmerKernel(3), lambda x, t: value * x, noise, eps).sample.sum()

    assert torch.autograd.gradcheck(end, (weight,))


@pytest.mark.parametrize("make", KERNELS)
def test_compiles_without_a_graph_break(make: Callable[..., TransitionKernel], gaussian) -> None:
    kernel, field = make(3), gaussian(0.3, 0.7).velocity

    def update(noise: Tensor, eps: Tensor) -> Tensor:
        path = sample_path(kernel, field, noise, eps)
        velocities = velocities_along(kernel, field, path)
        return step_log_prob(kernel, path, velocities) + along_path(kernel.gains, velocities).sum()

    noise, eps = torch.ones(4, 2), torch.ones(3, 4, 2)
    compiled = torch.compile(update, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(noise, eps), update(noise, eps))


def test_bad_arguments_are_refused() -> None:
    kernel, noise = MemorylessEuler(3), torch.zeros(4, 2)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return -x

    with pytest.raises(ValueError, match=r"step_noise has shape \(2, 4, 2\); expected"):
        sample_path(kernel, field, noise, torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match="either step_noise or a generator"):
        sample_path(kernel, field, noise, torch.zeros(3, 4, 2), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"returned shape \(4, 1\) for samples of shape \(4, 2\)"):
        sample_path(kernel, lambda x, t: x[:, :1], noise)
    with pytest.raises(ValueError, match=r"must be floating point, got torch\.int64"):
        sample_path(kernel, field, noise.long())
    with pytest.raises(ValueError, match="fewer axes than event_ndim=1"):
        sample_path(kernel, field, torch.tensor(0.0))
    path = sample_path(kernel, field, noise)
    with pytest.raises(ValueError, match="the path has 3 steps, the kernel 4"):
        velocities_along(MemorylessEuler(4), field, path)
    with pytest.raises(ValueError, match="must return the shape of its input"):
        step_log_prob(kernel, path, torch.zeros(3, 4, 1))


def test_a_scale_on_another_device_is_named() -> None:
    kernel = FollmerKernel(2, scale=torch.ones(2))
    with pytest.raises(ValueError, match=r"scale is on cpu, the samples are on meta"):
        sample_path(kernel, lambda x, t: -x, torch.zeros(3, 2, device="meta"))


@pytest.mark.parametrize("make", KERNELS)
def test_nothing_is_read_back_from_the_device(make: Callable[..., TransitionKernel]) -> None:
    """Tensors on the meta device hold no values, so any read by the host raises there."""
    kernel, noise = make(4, event_ndim=2), torch.empty(2, 5, 3, 3, device="meta")

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x) * t[..., None, None]

    path = sample_path(kernel, field, noise)
    log_prob = step_log_prob(kernel, path, velocities_along(kernel, field, path))
    density = ode_sample_log_prob(field, noise, 2, event_ndim=2, divergence="hutchinson")
    loss = flow_matching_loss(field, noise, noise, noise[..., 0, 0], event_ndim=2)
    assert (log_prob.shape, log_prob.device.type) == ((kernel.noisy_steps, 2, 5), "meta")
    assert density.log_prob.shape == loss.shape == (2, 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make", KERNELS)
def test_captured_in_a_cuda_graph_equals_the_cpu(
    make: Callable[..., TransitionKernel], gaussian, generator
) -> None:
    kernel, field = make(6), gaussian(0.3, 0.7).velocity
    noise = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    eps = torch.randn(6, 8, 3, dtype=torch.float64, generator=generator)

    def update(noise: Tensor, eps: Tensor) -> Tensor:
        path = sample_path(kernel, field, noise, eps)
        return step_log_prob(kernel, path, velocities_along(kernel, field, path)).sum(0)

    inputs = noise.cuda(), eps.cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        update(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = update(*inputs)
    graph.replay()
    torch.testing.assert_close(captured.cpu(), update(noise, eps))


def test_a_path_is_evaluated_with_its_own_kernel_only() -> None:
    def field(x: Tensor, t: Tensor) -> Tensor:
        return -x

    noise = torch.zeros(4, 2)
    path = sample_path(MemorylessEuler(5), field, noise)
    # An equal kernel will do, also one whose adjoint or regression differs.
    for same in (MemorylessEuler(5), MemorylessEuler(5, 1, 1, adjoint_time="consistent")):
        velocities = velocities_along(same, field, path)
        step_log_prob(same, path, velocities)
    others = (FollmerKernel(5), AdamsBashforthKernel(5), MemorylessEuler(5, event_ndim=2))
    for other in others:
        with pytest.raises(ValueError, match="the path was sampled with MemorylessEuler"):
            velocities_along(other, field, path)
        with pytest.raises(ValueError, match="the path was sampled with MemorylessEuler"):
            step_log_prob(other, path, velocities)
    scaled = sample_path(FollmerKernel(5, scale=torch.ones(2)), field, noise)
    velocities_along(FollmerKernel(5, scale=torch.ones(2)), field, scaled)
    with pytest.raises(ValueError, match="the path was sampled with FollmerKernel"):
        velocities_along(FollmerKernel(5, scale=1.0), field, scaled)


def test_a_path_of_inference_mode_is_refused_outside_of_it() -> None:
    kernel = MemorylessEuler(2)
    with torch.inference_mode():
        path = sample_path(kernel, lambda x, t: -x, torch.zeros(4, 2))
        velocities_along(kernel, lambda x, t: -x, path)
    with torch.no_grad():
        velocities_along(kernel, lambda x, t: -x, path)
    with pytest.raises(ValueError, match=r"sample it under torch\.no_grad"):
        velocities_along(kernel, lambda x, t: -x, path)


@pytest.mark.parametrize("output", [None, (torch.zeros(4, 2),), object()])
def test_what_is_no_velocity_is_named(output: object) -> None:
    with pytest.raises(ValueError, match=f"returned {type(output).__name__}, not a tensor"):
        sample_path(MemorylessEuler(2), lambda x, t: output, torch.zeros(4, 2))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("scale", [[1.0, 2.0, 3.0], np.ones(3), torch.ones(3)])
@pytest.mark.parametrize("kernel", [FollmerKernel, AdamsBashforthKernel])
def test_a_scale_of_other_events_is_refused(kernel: Any, scale: Any) -> None:
    with pytest.raises(ValueError, match=r"scale has shape \(3,\), which does not fit"):
        sample_path(kernel(5, scale=scale), lambda x, t: -x, torch.zeros(4, 2))


def test_scales_of_any_kind_and_what_is_none() -> None:
    as_tensor = FollmerKernel(3, scale=torch.tensor([0.5, 1.0]))
    for scale in ([0.5, 1.0], np.array([0.5, 1.0])):
        for ours, theirs in zip(FollmerKernel(3, scale=scale).stds, as_tensor.stds, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert MemorylessEuler(np.int64(4)).steps == 4
    for kernel in (as_tensor, AdamsBashforthKernel(3, scale=torch.tensor([0.5, 1.0]))):
        with pytest.raises(ValueError, match=r"scale has shape \(2,\), which does not fit"):
            sample_path(kernel, lambda x, t: -x, torch.zeros(4, 1))
    for make in (FollmerKernel, AdamsBashforthKernel):
        with pytest.raises(ValueError, match="scale is empty"):
            make(4, scale=torch.ones(0))
        with pytest.raises(ValueError, match="scale must be a number"):
            make(4, scale="wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="below what float64 times"):
        AdamsBashforthKernel(4, scale=1e-30)
    for make in KERNELS:
        for path in ("linear", None, CosineInterpolant):
            with pytest.raises(ValueError, match="interpolant must be an instance"):
                make(4, interpolant=path)
