"""The methods' published values per domain, under the names of our settings.

The values at which QAM (arXiv 2601.14234) and its baselines were compared. Their names there:
`inv_temp` is our `inverse_temperature`, `alpha` (FQL) and `fql_alpha` (QAM-F) `distill_weight`,
`kappa` `expectile`, `guidance_coef` `guidance`, `noisy_coef` `noisy_weight`, `alpha_actor`
`cloning_weight` (ReBRAC), `bc_alpha` that of RLPD, `actor_noise` both `target_noise` and
`acting_noise_std`, since that code plays with it too, and `actor_freq` `target_every`, since it
delays the averages alone. CGQL and CGQL-M there are `cgql-l mode=simple` and `cgql-l mode=mse`
here: what applies to `cgql-l` when the user sets that mode. RQL's are those of its own paper's
commands (arXiv 2606.17551): its `alpha` is our `cloning_weight`.
"""

import csv
from functools import cache
from importlib.resources import files

__all__ = ["published_settings"]

Value = int | float | str


@cache
def _table() -> dict[str, dict[str, dict[str, Value]]]:
    text = (files("bench") / "published_settings.csv").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, Value]]] = {}
    for row in csv.DictReader(text.splitlines()):
        settings = table.setdefault(row["domain"], {}).setdefault(row["agent"], {})
        settings[row["setting"]] = _number_or_word(row["value"])
    return table


def published_settings(domain: str) -> dict[str, dict[str, Value]]:
    """Settings by agent name for a domain such as `cube-double-play`; empty where none are known.

    The result belongs to the caller.
    """
    return {agent: dict(values) for agent, values in _table().get(domain, {}).items()}


def _number_or_word(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
