"""A loaded model: how it gets there, and how volumes are opened with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import VISTA3DCore
from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.backends.forking import check_process
from VISTA3DCore.backends.selection import Backend, choose_backend
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.preprocessing import check_input, preprocess
from VISTA3DCore.models.claims import Claims, read_claims
from VISTA3DCore.models.offer import Offer
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress, ProgressUpdate

if TYPE_CHECKING:
    from VISTA3DCore.inference.session import Session

ProgressLike = Progress | Callable[[ProgressUpdate], None] | None


class Segmenter:
    """One loaded model on one device.

    :param backend: the runtime that holds the network.
    :param device_reason: why this device was chosen, for people; :param runtime_reason: likewise.
    :param provenance: facts about the weights that every result carries.
    :param claims: limit what is offered by name; None: everything that was trained is offered.
    :param competing: the model tells all of its structures apart, not each by itself: whatever is asked for, the others
        compete for its voxels. Files with claims are such models.
    """

    def __init__(
        self,
        backend: Backend,
        device_reason: str = "as asked for",
        provenance: dict[str, str] | None = None,
        runtime_reason: str = "as asked for",
        claims: Claims | None = None,
        competing: bool = False,
    ) -> None:
        self.backend = backend
        self.device_reason, self.runtime_reason = device_reason, runtime_reason
        how = {"runtime": backend.runtime, "precision": backend.precision, "version": VISTA3DCore.__version__}
        self.provenance = {"model": backend.config.name, **(provenance or {}), **how}
        self.offer, self.competing = Offer(backend.config, claims), competing

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "vista3d-ct",
        device: str = "auto",
        progress: ProgressLike = None,
        runtime: str = "auto",
        precision: str = "auto",
        claimed_only: bool = True,
    ) -> Segmenter:
        """Load a model by name (``vista3d-ct``, ``vista3d-ctmr``, ``mini``) or from a file.

        A runtime or precision that cannot be used here is replaced by PyTorch or float32, with a ``SlowerWarning``.

        :param device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        :param runtime: ``auto``, ``torch``, ``openvino``, ``cuda``.
        :param precision: ``auto``, ``float32``, ``bfloat16``, ``float16``.
        :param claimed_only: offer what the model's file claims; False offers everything that was trained, e.g. to
            validate it.
        :raises ModelError: if the model is missing or cannot be used; :raises DeviceError: if the device is not there,
            or this process was forked from one that had used a network.
        :raises InputError: if there is no such runtime or precision.
        """
        from VISTA3DCore.models.checkpoints import inspect_checkpoint
        from VISTA3DCore.models.store import ModelStore

        check_process()
        progress = Progress.of(progress)
        choice = choose_device(device)
        store = ModelStore()
        path = store.resolve(name_or_path)
        progress.update(0.0, "Loading the model", path.name)
        config, _ = inspect_checkpoint(path)
        claims = read_claims(path)
        backend, reason = choose_backend(lambda: _network(path, config), config, choice.device, runtime, precision)
        offered = claims if claimed_only else None
        segmenter = cls(backend, choice.reason, store.provenance(name_or_path), reason, offered, claims is not None)
        progress.update(1.0, "Loading the model", path.name)
        return segmenter

    @classmethod
    def from_network(
        cls,
        network: torch.nn.Module,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        runtime: str = "torch",
        precision: str = "float32",
    ) -> Segmenter:
        """Use a network that is already in memory, e.g. in tests or during training."""
        check_process()
        backend, reason = choose_backend(network, config, choose_device(device).device, runtime, precision)
        return cls(backend, runtime_reason=reason)

    @property
    def config(self) -> ModelConfig:
        return self.backend.config

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def runtime(self) -> str:
        """What runs the network: ``torch``, ``openvino`` or ``cuda``."""
        return self.backend.runtime

    @property
    def precision(self) -> str:
        """In which floating-point type it computes: ``float32``, ``bfloat16`` or ``float16``."""
        return self.backend.precision

    @property
    def catalogue(self) -> Catalogue:
        """The label set that gives meaning to the model's indices."""
        return self.offer.catalogue

    @property
    def claims(self) -> Claims | None:
        """What the model claims to segment well; None where nothing is recorded, or claims were left aside."""
        return self.offer.claims

    @property
    def trained(self) -> tuple[int, ...]:
        """Indices of the structures that the model was trained for; clicks know all of them."""
        return self.offer.trained

    @property
    def available(self) -> tuple[int, ...]:
        """Indices of the structures that can be segmented by name: those claimed, or else all that were trained."""
        return self.offer.available

    def free_caches(self) -> None:
        """Give back memory that the runtime keeps to be faster the next time."""
        getattr(self.backend, "forget", bool)()

    def window_ms(self) -> float:
        """Return how long the network takes for one window of the automatic branch, milliseconds.

        A quick window is computed twice: the first one of a process pays for what is made only once.
        """
        first = self._time_window()
        return first if first > _QUICK_WINDOW_MS else self._time_window()

    def _time_window(self) -> float:
        generator = torch.Generator().manual_seed(0)
        patch = torch.rand((1, 1, *self.config.window), generator=generator)
        started = time.perf_counter()
        self.backend.automatic_features(patch).flatten()[0].item()  # waits for the device
        return 1000 * (time.perf_counter() - started)

    def open(
        self,
        volume: Volume,
        progress: ProgressLike = None,
        feature_dtype: str = "float32",
        click_dtype: str = "float16",
        click_cache_bytes: int | None = None,
        grid: str = "stored",
    ) -> Session:
        """Check and preprocess a volume.

        :param feature_dtype: ``float32``, or ``float16`` to retain features in half the memory; 99.9 % or more of
            the labels stay the same.
        :param click_dtype: in which click features are kept and used, ``float16`` or ``float32``.
        :param click_cache_bytes: budget for kept click features, on the device and on the host each; by default
            shares of the free memory.
        :param grid: where the model grid begins: ``stored``, at the first voxel as the image is stored, as in the
            reference; ``patient``, at a corner of the patient, so that images that are stored in other orders and
            directions give the same result.
        :raises InputError: if the volume cannot be segmented by this model, or an option is unknown.
        """
        from VISTA3DCore.inference.session import Session
        from VISTA3DCore.inference.storage_order import StorageOrder, in_patients_order

        check_process()
        dtypes = [lookup(_FEATURE_TYPES, name, "type of features") for name in (feature_dtype, click_dtype)]
        anchored = lookup(_GRIDS, grid, "model grid")
        check_input(volume, self.config)
        order = StorageOrder.of(volume) if anchored else None
        volume = in_patients_order(volume) if anchored else volume
        image = preprocess(volume, self.config, Progress.of(progress), self.device)
        return Session(self, image, volume, *dtypes, click_cache_bytes, order)


# Whether the model grid begins at a corner of the patient.
_GRIDS = {"stored": False, "patient": True}
_QUICK_WINDOW_MS = 2000.0
_FEATURE_TYPES = {"float32": torch.float32, "float16": torch.float16}


def _network(path: Path, config: ModelConfig) -> torch.nn.Module:
    from VISTA3DCore.models.checkpoints import load_checkpoint
    from VISTA3DCore.network.architecture import empty_network

    network = empty_network(config)
    state = load_checkpoint(path)[1]
    # Weights stay in the mapped file where that may be deleted meanwhile, as it may not on Windows.
    state = state if os.name == "posix" else {name: tensor.clone() for name, tensor in state.items()}
    network.load_state_dict(state, assign=True)
    return network


def lookup(options: dict[str, Any], name: str, kind: str) -> Any:
    """Return the option of this name.

    :raises InputError: if there is none, with the names that exist.
    """
    if name not in options:
        raise InputError(f"There is no {kind} '{name}'; use one of: {', '.join(options)}.")
    return options[name]
