"""Trust Region Q-Adjoint Matching (TRQAM), arXiv 2605.27079.

A behaviour-cloned flow policy (`slow`) is the reference. A second one (`fast`) is fine-tuned
towards ``p(a|s) ~ p_slow(a|s) exp(Q(s,a)/lambda)`` by adjoint matching, and lambda moves so
that the path-space KL between the two stays at a budget: by projected dual descent as published, or
by solving the dual and correcting for what the policy misses.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action, sampled
from bench.agents.adjoint_matching import (
    AdjointMatchingSettings,
    adjoint_losses,
    adjoint_noise,
)
from bench.agents.diffusion import (
    ActingPolicy,
    PolicyField,
    PolicyPrediction,
    interpolant_of,
    policy_field,
)
from bench.agents.dual import BudgetShape, budget_of, check_samples
from bench.agents.endpoint_kl import endpoint_kl
from bench.agents.estimators import adjoint_estimator
from bench.agents.kernels import KernelName, memoryless_kernel
from bench.agents.losses import (
    cloning_loss,
    critic_loss,
    optimise,
    policy_and_data_values,
)
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Observed, Problem
from bench.agents.reference import averaged, reference_policy
from bench.agents.settings import MOST_SAMPLES, setting
from bench.experiment import DualSettings
from flowsde import sample_path, velocities_along
from qlearn import ChunkBatch, Learner, RandomStreams, tree_rows
from trustregion import DualDescent, RelativeDualDescent, correct_dual, path_kl, solve_dual

__all__ = ["TRQAM", "TRQAMConfig"]


@dataclass(frozen=True, slots=True)
class TRQAMConfig(AdjointMatchingSettings):
    """Settings of TRQAM; the defaults are the published ones."""

    prediction: PolicyPrediction = setting(
        "velocity", "of the policies' networks: `velocity`, flow policies, or `noise`, diffusion"
    )
    kernel: KernelName = setting(
        "memoryless_euler",
        "discretisation of the memoryless SDE; `memoryless_euler` as published",
    )
    kernel_scale: float = setting(
        0.0,
        "standard deviation of the data that a kernel is built for; 0 for the data's",
        least=0,
    )
    trust_region: Literal["internal", "external"] = setting(
        "internal",
        "`internal`: lambda is in the control problem. `external`: the control problem has a "
        "fixed `temperature` and `lambda * KL` is added to its loss as a penalty",
    )
    temperature: float = setting(
        1.0, "lambda of the control problem when the trust region is external", above=0
    )
    kl_budget: float = setting(
        1.0, "path-space KL (nats, per action of a chunk) that the trust region allows", above=0
    )
    budget_schedule: BudgetShape = setting(
        "constant",
        "`constant`, or from `kl_budget` to `budget_end` by a line or half a cosine",
    )
    budget_end: float | None = setting(
        None, "KL allowed at the end of a schedule and after it; a schedule needs it", above=0
    )
    budget_steps: int | None = setting(
        None, "updates that a schedule takes; a schedule needs it", least=1
    )
    dual: Literal["descend", "relative", "solve"] = setting(
        "descend",
        "`descend` lambda with the measured KL; the same on its logarithm, by the `relative` "
        "violation of the budget; or `solve` for it from reference samples and correct that by "
        "the measured KL",
    )
    dual_samples: int = setting(
        64, "reference samples per observation that lambda is solved from", least=1, most=10_000
    )
    dual_states: int = setting(
        8, "observations of a batch that lambda is solved from", least=1, most=10_000
    )
    dual_rate: float = setting(
        0.01,
        "step size of the dual descent on lambda, 0 keeps lambda where it starts; or of the "
        "correction of a solved lambda's logarithm, 0 keeps it uncorrected",
        least=0,
    )
    dual_ema: float = setting(
        0.1,
        "averaging rate of the KL estimate, or of the logarithm of the solved lambda",
        above=0,
        most=1,
    )
    # A cap at the budget or below it could only let lambda fall.
    dual_clip: float = setting(
        2.0,
        "KL estimates are capped at this multiple of the budget; for a correction, also from "
        "below at the budget divided by it",
        above=1,
    )
    lambda_min: float = setting(0.01, "lower bound of the dual variable", above=0)
    lambda_max: float = setting(100.0, "upper bound of the dual variable", above=0)
    lambda_scale: float = setting(
        3.0, "lambda in the control problem is this multiple of the dual variable", above=0
    )
    lambda_initial: float = setting(1.0, "the dual variable at the start", above=0)
    endpoint_kl_samples: int = setting(
        0,
        "actions by which the KL between the policies' own actions is measured whenever metrics "
        "are logged; 0 for never",
        least=0,
        most=MOST_SAMPLES,
        repeats=True,
    )
    endpoint_kl_probes: int = setting(
        0, "random probes of the divergence in it; 0 computes it", least=0, most=MOST_SAMPLES
    )
    path_kl_samples: int = setting(
        0,
        "SDE paths by which the KL of the policy's own paths is measured whenever metrics are "
        "logged, for estimators that follow none; 0 for never",
        least=0,
        most=MOST_SAMPLES,
        added="0.2",
    )

    @property
    def unread(self) -> dict[str, str]:
        """Settings that do nothing beside the others, and why."""
        if not DualSettings(self.dual, self.dual_rate).holds_lambda:
            return {}
        of_a_budget = (
            "kl_budget", "budget_schedule", "budget_end", "budget_steps", "dual_ema", "dual_clip"
        )  # fmt: skip
        return dict.fromkeys(of_a_budget, "dual_rate=0 holds lambda fixed whatever the budget")

    def with_budget(self, budget: float) -> Self:
        """The same at this budget throughout."""
        return replace(self, budget_schedule="constant", kl_budget=budget)


class TRQAM(nn.Module):
    """TRQAM for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    dual_correction: Tensor

    def __init__(self, config: TRQAMConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        _check_estimator(config)
        self.config, self.problem = config, problem
        self.kernel = memoryless_kernel(
            config.kernel,
            config.flow_steps,
            problem,
            streams.device,
            scale=config.kernel_scale,
            adjoint_time=config.adjoint_time,
            interpolant=interpolant_of(config.prediction),
        )
        self.estimator = adjoint_estimator(
            config.estimator,
            self.kernel,
            bridge_steps=config.bridge_steps,
            flow_steps=config.flow_steps,
            interpolant=interpolant_of(config.prediction),
        )
        policy = flow_actor(
            problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm
        )
        self.slow = policy if config.reference == "ema" else None
        self.critic = critic_ensemble(
            problem,
            config.num_critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.fast = copy.deepcopy(policy)
        self.target_slow = reference_policy(policy, self.fast, config.reference)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.dual = _dual(config, problem, streams.replicas)
        if config.dual == "solve":
            self.register_buffer("dual_correction", torch.zeros(streams.replicas))
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic), *averaged(self.target_slow, self.slow)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Take a behaviour-cloned flow as reference and as the policy to fine-tune."""
        for policy in (self.slow, self.target_slow, self.fast):
            if isinstance(policy, nn.Module):
                policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size, steps = self.problem.chunk_dim, self.estimator.steps
        wanted = {
            "next_action": normal(batch, size),
            **({"bc_x0": normal(batch, size), "bc_t": uniform(batch)} if self.slow else {}),
            **adjoint_noise(batch, size, steps),
        }
        if self.config.dual == "solve":
            states = min(batch, self.config.dual_states)
            wanted["reference"] = normal(states, self.config.dual_samples, size)
        return wanted

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations
        batch = replace(batch, actions=self.problem.counted(batch.actions))

        # Fine-tuned policy: adjoint matching on its own samples.
        internal = config.trust_region == "internal"
        matching, samples = adjoint_losses(
            self.estimator,
            fine=self._field(self.fast, observations),
            base=self._field(self.target_slow, observations),
            reward=lambda action: self.target_critic(
                observations, self.problem.counted(action)
            ).mean(-2),
            noise=noise,
            clip=config.clip_terminal,
            horizon=self.problem.horizon,
            lam=self.dual.lambda_ if internal else config.temperature,
            mask=self.problem.mask(batch.actions.device),
        )

        # Critic: TD towards the fine-tuned policy's next chunk, pessimistic over the ensemble.
        next_action = self.sample(batch.next_observations, noise["next_action"])
        penalty: dict[str, Tensor] = {}
        values = None
        if config.value_penalty:
            of_policy, values = policy_and_data_values(
                self.critic, batch, self.problem.counted(samples)
            )
            penalty["value_gap"] = (of_policy - values).mean((-2, -1))
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
            values=values,
        )

        # Reference: behaviour cloning goes on during fine-tuning, unless it is fixed.
        cloning = {}
        if self.slow is not None:
            cloning["flow_loss"] = cloning_loss(
                self.slow,
                batch,
                noise,
                config.prediction,
                mask=self.problem.mask(batch.actions.device),
            )
        losses = {"critic_loss": td, **cloning, **matching, **penalty}
        if not internal:
            losses["kl_penalty"] = self.dual.lambda_ * losses["path_kl"]
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum ``(R,)`` that is minimised."""
        total = losses["critic_loss"]
        for name in ("flow_loss", "adjoint_loss", "kl_penalty"):
            if name in losses:
                total = total + losses[name]
        if "value_gap" in losses:
            total = total + self.config.value_penalty * losses["value_gap"]
        return total

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference, fine-tuned policy and dual; metrics are ``(R,)``."""
        moved: dict[str, Tensor] = {}
        solve, dual = self.config.dual == "solve", self.dual
        if solve:
            values = self.reference_values(batch.observations, noise["reference"])
            moved = solve_dual(dual, self.dual_correction, values, self.problem.horizon)
        parts = self.problem.micro_batches
        metrics = optimise(self.learner, self.losses, self.total, batch, noise, parts)
        kl = metrics["path_kl"]
        if solve:
            moved |= correct_dual(dual, self.dual_correction, kl)
        else:
            moved = dict(dual.update(kl))
            if self.config.dual_rate == 0.0:  # lambda is fixed, whatever the budget
                moved = {name: moved[name] for name in ("lambda", "lam")}
        return metrics | moved

    @torch.no_grad()
    def reference_values(self, observations: Observed, noise: Tensor) -> Tensor:
        """The target critic at samples of the reference, ``(R, S, n)``, for noise with an axis D.

        They are taken at the first ``S`` of the observations.
        """
        _, values = sampled(
            noise,
            tree_rows(observations, (slice(None), slice(noise.shape[1]))),
            policy=lambda o, x0: self._end(self.target_slow, o, x0),
            value=lambda o, a: self.target_critic(o, a).mean(-2),
        )
        return values

    @property
    def measured_rows(self) -> int:
        """Rows that :meth:`measure` wants."""
        return max(self.config.endpoint_kl_samples, self.config.path_kl_samples)

    def measure(self, batch: ChunkBatch, streams: RandomStreams) -> dict[str, Tensor]:
        """Metrics ``(R,)`` too expensive for every update: KL between the two policies."""
        config, metrics = self.config, {}
        if rows := config.endpoint_kl_samples:
            seen = tree_rows(batch.observations, (slice(None), slice(rows)))
            metrics["endpoint_kl"] = self._endpoint_kl(seen, rows, streams)
        if rows := config.path_kl_samples:
            seen = tree_rows(batch.observations, (slice(None), slice(rows)))
            metrics["realised_path_kl"] = self._path_kl(seen, rows, streams)
        return metrics

    def _endpoint_kl(self, observations: Observed, rows: int, streams: RandomStreams) -> Tensor:
        """KL of the two policies' own actions, nats per action."""
        size = self.problem.chunk_dim
        noise, probes = streams.normal(rows, size), None
        if self.config.endpoint_kl_probes:
            probes = streams.normal(self.config.endpoint_kl_probes, rows, size).movedim(1, 0).sign()
        kl = endpoint_kl(
            self._field(self.fast, observations),
            self._field(self.target_slow, observations),
            noise,
            2 * self.config.flow_steps,
            probes,
        )
        return kl / self.problem.horizon

    @torch.no_grad()
    def _path_kl(self, observations: Observed, rows: int, streams: RandomStreams) -> Tensor:
        """Path KL along SDE paths of the fine-tuned policy, nats per action."""
        size = self.problem.chunk_dim
        fine, base = (self._field(p, observations) for p in (self.fast, self.target_slow))
        start, steps = streams.normal(rows, size), streams.normal(self.kernel.steps, rows, size)
        path = sample_path(self.kernel, fine, start, steps.movedim(1, 0), final_velocity=base)
        velocities = (velocities_along(self.kernel, field, path) for field in (fine, base))
        mask = self.problem.mask(start.device)
        return path_kl(self.kernel, *velocities, mask=mask).mean(-1) / self.problem.horizon

    @torch.no_grad()
    def sample(self, observations: Observed, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the fine-tuned policy."""
        return self._end(self.fast, observations, noise)

    def _end(self, policy: ActingPolicy, observations: Observed, noise: Tensor) -> Tensor:
        field = self._field(policy, observations)
        return self.problem.counted(flow_action(field, noise, self.config.flow_steps))

    def _field(self, policy: ActingPolicy, observations: Observed) -> PolicyField:
        return policy_field(policy, observations, self.config.prediction)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Observed, noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' mean."""
        return best_of(
            noise["flow"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).mean(-2),
        )


def _check_estimator(config: TRQAMConfig) -> None:
    """Refuse a discretisation that the estimator does not follow."""
    if config.estimator == "lean":
        return
    for name, usual in (("kernel", "memoryless_euler"), ("adjoint_time", "shifted")):
        if (value := getattr(config, name)) != usual:
            raise ValueError(
                f"{name}={value} applies to estimator=lean; estimator={config.estimator} follows "
                "no SDE path"
            )


def _dual(config: TRQAMConfig, problem: Problem, replicas: int) -> DualDescent:
    """Lambda, and the budget that it is moved by."""
    if not config.lambda_min <= config.lambda_initial <= config.lambda_max:
        raise ValueError(
            f"lambda_initial={config.lambda_initial:g} must lie between "
            f"lambda_min={config.lambda_min:g} and lambda_max={config.lambda_max:g}"
        )
    budget = budget_of(
        config.budget_schedule, config.kl_budget, config.budget_end, config.budget_steps
    )
    if config.dual == "solve":
        if config.trust_region == "external":
            raise ValueError(
                "dual=solve gives the lambda of the control problem; with trust_region=external, "
                "whose lambda is the weight of a penalty, use dual=descend"
            )
        largest = max(float(budget(torch.tensor(at))) for at in (0, config.budget_steps or 0))
        check_samples(config.dual_samples, largest, problem.horizon)
    form = RelativeDualDescent if config.dual == "relative" else DualDescent
    return form(
        replicas,
        budget=budget,
        rate=config.dual_rate,
        ema=config.dual_ema,
        clip=config.dual_clip,
        bounds=(config.lambda_min, config.lambda_max),
        scale=config.lambda_scale,
        initial=config.lambda_initial,
    )
