"""From the options of `bench online` to the packs of both phases, or one clear error."""

from dataclasses import replace
from typing import Any

from bench.agents import AGENTS
from bench.agents.settings import TrustRegion, unread_settings
from bench.experiment import OfflineRequest, OnlineRequest, given_values
from bench.suites import OnlineProtocol, smoke
from bench.training.cells import Pack
from bench.training.custom_task import chosen_suite
from bench.training.online import is_balanced
from bench.training.options import Plan, plan_offline, resolved_options
from bench.training.request_checks import check_request
from bench.training.setting_checks import check_ranges

__all__ = ["plan_online"]


def plan_online(options: OnlineRequest) -> Plan:
    """Check every option and lay out the packs of the offline phase and behind them the online one.

    Raises:
        ValueError: an unknown name, an impossible value, or a device that is not there.
    """
    offline: OfflineRequest = options
    check_request(options)
    chosen = chosen_suite(offline, online=True)
    if offline.preset == "smoke":
        chosen = smoke(chosen)
    online = _protocol(chosen.protocol.online, options)
    if offline.steps is None and online.offline_steps is not None:
        # Another offline phase than that of `bench offline`, so not its directory.
        offline = replace(offline, steps=online.offline_steps)
        offline = resolved_options(offline, "online", online_only=True)
    plan = plan_offline(offline, online_only=True)
    for pack in plan.packs:
        _check_pack(pack, plan.configs[pack.name], online, options)
    if not plan.packs:
        raise ValueError("agent 'bc' does not use rewards, so it has no online phase")
    protocol = replace(plan.suite.protocol, online=online)
    configs = dict(plan.configs)
    later: list[Pack] = []
    for pack in plan.packs:
        scratch = AGENTS[pack.agent].online_only
        later.append(replace(pack, protocol=protocol, online=True, from_scratch=scratch))
        configs[later[-1].name] = _config(pack, configs[pack.name], options.online_kl_budget)
    packs = tuple(pack for pack in plan.packs if not AGENTS[pack.agent].online_only)
    cloned = any(AGENTS[pack.agent].pretrained for pack in packs)
    return replace(
        plan,
        suite=replace(plan.suite, protocol=protocol),
        pretraining=plan.pretraining if cloned else (),
        packs=packs,
        online=tuple(later),
        configs=configs,
    )


def _protocol(published: OnlineProtocol, options: OnlineRequest) -> OnlineProtocol:
    online = replace(published, **given_values(options, online=True))
    if online.warm_up >= online.steps:
        raise ValueError(
            f"--warm-up must be at least 0 and less than the {online.steps:,} online steps, got "
            f"{online.warm_up:,}"
        )
    return online


def _check_pack(pack: Pack, config: object, online: OnlineProtocol, options: OnlineRequest) -> None:
    horizon = pack.domain.chunk_length
    if online.steps < horizon:
        raise ValueError(
            f"--online-steps must be at least {horizon}, a chunk of {pack.domain.name}, got "
            f"{online.steps}"
        )
    if is_balanced(online, from_scratch=AGENTS[pack.agent].online_only):
        if online.warm_up < horizon - 1:  # the first update comes one step later
            raise ValueError(
                f"--warm-up must be at least {horizon - 1} with balanced replay, which draws "
                f"chunks of {horizon} steps of experience, got {online.warm_up}"
            )
    elif options.offline_share is not None and len(options.agent) == 1:
        raise ValueError("--offline-share applies to balanced replay; add --replay balanced")
    alone = len(options.agent) == 1 and options.agent != ("all",)
    has_budget = isinstance(config, TrustRegion)
    if options.online_kl_budget is not None and alone and not has_budget:
        raise ValueError(
            f"agent {pack.agent!r} has no trust region; --online-kl-budget does not apply"
        )


def _config(pack: Pack, config: Any, budget: float | None) -> Any:
    if budget is None or not isinstance(config, TrustRegion):
        return config
    config = config.with_budget(budget)
    check_ranges(
        pack.agent,
        config,
        pack.domain.chunk_length,
        lambda name: "--online-kl-budget" if name == "kl_budget" else name,
    )
    if reason := unread_settings(config).get("kl_budget"):
        raise ValueError(f"--online-kl-budget does not apply: {reason}; leave out one of the two")
    return config
