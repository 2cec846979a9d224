"""Fields that are newer than a run leave its settings, fingerprints and clones as they were."""

from dataclasses import asdict, dataclass, fields, replace

import pytest

from bench.agents import AGENTS
from bench.recorded import added, recorded, stored_name


@dataclass(frozen=True, slots=True)
class Inner:
    rate: float = 0.1
    shape: str = added("0.2", "flat")


@dataclass(frozen=True, slots=True)
class Settings:
    width: int = 4
    inner: Inner = Inner()
    penalty: float = added("0.2", 0.0)


def test_later_fields_are_named_only_away_from_their_default() -> None:
    assert recorded(Settings()) == {"width": 4, "inner": {"rate": 0.1}}
    changed = Settings(penalty=0.3, inner=Inner(shape="round"))
    assert recorded(changed) == asdict(changed)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_setting_of_an_agent_is_recorded_once_it_is_changed(agent: str) -> None:
    config = AGENTS[agent].config()
    names = {entry.name for entry in fields(config)}
    later = {entry.name for entry in fields(config) if "added" in entry.metadata}
    # Renamed settings stand in files under the names of 0.1.
    stored = {stored_name(type(config), name) for name in names - later}
    assert recorded(config).keys() == stored
    assert len(stored) == len(names - later)
    for name in later:
        other = replace(config, **{name: _another(getattr(config, name))})
        assert name in recorded(other)


def _another(value: object) -> object:
    return f"not {value}" if isinstance(value, str) else (value or 0) + 1  # type: ignore[operator]
