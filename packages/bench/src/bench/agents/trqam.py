"""Trust Region Q-Adjoint Matching (TRQAM), arXiv 2605.27079.

A behaviour-cloned flow policy (`slow`) is the reference. A second one (`fast`) is fine-tuned
towards ``p(a|s) ~ p_slow(a|s) exp(Q(s,a)/lambda)`` by adjoint matching, and lambda moves so
that the path-space KL between the two stays at a budget: by projected dual descent as published, or
by solving the dual and correcting for what the policy misses.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action, sampled
from bench.agents.adjoint_matching import adjoint_losses, adjoint_noise
from bench.agents.diffusion import (
    ActingPolicy,
    PolicyField,
    PolicyPrediction,
    interpolant_of,
    policy_field,
)
from bench.agents.dual import BudgetShape, budget_of, check_samples
from bench.agents.endpoint_kl import endpoint_kl
from bench.agents.estimators import EstimatorName, adjoint_estimator
from bench.agents.kernels import KernelName, memoryless_kernel
from bench.agents.losses import (
    cloning_loss,
    critic_loss,
    policy_and_data_values,
    take_step,
)
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.reference import ReferenceKind, averaged, reference_policy
from bench.recorded import added
from flowsde import sample_path, velocities_along
from qlearn import ChunkBatch, Learner, RandomStreams
from trustregion import DualDescent, RelativeDualDescent, correct_dual, path_kl, solve_dual

__all__ = ["TRQAM", "TRQAMConfig"]


@dataclass(frozen=True, slots=True)
class TRQAMConfig:
    """Settings of TRQAM; the defaults are the published ones.

    Attributes:
        actor_hidden: widths of the flow policies' hidden layers.
        actor_layer_norm: LayerNorm in the flow policies.
        critic_hidden: widths of the critics' hidden layers.
        critic_layer_norm: LayerNorm in the critics.
        critics: size of the critic ensemble.
        prediction: of the policies' networks: `velocity`, flow policies, or `noise`, diffusion.
        flow_steps: Euler steps ``K`` of the flow, for acting and for the memoryless SDE.
        discount: per environment step.
        pessimism: ``rho`` of ``mean(Q) - rho * std(Q)`` over the target ensemble.
        learning_rate: Adam's step size.
        target_rate: EMA rate ``tau`` of the target critic and of the reference policy.
        max_gradient_norm: global-norm clip over all parameters of a run together; None: no clip.
        clip_terminal: take the critic's gradient through ``clip(a, -1, 1)``.
        adjoint_time: time of the base velocity in the adjoint, ``t + h`` as published or ``t``.
        kernel: discretisation of the memoryless SDE; `memoryless_euler` as published.
        kernel_scale: standard deviation of the data that a kernel is built for; 0 for the data's.
        trust_region: `internal`: lambda is in the control problem. `external`: the control problem
            has a fixed `temperature` and ``lambda * KL`` is added to its loss as a penalty.
        temperature: lambda of the control problem when the trust region is external.
        kl_budget: path-space KL (nats, per action of a chunk) that the trust region allows.
        budget_schedule: `constant`, or from `kl_budget` to `budget_end` by a line or half a cosine.
        budget_end: KL allowed at the end of a schedule and behind it; a schedule needs it.
        budget_steps: updates that a schedule takes; a schedule needs it.
        dual: `descend` lambda with the measured KL; the same on its logarithm, by the `relative`
            violation of the budget; or `solve` for it from reference samples and correct that by
            the measured KL.
        dual_samples: reference samples per observation that lambda is solved from.
        dual_states: observations of a batch that lambda is solved from.
        dual_rate: step size of the dual descent on lambda, 0 keeps lambda where it starts; or of
            the correction of a solved lambda's logarithm, 0 keeps it uncorrected.
        dual_ema: averaging rate of the KL estimate, or of the logarithm of the solved lambda.
        dual_clip: KL estimates are capped at this multiple of the budget; for a correction, also
            from below at the budget divided by it.
        lambda_min: lower bound of the dual variable.
        lambda_max: upper bound of the dual variable.
        lambda_scale: lambda in the control problem is this multiple of the dual variable.
        lambda_initial: the dual variable at the start.
        best_of: actions sampled when acting; the one with the best mean critic value is played.
        estimator: of the adjoint: `lean` as published, `scalar` as in SQAM, `linear_drift`, or
            `reinforce`, which never differentiates the critic.
        bridge_steps: noised states per sample, for estimators other than `lean`.
        value_penalty: weight of the policy's mean value less the data's in the critic's loss.
        reference: that the policy is held to: `ema`, the moving average of a clone that goes on
            being trained, as published; `frozen`, the policy as it was; `adapters_off`, the policy
            itself with its adapters switched off.
        endpoint_kl_samples: actions by which the KL between the policies' own actions is measured
            whenever metrics are logged; 0 for never.
        endpoint_kl_probes: random probes of the divergence in it; 0 computes it.
        path_kl_samples: SDE paths by which the KL of the policy's own paths is measured whenever
            metrics are logged, for estimators that follow none; 0 for never.
    """

    actor_hidden: tuple[int, ...] = (512, 512, 512, 512)
    actor_layer_norm: bool = False
    critic_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_layer_norm: bool = True
    critics: int = 10
    prediction: PolicyPrediction = "velocity"
    flow_steps: int = 10
    discount: float = 0.995
    pessimism: float = 0.5
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    max_gradient_norm: float | None = 1.0
    clip_terminal: bool = True
    adjoint_time: Literal["shifted", "consistent"] = "shifted"
    kernel: KernelName = "memoryless_euler"
    kernel_scale: float = 0.0
    trust_region: Literal["internal", "external"] = "internal"
    temperature: float = 1.0
    kl_budget: float = 1.0
    budget_schedule: BudgetShape = "constant"
    budget_end: float | None = None
    budget_steps: int | None = None
    dual: Literal["descend", "relative", "solve"] = "descend"
    dual_samples: int = 64
    dual_states: int = 8
    dual_rate: float = 0.01
    dual_ema: float = 0.1
    dual_clip: float = 2.0
    lambda_min: float = 0.01
    lambda_max: float = 100.0
    lambda_scale: float = 3.0
    lambda_initial: float = 1.0
    best_of: int = 1
    endpoint_kl_samples: int = 0
    endpoint_kl_probes: int = 0
    estimator: EstimatorName = added("0.2", "lean")
    bridge_steps: int = added("0.2", 10)
    value_penalty: float = added("0.2", 0.0)
    reference: ReferenceKind = added("0.2", "ema")
    path_kl_samples: int = added("0.2", 0)

    @property
    def unread(self) -> frozenset[str]:
        """Settings that do nothing beside the others: with lambda held fixed, those of a budget."""
        if self.dual == "solve" or self.dual_rate > 0.0:
            return frozenset()
        return frozenset(
            {"kl_budget", "budget_schedule", "budget_end", "budget_steps", "dual_ema", "dual_clip"}
        )


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
            config.critics,
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
            target_rate=config.target_rate,
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

        # Fine-tuned policy: adjoint matching on its own samples.
        internal = config.trust_region == "internal"
        matching, samples = adjoint_losses(
            self.estimator,
            fine=self._field(self.fast, observations),
            base=self._field(self.target_slow, observations),
            reward=lambda action: self.target_critic(observations, action).mean(-2),
            noise=noise,
            clip=config.clip_terminal,
            horizon=self.problem.horizon,
            lam=self.dual.lambda_ if internal else config.temperature,
        )

        # Critic: TD towards the fine-tuned policy's next chunk, pessimistic over the ensemble.
        next_action = self.sample(batch.next_observations, noise["next_action"])
        penalty: dict[str, Tensor] = {}
        values = None
        if config.value_penalty:
            of_policy, values = policy_and_data_values(self.critic, batch, samples)
            penalty["value_gap"] = (of_policy - values).mean((-2, -1))
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            pessimism=config.pessimism,
            discount=config.discount,
            horizon=self.problem.horizon,
            values=values,
        )

        # Reference: behaviour cloning goes on during fine-tuning, unless it is fixed.
        cloning = {}
        if self.slow is not None:
            cloning["flow_loss"] = cloning_loss(self.slow, batch, noise, config.prediction)
        losses = {"critic_loss": td, **cloning, **matching, **penalty}
        if not internal:
            losses["kl_penalty"] = self.dual.lambda_ * losses["path_kl"]
        return losses

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference, fine-tuned policy and dual; metrics are ``(R,)``."""
        moved: dict[str, Tensor] = {}
        solve, dual = self.config.dual == "solve", self.dual
        if solve:
            values = self.reference_values(batch.observations, noise["reference"])
            moved = solve_dual(dual, self.dual_correction, values, self.problem.horizon)
        losses = self.losses(batch, noise)
        total = losses["critic_loss"]
        for name in ("flow_loss", "adjoint_loss", "kl_penalty"):
            if name in losses:
                total = total + losses[name]
        if "value_gap" in losses:
            total = total + self.config.value_penalty * losses["value_gap"]
        metrics = take_step(self.learner, losses, total)
        kl = losses["path_kl"].detach()
        if solve:
            moved |= correct_dual(dual, self.dual_correction, kl)
        else:
            moved = dict(dual.update(kl))
            if self.config.dual_rate == 0.0:  # lambda is fixed, whatever the budget
                moved = {name: moved[name] for name in ("lambda", "lam")}
        return metrics | moved

    @torch.no_grad()
    def reference_values(self, observations: Tensor, noise: Tensor) -> Tensor:
        """The target critic at samples of the reference, ``(R, S, n)``, for noise with an axis D.

        They are taken at the first ``S`` of the observations.
        """
        _, values = sampled(
            noise,
            observations[:, : noise.shape[1]],
            policy=lambda o, x0: flow_action(
                self._field(self.target_slow, o), x0, self.config.flow_steps
            ),
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
            metrics["endpoint_kl"] = self._endpoint_kl(batch.observations[:, :rows], streams)
        if rows := config.path_kl_samples:
            metrics["realised_path_kl"] = self._path_kl(batch.observations[:, :rows], streams)
        return metrics

    def _endpoint_kl(self, observations: Tensor, streams: RandomStreams) -> Tensor:
        """KL of the two policies' own actions, nats per action."""
        rows, size = observations.shape[1], self.problem.chunk_dim
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
    def _path_kl(self, observations: Tensor, streams: RandomStreams) -> Tensor:
        """Path KL along SDE paths of the fine-tuned policy, nats per action."""
        rows, size = observations.shape[1], self.problem.chunk_dim
        fine, base = (self._field(p, observations) for p in (self.fast, self.target_slow))
        start, steps = streams.normal(rows, size), streams.normal(self.kernel.steps, rows, size)
        path = sample_path(self.kernel, fine, start, steps.movedim(1, 0), final_velocity=base)
        velocities = (velocities_along(self.kernel, field, path) for field in (fine, base))
        return path_kl(self.kernel, *velocities).mean(-1) / self.problem.horizon

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the fine-tuned policy."""
        return self._end(self.fast, observations, noise)

    def _end(self, policy: FlowPolicy, observations: Tensor, noise: Tensor) -> Tensor:
        return flow_action(self._field(policy, observations), noise, self.config.flow_steps)

    def _field(self, policy: ActingPolicy, observations: Tensor) -> PolicyField:
        return policy_field(policy, observations, self.config.prediction)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.best_of, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best of ``config.best_of`` by the critics' mean."""
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
