"""The training loop: packs, resume, runs that fail."""

import gc
import shutil
import signal
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.errors import CheckpointError, StoppedError
from bench.storage import checkpoint_steps, load_checkpoint
from bench.training.pretraining import FlowCache
from bench.training.stopping import heeding_signals
from bench.training.trainer import Trainer, load_agent, stopped_replicas, trained_replica
from qlearn import ChunkBatch, FlowActor, RandomStreams

from ..recorded_updates import RecordedUpdates
from .conftest import CONFIG, Poisoned, Recorded, build_pack, build_trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.agent.state_dict().items()}


def recorded(trainer: Trainer) -> Recorded:
    assert isinstance(trainer.recorder, Recorded)
    return trainer.recorder


def test_logs_evaluates_and_saves_when_due(tmp_path: Path) -> None:
    trainer = build_trainer(build_pack(steps=23), tmp_path)
    trainer.run()
    assert [step for step, _ in recorded(trainer).rows] == [5, 10, 15, 20, 23]
    assert recorded(trainer).evaluated == [10, 20, 23]
    assert checkpoint_steps(trainer.checkpoints) == [20, 23]
    assert all(len(values) == 2 for values in recorded(trainer).rows[0][1].values())


def test_pack_gives_the_numbers_of_solo_runs(tmp_path: Path) -> None:
    packed = build_trainer(build_pack(seeds=(0, 1)), tmp_path / "packed")
    packed.run()
    for index, seed in enumerate((0, 1)):
        solo = build_trainer(build_pack(seeds=(seed,)), tmp_path / f"solo{seed}")
        solo.run()
        for name, value in state(solo).items():
            if value.dim() == 0:
                continue
            part = state(packed)[name][2 * index : 2 * index + 2]
            torch.testing.assert_close(part, value, rtol=1e-4, atol=1e-6, msg=name)


def test_tasks_of_a_pack_differ(tmp_path: Path) -> None:
    trainer = build_trainer(build_pack(), tmp_path)
    first = state(trainer)["critic.kernels.0"]
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("end", [5, 10, 13])
def test_a_run_made_longer_is_one_asked_for_at_once(tmp_path: Path, end: int) -> None:
    undisturbed = build_trainer(build_pack(steps=27), tmp_path / "at once")
    undisturbed.run()
    build_trainer(build_pack(steps=end), tmp_path / "longer").run()
    longer = build_trainer(build_pack(steps=27), tmp_path / "longer")
    longer.run()
    # The end of the first is on none, one or both of the rhythms of logs and evaluations.
    assert recorded(longer).forgotten == [(end, end % 5 > 0, end % 10 > 0)]
    assert recorded(longer).rows == recorded(undisturbed).rows[end // 5 :]
    first, second = (load_checkpoint(trainer.checkpoints) for trainer in (undisturbed, longer))
    assert first is not None
    assert second is not None
    for name, value in first.tensors.items():
        assert torch.equal(second.tensors[name], value), name
    assert second.metadata | {"seconds": 0} == first.metadata | {"seconds": 0}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_step_that_was_reached(tmp_path: Path, sent: signal.Signals) -> None:
    undisturbed = build_trainer(build_pack(), tmp_path / "a")
    undisturbed.run()
    trainer = build_trainer(build_pack(), tmp_path / "b")
    trainer.tick = lambda step: signal.raise_signal(sent) if step == 7 else None
    before = signal.getsignal(sent)
    with (
        pytest.raises(StoppedError, match=f"^ended by {sent.name}$"),
        heeding_signals(),
    ):
        trainer.run()
    assert signal.getsignal(sent) is before
    assert checkpoint_steps(trainer.checkpoints) == [5, 7]
    again = build_trainer(build_pack(), tmp_path / "b")
    again.run()
    assert recorded(again).rows == recorded(undisturbed).rows[1:]
    for name, value in state(undisturbed).items():
        assert torch.equal(state(again)[name], value), name


def test_a_signal_ends_an_evaluation_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(build_pack(), tmp_path)

    def endless(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the evaluation went on")

    monkeypatch.setattr(trainer.recorder, "evaluate", endless)
    with pytest.raises(StoppedError), heeding_signals():
        trainer.run()
    assert checkpoint_steps(trainer.checkpoints)[-1] == 10


@pytest.mark.parametrize("stop", [1, 7, 10, 19])
def test_resume_is_bit_identical(tmp_path: Path, stop: int) -> None:
    undisturbed = build_trainer(build_pack(), tmp_path / "a")
    undisturbed.run()

    class StoppedError(Exception):
        pass

    def stop_at(step: int) -> None:
        if step == stop:
            raise StoppedError

    interrupted = build_trainer(build_pack(), tmp_path / "b")
    interrupted.tick = stop_at
    with pytest.raises(StoppedError):
        interrupted.run()
    resumed = build_trainer(build_pack(), tmp_path / "b")
    resumed.run()
    assert recorded(resumed).restarts == [stop - stop % 5]
    for name, value in state(undisturbed).items():
        assert torch.equal(state(resumed)[name], value), name
    kept = len(recorded(resumed).rows)
    assert recorded(resumed).rows == recorded(undisturbed).rows[-kept:]
    order = [list(values) for _, values in recorded(undisturbed).rows]
    assert [list(values) for _, values in recorded(resumed).rows] == order[-kept:]
    assert kept == 4 - stop // 5


def test_captured_training_is_eager_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.training.trainer.CapturedUpdates", RecordedUpdates)
    eager = build_trainer(build_pack(), tmp_path / "eager")
    eager.run()
    first = build_trainer(build_pack(), tmp_path / "captured")
    first.captured = True
    first.run()
    # What one has begun the other goes on with, in either direction.
    for name, begins in (("one", True), ("other", False)):
        begun = build_trainer(build_pack(), tmp_path / name)
        begun.captured = begins
        for _ in range(8):
            begun.advance()
        begun.save()
        finished = build_trainer(build_pack(), tmp_path / name)
        finished.captured = not begins
        finished.run()
        assert recorded(finished).rows[1:] == recorded(eager).rows[2:]
        assert_equal(state(finished), state(eager))
    assert recorded(first).rows == recorded(eager).rows
    assert_equal(state(first), state(eager))


@pytest.mark.parametrize("captured", [False, True])
def test_nothing_holds_the_agent_when_its_trainer_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, captured: bool
) -> None:
    monkeypatch.setattr("bench.training.trainer.CapturedUpdates", RecordedUpdates)
    trainer = build_trainer(build_pack(), tmp_path)
    trainer.captured = captured
    agent = weakref.ref(trainer.agent)
    gc.collect()
    gc.disable()  # a GPU has no room for a second pack until Python looks for cycles
    try:
        trainer.run()
        del trainer
        assert agent() is None
    finally:
        gc.enable()


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def test_the_next_batches_after_a_checkpoint_are_those_of_the_undisturbed_run(
    tmp_path: Path,
) -> None:
    trainer = build_trainer(build_pack(), tmp_path)
    for _ in range(5):
        trainer.advance()
    trainer.save()
    resumed = build_trainer(build_pack(), tmp_path)
    resumed.restore()
    for _ in range(20):
        expected = trainer.sampler.sample(trainer.streams, 16)
        found = resumed.sampler.sample(resumed.streams, 16)
        assert torch.equal(found.observations, expected.observations)
        assert torch.equal(found.actions, expected.actions)


def test_a_run_that_is_not_finite_stops_and_the_other_goes_on(tmp_path: Path) -> None:
    healthy = build_trainer(build_pack(), tmp_path / "healthy")
    healthy.run()
    trainer = build_trainer(build_pack(), tmp_path / "poisoned")
    trainer.sampler = Poisoned(trainer.sampler, first=8)
    trainer.run()
    (failure,) = recorded(trainer).failures
    assert failure.cell == trainer.pack.cells[1]
    assert failure.step == 8
    assert "the gradient of critic." in failure.reason
    text = str(failure)
    for part in ("task2", "seed 0", "step 8", failure.reason):
        assert part in text
    for name, value in state(healthy).items():
        if value.dim():
            torch.testing.assert_close(state(trainer)[name][0], value[0], rtol=1e-4, atol=1e-6)
            assert torch.isfinite(state(trainer)[name].float()).all(), name
    assert failure.kept is not None
    kept = load_checkpoint(Path(failure.kept).parent)
    assert kept is not None
    assert kept.step == 5
    assert all(torch.isfinite(v.float()).all() for v in kept.tensors.values())
    resumed = build_trainer(build_pack(), tmp_path / "poisoned")
    resumed.run()
    assert resumed.failures == [failure]


def test_a_pack_stops_when_all_its_runs_have(tmp_path: Path) -> None:
    trainer = build_trainer(build_pack(steps=40), tmp_path)

    class AllPoisoned(Poisoned):
        def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
            drawn = super().sample(streams, batch)
            return replace(drawn, rewards=drawn.rewards * float("inf"))

    trainer.sampler = AllPoisoned(trainer.sampler, first=1)
    trainer.run()
    assert trainer.step == 5
    assert {failure.cell for failure in trainer.failures} == set(trainer.pack.cells)


def test_a_checkpoint_of_other_runs_is_refused(tmp_path: Path) -> None:
    trainer = build_trainer(build_pack(), tmp_path)
    trainer.advance()
    trainer.save()
    other = build_trainer(build_pack(seeds=(3,)), tmp_path)
    with pytest.raises(CheckpointError, match="seed 3"):
        other.restore()


def test_a_checkpoint_with_other_tensors_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    trainer = build_trainer(build_pack(), tmp_path)
    state = {f"agent.{name}": value for name, value in trainer.agent.state_dict().items()}
    del state["agent.dual.lam"]
    with pytest.raises(CheckpointError, match=r"dual\.lam.*--out"):
        load_agent(trainer.agent, state)


def test_a_stopped_clone_is_kept_nowhere_and_stops_what_would_start_from_it(
    tmp_path: Path,
) -> None:
    pack = replace(build_pack(seeds=(0, 1)), agent="bc")
    pack = replace(pack, protocol=replace(pack.protocol, pretrain_steps=20))
    trainer = build_trainer(pack, tmp_path / "bc")
    trainer.sampler = PoisonedActions(trainer.sampler, first=8)
    trainer.run()
    # Both tasks of a seed share the clone.
    assert [failure.cell for failure in trainer.failures] == list(pack.cells[2:])
    assert trainer.failed_replicas == {1}
    cache = FlowCache(tmp_path / "cache", 20)
    flow = trainer.agent.flow  # type: ignore[attr-defined]
    cache.save(pack.seeds, flow, trainer.failed_replicas)
    assert [cache.holds([seed]) for seed in pack.seeds] == [True, False]
    after = build_trainer(build_pack(seeds=(0, 1)), tmp_path / "trqam")
    clone = FlowActor(
        4, 3, 4, CONFIG.actor_hidden, layer_norm=False, streams=after.streams.spawn("clone")
    )
    after.unfit = cache.load([cell.seed for cell in after.pack.cells], clone)
    after.run()
    assert {failure.cell.seed: failure.step for failure in after.failures} == {1: 0}
    assert len(after.failures) == 2
    # The online phase knows what its checkpoint says.
    checkpoint = load_checkpoint(after.checkpoints)
    assert checkpoint is not None
    assert set(stopped_replicas(checkpoint)) == {2, 3}
    assert trained_replica(checkpoint, after.pack.cells[1]) == 1
    with pytest.raises(CheckpointError, match="seed 1 was stopped at step 0"):
        trained_replica(checkpoint, after.pack.cells[2])


def test_a_damaged_clone_is_an_error_until_somebody_decides(tmp_path: Path) -> None:
    flow = FlowActor(1, 3, 4, (8,), layer_norm=False, streams=RandomStreams([0]))
    cache = FlowCache(tmp_path, 20)
    cache.save([3], flow)
    (tensors,) = tmp_path.rglob("tensors.safetensors")
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1])
    for _ in range(3):
        assert cache.holds([3])  # so nobody clones it anew without a word
        with pytest.raises(CheckpointError, match=r"seed-3 is damaged.*remove that directory"):
            cache.load([3], flow)
    shutil.rmtree(tmp_path / "seed-3")
    assert not cache.holds([3])


class PoisonedActions(Poisoned):
    """The same with actions, which cloning reads."""

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        drawn = super().sample(streams, batch)
        if self.batches < self.first:
            return drawn
        actions = drawn.actions.clone()
        actions[1] = float("nan")
        return replace(drawn, actions=actions)
