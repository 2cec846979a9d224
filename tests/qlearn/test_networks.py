import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qlearn import MLP, CriticEnsemble, RandomStreams

HIDDEN = st.lists(st.integers(1, 6), min_size=0, max_size=3)


def streams(replicas: int) -> RandomStreams:
    return RandomStreams([10 + r for r in range(replicas)])


def randomise(module: nn.Module) -> None:
    """Fill biases, scales and shifts too, which start at 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)


def sequential(network: nn.Module, index: tuple[int, ...]) -> nn.Sequential:
    """The network of one replica (and member) built from torch's own layers."""
    layers: list[nn.Module] = []
    count = len(network.kernels)
    for i in range(count):
        kernel, bias = network.kernels[i][index], network.biases[i][index]
        linear = nn.Linear(*kernel.shape, dtype=kernel.dtype)
        linear.weight.data, linear.bias.data = kernel.data.t().clone(), bias.data.clone()
        layers.append(linear)
        if i < count - 1:
            layers.append(nn.GELU(approximate="tanh"))
            if len(network.scales):
                norm = nn.LayerNorm(len(bias), eps=1e-6, dtype=kernel.dtype)
                norm.weight.data = network.scales[i][index].data.clone()
                norm.bias.data = network.shifts[i][index].data.clone()
                layers.append(norm)
    return nn.Sequential(*layers)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    HIDDEN,
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.integers(1, 3), max_size=2),
)
def test_mlp_is_the_network_of_each_replica(
    replicas: int, in_dim: int, hidden: list[int], out_dim: int, layer_norm: bool, lead: list[int]
) -> None:
    network = MLP(
        replicas, in_dim, hidden, out_dim, layer_norm=layer_norm, streams=streams(replicas)
    ).double()
    randomise(network)
    x = torch.randn(*lead, replicas, 5, in_dim, dtype=torch.float64)
    outputs = network(x)
    assert outputs.shape == (*lead, replicas, 5, out_dim)
    for r in range(replicas):
        torch.testing.assert_close(
            outputs[..., r, :, :], sequential(network, (r,))(x[..., r, :, :])
        )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    HIDDEN,
    st.booleans(),
    st.lists(st.integers(1, 3), max_size=2),
)
def test_critics_are_the_networks_of_each_member(
    replicas: int, ensemble: int, hidden: list[int], layer_norm: bool, lead: list[int]
) -> None:
    critic = CriticEnsemble(
        replicas, ensemble, 3, hidden, layer_norm=layer_norm, streams=streams(replicas)
    ).double()
    randomise(critic)
    observations = torch.randn(replicas, 4, 2, dtype=torch.float64)
    actions = torch.randn(*lead, replicas, 4, 1, dtype=torch.float64)
    values = critic(observations, actions)
    assert values.shape == (*lead, replicas, ensemble, 4)
    joined = torch.cat([observations.expand(*lead, -1, -1, -1), actions], -1)
    for r in range(replicas):
        for e in range(ensemble):
            expected = sequential(critic, (r, e))(joined[..., r, :, :]).squeeze(-1)
            torch.testing.assert_close(values[..., r, e, :], expected)


def test_float32_on_one_replica_matches_torch_layers_in_value_and_gradient() -> None:
    network = MLP(1, 5, (16, 16), 3, layer_norm=True, streams=streams(1))
    plain = sequential(network, (0,))
    x = torch.randn(1, 32, 5)
    network(x).square().mean().backward()
    plain(x[0]).square().mean().backward()
    expected = [p.grad.t() if p.dim() == 2 else p.grad for p in plain.parameters()]
    # torch's order is layer by layer, ours kind by kind.
    mine = [network.kernels[0], network.biases[0], network.scales[0], network.shifts[0]]
    for parameter, gradient in zip(mine, expected[:4], strict=True):
        torch.testing.assert_close(parameter.grad[0], gradient)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_pack_gives_what_its_replicas_give_alone(layer_norm: bool) -> None:
    def build(seeds: list[int]) -> tuple[MLP, CriticEnsemble]:
        draws = RandomStreams(seeds)
        return (
            MLP(len(seeds), 4, (8, 8), 2, layer_norm=layer_norm, streams=draws),
            CriticEnsemble(len(seeds), 3, 4, (8, 8), layer_norm=layer_norm, streams=draws),
        )

    seeds = [5, 6, 7]
    x = torch.randn(3, 16, 4)
    pack = build(seeds)
    for network in pack:
        network(x).square().mean((-2, -1)).sum().backward()
    for r, seed in enumerate(seeds):
        for network, packed in zip(build([seed]), pack, strict=True):
            outputs = network(x[r : r + 1])
            torch.testing.assert_close(outputs[0], packed(x)[r], rtol=1e-5, atol=1e-6)
            outputs.square().mean((-2, -1)).sum().backward()
            for own, shared in zip(network.parameters(), packed.parameters(), strict=True):
                assert torch.equal(own[0], shared[r])
                torch.testing.assert_close(own.grad[0], shared.grad[r], rtol=1e-4, atol=1e-6)


def test_replicas_do_not_mix() -> None:
    network = MLP(2, 3, (4,), 1, layer_norm=True, streams=streams(2))
    network(torch.randn(2, 6, 3))[0].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad[1].abs().max() == 0.0
    assert network.kernels[0].grad[0].abs().max() > 0.0


def test_kernels_start_glorot_uniform_and_the_rest_neutral() -> None:
    critic = CriticEnsemble(2, 3, 40, (60,), layer_norm=True, streams=streams(2))
    kernel = critic.kernels[0].detach()
    bound = math.sqrt(6 / (40 + 60))
    assert 0.99 * bound < kernel.abs().max() <= bound * (1 + 1e-6)
    assert kernel.var().item() == pytest.approx(bound**2 / 3, rel=0.03)
    assert not torch.isclose(kernel[0, 0], kernel[0, 1]).all()
    for name, parameter in critic.named_parameters():
        if not name.startswith("kernels"):
            assert torch.equal(parameter, torch.full_like(parameter, name.startswith("scales")))


def test_parameter_names_and_shapes() -> None:
    shapes = {
        name: tuple(p.shape)
        for name, p in CriticEnsemble(
            2, 3, 4, (5,), layer_norm=True, streams=streams(2)
        ).named_parameters()
    }
    assert shapes == {
        "kernels.0": (2, 3, 4, 5),
        "kernels.1": (2, 3, 5, 1),
        "biases.0": (2, 3, 5),
        "biases.1": (2, 3, 1),
        "scales.0": (2, 3, 5),
        "shifts.0": (2, 3, 5),
    }


def test_leading_axes_cost_no_copy_of_the_weights() -> None:
    """Saved tensors of a call on K path times: no weight is saved K times."""
    network = MLP(2, 3, (8, 8), 2, layer_norm=False, streams=streams(2))
    saved: list[int] = []

    def record(tensor: Tensor) -> Tensor:
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        network(torch.randn(10, 2, 1, 3))
    assert max(saved) <= 4 * 10 * 2 * 8  # the activations of 20 rows


def test_published_critic(chunked) -> None:
    config = chunked.config
    critic = CriticEnsemble(
        1,
        config["num_qs"],
        config["obs_dim"] + config["full_action_dim"],
        config["value_hidden_dims"],
        layer_norm=config["value_layer_norm"],
        streams=streams(1),
    )
    critic.load_state_dict(chunked.network("critic"))
    values = critic(chunked["batch/observations"][None], chunked["batch/actions"].flatten(1)[None])
    torch.testing.assert_close(values[0], chunked["expect/q"], rtol=0, atol=1e-5)


def test_published_flow(chunked) -> None:
    config = chunked.config
    size = config["obs_dim"] + config["full_action_dim"] + 1
    actor = MLP(
        1,
        size,
        config["actor_hidden_dims"],
        config["full_action_dim"],
        layer_norm=config["actor_layer_norm"],
        streams=streams(1),
    )
    actor.load_state_dict(chunked.network("actor_slow"))
    keys = ("batch/observations", "expect/bc_x_t", "noise/bc_t")
    x = torch.cat([chunked[key] for key in keys], -1)
    torch.testing.assert_close(actor(x[None])[0], chunked["expect/bc_pred"], rtol=0, atol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 replicas need as many streams, got 1"):
        MLP(2, 3, (4,), 1, layer_norm=False, streams=streams(1))
    with pytest.raises(ValueError, match="at least 1"):
        CriticEnsemble(1, 0, 3, (4,), layer_norm=False, streams=streams(1))
    network = MLP(2, 3, (4,), 1, layer_norm=False, streams=streams(2))
    for shape in ((3, 5, 3), (2, 3)):
        with pytest.raises(ValueError, match="R = 2"):
            network(torch.zeros(shape))
