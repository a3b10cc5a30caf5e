"""What a run learns from, by number: patches with their prompts, prepared by loading processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection

import numpy as np
from torch.utils.data import DataLoader, Dataset

from VISTA3DCore.child_processes import safe_spawning
from VISTA3DCore.errors import VistaError
from VISTA3DCore.training.datasets import PatchData
from VISTA3DCore.training.patches import PatchSource
from VISTA3DCore.training.prompts import PromptConfig, PromptObject, sample_prompts

TRIES = 5
"""Patches that are drawn until one has something to ask for; a source has so many for each sample."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One patch and what is asked for in it.

    :param objects: may be empty.
    :param number: in the run; random choices that follow are keyed by it.
    """

    patch: PatchData
    objects: list[PromptObject]
    number: int


class Samples(Dataset):
    """The samples of a run. A sample depends on the seed and its number alone; safe to hand to loading processes.

    :param source: ``TRIES`` patches for each sample.
    :param prompts: what is asked for; None: nothing, all classes are learned at once.
    """

    def __init__(self, source: PatchSource, prompts: PromptConfig | None, seed: int) -> None:
        self._source, self._prompts, self._seed = source, prompts, seed

    def __len__(self) -> int:
        return len(self._source) // TRIES

    def __getitem__(self, number: int) -> Sample:
        if self._prompts is None:
            return Sample(self._source[number * TRIES], [], number)
        for attempt in range(TRIES):
            patch = self._source[number * TRIES + attempt]
            rng = np.random.default_rng((self._seed, number, attempt, 2))
            objects = sample_prompts(patch, patch.meaning, self._prompts, rng)
            if objects:
                break
        return Sample(patch, objects, number)


def batches(samples: Samples, first: int, last: int, numbers: range, workers: int) -> Iterator[list[Sample]]:
    """Yield what one process learns from in each step.

    :param first: step to begin with; :param last: step to end before.
    :param numbers: the places in a step's batch that are this process's; its ``stop`` is the size of the batch.
    :param workers: loading processes; 0: this one loads.
    """
    wanted = [step * numbers.stop + place for step in range(first, last) for place in numbers]
    loader = DataLoader(
        _Carried(samples),
        batch_size=None,
        sampler=wanted,
        num_workers=workers,
        collate_fn=_unchanged,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_end_with_parent,
    )
    with safe_spawning():  # the loading processes start here
        loading = iter(loader)
    batch: list[Sample] = []
    for sample in loading:
        if isinstance(sample, Exception):
            raise sample
        batch.append(sample)
        if len(batch) == len(numbers):
            yield batch
            batch = []


class _Carried(Dataset):
    """Hands errors over as they are; torch would put the traceback of a loading process into their sentence."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample | Exception:
        try:
            return self._samples[number]
        except (VistaError, MemoryError) as error:
            return error


def _end_with_parent(_worker: int) -> None:
    """Let a loading process end when the process that started it ends, however that happens.

    Torch's own check does not suffice: a process that it ends waits for ever to hand over its last samples.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unchanged(sample: Sample | Exception) -> Sample | Exception:
    return sample
