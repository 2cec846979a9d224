"""What a process may use: limits of nested control groups, of both versions."""

from pathlib import Path

import pytest

from bench.data import default_data_dir, folder_option
from bench.machine import available_cores, available_memory, ending, with_home

MEGA = 1_000_000


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, **{"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB"})
    return tmp_path


def test_without_limits_it_is_what_the_machine_has(root: Path) -> None:
    assert available_memory(root) == 8000 * 1024
    write(root, **{"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/cpu.max": "max 100000"})
    assert available_memory(root) == 8000 * 1024
    assert available_cores(root) == available_cores(root / "nothing") == available_cores()


@pytest.mark.parametrize("level", ["", "slurm/", "slurm/job_7/", "slurm/job_7/step_0/"])
def test_every_level_of_version_2_counts(root: Path, level: str) -> None:
    group = "sys/fs/cgroup/"
    write(root, **{
        "proc/self/cgroup": "0::/slurm/job_7/step_0",
        f"{group}slurm/job_7/step_0/memory.max": "max",
        f"{group}slurm/job_8/memory.max": "1000",  # another job's
        f"{group}{level}memory.max": "1000000",
        f"{group}{level}memory.current": "700000",
        f"{group}{level}memory.stat": "anon 300000\ninactive_file 250000\nactive_file 5",
        f"{group}{level}cpu.max": "150000 100000",
    })  # fmt: skip
    assert available_memory(root) == 550_000
    assert available_cores(root) == 1


@pytest.mark.parametrize("level", ["", "user.slice/", "user.slice/session/"])
def test_every_level_of_version_1_counts(root: Path, level: str) -> None:
    lines = [
        "9:name=systemd:/other",
        "4:memory:/user.slice/session",
        "3:cpu,cpuacct:/user.slice/session",
    ]
    group = "sys/fs/cgroup/"
    write(root, **{
        "proc/self/cgroup": "\n".join(lines),
        f"{group}memory/memory.stat": "total_inactive_file 0",
        f"{group}memory/user.slice/session/memory.stat": "total_inactive_file 0",
        f"{group}memory/memory.limit_in_bytes": "9223372036854771712",  # there is none
        f"{group}memory/memory.usage_in_bytes": "1",
        f"{group}memory/{level}memory.limit_in_bytes": "2000000",
        f"{group}memory/{level}memory.usage_in_bytes": "1500000",
        f"{group}memory/{level}memory.stat": "inactive_file 9\ntotal_inactive_file 100000",
        f"{group}cpu,cpuacct/user.slice/session/cpu.cfs_quota_us": "-1",
        f"{group}cpu,cpuacct/{level}cpu.cfs_quota_us": "100000",
        f"{group}cpu,cpuacct/{level}cpu.cfs_period_us": "100000",
    })  # fmt: skip
    assert available_memory(root) == 600_000
    assert available_cores(root) == 1


def test_a_container_sees_its_group_as_the_root(root: Path) -> None:
    write(root, **{
        "proc/self/cgroup": "0::/docker/0123",
        "sys/fs/cgroup/memory.max": str(3 * MEGA),
        "sys/fs/cgroup/memory.current": str(MEGA),
        "sys/fs/cgroup/memory.stat": "inactive_file 0",
        "sys/fs/cgroup/cpu.max": "50000 100000",  # half a core is one
    })  # fmt: skip
    assert available_memory(root) == 2 * MEGA
    assert available_cores(root) == 1


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what Python does without one
    with pytest.raises(ValueError, match=r"no home directory here.*--data-dir or BENCH_DATA_DIR"):
        default_data_dir()
    with pytest.raises(ValueError, match=r"~/x\.npz: there is no home directory"):
        with_home("~/x.npz")
    assert folder_option(tmp_path) == f" --data-dir {tmp_path}"  # needs none
    assert with_home(str(tmp_path)) == tmp_path


def test_the_end_of_a_process_is_put_into_words() -> None:
    assert ending(-9) == "killed by SIGKILL, usually out of memory"
    assert ending(-11) == "killed by SIGSEGV"
    assert ending(3) == "exit code 3"
