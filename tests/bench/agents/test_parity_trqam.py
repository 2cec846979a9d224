"""TRQAM and BC against the published implementation, number by number."""

from collections.abc import Callable

import pytest
import torch

from bench.agents import BC, TRQAM, BCConfig, TRQAMConfig, trqam
from qlearn import RandomStreams
from trustregion import path_kl_steps

from .conftest import (
    AFTER,
    EXPECT,
    GRADIENT,
    STATE,
    TARGET,
    TRACE,
    Reference,
    Spy,
    error,
    load_parameters,
    parameter_names,
)

MODULES = {
    "critic": "critic",
    "target_critic": "target_critic",
    "actor_slow": "slow.network",
    "target_actor_slow": "target_slow.network",
    "actor_fast": "fast.network",
}


def build(reference: Reference, streams: RandomStreams) -> TRQAM:
    c = reference.config
    config = TRQAMConfig(
        actor_hidden=tuple(c["actor_hidden_dims"]),
        actor_layer_norm=c["actor_layer_norm"],
        critic_hidden=tuple(c["value_hidden_dims"]),
        critic_layer_norm=c["value_layer_norm"],
        critics=c["num_qs"],
        flow_steps=c["flow_steps"],
        discount=c["discount"],
        pessimism=c["rho"],
        learning_rate=c["lr"],
        target_rate=c["tau"],
        max_gradient_norm=c["max_grad_norm"],
        clip_terminal=c["clip_adj"],
        kl_budget=c["kl_budget"],
        dual_rate=c["eta_lambda"],
        dual_ema=c["kl_ema_coef"],
        dual_clip=c["kl_clip_coef"],
        lambda_min=c["lambda_min"],
        lambda_max=c["lambda_max"],
        lambda_scale=c["lam_scale"],
    )
    agent = TRQAM(config, reference.problem, streams)
    load_parameters(agent, reference.group("init/"), MODULES)
    agent.dual.lam.fill_(float(reference.tensor("state/lam_before")))
    agent.dual.kl_ema.fill_(float(reference.tensor("state/kl_ema_before")))
    return agent


@pytest.fixture(params=["A1_trqam", "A2_trqam_chunked"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def test_every_intermediate_and_loss(
    reference: Reference, streams: RandomStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build(reference, streams)
    spy = Spy(monkeypatch, trqam).on(
        "pessimistic_value",
        "td_target",
        "td_loss",
        "sample_path",
        "terminal_gradient",
        "lean_adjoint",
        "velocities_along",
        "matching_loss",
    )
    losses = agent.losses(reference.batch(), reference.noise())

    path, kernel = spy.result("sample_path"), agent.kernel
    base, fine = spy.result("velocities_along", 0), spy.result("velocities_along", 1).detach()
    adjoints = spy.result("lean_adjoint")
    found = {
        "next_qs": spy.argument("pessimistic_value", 0)[0],
        "next_q": spy.result("pessimistic_value")[0],
        "target_q": spy.result("td_target")[0],
        "q": spy.argument("td_loss", 0)[0].detach(),
        "sde_xs": path.inputs[:, 0],
        "sde_x1": path.sample[0],
        "sde_ts": torch.tensor(kernel.times),
        "g_sq": torch.tensor(kernel.stds).square() * kernel.steps,
        "sigma": torch.tensor(kernel.stds) * kernel.steps**0.5 / agent.dual.lambda_.sqrt(),
        "critic_grad": spy.result("terminal_gradient")[0],
        "adj_init": adjoints[-1, 0],
        "adjs": adjoints[:-1, 0],
        "v_fine": fine[:, 0],
        "v_base": base[:, 0],
        "kl_per_step": path_kl_steps(kernel, fine, base)[:, 0],
        "path_kl": losses["path_kl"].detach()[0],
        "adj_loss": losses["adjoint_loss"].detach()[0],
        "flow_loss": losses["flow_loss"].detach()[0],
        "critic_loss": losses["critic_loss"].detach()[0],
    }
    for name, value in found.items():
        assert error(value, reference.tensor(f"expect/{name}")) < EXPECT, name


def test_flow_matching_intermediates(
    reference: Reference, streams: RandomStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build(reference, streams)
    seen = {}
    original: Callable[..., torch.Tensor] = agent.slow.forward

    def forward(observations: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen["bc_x_t"], seen["bc_pred"] = x[0], original(observations, x, t)[0]
        return torch.as_tensor(seen["bc_pred"][None])

    monkeypatch.setattr(agent.slow, "forward", forward)
    agent.losses(reference.batch(), reference.noise())
    for name, value in seen.items():
        assert error(value.detach(), reference.tensor(f"expect/{name}")) < EXPECT, name


def test_next_action(reference: Reference, streams: RandomStreams) -> None:
    agent = build(reference, streams)
    batch, noise = reference.batch(), reference.noise()
    with torch.no_grad():
        action = agent.sample(agent.fast, batch.next_observations, noise["next_action"])
    assert error(action[0], reference.tensor("expect/next_action")) < EXPECT


def test_gradients(reference: Reference, streams: RandomStreams) -> None:
    agent = build(reference, streams)
    losses = agent.losses(reference.batch(), reference.noise())
    total = losses["critic_loss"] + losses["flow_loss"] + losses["adjoint_loss"]
    assert error(total.detach()[0], reference.tensor("expect/total_loss")) < EXPECT
    expected = reference.group("grad/")
    parameters = dict(agent.named_parameters())
    names = [parameter_names(name, MODULES) for name in expected]
    assert sorted(names) == sorted(agent.learner.names)
    gradients = torch.autograd.grad(total.sum(), [parameters[name] for name in names])
    for (name, value), gradient in zip(expected.items(), gradients, strict=True):
        assert error(gradient[0], value) < GRADIENT, name


def test_one_update(reference: Reference, streams: RandomStreams) -> None:
    agent = build(reference, streams)
    metrics = agent.update(reference.batch(), reference.noise())
    assert error(metrics["gradient_norm"][0], reference.tensor("expect/grad_norm")) < EXPECT
    parameters = dict(agent.named_parameters())
    for name, value in reference.group("after/").items():
        limit = TARGET if name.startswith("target") else AFTER
        assert error(parameters[parameter_names(name, MODULES)].detach()[0], value) < limit, name
    after = {"lam_after": agent.dual.lam, "kl_ema_after": agent.dual.kl_ema}
    after["lambda_after"] = agent.dual.lambda_
    for name, found in after.items():
        assert error(found[0], reference.tensor(f"state/{name}")) < STATE, name


def test_twenty_updates(streams: RandomStreams) -> None:
    reference = Reference("A10_trqam_trace20")
    agent = build(reference, streams)
    trace: dict[str, list[torch.Tensor]] = {}
    for i in range(20):
        metrics = agent.update(reference.batch((i,)), reference.noise((i,)))
        row = {
            "critic_loss": metrics["critic_loss"],
            "flow_loss": metrics["flow_loss"],
            "adj_loss": metrics["adjoint_loss"],
            "path_kl": metrics["path_kl"],
            "total_loss": metrics["total_loss"],
            "grad_norm": metrics["gradient_norm"],
            "lam": agent.dual.lam.clone(),
            "kl_ema": agent.dual.kl_ema.clone(),
            "lambda": agent.dual.lambda_.clone(),
        }
        for name, value in row.items():
            trace.setdefault(name, []).append(value[0])
    for name, values in trace.items():
        expected = reference.tensor(f"trace/{name}")
        relative = ((torch.stack(values) - expected) / expected).abs().max()
        assert relative < TRACE, name
    parameters = dict(agent.named_parameters())
    for name, value in reference.group("after/").items():
        found = parameters[parameter_names(name, MODULES)].detach()[0]
        assert error(found, value) < TRACE, name


def test_behaviour_cloning_loss(reference: Reference, streams: RandomStreams) -> None:
    c = reference.config
    config = BCConfig(tuple(c["actor_hidden_dims"]), c["actor_layer_norm"], c["flow_steps"])
    agent = BC(config, reference.problem, streams)
    slow = {k: v for k, v in reference.group("init/").items() if k.startswith("actor_slow/")}
    load_parameters(agent, slow, {"actor_slow": "flow.network"})
    loss = agent.losses(reference.batch(), reference.noise())["flow_loss"]
    assert error(loss.detach()[0], reference.tensor("expect/flow_loss")) < EXPECT
    expected = {k: v for k, v in reference.group("grad/").items() if k.startswith("actor_slow/")}
    parameters = dict(agent.named_parameters())
    for name, value in expected.items():
        parameter = parameters[parameter_names(name, {"actor_slow": "flow.network"})]
        (gradient,) = torch.autograd.grad(loss.sum(), parameter, retain_graph=True)
        assert error(gradient[0], value) < GRADIENT, name
