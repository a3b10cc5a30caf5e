"""What ``segment``, ``click`` and ``demo`` share: from a volume and wishes to a segmentation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli.classes import offer_of
from VISTA3DCore.cli.console import say
from VISTA3DCore.errors import ModelError
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.engine.blocking_client import RemoteSegmenter
    from VISTA3DCore.imaging.geometry import Region
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.segmenter import Segmenter

    Loaded = Segmenter | RemoteSegmenter


class Engine(str, Enum):
    """Where the network runs."""

    in_process = "in-process"
    worker = "worker"


class Runtime(str, Enum):
    """What runs the network; the values of ``selection.RUNTIMES``."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"
    cuda = "cuda"


class Precision(str, Enum):
    """In what the network computes; the values of ``selection.PRECISIONS``."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


EngineOption = Annotated[
    Engine,
    typer.Option("--engine", help="worker: in a process of its own, as Slicer uses it; the results are the same."),
]
RuntimeOption = Annotated[
    Runtime,
    typer.Option("--runtime", help="What runs the network; auto: the fastest that gives the results of torch."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="bfloat16 and float16 are faster where the hardware has them; labels may differ."),
]


@dataclass(frozen=True)
class Wishes:
    """What the user asked of the engine.

    ``classes`` as typed, split at commas; ``cleanup`` None: as is the default of the model.
    """

    classes: tuple[str, ...] = ("everything",)
    model: str = "mini"
    device: str = "auto"
    preset: str = "bundle"
    restoration: str = "nearest"
    roi: Region | None = None
    body_crop: bool = False
    localize: bool = False
    cleanup: bool | None = None
    engine: Engine = Engine.in_process
    runtime: str = "auto"
    precision: str = "auto"
    grid: str = "stored"

    @property
    def model_options(self) -> dict[str, str]:
        """What it takes to load the model."""
        return {"model": self.model, "device": self.device, "runtime": self.runtime, "precision": self.precision}

    def check(self, clicks: bool = False) -> tuple[Structure, ...]:
        """Find misspelt names and a missing model before the image is read or the network loaded.

        :param clicks: whether structures are clicked; then the model need not know them.
        :return: the structures that are asked for.
        :raises UnknownStructureError: for an unknown or unusable structure, or one that the model does not offer.
        :raises ModelError: if the model is not on this computer.
        """
        from VISTA3DCore.models.store import ModelStore

        offer = offer_of(self.model)
        structures = (offer.catalogue if clicks else offer).resolve(self.classes)
        ModelStore().resolve(self.model)
        return structures


@dataclass(frozen=True, eq=False)
class Outcome:
    """A segmentation and how it came about."""

    segmentation: Segmentation
    device: str
    device_reason: str
    seconds: float


def default_model() -> str:
    """Return the released model where it was downloaded, else the bundled small one, and say so."""
    from VISTA3DCore.models.store import ModelStore

    try:
        ModelStore().path("vista3d-ct")
    except ModelError:
        say(
            "Note: the model 'vista3d-ct' is not on this computer, so the small demonstration model 'mini' is used; "
            "it shows how things work and no more. Get the full model with: vista3d models download vista3d-ct",
            "yellow",
        )
        return "mini"
    return "vista3d-ct"


@contextmanager
def loaded(wishes: Wishes, progress: Progress) -> Iterator[Loaded]:
    """Load the model, in this process or in one that lives as long as the context.

    :raises VistaError: as :meth:`Segmenter.from_pretrained` does.
    """
    progress.update(0.0, "Loading the model")
    if wishes.engine is Engine.worker:
        from VISTA3DCore.engine.blocking_client import BlockingClient, RemoteSegmenter
        from VISTA3DCore.engine.transports import ChildProcess

        with BlockingClient(ChildProcess(), name="vista3d") as client:
            yield RemoteSegmenter(client, wishes.model_options, progress)
    else:
        from VISTA3DCore.inference.segmenter import Segmenter

        yield Segmenter.from_pretrained(
            wishes.model, wishes.device, progress, runtime=wishes.runtime, precision=wishes.precision
        )


def say_where(segmenter: Loaded) -> None:
    """Tell where and by what the network runs."""
    say(f"Running on {segmenter.device}: {segmenter.device_reason}")
    say(f"Runtime {segmenter.runtime}, {segmenter.precision}: {segmenter.runtime_reason}")


def run(volume: Volume, wishes: Wishes, progress: Progress, quiet: bool = False) -> Outcome:
    """Load the model, open the volume and segment it.

    :raises VistaError: as the engine does.
    """
    started = time.monotonic()
    if wishes.roi is not None:
        wishes.roi.voxel_box(volume.affine, volume.shape)
    with loaded(wishes, progress.part(0.0, 0.03)) as segmenter:
        if not quiet:
            say_where(segmenter)
        with segmenter.open(volume, progress=progress.part(0.03, 0.08), grid=wishes.grid) as session:
            segmentation = session.segment(
                wishes.classes,
                preset=wishes.preset,
                restoration=wishes.restoration,
                roi=wishes.roi,
                progress=progress.part(0.08, 1.0),
                streaming=True,
                body_crop=wishes.body_crop,
                localize=wishes.localize,
                cleanup=wishes.cleanup,
            )
        seconds = time.monotonic() - started
        return Outcome(segmentation, str(segmenter.device), segmenter.device_reason, seconds)
