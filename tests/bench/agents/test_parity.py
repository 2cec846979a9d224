"""Every method with reference numbers against the published implementation, number by number."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import (
    CGQL,
    DSRL,
    FQL,
    IFQL,
    QAM,
    QAMFQL,
    CGQLConfig,
    DSRLConfig,
    FQLConfig,
    IFQLConfig,
    QAMConfig,
    QAMEdit,
    QAMEditConfig,
    QAMFQLConfig,
    cgql,
    dsrl,
    fql,
    ifql,
    losses,
    qam,
    qam_edit,
    qam_fql,
)
from qlearn import RandomStreams, TanhGaussian

from .conftest import (
    EXPECT,
    Reference,
    Spy,
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

CRITICS = {"critic": "critic", "target_critic": "target_critic"}
QAM_FLOWS = {
    "actor_slow": "slow.network",
    "target_actor_slow": "target_slow.network",
    "actor_fast": "fast.network",
}


def qam_intermediates(
    agent: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor], dict[str, Tensor], Spy]:
    """What QAM and its two variants share: found values, losses, and the spy for more."""
    spy = spy_on_shared_parts(monkeypatch).on(agent.slow, "forward").on(qam, "critic_loss")
    spy.on_returned(losses, "frozen")
    result = agent.losses(reference.batch(), reference.noise())
    found = td_values(spy) | cloning_values(spy)
    found |= adjoint_values(spy, agent.kernel, agent.config.inverse_temperature)
    found |= {
        "next_action": spy.argument("critic_loss", 3)[0],
        "sigma": found["g_sq"].sqrt(),
        "adj_loss": result["adjoint_loss"][0],
        "flow_loss": result["flow_loss"][0],
        "critic_loss": result["critic_loss"][0],
    }
    return found, result, spy


def build_qam(reference: Reference, streams: RandomStreams) -> QAM:
    config = QAMConfig(**reference.settings(), inverse_temperature=reference.config["inv_temp"])
    return QAM(config, reference.problem, streams)


def find_qam(agent: QAM, reference: Reference, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    return qam_intermediates(agent, reference, patch)[0]


def build_qam_edit(reference: Reference, streams: RandomStreams) -> QAMEdit:
    c = reference.config
    config = QAMEditConfig(
        **reference.settings(),
        inverse_temperature=c["inv_temp"],
        edit_scale=c["edit_scale"],
        target_entropy=-c["edit_target_entropy_multiplier"],
    )
    return QAMEdit(config, reference.problem, streams)


def find_qam_edit(
    agent: QAMEdit, reference: Reference, patch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    edits = Spy(patch).on(agent.edit, "forward").on(TanhGaussian, "sample")
    edits.on_returned(qam_edit, "frozen")
    found, result, _ = qam_intermediates(agent, reference, patch)
    # The first call edits the next action, the second one is the edit policy's own update.
    law, flow = edits.result("forward", 1), edits.argument("forward", 1, index=1)
    sample, log_prob = edits.result("sample", 1)
    found |= {
        "edit_flow_action": flow[0],
        "edit_mean": law.mean[0],
        "edit_std": law.std[0],
        "edit_sample": sample[0],
        "edit_log_prob": log_prob[0],
        "edited_action": (flow + agent.config.edit_scale * sample)[0],
        "edit_q": edits.result("frozen()").mean(-2)[0],
    }
    names = ("edit_q_loss", "edit_alpha", "edit_entropy_loss", "edit_entropy", "edit_alpha_loss")
    return found | {name: result[name][0] for name in names}


def build_qam_fql(reference: Reference, streams: RandomStreams) -> QAMFQL:
    config = QAMFQLConfig(
        **reference.settings(),
        inverse_temperature=reference.config["inv_temp"],
        distill_weight=reference.config["fql_alpha"],
    )
    return QAMFQL(config, reference.problem, streams)


def find_qam_fql(
    agent: QAMFQL, reference: Reference, patch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    one_step = Spy(patch).on(qam_fql, "one_step_losses").on(agent.one_step, "forward")
    found, result, spy = qam_intermediates(agent, reference, patch)
    return found | {
        "fql_flow_action": one_step.argument("one_step_losses", 1)[0],
        "fql_onestep_action": one_step.result("forward", 1)[0],
        "fql_q": spy.result("frozen()").mean(-2)[0],
        "fql_distill_loss": result["distill_loss"][0],
        "fql_q_loss": result["q_loss"][0],
    }


def build_fql(reference: Reference, streams: RandomStreams) -> FQL:
    config = FQLConfig(**reference.settings(), distill_weight=reference.config["alpha"])
    return FQL(config, reference.problem, streams)


def find_fql(agent: FQL, reference: Reference, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    one_step = Spy(patch).on(fql, "one_step_losses").on(agent.one_step, "forward")
    spy = spy_on_shared_parts(patch).on(agent.flow, "forward").on(fql, "critic_loss")
    spy.on_returned(losses, "frozen")
    result = agent.losses(reference.batch(), reference.noise())
    names = ("critic_loss", "flow_loss", "distill_loss", "q_loss")
    found = td_values(spy) | cloning_values(spy) | {name: result[name][0] for name in names}
    return found | {
        "next_action": spy.argument("critic_loss", 3)[0],
        "flow_action": one_step.argument("one_step_losses", 1)[0],
        "onestep_action": one_step.result("forward", 1)[0],
        "actor_q": spy.result("frozen()").mean(-2)[0],
    }


def build_ifql(reference: Reference, streams: RandomStreams) -> IFQL:
    config = IFQLConfig(
        **reference.settings(),
        expectile=reference.config["kappa"],
        num_action_samples=reference.config["num_samples"],
    )
    return IFQL(config, reference.problem, streams)


def find_ifql(agent: IFQL, reference: Reference, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    spy = Spy(patch).on(ifql, "pessimistic_value", "td_target", "td_loss")
    spy.on(agent.flow, "forward")
    values = Spy(patch).on(agent.value, "forward")
    result = agent.losses(reference.batch(), reference.noise())
    names = ("value_loss", "critic_loss", "flow_loss")
    return (
        cloning_values(spy)
        | {name: result[name][0] for name in names}
        | {
            "value_target_q": spy.result("pessimistic_value")[0],
            "v": values.result("forward")[0, :, 0],
            "next_v": values.result("forward", 1)[0, :, 0],
            "target_q": spy.result("td_target")[0],
            "q": spy.argument("td_loss", 0)[0],
        }
    )


def build_dsrl(reference: Reference, streams: RandomStreams) -> DSRL:
    config = DSRLConfig(
        **reference.settings(),
        noise_scale=reference.config["noise_scale"],
        target_entropy=-reference.config["target_entropy_multiplier"],
    )
    return DSRL(config, reference.problem, streams)


def find_dsrl(agent: DSRL, reference: Reference, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    spy = spy_on_shared_parts(patch).on(agent.flow, "forward").on(dsrl, "critic_loss")
    latents = Spy(patch).on(TanhGaussian, "sample").on(agent.actor, "forward")
    latents.on(agent, "steer").on(dsrl, "td_loss").on_returned(dsrl, "frozen")
    result = agent.losses(reference.batch(), reference.noise())
    law, (sample, log_prob) = latents.result("forward", 1), latents.result("sample", 1)
    names = ("critic_loss", "distill_loss", "flow_loss", "actor_loss", "alpha_loss")
    found = td_values(spy) | cloning_values(spy)
    return (
        found
        | {name: result[name][0] for name in (*names, "alpha", "entropy")}
        | {
            "next_action": spy.argument("critic_loss", 3)[0],
            "next_latent": latents.result("sample")[0][0],
            "distill_action": latents.result("steer", 1)[0],
            "distill_q": latents.argument("td_loss", 0)[0],
            "distill_target_q": latents.argument("td_loss", 1)[0],
            "latent_mean": law.mean[0],
            "latent_std": law.std[0],
            "latent_sample": sample[0],
            "latent_log_prob": log_prob[0],
            "latent_q": latents.result("frozen()").mean(-2)[0],
        }
    )


def build_cgql(reference: Reference, streams: RandomStreams) -> CGQL:
    c = reference.config
    config = CGQLConfig(
        **reference.settings(),
        mode=c["mode"],
        inverse_temperature=c["inv_temp"],
        guidance=c["guidance_coef"],
        noisy_weight=c["noisy_coef"],
        linex_clip=c["isd_clip"],
        linex_tail="published",
        guidance_critic="online",
    )
    return CGQL(config, reference.problem, streams)


def find_cgql(agent: CGQL, reference: Reference, patch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    spy = spy_on_shared_parts(patch).on(agent.flow, "forward").on(cgql, "critic_loss")
    noisy = Spy(patch).on(agent, "linex").on(agent.critic, "forward")
    result = agent.losses(reference.batch(), reference.noise())
    noisy_qs, clean_qs = noisy.argument("linex", 0), noisy.argument("linex", 1)
    return (
        td_values(spy)
        | cloning_values(spy)
        | {
            "next_action": spy.argument("critic_loss", 3)[0],
            "noisy_action": noisy.argument("forward", 1, index=-1)[0],
            "noisy_q": noisy_qs[0],
            "noisy_target_q": clean_qs[0],
            "linex_delta": agent.config.inverse_temperature * (clean_qs - noisy_qs)[0],
            "noisy_critic_loss": result["noisy_loss"][0],
            "critic_loss": result["critic_loss"][0],
            "flow_loss": result["flow_loss"][0],
        }
    )


@dataclass(frozen=True)
class Case:
    """A reference file, the agent it is about, and where its networks are in ours."""

    file: str
    build: Callable[[Reference, RandomStreams], Any]
    find: Callable[[Any, Reference, pytest.MonkeyPatch], dict[str, Tensor]]
    modules: dict[str, str]


CASES = [
    Case("A3_qam", build_qam, find_qam, CRITICS | QAM_FLOWS),
    Case(
        "A4_qam_edit",
        build_qam_edit,
        find_qam_edit,
        CRITICS | QAM_FLOWS | {"edit_actor": "edit.network", "edit_alpha": "temperature.log_value"},
    ),
    Case(
        "A5_qam_fql",
        build_qam_fql,
        find_qam_fql,
        CRITICS | QAM_FLOWS | {"one_step_actor": "one_step.network"},
    ),
    Case(
        "A6_fql",
        build_fql,
        find_fql,
        CRITICS | {"actor_bc_flow": "flow.network", "actor_onestep_flow": "one_step.network"},
    ),
    Case(
        "A7_ifql", build_ifql, find_ifql, CRITICS | {"value": "value", "actor_flow": "flow.network"}
    ),
    Case(
        "A8_dsrl",
        build_dsrl,
        find_dsrl,
        CRITICS
        | {
            "z_critic": "noise_critic",
            "actor_bc_flow": "flow.network",
            "target_actor_bc_flow": "target_flow.network",
            "actor": "actor.network",
            "alpha": "temperature.log_value",
        },
    ),
    Case(
        "A9_cgql_linex",
        build_cgql,
        find_cgql,
        CRITICS | {"actor": "flow.network", "target_actor": "target_flow.network"},
    ),
]

# What the update as a whole is judged by; every other expected value is an intermediate.
OF_THE_UPDATE = {"total_loss", "grad_norm", "grad_clip_coef", "logged_grad_norm"}


@pytest.fixture(params=CASES, ids=lambda case: case.file)
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


def start(case: Case, reference: Reference, streams: RandomStreams) -> Any:
    agent = case.build(reference, streams)
    load_parameters(agent, reference.group("init/"), case.modules)
    return agent


def test_every_intermediate_and_loss(
    case: Case, streams: RandomStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference(case.file)
    found = case.find(start(case, reference, streams), reference, monkeypatch)
    assert set(found) == set(reference.group("expect/")) - OF_THE_UPDATE
    check_expected(reference, found)


def test_gradients(case: Case, streams: RandomStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference(case.file)
    agent = start(case, reference, streams)
    total = total_loss(agent, reference, monkeypatch)
    check_expected(reference, {"total_loss": total[0]})
    check_gradients(agent, total, translated(reference.group("grad/"), case.modules))


def test_one_update(case: Case, streams: RandomStreams) -> None:
    reference = Reference(case.file)
    agent = start(case, reference, streams)
    metrics = agent.update(reference.batch(), reference.noise())
    check_expected(reference, {"grad_norm": metrics["gradient_norm"][0]})
    check_after(agent, translated(reference.group("after/"), case.modules))


def test_ifql_plays_the_candidate_with_the_best_smallest_value(streams: RandomStreams) -> None:
    case = next(case for case in CASES if case.file == "A7_ifql")
    reference = Reference(case.file)
    agent = start(case, reference, streams)
    observation = reference.tensor("act/observation")[None, None]
    action = agent.act(observation, {"flow": reference.tensor("act/noise")[None, None]})
    assert error(action[0, 0], reference.tensor("act/action")) < EXPECT


def test_every_reference_file_is_used() -> None:
    files = {path.stem for path in Reference.folder().glob("*.npz")}
    files -= set(Reference.describing_themselves())
    assert files == {case.file for case in CASES} | {
        "A1_trqam",
        "A2_trqam_chunked",
        "A10_trqam_trace20",
        "A11_sqam",
        "A12_sqam_chunked",
        "A13_sqam_trace20",
        "A14_rebrac",
        "A15_rebrac_critic_step",
    }


def test_the_published_linex_tail_is_reached(
    streams: RandomStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise the parity of A9 would say nothing about it.
    reference = Reference("A9_cgql_linex")
    assert bool((reference.tensor("expect/linex_delta") > reference.config["isd_clip"]).any())
    case = next(case for case in CASES if case.file == "A9_cgql_linex")
    agent = start(case, reference, streams)
    published = agent.losses(reference.batch(), reference.noise())["noisy_loss"]
    agent.config = replace(agent.config, linex_tail="linear")
    linear = agent.losses(reference.batch(), reference.noise())["noisy_loss"]
    assert not torch.allclose(published, linear, rtol=1e-3)
