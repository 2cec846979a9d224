"""TRQAM and BC against the published implementation, number by number."""

import pytest
import torch

from bench.agents import BC, TRQAM, BCConfig, TRQAMConfig
from qlearn import RandomStreams
from trustregion import path_kl_steps

from .conftest import (
    EXPECT,
    GRADIENT,
    STATE,
    TRACE,
    Reference,
    adjoint_values,
    check_after,
    check_expected,
    check_gradients,
    cloning_values,
    error,
    load_parameters,
    spy_on_shared_parts,
    td_values,
    total_loss,
    translated,
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
        **reference.settings(),
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
    spy = spy_on_shared_parts(monkeypatch).on(agent.slow, "forward")
    result = agent.losses(reference.batch(), reference.noise())
    found = td_values(spy) | cloning_values(spy) | adjoint_values(spy, agent.kernel)
    fine, base = (spy.result("velocities_along", i) for i in (1, 0))
    found |= {
        "sigma": found["g_sq"].sqrt() / agent.dual.lambda_.sqrt(),
        "kl_per_step": path_kl_steps(agent.kernel, fine, base)[:, 0],
        "path_kl": result["path_kl"][0],
        "adj_loss": result["adjoint_loss"][0],
        "flow_loss": result["flow_loss"][0],
        "critic_loss": result["critic_loss"][0],
    }
    check_expected(reference, found)


def test_next_action(reference: Reference, streams: RandomStreams) -> None:
    agent = build(reference, streams)
    batch, noise = reference.batch(), reference.noise()
    action = agent.sample(batch.next_observations, noise["next_action"])
    assert error(action[0], reference.tensor("expect/next_action")) < EXPECT


def test_gradients(
    reference: Reference, streams: RandomStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build(reference, streams)
    total = total_loss(agent, reference, monkeypatch)
    assert error(total.detach()[0], reference.tensor("expect/total_loss")) < EXPECT
    check_gradients(agent, total, translated(reference.group("grad/"), MODULES))


def test_one_update(reference: Reference, streams: RandomStreams) -> None:
    agent = build(reference, streams)
    metrics = agent.update(reference.batch(), reference.noise())
    assert error(metrics["gradient_norm"][0], reference.tensor("expect/grad_norm")) < EXPECT
    check_after(agent, translated(reference.group("after/"), MODULES))
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
    for name, value in translated(reference.group("after/"), MODULES).items():
        assert error(parameters[name].detach(), value) < TRACE, name


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
    for name, value in translated(expected, {"actor_slow": "flow.network"}).items():
        (gradient,) = torch.autograd.grad(loss.sum(), parameters[name], retain_graph=True)
        assert error(gradient, value) < GRADIENT, name
