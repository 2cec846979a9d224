"""Tiny pipelines of diffusers: the same images here for the same noise, and LoRA beside its base.

Tolerances: float32 models within 2e-5 of an image of spread 0.2 or more. Of a bfloat16 model the
pipeline rounds the latents after every step and we do not: 4 % of the spread, times the guidance
scale.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adjoint import LeanAdjoint, lean_adjoint
from flowsde import (
    DiffusersFlow,
    DiffusionPrediction,
    MemorylessEuler,
    VelocityField,
    ode_sample,
    sample_path,
    velocities_along,
    without_adapters,
)
from trustregion import path_kl

diffusers = pytest.importorskip("diffusers", reason="needs the dependency group `peers`")
peft = pytest.importorskip("peft", reason="needs the dependency group `peers`")
BATCH, STEPS = 2, 6
NO_TEXT = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sd3_transformer() -> nn.Module:
    model: nn.Module = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=12, out_channels=4, pos_embed_max_size=8,
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def decoder() -> nn.Module:
    model: nn.Module = diffusers.AutoencoderKL(
        block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), latent_channels=4,
        up_block_types=("UpDecoderBlock2D",), norm_num_groups=4, layers_per_block=1, sample_size=8,
        shift_factor=0.1, scaling_factor=1.5,
    )  # fmt: skip
    return model.eval()


def prompts(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": 3.0 * torch.randn(BATCH, 5, 16, dtype=dtype),
        "pooled_projections": 3.0 * torch.randn(BATCH, 12, dtype=dtype),
    }


@pytest.mark.parametrize("shifting", [{"shift": 3.0}, {"use_dynamic_shifting": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_sd3_gives_the_same_images(
    shifting: dict[str, Any], dtype: torch.dtype, scale: float
) -> None:
    vae = decoder()
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=sd3_transformer().to(dtype), vae=vae, text_encoder_3=None, tokenizer_3=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting), **dict.fromkeys(NO_TEXT),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    prompt, negative = prompts(dtype), prompts(dtype)
    noise = torch.randn(BATCH, 4, 8, 8, dtype=dtype)
    theirs = pipe(
        prompt_embeds=prompt["encoder_hidden_states"],
        pooled_prompt_embeds=prompt["pooled_projections"],
        negative_prompt_embeds=negative["encoder_hidden_states"],
        negative_pooled_prompt_embeds=negative["pooled_projections"],
        latents=noise, guidance_scale=scale, num_inference_steps=STEPS, output_type="latent",
        height=8 * pipe.vae_scale_factor, width=8 * pipe.vae_scale_factor,
    ).images  # fmt: skip

    flow = DiffusersFlow(pipe.transformer, pipe.scheduler)  # its grid is that of the call above
    guidance = {"negative": negative, "guidance_scale": scale} if scale != 1.0 else {}
    with torch.no_grad():
        ours = ode_sample(
            flow.field(prompt, **guidance), noise.float(), event_ndim=3, times=flow.times()
        )
        images = [vae.decode(z.float() / 1.5 + 0.1).sample for z in (ours, theirs)]
    assert flow.times()[0] == 0.0
    assert len(flow.times()) == STEPS + 1
    assert flow.times()[1] < 0.9 / STEPS  # shifted towards the noise
    for mine, other in ((ours, theirs.float()), images):
        assert mine.std() > 0.2
        error = (mine - other).abs().max() / mine.std()
        assert error < (2e-5 if dtype == torch.float32 else 4e-2 * scale)


@pytest.mark.parametrize("embedded", [True, False])
def test_flux_gives_the_same_latents(embedded: bool) -> None:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=12,
        guidance_embeds=embedded, axes_dims_rope=(4, 6, 6),
    ).eval().requires_grad_(False)  # fmt: skip
    pipe = diffusers.FluxPipeline(
        transformer=transformer, vae=decoder(), **dict.fromkeys(NO_TEXT),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    prompt, negative, noise = prompts(), prompts(), torch.randn(BATCH, 16, 16)
    side = 8 * pipe.vae_scale_factor
    true_guidance: dict[str, Any] = {} if embedded else {
        "negative_prompt_embeds": negative["encoder_hidden_states"],
        "negative_pooled_prompt_embeds": negative["pooled_projections"],
        "true_cfg_scale": 2.5,
    }  # fmt: skip
    theirs = pipe(
        prompt_embeds=prompt["encoder_hidden_states"],
        pooled_prompt_embeds=prompt["pooled_projections"], latents=noise, guidance_scale=3.5,
        num_inference_steps=STEPS, height=side, width=side, output_type="latent", **true_guidance,
    ).images  # fmt: skip

    ids = pipe._prepare_latent_image_ids(1, 4, 4, torch.device("cpu"), torch.float32)
    shared = {"img_ids": ids, "txt_ids": torch.zeros(5, 3)}
    flow = DiffusersFlow(pipe.transformer, pipe.scheduler)
    assert (flow.timesteps, flow.event_ndim) == (1.0, 2)
    if embedded:
        given = {**prompt, "guidance": torch.full((BATCH,), 3.5)}
        field = flow.field(given, shared=shared)
    else:
        field = flow.field(prompt, negative=negative, guidance_scale=2.5, shared=shared)
    with torch.no_grad():
        ours = ode_sample(field, noise, event_ndim=2, times=pipe.scheduler.sigmas)
    assert (ours - noise).std() > 0.2
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_the_page_on_diffusers_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "tutorials" / "fine-tune-a-diffusers-model.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    before, after, kl = re.findall(r"[-+]?[\d.]+", capsys.readouterr().out)
    assert float(after) > float(before) + 0.05
    assert 0.7 < float(kl) < 1.4


def unet(prediction: str = "epsilon") -> DiffusersFlow:
    model = diffusers.UNet2DModel(
        sample_size=8, layers_per_block=1, norm_num_groups=4, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval().requires_grad_(False)  # fmt: skip
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    return DiffusersFlow(model, scheduler, first_time=0.0, last_time=1.0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_unet_gives_the_same_images(prediction: DiffusionPrediction) -> None:
    flow = unet(prediction)
    pipe = diffusers.DDIMPipeline(flow.model, flow.scheduler)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        BATCH, generator=torch.Generator().manual_seed(1), num_inference_steps=STEPS,
        output_type="np",
    ).images  # fmt: skip
    flow.scheduler.set_timesteps(STEPS)  # the pipeline has made itself a copy of it
    # The pipeline draws as this does.
    noise = torch.randn(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = ode_sample(
            flow.field(), noise, event_ndim=3, method="ddim", times=flow.times(),
            interpolant=flow.interpolant,
        )  # fmt: skip
    image = (ours / 2 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)
    assert image.std() > 0.1
    torch.testing.assert_close(image, torch.as_tensor(theirs), rtol=0.0, atol=2e-5)


def with_lora(model: nn.Module, by: str) -> nn.Module:
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    if by == "peft":
        wrapped: nn.Module = peft.get_peft_model(model, config)
        return wrapped.eval()
    model.add_adapter(config)
    return model.eval()


@pytest.mark.parametrize("by", ["peft", "diffusers"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_lora_beside_its_base(by: str, checkpointed: bool) -> None:
    """Values, adjoint and KL of the base are those of a copy that never had adapters."""
    plain, prompt, negative = sd3_transformer(), prompts(), prompts()
    model = with_lora(copy.deepcopy(plain), by)
    if checkpointed:
        model.enable_gradient_checkpointing()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)

    def field(of: nn.Module) -> VelocityField:
        return DiffusersFlow(of, scheduler).field(prompt, negative=negative, guidance_scale=3.0)

    kernel = MemorylessEuler(grid=scheduler.sigmas, event_ndim=3)
    fine, copied = field(model), field(plain)
    base = without_adapters(fine, model)
    flags = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        path = sample_path(kernel, fine, torch.randn(BATCH, 4, 8, 8))
        along = [velocities_along(kernel, one, path) for one in (fine, base, copied)]
    torch.testing.assert_close(along[1], along[2])
    assert (path_kl(kernel, along[0], along[1]) > 0.1).all()
    adjoints = [lean_adjoint(kernel, one, path, path.sample) for one in (base, copied)]
    torch.testing.assert_close(*adjoints)
    assert (adjoints[0] - lean_adjoint(kernel, fine, path, path.sample)).abs().max() > 1e-3
    assert [p.requires_grad for p in model.parameters()] == flags
    assert sum(flags) == len([n for n, p in model.named_parameters() if "lora" in n]) > 0

    noise = torch.randn(4, BATCH, 4, 8, 8)
    estimate = LeanAdjoint(kernel)(
        fine, base, lambda x: -x.square().sum((1, 2, 3)), noise[0], noise
    )
    torch.autograd.backward(estimate.matching_loss().mean())
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert len(moved) > 4
    assert all("lora" in name for name in moved)
