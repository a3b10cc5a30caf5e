"""What the two benchmarks of training share: labeled CTs of the test data, and the trainer before its acceleration."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from VISTA3DCore.evaluation.data_list import DataList, read_data_list
from VISTA3DCore.training import loop


def labeled_cts(names: Collection[str], left_out: str = "") -> DataList:
    """Return a data list of some CTs of the test data; the one that is left out of training is in a fold of its own."""
    if "VISTA3D_TEST_DATA" not in os.environ:
        raise SystemExit("VISTA3D_TEST_DATA is not set: the benchmark needs labeled CTs.")
    whole = read_data_list(Path(os.environ["VISTA3D_TEST_DATA"]))
    chosen = (item for item in whole.training if item.name in {*names, left_out})
    folds = tuple(replace(item, fold=int(item.name != left_out)) if left_out else item for item in chosen)
    return replace(whole, sections={"training": folds})


def acceleration(enabled: bool) -> AbstractContextManager[object]:
    """Return a context in which trainers are made with or without :mod:`VISTA3DCore.training.acceleration`."""
    plain = mock.patch.object(loop, "accelerate", lambda network, device: network.to(device))
    return nullcontext() if enabled else plain
