"""``--engine worker``: a model in an engine process of its own, as the commands use one in theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from VISTA3DCore.anatomy.catalogue import Catalogue, catalogue
from VISTA3DCore.engine.blocking import BlockingClient, RemoteSession
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress


class RemoteSegmenter:
    """What the commands need of a :class:`VISTA3DCore.inference.segmenter.Segmenter`.

    :param asked: ``model`` (name or file), ``device``, ``runtime`` and ``precision``.
    :raises VistaError: as :meth:`Segmenter.from_pretrained`.
    """

    def __init__(self, client: BlockingClient, asked: dict[str, str], progress: Progress) -> None:
        self._client, self._asked = client, asked
        loaded = client.load(**asked, progress=progress)
        self.catalogue: Catalogue = catalogue(loaded.label_set)
        self.trained, self.provenance = loaded.trained or loaded.available, loaded.provenance
        self.device, self.device_reason = loaded.device, loaded.device_reason
        self.runtime, self.precision, self.runtime_reason = loaded.runtime, loaded.precision, loaded.runtime_reason

    def open(self, volume: Volume, progress: Progress, grid: str = "stored") -> RemoteSession:
        """Open a volume; see :meth:`Segmenter.open`."""
        return self._client.open(volume, **self._asked, progress=progress, grid=grid)


@contextmanager
def loaded_in_worker(asked: dict[str, str], progress: Progress) -> Iterator[RemoteSegmenter]:
    """Start an engine process, load a model there, and end the process in the end.

    :param asked: as for :class:`RemoteSegmenter`.
    :raises VistaError: as :meth:`Segmenter.from_pretrained`, or if the process cannot be started.
    """
    with BlockingClient(ChildProcess(), name="vista3d") as client:
        yield RemoteSegmenter(client, asked, progress)
