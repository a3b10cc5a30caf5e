"""What a benchmark found, as plain values that become JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from beside_reference.gate import Agreement
from beside_reference.measuring import Summary

#: Raised when fields change their meaning.
SCHEMA = 1


@dataclass
class SideReport:
    """One side.

    :param about: what really ran. :param starting: seconds from the start of its process until the model was loaded;
        :param loading: those for the model alone. :param refused: why it was not timed, or None.
    """

    name: str
    about: dict[str, str] = field(default_factory=dict)
    starting: float | None = None
    loading: float | None = None
    agreement: Agreement = field(default_factory=Agreement)
    refused: str | None = None


@dataclass(frozen=True)
class Measurement:
    """One measure of one side on one volume.

    :param seconds: of the repetitions; :param processor: their median of processor seconds, all threads together.
    :param stages: medians of the stages in seconds.
    :param flops: floating-point operations of the network that were needed; :param values: numbers moved at least.
    :param of_peak: achieved share of the roof's matrix products; None where nothing is known of either.
    :param faster: how many times faster than the reference as shipped.
    :param labels: share of labels that equal those of the reference on this volume.
    :param facts: what the side told of its last run.
    """

    measure: str
    volume: str
    side: str
    seconds: Summary
    processor: float
    stages: dict[str, float]
    flops: int | None = None
    values: int | None = None
    of_peak: float | None = None
    faster: float | None = None
    labels: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """Where the time of "everything" goes, from one run whose clock waits for the device at every stage.

    :param outside: share of the time that is not the network.
    :param network_of_peak: achieved share of the roof while the network runs.
    """

    volume: str
    side: str
    stages: dict[str, float]
    outside: float
    network_of_peak: float | None


@dataclass(frozen=True)
class MemoryReport:
    """Bytes that one side alone took for "everything" on a volume, and for one window before."""

    volume: str
    side: str
    peak: int | None
    one_window: int | None
    device_peak: int | None
    seconds: float


@dataclass
class BenchmarkReport:
    """Everything that one run found."""

    settings: dict[str, Any]
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    roof: dict[str, Any] = field(default_factory=dict)
    sides: list[SideReport] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    memory: list[MemoryReport] = field(default_factory=list)
    not_measured: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}
