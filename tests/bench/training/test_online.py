"""The online phase: what is played, what is kept, what is learned from, what continues."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.agents import AGENTS, Problem, RLPDConfig
from bench.simulation import OnlineEnvironments
from bench.suites import SUITES, OnlineProtocol, smoke
from bench.training.cells import Pack
from bench.training.online import OnlineExperience, replay
from bench.training.policy import Normalizer
from bench.training.trainer import Trainer
from qlearn import BalancedSampler, ChunkSampler, EpisodeData, RandomStreams, UnionSampler

from ..recorded_updates import RecordedUpdates
from .conftest import CONFIG, Recorded

PROBLEM = Problem(observation_dim=2, action_dim=2, horizon=5)
RLPD = RLPDConfig(actor_hidden=(16, 16), critic_hidden=(16, 16), num_critics=2)


def online_pack(
    seeds: tuple[int, ...] = (0,), agent: str = "trqam", **protocol: int | float | str
) -> Pack:
    """The point maze's tasks 1 and 2 of the smoke suite, online."""
    suite = smoke(SUITES["quick"])
    changes = {"steps": 40, "warm_up": 12} | protocol
    shard = changes.pop("shard", None)
    online = replace(OnlineProtocol(), **changes)  # type: ignore[arg-type]
    return Pack(
        suite.name,
        replace(suite.domains[0], shard=shard),
        replace(suite.protocol, online=online, evaluate_every=20, log_every=10, checkpoint_every=8),
        agent,
        seeds,
        online=True,
        from_scratch=AGENTS[agent].online_only,
    )


def offline_episodes() -> EpisodeData:
    source = torch.Generator().manual_seed(0)
    rows = 110
    terminals = torch.zeros(rows)
    terminals[10::11] = 1
    return EpisodeData.from_rows(
        torch.randn(rows, 2, generator=source),
        torch.rand(rows, 2, generator=source) * 2 - 1,
        terminals,
        -torch.ones(2, rows),
        torch.ones(2, rows),
    )


def build(pack: Pack, directory: Path) -> Trainer:
    streams = RandomStreams(pack.replica_seeds)
    config = RLPD if pack.agent == "rlpd" else CONFIG
    agent = AGENTS[pack.agent].agent(config, PROBLEM, streams)
    tasks = [pack.domain.tasks.index(cell.task) for cell in pack.cells]
    data = ChunkSampler(
        offline_episodes(), PROBLEM.horizon, 0.99, mode=pack.protocol.chunks, tasks=tasks
    )
    experience = OnlineExperience.of(
        pack, PROBLEM, Normalizer.identity(2), streams.spawn("acting"), 0.99, workers=0
    )
    sampler = replay(pack, data, experience.ring)
    return Trainer(pack, agent, streams, sampler, directory, Recorded(), experience=experience)


def played(trainer: Trainer) -> OnlineExperience:
    assert isinstance(trainer.experience, OnlineExperience)
    return trainer.experience


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.agent.state_dict().items()}


def close(*trainers: Trainer) -> None:
    for trainer in trainers:
        played(trainer).environments.close()


@pytest.mark.parametrize("updates_per_step", [1, 3])
def test_nothing_is_learned_before_the_warm_up_ends(tmp_path: Path, updates_per_step: int) -> None:
    trainer = build(online_pack(updates_per_step=updates_per_step), tmp_path)
    before = weights(trainer)
    for _ in range(12):
        trainer.advance()
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
    assert played(trainer).ring.lengths.tolist() == [12, 12]
    drawn: list[int] = []
    update = trainer.agent.update

    def counted(batch: object, noise: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        drawn.append(trainer.step)
        return update(batch, noise)  # type: ignore[arg-type]

    trainer.agent.update = counted  # type: ignore[method-assign]
    for _ in range(4):
        trainer.advance()
    close(trainer)
    expected = [step for step in range(12, 16) for _ in range(updates_per_step)]
    assert drawn == expected
    assert trainer.pack.updates_at(16) == len(expected)
    assert [trainer.pack.step_of(n + 1) for n in range(len(expected))] == [s + 1 for s in expected]


def test_the_ring_holds_what_the_environments_did(tmp_path: Path) -> None:
    trainer = build(online_pack(), tmp_path)
    for _ in range(30):
        trainer.advance()
    ring = played(trainer).ring
    close(trainer)
    cells = trainer.pack.cells
    with OnlineEnvironments(
        [cell.task_name for cell in cells],
        [cell.stream("online environments") for cell in cells],
        workers=0,
    ) as again:
        for step in range(30):
            before = torch.from_numpy(again.observe())
            outcome = again.step(ring.actions[:, step].numpy())
            assert torch.equal(ring.observations[:, step], before)
            assert torch.equal(
                ring.next_observations[:, step], torch.from_numpy(outcome.observations)
            )
            assert torch.equal(
                ring.rewards[:, step], torch.from_numpy(outcome.rewards).to(torch.float32)
            )
            assert torch.equal(ring.masks[:, step], torch.from_numpy(~outcome.terminated).float())


def test_the_policy_is_asked_once_a_chunk_and_its_chunk_is_played(tmp_path: Path) -> None:
    trainer = build(online_pack(), tmp_path)
    chunks: list[torch.Tensor] = []
    act = trainer.agent.act

    def kept(observations: torch.Tensor, noise: Mapping[str, torch.Tensor]) -> torch.Tensor:
        chunks.append(act(observations, noise))
        return chunks[-1]

    trainer.agent.act = kept  # type: ignore[method-assign]
    for _ in range(30):
        trainer.advance()
    close(trainer)
    assert len(chunks) == 30 // PROBLEM.horizon
    expected = torch.cat([chunk.reshape(2, PROBLEM.horizon, 2) for chunk in chunks], 1)
    assert torch.equal(played(trainer).ring.actions[:, :30], expected)


def test_an_episodes_end_drops_the_rest_of_the_chunk(tmp_path: Path) -> None:
    trainer = build(online_pack(steps=1_020, warm_up=1_019), tmp_path)
    experience = played(trainer)
    asked: list[tuple[int, tuple[int, ...]]] = []
    act = trainer.agent.act

    def kept(observations: torch.Tensor, noise: Mapping[str, torch.Tensor]) -> torch.Tensor:
        waiting = torch.nonzero(experience._left == 0).flatten().tolist()
        asked.append((trainer.step, tuple(waiting)))
        return act(observations, noise)

    trainer.agent.act = kept  # type: ignore[method-assign]
    ends: dict[int, list[int]] = {0: [], 1: []}
    for step in range(1_018):
        trainer.advance()
        for replica in (0, 1):
            if bool(experience.ring.ends[replica, step]):
                ends[replica].append(step)
    close(trainer)
    for replica in (0, 1):
        assert len(ends[replica]) >= 1
        steps = [step for step, waiting in asked if replica in waiting]
        for end in ends[replica]:
            assert end + 1 in steps
    assert experience.metrics()["episodes"] == [float(len(ends[0])), float(len(ends[1]))]


def test_pack_gives_the_numbers_of_solo_runs(tmp_path: Path) -> None:
    packed = build(online_pack(seeds=(0, 1)), tmp_path / "packed")
    for _ in range(25):
        packed.advance()
    for index, seed in enumerate((0, 1)):
        solo = build(online_pack(seeds=(seed,)), tmp_path / f"solo{seed}")
        for _ in range(25):
            solo.advance()
        mine = slice(2 * index, 2 * index + 2)
        torch.testing.assert_close(
            played(packed).ring.actions[mine, :25],
            played(solo).ring.actions[:, :25],
            rtol=1e-4,
            atol=1e-5,
        )
        for name, value in weights(solo).items():
            if value.dim():
                torch.testing.assert_close(
                    weights(packed)[name][mine], value, rtol=1e-3, atol=1e-5, msg=name
                )
        close(solo)
    close(packed)


class StoppedError(Exception):
    pass


SHARDS: dict[str, Any] = {"data": "shard", "shard_steps": 7, "shard": 20}


@pytest.mark.parametrize("agent", ["trqam", "rlpd"])
@pytest.mark.parametrize(("stop", "protocol"), [(5, {}), (8, {}), (21, SHARDS), (39, {})])
def test_resume_is_bit_identical(
    tmp_path: Path, agent: str, stop: int, protocol: dict[str, Any]
) -> None:
    undisturbed = build(online_pack(agent=agent, **protocol), tmp_path / "a")
    undisturbed.run()
    interrupted = build(online_pack(agent=agent, **protocol), tmp_path / "b")

    def stop_at(step: int) -> None:
        if step == stop:
            raise StoppedError

    interrupted.tick = stop_at
    with pytest.raises(StoppedError):
        interrupted.run()
    close(interrupted)
    resumed = build(online_pack(agent=agent, **protocol), tmp_path / "b")
    resumed.run()
    assert resumed.recorder.restarts == [stop - stop % 8]  # type: ignore[attr-defined]
    for name, value in weights(undisturbed).items():
        assert torch.equal(weights(resumed)[name], value), name
    mine, theirs = played(resumed).state_dict(), played(undisturbed).state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        if not name.startswith("environments."):  # wrappers keep the time of day
            assert torch.equal(mine[name], value), name
    for _ in range(10):
        actions = torch.rand(2, 2).numpy()
        outcomes = [played(t).environments.step(actions) for t in (undisturbed, resumed)]
        assert (outcomes[0].observations == outcomes[1].observations).all()
        assert (outcomes[0].episode_lengths == outcomes[1].episode_lengths).all()
    close(undisturbed, resumed)


@pytest.mark.parametrize("agent", ["trqam", "rlpd"])
def test_captured_training_is_eager_training(
    tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.training.trainer.CapturedUpdates", RecordedUpdates)
    eager, captured = (build(online_pack(agent=agent, **SHARDS), tmp_path / name) for name in "ec")
    captured.captured = True
    eager.run()
    captured.run()
    for name, value in weights(eager).items():
        assert torch.equal(weights(captured)[name], value), name
    assert isinstance(captured.recorder, Recorded)
    assert isinstance(eager.recorder, Recorded)
    assert captured.recorder.rows == eager.recorder.rows
    close(eager, captured)


def test_an_environment_that_fails_stops_its_run_alone(tmp_path: Path) -> None:
    trainer = build(online_pack(), tmp_path)
    act = trainer.agent.act

    def poisoned(observations: torch.Tensor, noise: Mapping[str, torch.Tensor]) -> torch.Tensor:
        chunk = act(observations, noise)
        if trainer.step >= 20:
            chunk = chunk.clone()
            chunk[1] = float("nan")
        return chunk

    trainer.agent.act = poisoned  # type: ignore[method-assign]
    trainer.run()
    close(trainer)
    (failure,) = trainer.failures
    assert failure.cell == trainer.pack.cells[1]
    assert failure.step == 21
    assert "the action is not finite" in failure.reason
    assert trainer.step == 40
    assert all(bool(value.isfinite().all()) for value in trainer.agent.state_dict().values())


def test_learners_from_scratch_begin_with_random_chunks(tmp_path: Path) -> None:
    trainer = build(online_pack(agent="rlpd", steps=400, warm_up=300), tmp_path)

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("asked for an action")

    act, trainer.agent.act = trainer.agent.act, refuse  # type: ignore[method-assign]
    for _ in range(300):
        trainer.advance()
    actions = played(trainer).ring.actions[:, :300]
    # Uniform on [-1, 1]: mean 0, variance 1/3; 600 numbers per replica.
    assert float(actions.mean().abs()) < 0.07
    assert 0.30 < float(actions.var()) < 0.37
    assert isinstance(trainer.sampler, BalancedSampler)
    trainer.agent.act = act  # type: ignore[method-assign]
    trainer.advance()
    close(trainer)


@pytest.mark.parametrize(
    ("agent", "kind", "expected"),
    [
        ("trqam", "auto", UnionSampler),
        ("trqam", "balanced", BalancedSampler),
        ("rlpd", "auto", BalancedSampler),
        ("rlpd", "union", UnionSampler),
    ],
)
def test_replay_is_what_was_asked_for(
    tmp_path: Path, agent: str, kind: str, expected: type[object]
) -> None:
    trainer = build(online_pack(agent=agent, replay=kind), tmp_path)
    close(trainer)
    assert isinstance(trainer.sampler, expected)


def test_one_shard_at_a_time_where_the_data_have_shards(tmp_path: Path) -> None:
    pack = online_pack(data="shard", shard_steps=7, shard=20)
    shards = [
        build(p, tmp_path).sampler.shards
        for p in (  # type: ignore[attr-defined]
            pack,
            replace(pack, domain=replace(pack.domain, shard=None)),
            online_pack(shard=20),
        )
    ]
    assert [s is not None for s in shards] == [True, False, False]
    assert shards[0].counts.tolist() == [12] * 5  # two episodes of ten steps, chunks of five
