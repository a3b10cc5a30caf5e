"""Cases on the model grid, kept on disk between runs by MONAI's persistent cache."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import PersistentDataset
from monai.transforms import Transform

from VISTA3DCore.errors import OutputError, VistaError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.training.cases import Case
from VISTA3DCore.training.datasets import LoadedCase, annotated_of, load_case, unions_of

_FORMAT = 2
"""Changes with what :func:`load_case` makes, so that caches of older versions are not used."""

_PREPROCESSING = ("spacing", "intensity_range", "intensity_percentiles", "label_set")
_ARRAYS = ("image", "label", "pseudo_label", "supervoxel")
"""Files of a case, and arrays of a loaded one."""


class CaseStore(Sequence[LoadedCase]):
    """Cases that are brought to the model grid at the first use and read from the cache later.

    Safe to hand to worker processes, also of several runs at once: files of the cache are named by their content's
    origin, and a damaged one is made again.

    :param cases: what to load.
    :param model: its spacing, intensities and label set belong to the name of a cached file.
    :param minimum_size: see :func:`load_case`.
    :param folder: of the cache; ``cache/training`` in the user's data folder by default.
    :raises OutputError: if the folder cannot be made.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        model: ModelConfig,
        minimum_size: int | Sequence[int],
        folder: Path | None = None,
    ) -> None:
        self.cases = tuple(cases)
        self.model, self.minimum_size = model, tuple(np.broadcast_to(minimum_size, 3).tolist())
        self.folder = default_folder() if folder is None else folder
        prepare = _Prepare(self.cases, model, self.minimum_size)
        try:
            self._stored = _Stored(range(len(self.cases)), prepare, self.folder, hash_func=self._key)
        except OSError as error:
            raise OutputError(f"The cache folder '{self.folder}' cannot be used: {error.strerror}.") from error

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> LoadedCase:
        """Return a case, from the cache if it is there.

        :raises InputError: if its files cannot be used.
        :raises OutputError: if the cache cannot be written.
        """
        case = self.cases[index]
        try:
            return _unpacked(case, self._stored[range(len(self))[index]])
        except RuntimeError as error:
            if isinstance(error.__cause__, VistaError):  # MONAI wraps what a transform raises
                raise error.__cause__ from None
            raise
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"'{case.name}' cannot be kept in the cache '{self.folder}': {reason}.") from error

    def _key(self, index: int) -> bytes:
        return cache_key(self.cases[index], self.model, self.minimum_size).encode()


def default_folder() -> Path:
    """Return where cases are kept if no folder is given."""
    return user_data_dir() / "cache" / "training"


def cache_key(case: Case, model: ModelConfig, minimum_size: Sequence[int]) -> str:
    """Return a name for what :func:`load_case` makes: it changes with the files, their meaning and the model grid.

    Files are told apart by path, size and time of change: reading all of them to hash them would take as long as
    what the cache saves.
    """
    settings = {name: value for name, value in asdict(model).items() if name in _PREPROCESSING}
    files = {name: _identity(getattr(case, name)) for name in _ARRAYS}
    meaning = sorted((value, ids) for value, ids in case.classes.items())
    text = json.dumps([_FORMAT, settings, files, meaning, list(minimum_size)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(path: Path | None) -> list[Any]:
    if path is None or not path.exists():
        return [str(path)]
    parts = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    states = [(one.name, one.stat()) for one in parts]
    return [str(path.resolve()), [[name, state.st_size, state.st_mtime_ns] for name, state in states]]


class _Stored(PersistentDataset):
    """MONAI's cache, which recomputes a file that was cut off (MONAI raises) and says nothing about it."""

    def _cachecheck(self, item_transformed: int) -> Mapping[str, torch.Tensor]:
        try:
            return super()._cachecheck(item_transformed)
        except (RuntimeError, EOFError):
            damaged = self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt"
            if not damaged.exists():
                raise
            damaged.unlink()
            return super()._cachecheck(item_transformed)


class _Prepare(Transform):
    """The deterministic part: a number becomes the arrays of its case."""

    def __init__(self, cases: Sequence[Case], model: ModelConfig, minimum_size: Sequence[int]) -> None:
        self._cases, self._model, self._minimum_size = cases, model, minimum_size

    def __call__(self, data: int) -> dict[str, torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the validator has told oddities of headers
            loaded = load_case(self._cases[data], self._model, self._minimum_size)
        arrays = {name: getattr(loaded, name) for name in _ARRAYS}
        return {name: torch.as_tensor(array) for name, array in arrays.items() if array is not None}


def _unpacked(case: Case, packed: Mapping[str, torch.Tensor]) -> LoadedCase:
    arrays = {name: np.asarray(packed[name]) for name in _ARRAYS if name in packed}
    return LoadedCase(case=case, unions=unions_of(case.classes), annotated=annotated_of(case.classes), **arrays)
