"""Random shifts, normalisation and encoders of observations with images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from qlearn import (
    CriticEnsemble,
    EncodedCritic,
    EpisodeData,
    ImageEncoder,
    LeafSpec,
    MappedRows,
    ObservationEncoder,
    ObservationNormalizer,
    RandomStreams,
    is_image,
    random_shift,
)

SPEC = {
    "front": LeafSpec((8, 10, 3), torch.uint8),
    "goal": LeafSpec((), torch.float32),
    "state": LeafSpec((5,), torch.float32),
    "wrist": LeafSpec((2, 1, 8, 8), torch.uint8),
}


def observations(replicas: int, rows: int, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(
            0, 256, (replicas, rows, *leaf.shape), generator=source, dtype=leaf.dtype
        )
        if leaf.dtype == torch.uint8
        else torch.randn(replicas, rows, *leaf.shape, generator=source)
        for name, leaf in SPEC.items()
    }


@pytest.mark.parametrize("last", [True, False], ids=["HWC", "CHW"])
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 5), st.integers(0, 2**31))
def test_a_shift_is_padding_by_replication_and_a_crop(last: bool, pad: int, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 3, 9, 11), generator=source, dtype=torch.uint8)
    noise = torch.rand(2, 3, 2, generator=source)
    state = torch.randn(2, 3, 4)
    shown = images.movedim(2, -1) if last else images
    moved = random_shift({"image": shown, "state": state}, noise, pad=pad)
    assert moved["state"] is state
    assert moved["image"].dtype == torch.uint8
    got = moved["image"].movedim(-1, 2) if last else moved["image"]
    for r in range(2):
        for b in range(3):
            padded = functional.pad(images[r, b][None].double(), (pad,) * 4, mode="replicate")[0]
            top, left = (int(n * (2 * pad + 1)) for n in noise[r, b])
            assert torch.equal(got[r, b], padded[:, top : top + 9, left : left + 11].byte())
    if pad == 0:
        assert torch.equal(got, images)


def test_every_shift_is_as_likely_and_all_frames_move_alike() -> None:
    column = torch.arange(20, dtype=torch.uint8).view(1, 1, 20, 1, 1).expand(4000, 2, 20, 8, 1)
    moved = random_shift(column, torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(moved[:, 0], moved[:, 1])
    middle, counts = moved[:, 0, 10, 0, 0].unique(return_counts=True)
    assert middle.tolist() == list(range(6, 15))
    # Chi-square with 8 degrees of freedom: 99.9 % point 26.1.
    assert 0.5 < float(((counts - 4000 / 9) ** 2 / (4000 / 9)).sum()) < 26.1
    with pytest.raises(ValueError, match="pad must be 0 or more"):
        random_shift(column, torch.zeros(4000, 2), pad=-1)


def test_what_is_an_image() -> None:
    for shape, dtype, image in (
        ((64, 64, 3), torch.uint8, True),
        ((3, 64, 64), torch.float32, True),
        ((2, 64, 64, 3), torch.float32, True),
        ((64, 64, 9), torch.uint8, True),
        ((4, 4, 3), torch.float32, False),
        ((16, 16, 16), torch.float32, False),
        ((64, 3), torch.uint8, False),
        ((5,), torch.uint8, False),
    ):
        assert is_image(LeafSpec(shape, dtype)) == image, (shape, dtype)


def test_leaves_are_normalised_by_their_own_data() -> None:
    source = torch.Generator().manual_seed(0)
    state = 3.0 + 2.0 * torch.randn(500, 3, generator=source)
    state[:, 2] = 7.0
    pose = 10.0 * torch.rand(500, 2, 2, generator=source, dtype=torch.float64)
    image = torch.randint(0, 256, (500, 8, 8, 3), generator=source, dtype=torch.uint8)
    tree = {"state": state, "pose": pose, "image": image}
    for data in (tree, {**tree, "state": MappedRows(list(state.split([17, 483])))}):
        normalizer = ObservationNormalizer.fit(data)
        out = normalizer(tree)
        assert out["image"] is image
        torch.testing.assert_close(out["state"][:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        spread = out["state"][:, :2].std(0, correction=0)
        torch.testing.assert_close(spread, torch.ones(2))
        assert (out["state"][:, 2] == 0.0).all()
        assert out["pose"].dtype == torch.float32
        assert normalizer({n: leaf[None, :7] for n, leaf in tree.items()})["pose"].shape[0] == 1
    scaled = ObservationNormalizer.fit(tree, {"pose": "min_max"})
    out = scaled(tree)
    assert out["state"] is state
    torch.testing.assert_close(out["pose"].amin(0), -torch.ones(2, 2))
    torch.testing.assert_close(out["pose"].amax(0), torch.ones(2, 2))
    same = ObservationNormalizer.fit({**tree, "pose": pose + 1}, {"pose": "min_max"})
    same.load_state_dict(scaled.state_dict())
    assert torch.equal(same(tree)["pose"], out["pose"])
    lone = ObservationNormalizer.fit(state)(state)
    assert torch.equal(lone, ObservationNormalizer.fit(tree)(tree)["state"])
    assert ObservationNormalizer.identity(state)(state) is state
    with pytest.raises(ValueError, match=r"no leaves \['poes'\]"):
        ObservationNormalizer.fit(tree, {"poes": "min_max"})
    with pytest.raises(ValueError, match="image is an image of uint8"):
        ObservationNormalizer.fit(tree, {"image": "mean_std"})
    with pytest.raises(ValueError, match="must be one of"):
        ObservationNormalizer.fit(state, "min-max")
    with pytest.raises(ValueError, match=r"are leaves \['state'\], expected leaves \['image'"):
        scaled({"state": state})


def test_an_encoder_is_the_network_of_the_papers() -> None:
    encoder = ImageEncoder(1, (9, 12, 3), streams=RandomStreams([0]))
    assert [tuple(k.shape[1:]) for k in encoder.kernels] == [
        (16, 3, 3, 3),
        (16, 16, 3, 3),
        (16, 16, 3, 3),
        (32, 16, 3, 3),
        *[(32, 32, 3, 3)] * 5,
    ]
    image = observations(1, 4)["front"][:, :, :, :, :].repeat(1, 1, 2, 2, 1)[:, :, :9, :12]
    x = image[0].permute(0, 3, 1, 2).float() / 255
    layers = list(zip(encoder.kernels, encoder.biases, strict=True))
    for stage in range(3):
        first, second, third = (
            lambda x, k=k, b=b: functional.conv2d(x, k[0], b[0], padding="same")
            for k, b in layers[3 * stage : 3 * stage + 3]
        )
        x = functional.max_pool2d(first(x), 3, 2, 1)
        x = x + third(functional.relu(second(functional.relu(x))))
    assert x.shape == (4, 32, 2, 2)
    flat = functional.relu(x).flatten(1) @ encoder.head.kernels[0][0]
    expected = functional.gelu(flat, approximate="tanh")
    torch.testing.assert_close(encoder(image)[0], expected)
    channels_first = ImageEncoder(1, (3, 9, 12), streams=RandomStreams([0]))
    torch.testing.assert_close(channels_first(image.movedim(-1, -3)), encoder(image))
    torch.testing.assert_close(encoder(image.float() / 255.0), encoder(image))
    with pytest.raises(ValueError, match=r"expected \(R, B, \(9, 12, 3\)\)"):
        encoder(image[..., :1])
    with pytest.raises(ValueError, match="needs an image shape"):
        ImageEncoder(1, (9, 12), streams=RandomStreams([0]))


def test_a_pack_encodes_and_learns_what_its_replicas_do_alone() -> None:
    def build(seeds: list[int]) -> EncodedCritic:
        streams = RandomStreams(seeds)
        encoder = ObservationEncoder(len(seeds), SPEC, channels=(4, 6), features=7, streams=streams)
        assert encoder.context_dim == 7 + 2 * 7 + 1 + 5
        heads = CriticEnsemble(
            len(seeds), 2, encoder.context_dim + 3, (8,), layer_norm=True, streams=streams
        )
        return EncodedCritic(encoder, heads).double()  # so that orders of sums do not show

    def gradients(critic: EncodedCritic, seen: dict[str, Tensor], actions: Tensor) -> list[Tensor]:
        context = critic.encode(seen)
        values = critic(context, actions)
        assert values.shape == (*actions.shape[:-3], actions.shape[-3], 2, actions.shape[-2])
        loss = values.square().sum()
        return [context, *torch.autograd.grad(loss, list(critic.parameters()))]

    seen = observations(2, 4)
    actions = torch.randn(
        6, 2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    packed = gradients(build([5, 6]), seen, actions)
    assert all(gradient.abs().max() > 0 for gradient in packed)
    for r, seed in enumerate((5, 6)):
        own = gradients(
            build([seed]), {n: leaf[r : r + 1] for n, leaf in seen.items()}, actions[:, r : r + 1]
        )
        for mine, theirs in zip(packed, own, strict=True):
            torch.testing.assert_close(mine[r], theirs[0], atol=1e-11, rtol=1e-9)


def test_one_vector_needs_no_encoder() -> None:
    streams = RandomStreams([0, 1])
    encoder = ObservationEncoder(2, LeafSpec((3,), torch.float32), streams=streams)
    critic = CriticEnsemble(2, 2, 3 + 2, (8,), layer_norm=False, streams=streams)
    encoded = EncodedCritic(encoder, critic)
    state, actions = torch.randn(2, 4, 3), torch.randn(2, 4, 2)
    assert not list(encoder.parameters())
    assert encoded.encode(state) is state
    assert critic.encode(state) is state
    assert torch.equal(encoded(encoded.encode(state), actions), critic(state, actions))
    with pytest.raises(ValueError, match=r"got image: uint8\[2, 4, 8, 8, 3\]; use EncodedCritic"):
        critic.encode({"image": torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8)})


def test_the_specification_of_data_builds_the_encoder() -> None:
    rows = {name: leaf[0] for name, leaf in observations(1, 6).items()}
    with pytest.raises(ValueError, match=r"observations\['goal'\] has shape \(6,\)"):
        EpisodeData.from_rows(rows, torch.zeros(6, 1), torch.arange(6) == 5)
    rows["goal"] = rows["goal"][:, None]
    data = EpisodeData.from_rows(rows, torch.zeros(6, 1), torch.arange(6) == 5)
    encoder = ObservationEncoder(1, data.spec, features=3, streams=RandomStreams([0]))
    assert encoder({n: leaf[None] for n, leaf in rows.items()}).shape == (1, 6, encoder.context_dim)
