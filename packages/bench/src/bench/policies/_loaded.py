"""A trained policy to act with: observations in, action chunks out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.policies._module import Policy
from bench.policies._trained import TrainedPolicy, velocity_module
from qlearn import LeafSpec, Observation, ObservationSpec, check_spec, tree_leaves, tree_map

__all__ = ["LoadedPolicy", "observed_rows"]


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
    def module(self) -> nn.Module:
        """The velocity model that was trained: the user's own, or the project's perceptron.

        Raises:
            ValueError: the agent does not act by a flow alone.
        """
        return velocity_module(self.trained)

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

    def __call__(self, observation: Any) -> Any:
        """Chunks of actions, within the bounds of the environment's actions.

        Args:
            observation: ``(O,)`` or ``(batch, O)``, as the environment gives it; of a policy on
                images or named leaves likewise, ``leaf`` or ``(batch, *leaf)`` each.

        Returns:
            ``(H, A)`` or ``(batch, H, A)`` in float32: an array for arrays, a tensor on the
            observation's device for tensors.

        Raises:
            ValueError: other shapes or leaves, or observations that are not finite.
        """
        given: Any = tree_leaves(observation)[0][1]
        batch, single = self._rows(observation)
        rows = len(tree_leaves(batch)[0][1])
        noise = [
            (torch.randn if entry.kind == "normal" else torch.rand)(
                rows, *entry.shape, generator=self._generator
            ).to(self._device)
            for entry in self._module.noise
        ]
        with torch.no_grad():
            chunks: Tensor = self._module(batch, *noise)
        chunks = chunks[0] if single else chunks
        if isinstance(given, Tensor):
            return chunks.to(given.device)
        array: NDArray[np.float32] = chunks.cpu().numpy()
        return array

    def _rows(self, observation: Any) -> tuple[Any, bool]:
        """Observations with a batch axis, and whether there was none."""
        size = self.observation_dim
        spec = self._module.spec
        if spec is not None:
            return observed_rows(observation, spec, self._device)
        rows = torch.as_tensor(observation).to(self._device, torch.float32)
        if rows.ndim not in (1, 2) or rows.shape[-1] != size:
            raise ValueError(
                f"expected observations of shape ({size},) or (batch, {size}), got "
                f"{tuple(rows.shape)}"
            )
        if not bool(rows.isfinite().all()):
            raise ValueError("observations must be finite")
        return rows.reshape(-1, size), rows.ndim == 1


def observed_rows(
    observation: Any, spec: ObservationSpec, device: torch.device
) -> tuple[Observation, bool]:
    """One observation, or a batch of them, as rows of the leaves that a policy reads.

    Args:
        observation: arrays or tensors, ``leaf`` or ``(batch, *leaf)`` each.
        spec: of the leaves; floats are taken in their type.
        device: where to.

    Returns:
        Leaves ``(batch, *leaf)``, and whether there was no batch.

    Raises:
        ValueError: other leaves, shapes or types, or numbers that are not finite.
    """

    def leaf_of(given: Any, wanted: LeafSpec) -> Tensor:
        leaf = torch.as_tensor(given)
        if leaf.is_floating_point() and wanted.dtype.is_floating_point:
            if not bool(leaf.isfinite().all()):
                raise ValueError("observations must be finite")
            leaf = leaf.to(wanted.dtype)
        return leaf.to(device)

    rows: Any = tree_map(leaf_of, observation, spec)
    leaf, wanted = tree_leaves(rows)[0][1], tree_leaves(spec)[0][1]
    single = leaf.dim() == len(wanted.shape)
    if single:
        rows = tree_map(lambda one: one.unsqueeze(0), rows)
    check_spec(rows, spec, 1)
    return rows, single
