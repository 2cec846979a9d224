"""Whether a user's own policy is a velocity model of the data at hand, before it is trained."""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bench.agents import Agent, ModulePolicy, Problem
from bench.agents.critics import ModuleCritic
from bench.agents.module_policy import ModuleField
from qlearn import ChunkBatch, ChunkSource, Observation, RandomStreams, tree_leaves, tree_rows

__all__ = ["check_networks"]

_ROWS = 8
_log = logging.getLogger(__name__)


def check_networks(
    name: str, agent: Agent, problem: Problem, data: ChunkSource, streams: RandomStreams
) -> None:
    """Ask an agent's modules about a few rows of the data, without moving anything.

    Args:
        name: of the policy, for errors.
        agent: built with the user's networks.
        problem: sizes.
        data: of the run.
        streams: of the run, left where they are.

    Raises:
        ValueError: the module cannot be asked, returns something else than velocities of the
            actions' shape and type, ignores the time, detaches, mixes the rows of a batch, answers
            at random, or gives what is not finite; the text says what to do.
    """
    parts = {n: m for n, m in _children(agent) if isinstance(m, ModulePolicy | ModuleCritic)}
    policies = [module for module in parts.values() if isinstance(module, ModulePolicy)]
    critics = [module for module in parts.values() if isinstance(module, ModuleCritic)]
    if not parts:
        return
    batch = data.sample(streams.spawn("checking"), _ROWS)
    _check_rows(batch)
    _check_shared(name, parts)
    for policy in policies[:1]:
        _Asked(name, policy, problem, batch, streams.spawn("checked")).check()
    for critic in critics[:1]:
        _check_critic(critic, batch)


def _children(agent: Agent) -> Sequence[tuple[str, nn.Module]]:
    return list(agent.named_children()) if isinstance(agent, nn.Module) else []


class _Asked:
    """A policy, and a few points to ask it about."""

    def __init__(
        self,
        name: str,
        policy: ModulePolicy,
        problem: Problem,
        batch: ChunkBatch,
        streams: RandomStreams,
    ) -> None:
        self.name, self.policy, self.problem = name, policy, problem
        self.observations: Observation = batch.observations
        self.x = streams.normal(_ROWS, problem.chunk_dim)

    def check(self) -> None:
        """Raise what is wrong first."""
        velocity = self._asked(lambda: self._raw(0.3))
        self._check_form(velocity)
        shown = self._where(velocity)
        if not bool(velocity.isfinite().all()):
            raise ValueError(
                f"policy {self.name} gives velocities that are not finite on the first batch of "
                f"the data{shown}; observations and actions are finite"
            )
        with torch.no_grad():
            again, other, alone = self._raw(0.3), self._raw(0.7), self._raw(0.3, rows=1)
        here = velocity.detach()
        # A GPU may add in another order from call to call.
        scale = 1e-3 * float(here.abs().max()) + 1e-6
        if float((again - here).abs().max()) > scale:
            raise ValueError(
                f"policy {self.name} answers the same question differently: a dropout or noise of "
                "its own is on in evaluation mode, and two equal policies would be nats apart; "
                "switch it off"
            )
        if bool(here.any()) and torch.equal(other, again):
            raise ValueError(
                f"policy {self.name} ignores the time: velocities at t=0.3 and t=0.7 are equal; a "
                "flow policy reads t (noise at t=0, actions at t=1, or the other way round with "
                "convention='noise_at_one')"
            )
        if float((alone - here[:1]).abs().max()) > 10.0 * scale:
            raise ValueError(
                f"policy {self.name} mixes the rows of a batch: the first row alone has another "
                "velocity than among others; normalise by stored statistics, not by the batch's"
            )
        self._check_gradient(velocity)

    def _raw(self, time: float, rows: int = _ROWS) -> Tensor:
        """What the module itself answers, ``(rows, H, A)``."""
        observations = tree_rows(self.observations, (slice(None), slice(rows)))
        field: ModuleField = self.policy.field(observations)
        x = self.x[0, :rows].reshape(rows, *self.policy.event)
        return self.policy.velocity(field.context, x, x.new_full((rows,), time))

    def _asked(self, question: Callable[[], Tensor]) -> Tensor:
        try:
            return question()
        # What a module of the user's raises when its inputs are not as it was written for.
        except (
            ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
            RuntimeError, TypeError, ValueError,
        ) as error:  # fmt: skip
            leaves = ", ".join(
                f"{leaf or 'observations'} {str(value.dtype).removeprefix('torch.')}"
                f"{list(value.shape[2:])}"
                for leaf, value in tree_leaves(self.observations)
            )
            raise ValueError(
                f"policy {self.name} cannot be asked about the data: "
                f"{type(error).__name__}: {error}; it was given {leaves}, "
                f"x float32{[_ROWS, *self.policy.event]} and t float32{[_ROWS]}"
            ) from error

    def _check_form(self, velocity: Tensor) -> None:
        wanted = (_ROWS, *self.policy.event)
        if not isinstance(velocity, Tensor):
            raise ValueError(
                f"policy {self.name} returns {type(velocity).__name__}, expected a tensor of "
                f"velocities {list(wanted)}"
            )
        if velocity.shape != wanted:
            raise ValueError(
                f"policy {self.name} returns shape {tuple(velocity.shape)} for actions of shape "
                f"{wanted} (batch, chunk length, action), expected the same; is the chunk length "
                f"{self.policy.event[0]}?"
            )
        if velocity.dtype != self.x.dtype:
            raise ValueError(
                f"policy {self.name} returns {velocity.dtype} for actions of {self.x.dtype}; cast "
                "its output, v.to(x.dtype)"
            )

    def _check_gradient(self, velocity: Tensor) -> None:
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        reached: Sequence[Tensor | None] = ()
        if velocity.requires_grad:
            reached = torch.autograd.grad(velocity.sum(), trained, allow_unused=True)
        if all(gradient is None for gradient in reached):
            raise ValueError(
                f"policy {self.name} detaches its velocities: no gradient reaches its "
                f"{len(trained)} trained parameters; it must not run under torch.no_grad(), "
                ".detach() or .numpy()"
            )
        unread = sum(gradient is None for gradient in reached)
        if unread:
            _log.info("%d trained parameters of %s do not enter its velocity", unread, self.name)

    def _where(self, velocity: Tensor) -> str:
        bad = (~velocity.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        return f" (rows {bad})" if 0 < len(bad) < _ROWS else ""


def _check_critic(critic: ModuleCritic, batch: ChunkBatch) -> None:
    """Refuse a critic whose values are not finite, or say nothing about actions."""
    actions = batch.actions.clone().requires_grad_()
    values = critic(batch.observations, actions)
    name = type(critic.module).__name__
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"critic {name} gives values that are not finite on the first batch of the data; "
            "observations and actions are finite"
        )
    reached: Sequence[Tensor | None] = (None,)
    if values.requires_grad:
        reached = torch.autograd.grad(values.sum(), (actions,), allow_unused=True)
    if reached[0] is None:
        raise ValueError(
            f"critic {name} has values without a gradient in the actions, by which policies are "
            "improved; it must read its second argument, and not under torch.no_grad()"
        )


def _check_rows(batch: ChunkBatch) -> None:
    """Refuse rows that no network should be given."""
    for leaf, value in tree_leaves(batch.observations):
        named = f"observations[{leaf!r}]" if leaf else "observations"
        if not value.is_floating_point():
            continue
        if not bool(value.isfinite().all()):
            raise ValueError(f"{named} of the data are not finite in the first batch")
        if value.dim() >= 5 and float(value.max()) > 2.0:
            raise ValueError(
                f"{named} look like images, {list(value.shape[2:])}, as {value.dtype} up to "
                f"{float(value.max()):g}; store images as uint8 0..255 (they stay so until they "
                "are used), or as floats in [0, 1]"
            )


def _check_shared(name: str, parts: Mapping[str, ModulePolicy | ModuleCritic]) -> None:
    """Refuse policies and critics of one agent that share what is trained."""
    owners: dict[int, str] = {}
    for part, policy in parts.items():
        for where, parameter in policy.module.named_parameters(remove_duplicate=False):
            owner = owners.setdefault(parameter.data_ptr(), part)
            if owner != part and parameter.numel():
                if isinstance(policy, ModuleCritic) or isinstance(parts[owner], ModuleCritic):
                    raise ValueError(
                        f"{owner} and {part} share the parameter {where}: training one would move "
                        "the other; give the critic a copy (copy.deepcopy) of what it takes from "
                        "the policy"
                    )
                raise ValueError(
                    f"the base and the fine-tuned policy share the parameter {where} of {name}: "
                    "training one would move the other; make it copyable by copy.deepcopy"
                )
