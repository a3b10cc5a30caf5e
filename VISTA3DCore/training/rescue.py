"""What is left of a run that dies between two steps: its state is saved, and the error says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.errors import NotEnoughMemoryError, OutputError, TrainingError, VistaError

if TYPE_CHECKING:
    from VISTA3DCore.training.loop import Trainer


@contextmanager
def state_saved_first(trainer: Trainer) -> Iterator[None]:
    """Save the state of a run when its loop fails, e.g. because a file vanished or memory ran out.

    :raises VistaError: the error itself, with a sentence about the state that is saved.
    :raises NotEnoughMemoryError: if memory ran out, whatever torch or NumPy called it.
    """
    try:
        yield
    except TrainingError:
        raise  # it was raised with the state saved
    except Exception as caught:
        error = _explained(caught)
    else:
        return
    if isinstance(error, NotEnoughMemoryError):
        error.__context__ = None  # its traceback holds what filled the memory
    saved = _saved(trainer, error)
    if isinstance(error, VistaError) and saved:
        error.args = (f"{error} {saved}",)
    raise error


def _explained(error: Exception) -> Exception:
    """Return the error for people; one that was not foreseen as it is."""
    if isinstance(error, VistaError):
        return error
    if is_out_of_memory(error):
        return NotEnoughMemoryError(
            "Memory ran out; set fewer prompts (prompts.max_foreground), a smaller data.in_memory or fewer --workers."
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return TrainingError(
            "A loading process ended unexpectedly, most likely because memory ran out; use fewer --workers."
        )
    return error


def _saved(trainer: Trainer, error: Exception) -> str:
    """Save the state where that makes sense, and return a sentence about it; none if ``error`` says it already."""
    if not trainer.whole or not trainer.step:
        return "The same command continues from the last saved state." if trainer.folder.saved() else ""
    try:
        trainer.save()
    except OutputError as failure:
        return "" if isinstance(error, OutputError) else f"The state could not be saved: {failure}"
    return f"The state after step {trainer.step} is saved; the same command continues from there."
