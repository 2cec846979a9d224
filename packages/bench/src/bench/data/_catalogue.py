"""Which datasets there are, which of them are on the disk, and whether those are intact."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.data._errors import DataDamaged, DataMissing
from bench.data._locate import Location, ensure_record, inspect_file, locate
from bench.data._names import DatasetName, is_dataset_name
from bench.data._recipes import RECIPES
from bench.data._record import DataRecord
from bench.data._walkers import expert_folder


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A dataset and what is on the disk of it.

    Attributes:
        dataset: its name.
        transitions: training transitions by its name or recipe; None where neither says.
        ways: commands of `bench data` that bring it here; `import` alone for data of one's own.
        present: training files on the disk.
        expected: training files that it has.
        bytes: length of the files on the disk, validation included.
        source: where the files come from, as recorded; empty if nothing is recorded.
        problem: what is wrong with them at a glance (lengths); empty if nothing is.
    """

    dataset: str
    transitions: int | None
    ways: tuple[str, ...]
    present: int
    expected: int
    bytes: int
    source: str
    problem: str


def catalogue(data_dir: Path) -> list[CatalogueEntry]:
    """The datasets of the suites, those that recipes make, and those recorded in the folder."""
    from bench.suites import SUITES  # Suites are free to ask where their data lie.

    # A suite may bring data of other origin: their names are not OGBench's.
    names = {
        domain.dataset for s in SUITES.values() for domain in s.domains if domain.source.published
    }
    names = {str(DatasetName.parse(name)) if is_dataset_name(name) else name for name in names}
    names |= {f"{stem}-v0" for stem in RECIPES}
    names |= {path.stem for path in data_dir.glob("*.json") if _is_record(path)}
    return [_entry(name, data_dir) for name in sorted(names)]


def _is_record(path: Path) -> bool:
    """Whether a JSON file is the record of a dataset; any other may lie in a user's folder."""
    if is_dataset_name(path.stem):
        return True
    try:
        return DataRecord.read(path) is not None
    except DataDamaged:
        return False


def _entry(dataset: str, data_dir: Path) -> CatalogueEntry:
    name = DatasetName.parse(dataset) if is_dataset_name(dataset) else None
    if name is None:
        training, validation = [data_dir / f"{dataset}.npz"], [data_dir / f"{dataset}-val.npz"]
    else:
        training, validation = (name.files(data_dir, validation=v) for v in (False, True))
    problem, source = "", ""
    try:
        record = DataRecord.read(data_dir / f"{dataset}.json")
    except DataDamaged as error:
        record, problem = None, str(error)
    present = 0
    size = 0
    for path in (*training, *validation):
        if not path.exists():
            continue
        present += path in training
        size += path.stat().st_size
        known = None if record is None else record.files.get(path.name)
        if known is not None and path.stat().st_size != known.bytes:
            problem = f"{path.name}: length differs from the record"
    if present:
        source = "unknown" if record is None else record.source
    recipe = None if name is None else RECIPES.get(name.stem)
    transitions = name.transitions if name is not None else None
    if transitions is None and recipe is not None:
        transitions = recipe.transitions
    if record is not None and present == len(training):
        entries = [record.files[p.name] for p in training if p.name in record.files]
        transitions = sum(entry.rows - entry.episodes for entry in entries) or transitions
    imported = name is None or (record is not None and record.source == "imported")
    ways = ["import"] if imported else ["get"]
    if recipe is not None and not imported:
        able = not recipe.walker or expert_folder(data_dir, recipe.walker).exists()
        ways.insert(0, "generate" if able else "generate (needs expert)")
    found = (present, len(training), size, source, problem)
    return CatalogueEntry(dataset, transitions, tuple(ways), *found)


def verify(
    dataset: str, data_dir: Path, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Read a dataset as a whole, check it, and compare it with what is recorded of it.

    Args:
        dataset: its name, or the path of an `.npz` file.
        data_dir: folder of the data files.
        progress: called with the bytes done and in all.

    Returns:
        What is wrong, one entry for each bad file; empty if everything is right. Files that were
        not recorded are recorded.

    Raises:
        DataMissing: if the training files are not there.
        DataDamaged: if its record is none.
    """
    locations = list(_locations(dataset, data_dir))
    total = sum(path.stat().st_size for place in locations for path in place.files)
    done, problems = 0, []
    for place in locations:
        record = DataRecord.read(place.record_file)
        for path in place.files:
            try:
                found = inspect_file(path)
                known = record.files.get(path.name) if record is not None else None
                if known is not None and known.fingerprint != found.fingerprint:
                    problems.append(f"{path}: the contents differ from what was recorded of them")
            except DataDamaged as error:
                problems.append(str(error))
            done += path.stat().st_size
            if progress is not None:
                progress(done, total)
    if not problems:
        for place in locations:
            ensure_record(place)
    return problems


def _locations(dataset: str, data_dir: Path) -> Iterator[Location]:
    yield locate(dataset, data_dir)
    try:
        yield locate(dataset, data_dir, validation=True)
    except DataMissing:
        return  # Training needs no validation files.
