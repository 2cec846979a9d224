"""A trained policy to act with: observations in, action chunks out."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.policies._module import Policy
from bench.policies._trained import TrainedPolicy

__all__ = ["LoadedPolicy"]

_Array = TypeVar("_Array", Tensor, NDArray[np.floating])


class LoadedPolicy:
    """The policy of one run, in the environment's own units.

    ``policy(observation)`` returns the next :attr:`chunk_length` actions, to be played one after
    the other before the policy is asked again. Normalisation of observations and scaling of actions
    are inside. Actions are random as in training; two policies with the same ``noise_seed`` that
    are asked the same give the same actions.

    Args:
        trained: the agent of a run.
        noise_seed: of the actions' noise.
        device: where the networks run.
    """

    def __init__(
        self, trained: TrainedPolicy, *, noise_seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.trained = trained
        trained.agent.to(device)
        self._module = Policy(trained).to(device)
        self._device = torch.device(device)
        self._generator = torch.Generator()  # on the CPU: the same numbers on every device
        self.reset(noise_seed)

    def __repr__(self) -> str:
        cell, trained = self.trained.cell, self.trained
        return f"LoadedPolicy({cell}, {trained.phase} step {trained.step:,})"

    @property
    def chunk_length(self) -> int:
        """Actions per call, ``H``."""
        return self._module.horizon

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation, ``O``."""
        return self._module.observation_dim

    @property
    def action_dim(self) -> int:
        """Numbers in an action, ``A``."""
        return self._module.action_dim

    def reset(self, noise_seed: int) -> None:
        """Begin the noise anew."""
        self._generator.manual_seed(noise_seed)

    def __call__(self, observation: _Array) -> _Array:
        """Chunks of actions, within the bounds of the environment's actions.

        Args:
            observation: ``(O,)`` or ``(batch, O)``, as the environment gives it.

        Returns:
            ``(H, A)`` or ``(batch, H, A)`` in float32: an array for an array, a tensor on the
            observation's device for a tensor.

        Raises:
            ValueError: another shape, or observations that are not finite.
        """
        rows = torch.as_tensor(observation).to(self._device, torch.float32)
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.observation_dim:
            raise ValueError(
                f"expected observations of shape ({self.observation_dim},) or "
                f"(batch, {self.observation_dim}), got {tuple(rows.shape)}"
            )
        if not bool(rows.isfinite().all()):
            raise ValueError("observations must be finite")
        batch = rows.reshape(-1, self.observation_dim)
        noise = [
            (torch.randn if entry.kind == "normal" else torch.rand)(
                len(batch), *entry.shape, generator=self._generator
            ).to(self._device)
            for entry in self._module.noise
        ]
        with torch.no_grad():
            chunks: Tensor = self._module(batch, *noise)
        chunks = chunks.reshape(*rows.shape[:-1], *chunks.shape[1:])
        if isinstance(observation, Tensor):
            return chunks.to(observation.device)
        array: NDArray[np.float32] = chunks.cpu().numpy()
        return array
