"""Measure many cases, and resume an interrupted evaluation: each case and protocol is stored as soon as it is measured.

A case that cannot be read or measured is reported at the end and stops nothing else. Stored rows are used
again only if the weights, the files of the case and the settings are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from VISTA3DCore.errors import Cancelled, DeviceError, InputError, OutputError, UnknownStructureError, VistaError
from VISTA3DCore.evaluation.cases import OpenCase, Result
from VISTA3DCore.evaluation.data_list import DataItem, DataList, labeled
from VISTA3DCore.evaluation.metrics import agreement
from VISTA3DCore.evaluation.protocols import PROTOCOLS
from VISTA3DCore.evaluation.references import Reference, Target, read_reference, unique
from VISTA3DCore.evaluation.results import Failure, Row, load_rows, save_rows
from VISTA3DCore.evaluation.settings import CLICK_PROTOCOLS, ZERO_SHOT_PROTOCOLS, Settings
from VISTA3DCore.imaging.geometry import spacing_of
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue, Structure
    from VISTA3DCore.inference.segmenter import Segmenter

CASES_FOLDER = "cases"
#: Raised when what is measured, or how, changes: what older versions kept is then measured again.
_VERSION = 1
# Share of a case's progress that reading and opening take.
_PREPARATION = 0.1
# What stops everything: the user, or what would happen again with every case.
_FATAL = (Cancelled, DeviceError, OutputError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A case of a dataset."""

    dataset: str
    item: DataItem


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what could not be."""

    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    cases: int
    resumed: int = 0


def joined(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return several evaluations as one."""
    return Evaluation(
        tuple(row for one in evaluations for row in one.rows),
        tuple(failure for one in evaluations for failure in one.failures),
        sum(one.cases for one in evaluations),
        sum(one.resumed for one in evaluations),
    )


def tasks_of(data: DataList, section: str, fold: int | None = None) -> list[Task]:
    """Return the labeled cases of a section, or of one fold of it.

    :raises InputError: if there is none.
    """
    items = [item for item in labeled(data.section(section)) if fold is None or item.fold == fold]
    if not items:
        which = f"'{section}'" if fold is None else f"fold {fold} of '{section}'"
        held = ", ".join(name for name, some in data.sections.items() if labeled(some)) or "none anywhere"
        raise InputError(f"The data list '{data.path}' has no labeled case in {which}; it has some in: {held}.")
    return [Task(data.name, item) for item in items]


def evaluate(
    segmenter: Segmenter,
    tasks: Sequence[Task],
    settings: Settings,
    folder: Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> Evaluation:
    """Measure cases; some may fail, but not all.

    :param folder: where the rows of each case are stored; what is there already is not measured again. None: nowhere.
    :param strict: raise what is wrong with a case, and refuse a structure that a reference does not hold.
    :raises InputError: if there is nothing to measure in any case.
    :raises OutputError: if the folder cannot be written. :raises DeviceError: if the device is too small.
    :raises Cancelled: if ``progress`` was cancelled; what was measured until then is stored.
    """
    return checked(measured(segmenter, tasks, settings, folder, progress, strict), settings)


def measured(
    segmenter: Segmenter,
    tasks: Sequence[Task],
    settings: Settings,
    folder: Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
) -> Evaluation:
    """As :func:`evaluate`, for one of several data lists: all of its cases may fail."""
    store = None if folder is None else _created(folder)
    progress, evaluator = Progress.of(progress), _Evaluator(segmenter, settings, store, strict)
    for done, task in enumerate(tasks):
        evaluator.measure(task, progress.part(done / len(tasks), (done + 1) / len(tasks)))
    return Evaluation(tuple(evaluator.rows), tuple(evaluator.failures), len(tasks), evaluator.resumed)


def checked(evaluation: Evaluation, settings: Settings) -> Evaluation:
    """Return an evaluation.

    :raises InputError: if nothing was measured in any case.
    """
    if not evaluation.rows:
        raise InputError(_nothing(evaluation.failures, evaluation.cases, settings))
    return evaluation


class _Evaluator:
    """Measure case after case and collect rows and failures."""

    def __init__(self, segmenter: Segmenter, settings: Settings, store: Path | None, strict: bool) -> None:
        self._segmenter, self._settings, self._store, self._strict = segmenter, settings, store, strict
        self.rows: list[Row] = []
        self.failures: list[Failure] = []
        self.resumed = 0

    def measure(self, task: Task, progress: Progress) -> None:
        """Measure one case under every protocol, except for what is stored."""
        pairs = self._settings.pairs
        stored = {pair: self._load(task, pair) for pair in pairs}
        self.rows += [row for rows in stored.values() for row in rows or ()]
        wanted = [pair for pair, rows in stored.items() if rows is None]
        self.resumed += len(wanted) < len(pairs)
        if wanted:
            self._measure(task, wanted, progress)

    def _measure(self, task: Task, pairs: Sequence[tuple[str, str]], progress: Progress) -> None:
        left = list(pairs)
        try:
            with self._opened(task, progress.part(0.0, _PREPARATION)) as case:
                for number, pair in enumerate(pairs):
                    ends = (_PREPARATION + (1 - _PREPARATION) * n / len(pairs) for n in (number, number + 1))
                    self._run(task, pair, case, progress.part(*ends))
                    left.remove(pair)
        except (*_FATAL, UnknownStructureError):
            raise
        except Exception as error:  # whatever is wrong with one case, the others can still be measured
            if self._strict:
                raise
            _log.debug("%s failed", task.item.name, exc_info=True)
            self.failures += [Failure(task.dataset, task.item.name, *pair, _reason(error)) for pair in left]

    def _run(self, task: Task, pair: tuple[str, str], case: OpenCase, progress: Progress) -> None:
        rows = [_row(task, pair, case, result) for result in PROTOCOLS[pair[0]][pair[1]](case, progress)]
        if self._store is not None:
            save_rows(self._file(self._store, task, pair), self._key(task, pair), rows)
        self.rows += rows

    def _load(self, task: Task, pair: tuple[str, str]) -> list[Row] | None:
        """Return stored rows; None if there are none that are still valid."""
        return None if self._store is None else load_rows(self._file(self._store, task, pair), self._key(task, pair))

    @staticmethod
    def _file(store: Path, task: Task, pair: tuple[str, str]) -> Path:
        name = f"{task.dataset}/{task.item.name}"
        plain = "".join(character if character.isalnum() or character in "-_" else "_" for character in name)
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        return store / f"{plain[:80]}.{mark}.{pair[0]}.{pair[1]}.json"

    def _key(self, task: Task, pair: tuple[str, str]) -> str:
        """Return what the numbers depend on, as a hash."""
        protocol, variant = pair
        settings = {**asdict(self._settings), "protocols": [protocol], "variants": [variant]}
        for name in self._settings.unused_by(protocol, variant):
            del settings[name]
        item = task.item
        meanings = [sorted((value, *ids) for value, ids in item.classes.items()), sorted(item.names.items())]
        files = [_stamp(path) for path in (item.image, item.label)]
        facts = [_VERSION, self._segmenter.provenance, settings, task.dataset, item.name, meanings, files]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @contextmanager
    def _opened(self, task: Task, progress: Progress) -> Iterator[OpenCase]:
        """Read a case; what was opened is closed at the end."""
        progress.update(0.0, "Reading", task.item.name)
        assert task.item.image is not None
        segmenter, settings = self._segmenter, self._settings
        volume = Volume.read(task.item.image)
        reference = read_reference(task.item, volume, segmenter.catalogue)
        zero_shot = bool(ZERO_SHOT_PROTOCOLS & set(settings.protocols))
        targets = _targets(reference, segmenter, settings)
        objects = reference.objects(settings.classes) if zero_shot else []
        if self._strict:
            _refuse_absent(reference, segmenter, settings)
        missing = _missing(task.item, targets, segmenter, settings)
        case = OpenCase(segmenter, volume, reference, targets, missing, objects, settings)
        try:
            yield case
        finally:
            case.close()


def _targets(reference: Reference, segmenter: Segmenter, settings: Settings) -> list[Target]:
    """Return what of a reference the model knows; classes that only the reference knows serve zero-shot alone."""
    found: dict[str, Target] = {}
    for request in settings.classes:
        try:
            some = reference.targets([request], segmenter.available)
        except UnknownStructureError:
            if not ZERO_SHOT_PROTOCOLS.issuperset(settings.protocols):
                raise
            some = []
        found.update((target.name, target) for target in some)
    return list(found.values())


def _refuse_absent(reference: Reference, segmenter: Segmenter, settings: Settings) -> None:
    """:raises InputError: if a reference does not hold one of the structures that are asked for."""
    for request in settings.classes:
        some = reference.objects([request])
        if not ZERO_SHOT_PROTOCOLS.issuperset(settings.protocols):
            some = reference.targets([request], segmenter.available)
        if not some:
            held = ", ".join(unique(reference.names)[:12]) or "nothing known"
            raise InputError(f"The reference does not hold '{request}' for this model; it holds: {held}.")


def _missing(item: DataItem, targets: Sequence[Target], segmenter: Segmenter, settings: Settings) -> list[Target]:
    """Return the structures asked for that the dataset labels and the model knows, but this case does not show.

    There is nothing in them to click on.
    """
    if CLICK_PROTOCOLS.issuperset(settings.protocols):
        return []
    shown = {target.structure.index for target in targets if target.structure is not None}
    labeled_alone = {ids[0] for ids in item.classes.values() if len(ids) == 1}
    wanted = (labeled_alone & set(segmenter.available) & _asked(settings, segmenter.catalogue)) - shown
    return [Target(segmenter.catalogue[index].name, (), segmenter.catalogue[index]) for index in sorted(wanted)]


def _asked(settings: Settings, known: Catalogue) -> set[int]:
    names = {request.strip().lower() for request in settings.classes}
    if names & {"everything", "all"}:
        return {one.index for one in known}
    return {one.index for request in settings.classes for one in _resolved(request, known)}


def _resolved(request: str, known: Catalogue) -> tuple[Structure, ...]:
    """Return the structures that a request means; none for a name that only a reference knows (zero-shot)."""
    try:
        return known.resolve(request)
    except UnknownStructureError:
        return ()


def _row(task: Task, pair: tuple[str, str], case: OpenCase, result: Result) -> Row:
    target, structure = result.target, case.reference.structure_of(result.target)
    compared = agreement(
        np.asarray(result.mask, dtype=bool), case.mask(target), spacing_of(case.affine), case.settings.tolerance_mm
    )
    return Row(
        dataset=task.dataset,
        case=task.item.name,
        structure=target.name if structure is None else structure.name,
        index=None if structure is None else structure.index,
        protocol=pair[0],
        variant=pair[1],
        **asdict(compared),
        clicks=result.clicks,
        seconds=result.seconds,
        curve=result.curve,
        placed=result.placed,
        click_seconds=result.click_seconds,
    )


def _created(folder: Path) -> Path:
    """Return the folder in which the rows of cases are stored."""
    store = folder / CASES_FOLDER
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be created ({error.strerror}); choose another one.") from error
    return store


def _stamp(path: Path | None) -> list[Any]:
    """Return what tells one state of a file from another, cheaply; a folder's files count."""
    files: Iterator[Path] = iter(()) if path is None else iter(sorted(path.iterdir()) if path.is_dir() else [path])
    return [[file.name, *((facts := file.stat()).st_size, facts.st_mtime_ns)] for file in files if file.exists()]


def _reason(error: Exception) -> str:
    if isinstance(error, VistaError):
        return str(error)
    return f"Unexpected error ({type(error).__name__}: {error})."


def _nothing(failures: Sequence[Failure], cases: int, settings: Settings) -> str:
    if failures:
        return f"None of the {cases} cases could be measured; the first one, '{failures[0].case}': {failures[0].reason}"
    asked = ", ".join(settings.classes)
    return f"None of the {cases} cases holds a structure to measure ({asked}); ask for others."
