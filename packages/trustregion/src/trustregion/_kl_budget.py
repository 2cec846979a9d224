"""A KL budget for training loops that are not ours: a measured KL in, lambda out."""

import math
import warnings

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from trustregion._budget import BudgetSchedule
from trustregion._relative_descent import RelativeDualDescent

# Updates after which an average that is still negative is no longer taken for noise.
_PATIENCE = 20
# Logarithm of the updates that pass on average before samples of the policy are taken for others.
_EVIDENCE = math.log(1e6)


class KLBudget(nn.Module):
    """Lambda for any trainer, from whatever KL it measures: `lam = budget.step(measured_kl)`.

    Lambda is the price of a nat: the weight of a KL penalty, the temperature of a tilted law, or
    `lam` of `adjoint.matching_loss`. It rises while the measured KL is above the target and falls
    while it is below, by `RelativeDualDescent`, whatever the unit of the reward and the size of
    the target.

    The KL must be an estimate of KL(policy || reference) *under the policy that is trained*: of
    samples x that it drew itself, for instance `path_kl`, or the mean of `log p(x) - log p_ref(x)`
    (unbiased, but single values may be negative), or of `r - 1 - log r` with
    `r = p_ref(x)/p(x)` (never negative). Samples of the reference, of a replay buffer or of an old
    policy estimate something else, as does the other direction of the KL. An average that stays
    negative is none, and is warned of; `step_log_probs` sees more of these mistakes.

    Samples, or their means in single processes, are averaged over all processes of
    `torch.distributed` before the step, so all of them hold the same lambda. `state_dict` resumes
    exactly.

    Args:
        target: Budget in nats, in the units of the KL that is measured; a number or a schedule of
            the number of updates done.
        prompts: None for one lambda, or the number of prompts (classes, conditions) that have one
            each.
        initial: Lambda before anything is measured, best the weight that was used without a budget.
        rate: As in `RelativeDualDescent`.
        damping: Likewise.
        ema: Likewise.
        bounds: Smallest and largest lambda.
        distributed: Average over the processes of the default group, if there is one. All of them
            must call `step` equally often.

    Attributes:
        evidence: Logarithm of the evidence that the samples are not the policy's, ().

    Raises:
        ValueError: If a setting is out of range.
    """

    evidence: Tensor

    def __init__(
        self,
        target: float | BudgetSchedule,
        *,
        prompts: int | None = None,
        initial: float = 1.0,
        rate: float = 0.02,
        damping: float = 0.2,
        ema: float = 0.1,
        bounds: tuple[float, float] = (1e-4, 1e4),
        distributed: bool = True,
    ) -> None:
        super().__init__()
        if prompts is not None and (type(prompts) is not int or prompts < 1):
            raise ValueError(f"prompts must be None or the number of prompts, got {prompts!r}")
        self.prompts, self.distributed = prompts, distributed
        self.dual = RelativeDualDescent(
            prompts or 1,
            budget=target,
            initial=initial,
            rate=rate,
            damping=damping,
            ema=ema,
            bounds=bounds,
        )
        self.register_buffer("evidence", torch.zeros(()))
        self._warned = False

    @property
    def lam(self) -> Float[Tensor, "*prompts"]:
        """Lambda as it is: () , or (prompts,)."""
        return self.dual.lambda_ if self.prompts is not None else self.dual.lambda_[0]

    def step(
        self,
        measured_kl: float | Float[Tensor, "*batch"],
        prompt: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "*samples"]:
        """One dual step; call it once per update of the policy.

        The values are looked at, which waits for the device.

        Args:
            measured_kl: KL of the policy from its reference in nats: a number, or one estimate per
                sample, (B,), whose mean counts. It may carry a graph, and is left as it is.
            prompt: Index of the prompt of each sample, (B,) integers; with `prompts` only. Prompts
                that do not occur keep their lambda.

        Returns:
            Lambda after the step, detached: (), or (B,) for the prompt of each sample.

        Raises:
            ValueError: If an estimate is not finite, or the shapes do not fit. Nothing has moved.
        """
        kl = torch.as_tensor(measured_kl, device=self.dual.lam.device).detach()
        kl = kl.to(self.dual.lam.dtype)
        index = self._checked_index(kl, prompt)
        totals = kl.new_zeros(2, len(self.dual.lam))
        totals[0].index_add_(0, index, kl.reshape(-1))
        totals[1].index_add_(0, index, torch.ones_like(kl).reshape(-1))
        if self.distributed and dist.is_available() and dist.is_initialized():
            dist.all_reduce(totals)
        # After the sum, so that all processes err together and none waits for another.
        if not bool(totals.isfinite().all()):
            raise ValueError(
                f"measured_kl is not finite (here: {_shown(kl)}): a ratio of densities overflowed, "
                "or the policy diverged; nothing has moved"
            )
        self.dual.update(totals[0] / totals[1])  # 0/0, of a prompt that does not occur, is unknown
        self._warn_if_negative()
        return self.lam if prompt is None else self.dual.lambda_[index]

    def step_log_probs(
        self,
        log_prob: Float[Tensor, "batch"],
        reference_log_prob: Float[Tensor, "batch"],
        prompt: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "*samples"]:
        """`step` on the mean of `log p(x) - log p_ref(x)`, with a check of whose samples x are.

        For samples of the policy itself the mean of `p_ref(x)/p(x)` is 1, whatever the two are.
        What it is above 1 for reference samples, a replay buffer, an old policy or exchanged
        arguments adds up over updates (a sequential test by betting, Waudby-Smith & Ramdas, arXiv
        2010.09686) and is warned of once; samples of the policy are, once in a million updates.

        Args:
            log_prob: Log-density of each sample under the policy that is trained, (B,): for a path
                or a sequence the sum over its steps or tokens.
            reference_log_prob: That under the reference, (B,).
            prompt: As in `step`.

        Returns:
            As `step`.

        Raises:
            ValueError: If the shapes differ, and as `step`.
        """
        if log_prob.ndim != 1 or log_prob.shape != reference_log_prob.shape:
            raise ValueError(
                f"log_prob has shape {tuple(log_prob.shape)} and reference_log_prob "
                f"{tuple(reference_log_prob.shape)}; expected one number per sample, (B,), of "
                "both: sum over the steps or tokens of a sample"
            )
        ratio = log_prob.detach().double() - reference_log_prob.detach().double()
        lam = self.step(ratio, prompt)
        # Where one ratio is astronomic, the mean says no more than that it is.
        inverse = (-ratio).clamp(max=50.0).exp().mean().to(self.evidence.device)
        if self.distributed and dist.is_available() and dist.is_initialized():
            dist.all_reduce(inverse)
            inverse = inverse / dist.get_world_size()
        self.evidence.copy_(self.evidence.clamp(min=0.0) + torch.log(0.5 + 0.5 * inverse))
        if not self._warned and float(self.evidence) > _EVIDENCE:
            self._warned = True
            warnings.warn(
                "the samples are not those of the policy that is trained: the mean of p_ref/p over "
                f"them, which is 1 under the policy, is {float(inverse):.3g} and keeps above 1. "
                "Draw them from the policy as it is now, and give its log-density first",
                stacklevel=2,
            )
        return lam

    def penalty(
        self, measured_kl: Float[Tensor, "*batch"], prompt: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, ""]:
        """The loss term `mean(lambda KL)` after a dual step, with gradient through the KL alone.

        The gradient must be that of the KL. Path KL has it, along paths of the policy. The mean of
        `log p(x) - log p_ref(x)` at given samples has not: its gradient is 0 in expectation, so it
        penalises nothing; that of `r - 1 - log r` is the gradient of the other direction. There
        give the estimate to `step`, and add `lam * (log p - log p_ref)^2/2`, whose gradient is that
        of the KL, or subtract `lam (log p - log p_ref)` from the reward.

        Args:
            measured_kl: As in `step`, with a graph.
            prompt: As in `step`.

        Returns:
            The term, ().

        Raises:
            ValueError: If the KL carries no gradient, and as `step`.
        """
        if not isinstance(measured_kl, Tensor) or not measured_kl.requires_grad:
            raise ValueError(
                "measured_kl carries no gradient, so lambda times it would penalise nothing: "
                "measure it outside of torch.no_grad and without .item(), or subtract "
                "budget.step(kl) * kl from the reward instead"
            )
        return (self.step(measured_kl, prompt) * measured_kl).mean()

    def _checked_index(self, kl: Tensor, prompt: Tensor | None) -> Tensor:
        """Row of the dual for each estimate."""
        if kl.ndim > 1 or kl.numel() == 0:
            raise ValueError(
                f"measured_kl has shape {tuple(kl.shape)}; expected a number or one estimate per "
                "sample, (B,): sum it over steps and entries of a sample, and flatten the rest"
            )
        if self.prompts is None:
            if prompt is not None:
                raise ValueError(
                    "this budget is global: give KLBudget prompts=N for one lambda each"
                )
            return torch.zeros(kl.numel(), dtype=torch.int64, device=kl.device)
        if prompt is None or prompt.shape != kl.shape or prompt.dtype not in _INTEGERS:
            given = "None" if prompt is None else f"{tuple(prompt.shape)} of {prompt.dtype}"
            raise ValueError(
                f"this budget has one lambda for each of {self.prompts} prompts: give the index of "
                f"the prompt of each sample as integers of shape {tuple(kl.shape)}, got {given}"
            )
        index = prompt.to(kl.device, torch.int64).reshape(-1)
        if not 0 <= int(index.min()) <= int(index.max()) < self.prompts:
            raise ValueError(
                f"prompts are numbered 0..{self.prompts - 1}, got {int(index.min())} to "
                f"{int(index.max())}"
            )
        return index

    def _warn_if_negative(self) -> None:
        negative = (self.dual.known >= _PATIENCE) & (self.dual.kl_ema < 0.0)
        if not self._warned and bool(negative.any()):
            self._warned = True
            warnings.warn(
                f"the measured KL averages to {float(self.dual.kl_ema.min()):.3g} nats, which no "
                "KL does: are the samples those of the policy that is trained, and is it log p - "
                "log p_ref, not the reverse? Lambda falls to its bound meanwhile",
                stacklevel=3,
            )


_INTEGERS = (torch.int64, torch.int32)


def _shown(kl: Tensor) -> str:
    bad = int((~kl.isfinite()).sum())
    return f"{bad} of {kl.numel()} values" if kl.ndim else f"{float(kl)}"
