"""A few hundred command lines that cannot be meant: each is one line of error, none a success."""

import random
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import main
from bench.cli._commands import leaves
from bench.cli._options import Option, options_of

NUMBERS = ("x", "nan", "-inf", "1e999", "-", "9" * 23, "1;2", "None", "0x10", "1.5.2", "٣٤x", " ")
WORDS = ("", "  ", "a\0b")

REQUESTS = """
--suite nope | --suite ../quick | --suite quick:SUITE | --agent nope | --agent trqam nope
--agent TRQAM QAM? | --domains nope | --tasks 0 | --tasks 9 | --tasks -1 | --seeds 0 | --seeds -3
--seeds 99999999 | --first-seed -1 | --steps 0 | --steps -5 | --steps 1e17 | --pretrain-steps -1
--evaluate-every 0 | --episodes 0 | --episodes -1 | --pack 0 | --pack -2 | --processes 0
--kl-budget 0 | --kl-budget -1 | --set x | --set x=1 | --set = | --set num_critics=
--set num_critics=0 | --set num_critics=-2 | --set num_critics=1000000000 | --set num_critics=1.5
--set flow_steps=0 | --set flow_steps=1000000000 | --set actor_hidden= | --set actor_hidden=0
--set actor_hidden=64,,64 | --set actor_hidden=-4 | --set discount=2 | --set discount=nan
--set discount=-1 | --set kl_budget=-1 | --set learning_rate=inf | --set learning_rate=-1
--set kernel=nope | --set batch_size=0 | --set batch_size=-8 | --set actor_layer_norm=maybe
--dual nope | --device nope | --device cuda:99 | --device -1 | --data-memory 8 | --data-memory x
--data-memory -1GB | --data-memory 1e9999GB | --dataset nope | --env nope | --env nope:nope
--chunk-length 0 | --chunk-length -1 | --env-timeout 0 | --env-timeout -1 | --env-memory x
--env-memory 8 | --env-memory -4GB | --out file | --out file/below | --data-dir file
--dataset file
--agent trqam trqam | --tasks 1,1 | --domains pointmaze-medium-navigate,pointmaze-medium-navigate
--track wandb wandb | --dataset fifo --env nope | --preset smokey | --track nope
--precision float8
"""

ONLINE = """
--online-steps 0 | --online-steps -1 | --warm-up -1 | --warm-up 1e15 | --updates-per-step 0
--replay nope | --offline-share 2 | --offline-share -1 | --online-data nope
--online-kl-budget 0 | --online-kl-budget -1 | --agent bc
"""

SWEEPS = """
--over | --over x | --over x=1 | --over = | --over num_critics= | --over num_critics=0
--over num_critics=2,x | --over kl-budget=-1,1 | --over kl-budget=nan | --over steps=0
--over suite=quick,ogbench50 | --over num_critics=2 --over num_critics=3
--over num_critics=2,2 | --over kl-budget=1,1.0
"""

OTHERS = """
report nope | report file | report empty | report broken | status nope | status file
status broken | status empty --watch 0 | status empty --watch -1 | compare nope nope
compare empty empty | compare broken broken | compare file file | export nope | export empty
export broken | export file | video nope | video empty | video broken --size 0
video broken --episodes -1 | video broken | reproduce nope | reproduce empty | reproduce broken
reproduce file | agents nope | plan --suite nope | plan --agent nope | plan --seeds 0
plan --devices 0 | plan --cores -1 | plan --domains nope | plan --device nope
plan --rates nope | plan --rates file | plan --rates empty | plan --device h200 --utilisation 0
plan --device h200 --utilisation -1 | plan --device h200 --utilisation 2 | speed --agents nope
speed --widths 0 | speed --widths -1 | speed --replicas 0 | speed --seconds -1
speed --precisions float8 | speed --modes nope | data inspect nope --data-dir empty
data inspect ../file --data-dir empty | data inspect file --data-dir file
data verify --data-dir nope | data verify nope --data-dir empty | data verify --data-dir file
data import nope mine --data-dir empty | data import file mine --data-dir empty
data import empty mine --data-dir empty | data import broken.npz mine --data-dir empty
data import broken.npz ../mine --data-dir empty | data generate nope --data-dir empty
data generate pointmaze-medium-navigate-5k-v0 --data-dir file
data generate pointmaze-medium-navigate-5k-v0 --data-dir empty --transitions 0
data generate pointmaze-medium-navigate-5k-v0 --data-dir empty --transitions -5
data generate pointmaze-medium-navigate-5k-v0 --data-dir empty --processes 0
data generate cube-double-play-999999999b-v0 --data-dir empty
plan --domains scene-play scene-play | speed --widths 64 64 | speed --agents fql fql
ablate kernels --flow-steps 5 5 --dry-run | ablate dual --seeds 0 | ablate dual --updates 0
ablate dual --budget -1
ablate kernels --kernels nope --dry-run | ablate kernels --flow-steps 0 --dry-run
ablate kernels --endpoint-samples 0 --dry-run | ablate internal-vs-external --tasks 9 --dry-run
ablate kernels --kernels adams_bashforth --flow-steps 1 --dry-run
"""


def lines(text: str) -> list[list[str]]:
    return [shlex.split(part) for part in text.replace("\n", " | ").split("|") if part.strip()]


def misspelt(word: str, chance: random.Random) -> str:
    place = chance.randrange(2, len(word))
    return word[:place] + chance.choice("qxz") + word[place:]


def of_option(option: Option, chance: random.Random) -> list[str]:
    """An option with a value that no option of its kind has."""
    kind, flag = option.kind, option.flag
    if kind.flag:
        return [f"{flag}={chance.choice(['yes', '', '1'])}"]
    if kind.choices and not kind.types:
        return [flag, misspelt(f"--{chance.choice(kind.choices)}", chance)[2:]]
    values = NUMBERS if set(kind.types) <= {int, float} else WORDS
    return [flag, *[chance.choice(values)] * (kind.count or 1)]


def unparsable(chance: random.Random, rounds: int) -> Iterator[list[str]]:
    """For every command: options that it lacks, and values that no option of the kind has."""
    for prog, kind in leaves().items():
        command, options = prog.split()[1:], options_of(kind)
        named = [option for option in options if not option.positional]
        places = ["somewhere" for option in options if option.positional]
        for _ in range(rounds):
            if not named:
                break
            yield [*command, *places, *of_option(chance.choice(named), chance)]
            yield [*command, *places, misspelt(chance.choice(named).flag, chance), "1"]
        if valued := [option for option in named if not option.kind.flag]:
            yield [*command, *places, chance.choice(valued).flag]
        if not any(option.kind.many for option in options if option.positional):
            yield [*command, *places, "one", "two", "three"]
        if len(command) == 2:
            yield [command[0], misspelt(f"--{command[1]}", chance)[2:]]
        yield [misspelt(f"--{command[0]}", chance)[2:], *command[1:]]


def meaningless(chance: random.Random) -> Iterator[list[str]]:
    """Values of the right kind that mean nothing, alone and with sensible options around them."""
    sensible = ("--preset smoke", "--device cpu", "--generate", "--no-compile", "--seeds=2")
    for command, parts in (
        ("offline", lines(REQUESTS)),
        ("online", chance.sample(lines(REQUESTS), 12) + lines(ONLINE)),
        ("sweep", lines(SWEEPS)),
    ):
        for part in parts:
            given = {word.partition("=")[0] for word in part}
            others = [o.split() for o in sensible if o.split("=")[0].split()[0] not in given]
            around = chance.sample(others, chance.randrange(len(others) + 1))
            over = (
                ["--over", "num_critics=2,3"]
                if chance.random() < 0.1 and command == "sweep"
                else []
            )
            before = [word for option in around for word in option]
            yield [command, "--dry-run", *over, *before, *part]
    yield from lines(OTHERS)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the kinds of things that names may mean."""
    import os

    folder = tmp_path / "work"
    (folder / "empty").mkdir(parents=True)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text('{"command": ["bench"], "settings": [')
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "file").write_text("text\n")
    os.mkfifo(folder / "fifo")
    (tmp_path / "traces").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "traces"))
    return folder


@pytest.mark.parametrize("kind", ["unparsable", "meaningless"])
def test_nonsense_is_one_line_of_error(
    kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(12)
    found = list(unparsable(chance, 6) if kind == "unparsable" else meaningless(chance))
    assert len(found) > 150
    before = sorted(place.rglob("*"))
    wrong = []
    for arguments in found:
        status = main(arguments)
        error = capsys.readouterr().err
        one_line = error.startswith("error: ") and error.count("\n") == 1
        unforeseen = "Traceback" in error or "(traceback:" in error
        if status not in (1, 2) or not one_line or unforeseen:
            wrong.append(f"{shlex.join(arguments)}: status {status}: {error}")
        if sorted(place.rglob("*")) != before:
            before = sorted(place.rglob("*"))
            wrong.append(f"{shlex.join(arguments)}: left something behind")
    assert not wrong, "\n".join(wrong)
