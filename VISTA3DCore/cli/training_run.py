"""What ``vista3d train`` and ``vista3d finetune`` share: checking, running, telling."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli.console import say, spoken_warnings
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.errors import InputError, NotEnoughMemoryError
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.data_list import DataList
    from VISTA3DCore.network.config import ModelConfig
    from VISTA3DCore.progress import Progress
    from VISTA3DCore.training.loop import Outcome, Task

Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="LIST", help="A data list (JSON), or a folder with one; may be repeated."),
]
Run = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="The run's folder; the same command again goes on in it.")
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML whose values replace the recipe's.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One value, e.g. optimizer.learning_rate=1e-4.")
]
Fold = Annotated[
    int | None,
    typer.Option(
        "--fold",
        help="The fold of the lists that validates instead of teaching; by default their section 'validation' does.",
    ),
]
Check = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        help="--check: say everything that is wrong with the data, and stop. --no-check: train without looking first.",
    ),
]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.0, help="Stop after this time, to be gone on with.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that prepare patches; 0: none.")]
Cache = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Keeps prepared cases between runs.")]


@dataclass(frozen=True)
class Session:
    """How a run is made: where, on what, and for how long.

    :param check: True only checks the data, None checks it before training, False does not.
    """

    folder: Path | None
    device: str
    workers: int
    minutes: float | None
    check: bool | None
    quiet: bool


def read_lists(paths: Sequence[Path]) -> list[DataList]:
    """Read data lists.

    :raises InputError: if two have the same name: they would be one data set.
    """
    from VISTA3DCore.evaluation.data_list import read_data_list

    lists = [read_data_list(path) for path in paths]
    names = [one.name for one in lists]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Two data lists have the name '{repeated[0]}'; give each its own, in 'name'.")
    return lists


def conduct(
    session: Session,
    lists: Sequence[DataList],
    model: Callable[[], ModelConfig],
    plan: Callable[[Progress], Task],
    fold: int | None,
    old: Sequence[DataList] = (),
) -> None:
    """Check the data, then train and report.

    :param old: lists that are rehearsed.
    :raises InputError: if the data have errors.
    """
    main = os.environ.get("RANK", "0") == "0"
    with spoken_warnings(), Reporter(session.quiet or not main) as reporter, _terminated(reporter.progress):
        if session.check:
            check(lists, model(), fold, reporter.progress, old)
            cases = sum(len(one.training) for one in (*lists, *old))
            say(f"{cases} training case{'s' * (cases != 1)} checked: nothing stands in the way.")
            return
        if session.folder is None:
            raise InputError("Give the run a folder with --run DIR.")
        if session.check is None and not _begun(session.folder):
            check(lists, model(), fold, reporter.progress.part(0.0, 0.01), old, main)
        with _explained_memory():
            task = plan(reporter.progress.part(0.01, 0.02))
            outcome = _run(session, task, reporter.progress)
    if main and not session.quiet:
        _tell(outcome)


def check(
    lists: Sequence[DataList],
    model: ModelConfig,
    fold: int | None,
    progress: Progress,
    old: Sequence[DataList] = (),
    speak: bool = True,
) -> None:
    """Print everything that is wrong with data lists.

    :param speak: False in all processes of a run but one.
    :raises InputError: if training must not start.
    """
    from VISTA3DCore.training.validation import has_errors, validate

    problems = validate(lists, model, fold, progress, old)
    for problem in problems if speak else ():
        say(f"{problem.severity}: {problem}", "red" if problem.severity == "error" else "yellow")
    if has_errors(problems):
        count = sum(problem.severity == "error" for problem in problems)
        raise InputError(
            f"{count} error{'s' * (count > 1)} in the data; training would fail or learn nonsense. "
            "Correct the data, or train without this check (--no-check)."
        )


def _begun(folder: Path) -> bool:
    """Return whether a run is resumed: its data were checked when it began and must not have changed since."""
    from VISTA3DCore.training.checkpointing import RunFolder

    return bool(RunFolder(folder, 1).saved())


def _run(session: Session, task: Task, progress: Progress) -> Outcome:
    from VISTA3DCore.training.loop import Trainer
    from VISTA3DCore.training.plan import described

    assert session.folder is not None
    trainer = Trainer(task, session.folder, session.device, session.workers)
    if trainer.processes.main and not session.quiet:
        resumed = f"; resumes after step {trainer.step}" if trainer.step else ""
        say(f"{task.recipe.name}: {described(task)}, on {trainer.processes.device}{resumed}")
    until = math.inf if session.minutes is None else time.monotonic() + 60 * session.minutes
    return trainer.run(progress.part(0.02, 1.0), until)


def _tell(outcome: Outcome) -> None:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in outcome.losses.items())
    say(f"Stopped at step {outcome.step}: {outcome.reason}. Last losses: {losses or 'none'}.")
    if outcome.best is not None:
        say(f"Best mean Dice on the held-out patches: {outcome.best:.3f}.")
    for note in outcome.notes:
        say(f"Note: {note}", "yellow")
    say(f"The model: {outcome.model}")
    if outcome.last is not None:
        say(f"The last weights, beside the best ones: {outcome.last}")


@contextmanager
def _explained_memory() -> Iterator[None]:
    """:raises NotEnoughMemoryError: if memory runs out before the first step; after it, the run explains it itself."""
    from VISTA3DCore.backends.memory import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise NotEnoughMemoryError(
            "Memory ran out while the run was prepared; use a smaller network, fewer data.synthetic_sources, or "
            "another computer."
        ) from None


@contextmanager
def _terminated(progress: Progress) -> Iterator[None]:
    """Let a polite request to end (of a batch system) save the state first."""
    previous = signal.signal(signal.SIGTERM, lambda *_: progress.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def require_training() -> None:
    """Check that what only training needs is installed.

    :raises MissingPackageError: if it is not.
    """
    require("Training", "accelerate", "tensorboardX", "yaml", "scipy", "skimage", "nibabel")
