"""Fields of models of `diffusers`, from a model and its scheduler; nothing of it is imported."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from flowsde._adapters import (
    DiffusionPrediction,
    guided_field,
    reversed_flow_field,
    variance_preserving_field,
)
from flowsde._field import VelocityField
from flowsde._interpolant import CosineInterpolant, Interpolant, LinearInterpolant
from flowsde._modules import Condition, module_field, warn_if_random
from flowsde._time_grid import time_grid

# Timestep of pure noise, and axes of one sample; FLUX packs its latents to (tokens, channels).
_TRANSFORMERS = {"SD3Transformer2DModel": (1000.0, 3), "FluxTransformer2DModel": (1.0, 2)}


@dataclass(frozen=True, slots=True)
class DiffusersFlow:
    """A transformer or UNet of `diffusers` as a flow model, under the conventions of its scheduler.

    A scheduler of flow matching (`FlowMatchEulerDiscreteScheduler`: `x = (1 - sigma) data + sigma
    noise`, a model that predicts `noise - data`) makes fields of `LinearInterpolant`. One of a
    diffusion model (`DDIMScheduler`, `DDPMScheduler`, ...; `prediction_type` "epsilon",
    "v_prediction" or "sample") makes fields of `CosineInterpolant`, see
    `variance_preserving_field`. Give `interpolant` to every kernel, loss and sampler.

    Samples are what the model takes: latents, not pixels, and for FLUX packed ones, (tokens,
    channels). They may have another dtype than the model: it is given its own (that of its first
    parameter), and answers in theirs, so that paths and losses of a bfloat16 model are float32.

    Attributes:
        model: The transformer or UNet, also one with `peft` adapters (see `without_adapters`).
        scheduler: Its scheduler, `pipe.scheduler`.
        timesteps: Timestep that stands for pure noise, in flow matching only: 1000 where a model
            takes timesteps, 1 where it takes sigma. Known for SD3 and FLUX.
        event_ndim: Axes of one sample: 3 for images and latents (C, H, W), 2 for packed latents.
            Known for SD3, FLUX and diffusion models.
        first_time: As in `variance_preserving_field`; 0 asks a model where its pipeline does.
        last_time: Likewise.

    Raises:
        ValueError: If the scheduler has no convention that is known here, or `timesteps` is needed
            and not given.
    """

    model: nn.Module
    scheduler: Any
    timesteps: float | None = None
    event_ndim: int | None = None
    first_time: float = 0.05
    last_time: float = 0.99

    def __post_init__(self) -> None:
        model = getattr(self.model, "get_base_model", lambda: self.model)()
        timesteps, event_ndim = _TRANSFORMERS.get(type(model).__name__, (None, 3))
        if self.timesteps is None:
            object.__setattr__(self, "timesteps", timesteps)
        if self.event_ndim is None:
            object.__setattr__(self, "event_ndim", event_ndim)
        if self.prediction == "flow_prediction":
            if self.timesteps is None:
                raise ValueError(
                    f"which timestep {type(model).__name__} takes for pure noise is not known "
                    "here: give timesteps=1000.0 if its pipeline calls it with `timestep=t`, 1.0 "
                    "if with `t / 1000`, and event_ndim, the number of axes of one sample"
                )
        elif self.prediction not in get_args(DiffusionPrediction):
            raise ValueError(
                f"{type(self.scheduler).__name__} has prediction_type {self.prediction!r}; "
                f"expected one of {(*get_args(DiffusionPrediction), 'flow_prediction')}"
            )
        if self._setting("invert_sigmas"):
            raise ValueError("a scheduler with invert_sigmas runs time the other way: wrap its "
                             "model by hand, a field is any callable (x, t) -> v")  # fmt: skip

    @property
    def prediction(self) -> str:
        """What the model predicts, in the words of `diffusers`."""
        default = "epsilon" if hasattr(self.scheduler, "alphas_cumprod") else "flow_prediction"
        return str(self._setting("prediction_type") or default)

    @property
    def interpolant(self) -> Interpolant:
        """The schedule that the fields belong to."""
        return LinearInterpolant() if self.prediction == "flow_prediction" else CosineInterpolant()

    def times(self) -> tuple[float, ...]:
        """The grid of `scheduler.set_timesteps`, which is called before, as flow times.

        With a shift, static or dynamic (`mu`), as the scheduler applies it. For `times=` of
        `ode_sample` and, in flow matching, `grid=` of kernels; the grid of a diffusion model begins
        after t=0, where its schedule does, and is the one of DDIM: `method="ddim"`.

        Returns:
            Increasing flow times, one more than steps.

        Raises:
            ValueError: If the scheduler has no steps yet, or its grid turns back.
        """
        if self._steps_missing():
            raise ValueError("call scheduler.set_timesteps(steps), with mu= if it wants one, first")
        if self.prediction == "flow_prediction":
            return time_grid(self.scheduler.sigmas)
        table = self.scheduler.alphas_cumprod.double().cpu()
        end = torch.as_tensor(getattr(self.scheduler, "final_alpha_cumprod", 1.0)).double()
        visited = table[self.scheduler.timesteps.cpu().long()]
        if float(end) == float(visited[-1]):
            # The scheduler's last step stays where it is.
            visited = visited[:-1]
        squares = torch.cat([visited, end.reshape(1)])
        return time_grid(2.0 / math.pi * torch.asin(squares.sqrt()))

    def field(
        self,
        conditions: Mapping[str, Condition] | None = None,
        *,
        negative: Mapping[str, Condition] | None = None,
        guidance_scale: float | Tensor = 1.0,
        shared: Mapping[str, Any] | None = None,
    ) -> VelocityField:
        """The velocity field of the model under some conditions.

        Args:
            conditions: Keyword arguments of the model with one row per sample, tensors (B, ...) or
                trees of such: `encoder_hidden_states`, `pooled_projections`, `class_labels`,
                `guidance` of guidance-distilled models, ...
            negative: Those that another call without the prompt takes instead, for classifier-free
                guidance; None for one call.
            guidance_scale: Scale of that guidance, as in `guided_field`.
            shared: Keyword arguments that are the same for all samples: `img_ids`, `txt_ids`, ...

        Returns:
            The field, for x (*lead, B, *event).

        Raises:
            ValueError: If there is a scale but nothing that it could guide away from.
        """
        given = dict(conditions or {})
        if negative is not None:
            free = self.field({**given, **negative}, shared=shared)
            return guided_field(self.field(given, shared=shared), free, guidance_scale)
        if isinstance(guidance_scale, Tensor) or guidance_scale != 1.0:
            raise ValueError(
                "guidance_scale needs negative=, the conditions of the call without the prompt; a "
                "guidance-distilled model takes its scale as conditions={'guidance': ...}"
            )
        model, fixed = self.model, dict(shared or {})
        weight = next((p for p in model.parameters() if p.is_floating_point()), None)

        def call(x: Tensor, timestep: Tensor, given: Mapping[str, Any]) -> Tensor:
            warn_if_random(model)
            own = x if weight is None else x.to(weight.dtype)
            output = model(own, timestep=timestep, return_dict=False, **given, **fixed)[0]
            v: Tensor = output.to(x.dtype)
            return v

        assert self.event_ndim is not None
        network = module_field(call, given, event_ndim=self.event_ndim)
        if self.prediction == "flow_prediction":
            assert self.timesteps is not None
            return reversed_flow_field(network, self.timesteps)
        prediction: DiffusionPrediction = self.prediction  # type: ignore[assignment]
        return variance_preserving_field(
            network,
            self.scheduler.alphas_cumprod,
            prediction,
            first_time=self.first_time,
            last_time=self.last_time,
        )

    def _setting(self, name: str) -> Any:
        return self.scheduler.config.get(name)

    def _steps_missing(self) -> bool:
        return getattr(self.scheduler, "num_inference_steps", None) is None
