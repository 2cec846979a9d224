"""Run directories: checkpoints, locks, atomic files, logs and provenance.

Layout of a run directory:

    run.json                                                settings, command, provenance, cells
    lock                                                    held while a process works here
    log.jsonl                                               one JSON object per line
    pretrained/<key>/step-000000123/...                     checkpoints of the shared first stage
    packs/<pack>/checkpoints/step-000000123/manifest.json   sums and plain data
    packs/<pack>/checkpoints/step-000000123/tensors.safetensors
    packs/<pack>/evaluations.parquet, training.parquet      see `bench.results`
"""

from __future__ import annotations

from bench.storage._atomic import (
    atomic_path,
    hold_directory,
    read_json,
    require_held,
    temporary_path,
    write_bytes,
    write_json,
)
from bench.storage._checkpoint import (
    Checkpoint,
    checkpoint_steps,
    has_checkpoints,
    load_checkpoint,
    part,
    save_checkpoint,
    write_tensors,
)
from bench.storage._locking import LockHolder, RunLock, in_use, lock_holder
from bench.storage._log import JsonLinesHandler, log_to, read_log
from bench.storage._provenance import (
    collect_provenance,
    environment_differences,
    package_versions,
    record_data,
    simulator_label,
)
from bench.storage._run import PlannedCell, RunRecord, read_run, run_directories, write_run
from bench.storage._untrusted import plain_text, printable, require_count, require_name

__all__ = [
    "Checkpoint",
    "JsonLinesHandler",
    "LockHolder",
    "PlannedCell",
    "RunLock",
    "RunRecord",
    "atomic_path",
    "checkpoint_steps",
    "collect_provenance",
    "environment_differences",
    "has_checkpoints",
    "hold_directory",
    "in_use",
    "load_checkpoint",
    "lock_holder",
    "log_to",
    "package_versions",
    "part",
    "plain_text",
    "printable",
    "read_json",
    "read_log",
    "read_run",
    "record_data",
    "require_count",
    "require_held",
    "require_name",
    "run_directories",
    "save_checkpoint",
    "simulator_label",
    "temporary_path",
    "write_bytes",
    "write_json",
    "write_run",
    "write_tensors",
]
