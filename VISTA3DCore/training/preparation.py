"""What models add to a data list before training: pseudo-labels, supervoxels, and the list that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from VISTA3DCore.errors import OutputError, VistaError
from VISTA3DCore.evaluation.data_list import TRAINING, DataItem, DataList
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.imaging.writers import encode_nifti, label_dtype
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.file_marks import is_unchanged, mark
from VISTA3DCore.training.pseudo_labels import PseudoLabel, Reliability, pseudo_label

UNLABELLED = "unlabelled"
"""Section of a list with CTs that nobody annotated."""

Report = dict[str, dict[str, Any]]


@dataclass
class Prepared:
    """What was made.

    :param path: the new list.
    :param report: by case, what was kept and what was not, plain JSON.
    :param failures: by case, why it could not be prepared; the new list has it as it was.
    """

    path: Path
    report: Report = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def prepare(
    data: DataList,
    folder: Path,
    segmenter: Segmenter | None = None,
    supervoxels: str | None = None,
    reliability: Reliability | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write pseudo-labels and supervoxels of a list's training cases, and a list with them, into a folder.

    CTs of a section ``unlabelled`` become training cases. Maps that were made from the same image by the same model
    or generator with the same options are kept, so that an interrupted call continues where it was.

    :param segmenter: predicts pseudo-labels for the cases that are not completely annotated; None: none are made.
    :param supervoxels: their generator, for all cases; None: none are made.
    :raises OutputError: if the folder cannot be written.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress, made = Progress.of(progress), Prepared(folder / f"{_plain(data.name)}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be made: {error.strerror}.") from error
    given, items = (*data.training, *data.sections.get(UNLABELLED, ())), []
    for number, item in enumerate(given):
        part = progress.part(number / len(given), (number + 1) / len(given))
        stem = folder / _stem(data.name, item.name)
        makers = _makers(item, stem, segmenter, supervoxels, reliability or Reliability())
        items.append(_extended(item, makers, made, part))
    sections = {name: those for name, those in data.sections.items() if name != UNLABELLED} | {TRAINING: tuple(items)}
    write_files({made.path: lambda file: file.write(_encoded(replace(data, sections=sections)))})
    return made


@dataclass(frozen=True)
class _Maker:
    """How one map of a case is made.

    :param path: of the map. A JSON file beside it says what it was made from and what is in it.
    :param options: what decides about the map besides the image, plain JSON.
    :param make: writes the map and returns what is in it, plain JSON.
    :param fields: what the entry of the list says about the map, besides its path.
    """

    path: Path
    options: Mapping[str, Any]
    make: Callable[[Volume, Path, Progress], dict[str, Any]]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _record(self) -> Path:
        return self.path.with_name(f"{self.path.name.removesuffix('.nii.gz')}.json")

    def kept(self, image: Path) -> dict[str, Any] | None:
        """Return what is in the map that is there; None if it is missing or was made in another way."""
        try:
            found = json.loads(self._record.read_text(encoding="utf-8")) if self.path.exists() else {}
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("options") != json.loads(json.dumps(self.options)):
            return None
        return found.get("content") if is_unchanged(image, found.get("image") or {}) else None

    def made(self, image: Path, volume: Volume, progress: Progress) -> dict[str, Any]:
        """Make the map and return what is in it.

        The old record goes first and the new one comes last: after an interrupted call there is none, and the map is
        made anew.
        """
        try:
            self._record.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"'{self._record}' cannot be replaced: {error.strerror}.") from error
        content = self.make(volume, self.path, progress)
        record = {"options": self.options, "image": mark(image), "content": content}
        text = json.dumps(record, indent=1) + "\n"
        write_files({self._record: lambda file: file.write(text.encode())})
        return content


def _makers(
    item: DataItem, stem: Path, segmenter: Segmenter | None, generator: str | None, reliability: Reliability
) -> dict[str, _Maker]:
    """Return what is to be made of a case, by field of the list.

    :param stem: what the files' paths begin with.
    """
    makers: dict[str, _Maker] = {}
    if segmenter is not None and not item.complete:
        looked_for = [one.index for one in segmenter.catalogue.resolve("everything", segmenter.available)]
        model = {"name": segmenter.config.name, "hash": segmenter.provenance.get("hash")}
        makers["pseudo_label"] = _Maker(
            stem.with_name(f"{stem.name}_pseudo_label.nii.gz"),
            {"model": model, "classes": looked_for, **asdict(reliability)},
            lambda *given: _predict(segmenter, reliability, *given),
            {"predicted": tuple(looked_for)},
        )
    if generator is not None:
        path = stem.with_name(f"{stem.name}_supervoxels.nii.gz")
        makers["supervoxel"] = _Maker(path, {"generator": generator}, lambda *given: _cut(generator, *given))
    return makers


def _extended(item: DataItem, makers: Mapping[str, _Maker], made: Prepared, progress: Progress) -> DataItem:
    """Return an item with the maps that are there or can be made; a label map without an image stays as it is."""
    if item.image is None:
        return item
    contents = {name: maker.kept(item.image) for name, maker in makers.items()}
    wanted = [name for name, content in contents.items() if content is None]
    try:
        volume = Volume.read(item.image) if wanted else None
        for number, name in enumerate(wanted):
            part = progress.part(number / len(wanted), (number + 1) / len(wanted))
            contents[name] = makers[name].made(item.image, volume, part)
    except OutputError:
        raise
    except VistaError as error:
        progress.check()
        made.failures[item.name] = str(error)
    ready = {name: content for name, content in contents.items() if content is not None}
    if ready:
        made.report[item.name] = {key: value for content in ready.values() for key, value in content.items()}
    fields = {key: value for name in ready for key, value in makers[name].fields.items()}
    return replace(item, **{name: makers[name].path for name in ready}, **fields)


def _predict(
    segmenter: Segmenter, reliability: Reliability, volume: Volume, path: Path, progress: Progress
) -> dict[str, Any]:
    found = pseudo_label(segmenter, volume, reliability, progress=progress)
    _save(path, found.labels, volume, "pseudo-label, 255 is unknown")
    return {"pseudo_label": _about(found, segmenter)}


def _cut(generator: str, volume: Volume, path: Path, progress: Progress) -> dict[str, Any]:
    from VISTA3DCore.supervoxels.generation import compute_supervoxels

    made = compute_supervoxels(volume, generator, progress=progress)
    _save(path, made.labels.astype(label_dtype(made.count)), volume, f"{made.count} supervoxels, {made.generator}")
    return {"supervoxels": made.report}


def _about(found: PseudoLabel, segmenter: Segmenter) -> dict[str, Any]:
    names = {index: segmenter.catalogue[index].name for index in found.agreement}
    return {
        "kept": {names[index]: round(dice, 3) for index, dice in found.agreement.items() if index not in found.dropped},
        "dropped": {names[index]: reason for index, reason in found.dropped.items()},
        "unknown": round(float(np.mean(found.labels == 255)), 4),
    }


def _save(path: Path, labels: np.ndarray, volume: Volume, about: str) -> None:
    write_files({path: lambda file: encode_nifti(file, labels, volume.affine, True, about)})


def _encoded(data: DataList) -> bytes:
    content = {"name": data.name, **{name: [_entry(one) for one in items] for name, items in data.sections.items()}}
    return (json.dumps(content, indent=1) + "\n").encode()


def _entry(item: DataItem) -> dict[str, Any]:
    """Return an item as an entry of a list; paths are absolute, because the new list lies elsewhere."""
    files = {name: getattr(item, name) for name in ("image", "label", "pseudo_label", "supervoxel")}
    labels = {str(value): list(ids) or item.names.get(value, str(value)) for value, ids in item.classes.items()}
    predicted = {} if item.predicted is None else {"predicted": list(item.predicted)}
    facts = {"name": item.name, "labels": labels, "complete": item.complete, "weight": item.weight}
    fold = {} if item.fold is None else {"fold": item.fold}
    return facts | fold | predicted | {name: str(path.resolve()) for name, path in files.items() if path is not None}


def _stem(dataset: str, case: str) -> str:
    """Return how files of a case begin: no two cases of any lists have the same."""
    mark = hashlib.sha256(f"{dataset}/{case}".encode()).hexdigest()[:8]
    return f"{_plain(case)}_{mark}"


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in name)
