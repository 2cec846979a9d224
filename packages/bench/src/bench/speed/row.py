"""What was measured of one combination, or of a peer."""

from dataclasses import dataclass

__all__ = ["SpeedRow"]


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One line of the table; None where a figure does not apply.

    Attributes:
        agent: its name, or the command of a peer.
        width: of the hidden layers.
        replicas: trained as one.
        batch: chunks per update and replica.
        precision: of the matrix products.
        mode: of execution, :data:`bench.experiment.Mode`.
        device: name of the hardware.
        threads: of the CPU, in each process.
        updates_per_s: median over turns; each is an update of all replicas. Mean over processes.
        slowest: of the turns.
        fastest: of the turns.
        replica_updates_per_s: updates per second times replicas, of all processes together.
        first_update_s: from a built agent to its first finished update; compilation and capture
            are included.
        memory_mb: peak, of the device or of this process on a CPU (there of all rows so far).
        launches: operations of one eager update, views and empty tensors left out; each is at
            least one kernel launch on a GPU.
        gflops: achieved, from the operations of the matrix products of an update.
        ceiling_gflops: of one large matrix product of this width, in the same turns.
        share: of the ceiling.
        intensity: operations per byte that the update's operations read and write, if asked for.
        bandwidth_gb_s: of a large copy, if asked for.
        processes: that did it at the same time; figures but `updates_per_s`, `slowest`, `fastest`
            and `first_update_s` are of all together.
    """

    agent: str
    width: int | None
    replicas: int | None
    batch: int | None
    precision: str | None
    mode: str | None
    device: str
    threads: int
    updates_per_s: float
    slowest: float
    fastest: float
    replica_updates_per_s: float | None = None
    first_update_s: float | None = None
    memory_mb: float | None = None
    launches: int | None = None
    gflops: float | None = None
    ceiling_gflops: float | None = None
    share: float | None = None
    intensity: float | None = None
    bandwidth_gb_s: float | None = None
    processes: int = 1
