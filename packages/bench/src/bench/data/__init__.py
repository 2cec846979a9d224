"""Datasets of OGBench and others: found, made, checked, and read for training."""

from bench.data._catalogue import CatalogueEntry, catalogue, verify
from bench.data._check import check_arrays
from bench.data._errors import DataDamaged, DataMissing, DownloadFailed, folder_error
from bench.data._generate import Progress, generate
from bench.data._get import Downloaded, get
from bench.data._import import Imported, import_data
from bench.data._load import TaskData, load, load_shards
from bench.data._load_data import DataSource, load_data
from bench.data._locate import (
    Location,
    combined_fingerprint,
    default_data_dir,
    ensure_record,
    folder_option,
    inspect_file,
    locate,
)
from bench.data._mapped import MappedTaskData, bytes_in_memory, load_mapped
from bench.data._names import DatasetName, is_dataset_name, task_number
from bench.data._npz import fingerprint, npz_keys, npz_specs, read_npz, write_npz
from bench.data._published import published_kinds
from bench.data._recipes import RECIPES, Recipe, makeable_kinds, recipe_for
from bench.data._record import DataRecord, FileRecord, Source
from bench.data._sources import DownloadSource, download_sources
from bench.data._summary import ArraySummary, FileSummary, TaskSummary, summarise
from bench.data._tasks import reward_columns, task_rewards
from bench.data._transfer import Patience

__all__ = [
    "RECIPES",
    "ArraySummary",
    "CatalogueEntry",
    "DataDamaged",
    "DataMissing",
    "DataRecord",
    "DataSource",
    "DatasetName",
    "DownloadFailed",
    "DownloadSource",
    "Downloaded",
    "FileRecord",
    "FileSummary",
    "Imported",
    "Location",
    "MappedTaskData",
    "Patience",
    "Progress",
    "Recipe",
    "Source",
    "TaskData",
    "TaskSummary",
    "bytes_in_memory",
    "catalogue",
    "check_arrays",
    "combined_fingerprint",
    "default_data_dir",
    "download_sources",
    "ensure_record",
    "fingerprint",
    "folder_error",
    "folder_option",
    "generate",
    "get",
    "import_data",
    "inspect_file",
    "is_dataset_name",
    "load",
    "load_data",
    "load_mapped",
    "load_shards",
    "locate",
    "makeable_kinds",
    "npz_keys",
    "npz_specs",
    "published_kinds",
    "read_npz",
    "recipe_for",
    "reward_columns",
    "summarise",
    "task_number",
    "task_rewards",
    "verify",
    "write_npz",
]
