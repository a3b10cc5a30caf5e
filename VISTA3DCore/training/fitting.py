"""When memory is too small: find out, by trying, what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.errors import NotEnoughMemoryError
from VISTA3DCore.training.datasets import PatchData
from VISTA3DCore.training.prompts import PromptObject
from VISTA3DCore.training.samples import Sample

if TYPE_CHECKING:
    from VISTA3DCore.training.loop import Trainer

_SHARES = (0.75, 0.5, 0.25)


@contextmanager
def memory_told(trainer: Trainer, batch: list[Sample]) -> Iterator[None]:
    """Turn an exhausted memory into a sentence that says what would fit.

    :raises NotEnoughMemoryError: instead of torch's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = error
    else:
        return
    failed.__traceback__ = None  # it holds the tensors that filled the memory
    sample = max(batch, key=lambda one: len(one.objects))
    window = " x ".join(map(str, sample.patch.image.shape))
    raise NotEnoughMemoryError(
        f"{_described(trainer.processes.device)} is too small for a window of {window} with {len(sample.objects)} "
        f"prompts; {_advice(trainer, sample)}."
    )


def _advice(trainer: Trainer, sample: Sample) -> str:
    few = max(1, len(sample.objects) // 4)
    if len(sample.objects) > 1 and _fits(trainer, replace(sample, objects=sample.objects[:few])):
        return f"it would fit with prompts.max_foreground={few}, prompts.max_background=0 and loss.together=1"
    for share in _SHARES:
        sides = _sides(trainer, sample.patch.image.shape, share)
        smaller = cropped(sample, sides)
        if _fits(trainer, replace(smaller, objects=smaller.objects[:few])):
            return f"it would fit with model.window=[{', '.join(map(str, sides))}] and prompts.max_foreground={few}"
    other = "another computer" if trainer.processes.device.type == "cpu" else "another GPU or --device cpu"
    return f"not even a quarter of the window fits; use {other}"


def _fits(trainer: Trainer, sample: Sample) -> bool:
    """Return whether a sample can be learned from, with room for what the optimizer keeps."""
    _free(trainer)
    kept = [torch.empty_like(one) for one in trainer.parameters for _ in range(2)] if not trainer.step else []
    try:
        trainer.objective.learn(sample, 1.0)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        del kept
        _free(trainer)
    return True


def _free(trainer: Trainer) -> None:
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.processes.device.type == "cuda":
        torch.cuda.empty_cache()


def _sides(trainer: Trainer, shape: tuple[int, ...], share: float) -> tuple[int, ...]:
    factor = 2 ** (len(trainer.task.model.blocks_down) - 1)
    return tuple(max(2 * factor, int(side * share) // factor * factor) for side in shape)


def cropped(sample: Sample, sides: tuple[int, ...]) -> Sample:
    """Return the corner of a sample; objects keep the clicks that lie in it."""
    box = tuple(slice(side) for side in sides)
    patch = sample.patch
    corner = PatchData(patch.image[box].copy(), patch.label[box].copy(), patch.meaning, name=patch.name)
    return Sample(corner, [_cropped(one, box, sides) for one in sample.objects], sample.number)


def _cropped(one: PromptObject, box: tuple[slice, ...], sides: tuple[int, ...]) -> PromptObject:
    clicks = one.clicks
    if clicks is not None:
        clicks = (np.minimum(clicks[0], np.array(sides) - 1), clicks[1])
    return replace(one, target=one.target[box].copy(), valid=one.valid[box].copy(), clicks=clicks)


def _described(device: torch.device) -> str:
    if device.type != "cuda":
        return f"The memory of '{device}'"
    facts = torch.cuda.get_device_properties(device)
    return f"The GPU {facts.name} with {facts.total_memory / 2**30:.0f} GiB"
