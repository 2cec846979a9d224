"""The parts of one pack's training, built from its plan: agent, sampler, recorder, environments."""

from dataclasses import replace
from typing import Any

from bench.agents import AGENTS, Agent, draw
from bench.agents.bc import cloned_flow
from bench.agents.settings import discount_of
from bench.experiment import is_compiled
from bench.simulation import SimulatorPool
from bench.storage import package_versions
from bench.training.augmentation import check_shift, update_noise
from bench.training.cells import Pack
from bench.training.compilation import compile_agent
from bench.training.domain_data import PreparedDomain
from bench.training.online import OnlineExperience, load_offline_result
from bench.training.pretraining import FlowCache
from bench.training.recorder import Evaluator, PackRecorder, protocol_fingerprint
from bench.training.run_plan import Plan, starts_from_clone
from qlearn import ChunkSampler, PrefetchingSampler, RandomStreams

__all__ = ["build_agent", "build_experience", "build_recorder", "build_sampler", "flow_cache"]


def build_agent(
    plan: Plan, pack: Pack, prepared: PreparedDomain, streams: RandomStreams
) -> tuple[Agent, dict[int, str]]:
    """A pack's agent where its phase begins: after the offline phase, cloned, or untrained.

    Returns:
        The agent, and replicas whose start is unfit to train on, with the reason.

    Raises:
        CheckpointError: its offline phase has not reached its end.
        ValueError: the agent cannot read these observations.
    """
    config, problem = plan.configs[pack.name], prepared.problem
    if problem.observation is not None and not AGENTS[pack.agent].reads_leaves:
        able = [name for name, entry in AGENTS.items() if entry.reads_leaves]
        raise ValueError(
            f"agent {pack.agent!r} reads one vector, and the data have images or named leaves; "
            f"{', '.join(able)} take them"
        )
    agent: Agent = AGENTS[pack.agent].agent(config, problem, streams)
    unfit: dict[int, str] = {}
    if pack.online and not pack.from_scratch:
        offline = plan.directory / "packs" / replace(pack, online=False).name
        unfit = load_offline_result(offline / "checkpoints", pack, agent, str(plan.device))
    elif starts_from_clone(pack):
        clone = cloned_flow(config, problem, streams.spawn("clone"))
        unfit = flow_cache(plan, pack, prepared).load([cell.seed for cell in pack.cells], clone)
        agent.start_from(clone)
    if is_compiled(plan.mode):
        compile_agent(agent)
    return agent, unfit


def build_sampler(
    plan: Plan, pack: Pack, prepared: PreparedDomain, agent: Agent, replicas: int
) -> ChunkSampler:
    """Chunks of the data set; of one on the disk, read ahead of the updates."""
    tasks = (
        [0] * replicas
        if pack.clones
        else [prepared.domain.tasks.index(cell.task) for cell in pack.cells]
    )
    horizon, mode = pack.domain.chunk_length, pack.protocol.chunks
    discount = discount_of(plan.configs[pack.name])
    episodes = prepared.tables.episodes
    check_shift(pack.protocol, episodes.spec)
    if not prepared.tables.streamed:
        return ChunkSampler(episodes, horizon, discount, mode=mode, tasks=tasks)
    noise = update_noise(agent, pack.protocol)
    return PrefetchingSampler(
        episodes,
        horizon,
        discount,
        mode=mode,
        tasks=tasks,
        device=plan.device,
        between=lambda streams: draw(streams, noise),
    )


def build_recorder(
    plan: Plan,
    pack: Pack,
    prepared: PreparedDomain,
    agent: Agent,
    pool: SimulatorPool,
    evaluator: Evaluator | None = None,
) -> PackRecorder:
    """The recorder of a pack, with what stands in every row of its tables."""
    config, versions = plan.configs[pack.name], package_versions()
    provenance: dict[str, Any] = {
        "data_source": prepared.data.source,
        "data_fingerprint": prepared.data.fingerprint,
        "protocol_fingerprint": protocol_fingerprint(pack, config),
        "mujoco_version": versions["mujoco"],
        "ogbench_version": versions["ogbench"],
        "torch_version": versions["torch"],
        "device": str(plan.device),
        "precision": plan.precision,
    }
    return PackRecorder(
        pack,
        agent,
        config,
        prepared.problem,
        prepared.tables.normalizer,
        pool,
        plan.device,
        plan.directory / "packs" / pack.name,
        provenance,
        track=plan.track,
        overlap=pool.workers > 0,
        evaluator=evaluator,
    )


def build_experience(
    plan: Plan, pack: Pack, prepared: PreparedDomain, streams: RandomStreams, workers: int
) -> OnlineExperience:
    """The environments of an online pack, which the caller closes."""
    return OnlineExperience.of(
        pack,
        prepared.problem,
        prepared.tables.normalizer,
        streams.spawn("acting"),
        discount_of(plan.configs[pack.name]),
        workers=workers,
        limits=plan.limits,
    )


def flow_cache(plan: Plan, pack: Pack, prepared: PreparedDomain) -> FlowCache:
    """Where the flows that a pack starts from are kept."""
    source = plan.pretraining_of(pack)[0]  # all of them have the same settings
    return FlowCache.of(
        plan.directory.parent / "pretrained",
        source,
        plan.configs[source.name],
        prepared.data.fingerprint,
        plan.precision,
    )
