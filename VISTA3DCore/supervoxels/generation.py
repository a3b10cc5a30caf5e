"""Supervoxels of a CT: the one function that the rest of the engine and the command line call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.packages import require
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.clustering import cluster
from VISTA3DCore.supervoxels.encoders import SliceEncoder
from VISTA3DCore.supervoxels.graph import graph_supervoxels
from VISTA3DCore.supervoxels.grid import WorkingGrid, working_grid
from VISTA3DCore.supervoxels.memory import MemoryWatch
from VISTA3DCore.supervoxels.restoring import restore

AUTO, SAM, LIGHT, GRAPH = "auto", "sam", "medsam-lite", "graph"
GENERATORS = (AUTO, LIGHT, SAM, GRAPH)


class Numbers(TypedDict):
    """The parameters of supervoxels that presets set."""

    segments: int
    compactness: float
    sigma: float


PRESETS: Mapping[str, Numbers] = {
    # Algorithm 2 of the paper; it states no compactness, ours is measured (Documentation/supervoxels.md).
    "paper": {"segments": 100, "compactness": 0.1, "sigma": 3.0},
    # Project-MONAI/VISTA scripts/slic_process_sam.py.
    "code": {"segments": 400, "compactness": 0.01, "sigma": 3.0},
}


@dataclass(frozen=True)
class Details:
    """What rarely needs to be changed.

    :param spacing_mm: of the working grid, on which features and clusters live; coarser for large volumes.
    :param most_voxels: of the working grid's box around the body; 3 million take 2 to 3 GB.
    :param slice_mm: distance between encoded slices, see :class:`VISTA3DCore.supervoxels.features.Slicing`.
    :param physical_aspect: False treats voxels as cubes in slices, as the reference does.
    :param device: of the encoder.
    :param sam_model: which Segment Anything: base, large or huge.
    """

    spacing_mm: float = 2.0
    most_voxels: int = 3_000_000
    slice_mm: float = 6.0
    physical_aspect: bool = True
    device: str = "auto"
    sam_model: str = "base"


@dataclass(frozen=True, eq=False)
class Supervoxels:
    """What came out.

    :param labels: int32 [i, j, k] on the volume's grid, 0 in the air around the body, supervoxels from 1 on.
    :param affine: 4x4, voxel index -> RAS mm.
    :param generator: the one that made them.
    :param report: settings, count, seconds of each step, peak memory; JSON types.
    """

    labels: np.ndarray
    affine: np.ndarray
    generator: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return int(self.report["count"])


def compute_supervoxels(
    volume: Volume,
    generator: str | SliceEncoder = AUTO,
    segments: int = 100,
    compactness: float = 0.1,
    sigma: float = 3.0,
    progress: Progress | None = None,
    details: Details | None = None,
) -> Supervoxels:
    """Cut a CT into supervoxels that follow the borders of organs.

    :param volume: the CT in HU.
    :param generator: ``auto``, ``medsam-lite``, ``sam``, ``graph``, or an encoder that is loaded already.
    :param segments: about how many (``graph``: exactly).
    :param compactness: of SLIC; not used by ``graph``.
    :param sigma: smoothing of the features in mm; not used by ``graph``.
    :raises InputError: if a parameter or the volume cannot be used.
    :raises ModelError: if an encoder's weights cannot be had.
    :raises OutputError: if the temporary folder is too small.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    details, progress = details or Details(), Progress.of(progress)
    check_parameters(generator, segments, compactness, sigma, details)
    _check_volume(volume)
    numbers: Numbers = {"segments": segments, "compactness": compactness, "sigma": sigma}
    watch = _Watch()
    with watch.memory:
        progress.update(0.0, "Preparing the volume")
        source, reason = choose_generator(generator, details, progress.part(0.0, 0.05))
        grid = working_grid(volume, details.spacing_mm, details.most_voxels)
        watch.step("preparation")
        if not grid.body.any():
            raise InputError("The image shows nothing but air; there is nothing to cut into supervoxels.")
        if isinstance(source, str):
            facts: dict[str, Any] = {}
            labels = graph_supervoxels(grid, segments, progress=progress.part(0.05, 0.95))
        else:
            labels, facts = _from_features(volume, source, grid, numbers, details, progress, watch)
        watch.step("clustering")
        labels = restore(labels, grid, volume, progress.part(0.95, 1.0))
        watch.step("restoration")
    count = _renumber(labels)
    name = source if isinstance(source, str) else source.name
    settings = {**numbers, **asdict(details)}
    report = {"generator": name, "reason": reason, "count": count, "settings": settings, **_geometry(volume, grid)}
    return Supervoxels(labels, volume.affine, name, {**report, **facts, **watch.report()})


def choose_generator(
    generator: str | SliceEncoder, details: Details, progress: Progress | None = None
) -> tuple[str | SliceEncoder, str]:
    """Return an encoder, or ``graph``, and a sentence that says why.

    ``auto`` takes the light encoder where its weights are on this computer; it downloads nothing.
    """
    if not isinstance(generator, str):
        return generator, "As asked for."
    from VISTA3DCore.supervoxels.medsam_lite import MedSamLite, fetch_weights, weights_path

    if generator == GRAPH:
        return GRAPH, "As asked for."
    if generator == SAM:
        from VISTA3DCore.supervoxels.segment_anything import SegmentAnything, fetch_model

        return SegmentAnything(fetch_model(details.sam_model, progress=progress), details.device), "As asked for."
    if generator == AUTO and not weights_path().is_file():
        return GRAPH, (
            "Graph supervoxels of the intensities are made, because the weights of the light encoder are not on this "
            "computer; '--generator medsam-lite' fetches them once."
        )
    reason = "As asked for." if generator == LIGHT else "The light encoder's weights are on this computer."
    return MedSamLite(fetch_weights(progress=progress), details.device), reason


def check_parameters(
    generator: str | SliceEncoder, segments: int, compactness: float, sigma: float, details: Details
) -> None:
    """Check everything before the long work.

    :raises InputError: naming the first parameter that cannot be used. :raises MissingPackageError: without packages.
    """
    require("Clustering", "scipy", "skimage")
    if isinstance(generator, str) and generator not in GENERATORS:
        raise InputError(f"There is no generator '{generator}'; choose one of {', '.join(GENERATORS)}.")
    if not 2 <= segments <= 60000:
        raise InputError(f"{segments} supervoxels cannot be made; choose a number from 2 to 60000.")
    positive = {
        "compactness": compactness,
        "working grid's spacing": details.spacing_mm,
        "distance between slices": details.slice_mm,
        "largest number of working voxels": details.most_voxels,
    }
    for name, value in positive.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"The {name} is {value:g}; it must be a positive number.")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise InputError(f"The sigma of the smoothing is {sigma:g} mm; it must be 0 or a positive number.")


def _check_volume(volume: Volume) -> None:
    if min(volume.shape) < 2:
        sizes = " x ".join(map(str, volume.shape))
        raise InputError(f"The image has {sizes} voxels; supervoxels need at least two along each axis.")
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise InputError("The image has voxels that are no numbers (NaN or infinite); replace them first.")


def _from_features(
    volume: Volume,
    encoder: SliceEncoder,
    grid: WorkingGrid,
    numbers: Numbers,
    details: Details,
    progress: Progress,
    watch: _Watch,
) -> tuple[np.ndarray, dict[str, Any]]:
    from VISTA3DCore.supervoxels.features import Slicing, accumulate, feature_file

    with feature_file((*grid.image.shape, encoder.channels)) as features:
        slicing = Slicing(details.slice_mm, details.physical_aspect)
        count = accumulate(features, volume.array, grid, encoder, slicing, progress.part(0.05, 0.8))
        watch.step("features")
        progress.update(0.8, "Clustering features")
        labels = cluster(features, grid, **numbers)
        facts = {"slices": count, "device": str(encoder.device), "feature_file_mb": round(features.nbytes / 1e6)}
        del features
    return labels, facts


def _renumber(labels: np.ndarray) -> int:
    """Number supervoxels 1, 2, 3 ... without gaps, in place and plane by plane; return how many there are."""
    present = np.zeros(int(labels.max()) + 1, bool)
    for plane in labels:
        present[plane] = True
    present[0] = False
    number = np.cumsum(present, dtype=np.int32) * present
    for plane in labels:
        plane[...] = number[plane]
    return int(present.sum())


def _geometry(volume: Volume, grid: WorkingGrid) -> dict[str, Any]:
    return {
        "shape": list(volume.shape),
        "spacing_mm": [round(mm, 4) for mm in volume.spacing],
        "working_shape": list(grid.image.shape),
        "working_spacing_mm": [round(mm, 4) for mm in grid.spacing],
        "body_voxels": int(grid.body.sum()),
    }


class _Watch:
    """Seconds of each step, and memory."""

    def __init__(self) -> None:
        self.memory = MemoryWatch()
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def step(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name], self._last = now - self._last, now

    def report(self) -> dict[str, Any]:
        steps = {name: round(seconds, 2) for name, seconds in self._seconds.items()}
        return {
            "seconds": round(sum(self._seconds.values()), 2),
            "seconds_of_steps": steps,
            "peak_memory_mb": round(self.memory.peak / 1e6),
            "memory_at_start_mb": round(self.memory.start / 1e6),
        }
