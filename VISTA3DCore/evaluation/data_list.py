"""Data lists: which images belong to a dataset, and what the values of their label maps mean.

The layout is that of MONAI's decathlon lists (``monai.data.load_decathlon_datalist``)::

    {
      "name": "my livers",
      "labels": {"1": 1, "2": [25, 26], "3": "spleen", "4": "my lesion"},
      "complete": false,
      "training": [{"image": "a.nii.gz", "label": "a_seg.nii.gz", "fold": 0}],
      "testing": [{"image": "b.nii.gz", "label": "b_seg.nii.gz"}]
    }

A label value means a structure (its index or name), a union of structures (a list of indices), or an object that the
catalogue does not know (any other name). Paths are relative to the list's folder, or to ``root`` in it.

A folder of cases with an ``index.json`` (a list of entries that each say what their labels mean) is read as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from VISTA3DCore.anatomy.catalogue import Catalogue, catalogue
from VISTA3DCore.errors import InputError, UnknownStructureError

TRAINING, VALIDATION, TESTING = "training", "validation", "testing"
_SECTIONS = {"train": TRAINING, "val": VALIDATION, "test": TESTING}
_FILES = ("index.json", "dataset.json")
_IMAGE_TYPES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class DataItem:
    """One image with what belongs to it. Files need not exist.

    :param name: for messages; unique in its section.
    :param image: the CT, or a folder with its DICOM series; None for a label map alone, from which training paints CTs.
    :param label: label map; None if nothing was annotated: ``classes`` is empty then, and ``complete`` False.
    :param classes: label value -> indices of the structures that it stands for; several where the value is a union,
        none where the catalogue does not know the object. Values that are not here stand for nothing known.
    :param names: label value -> name, for reports.
    :param complete: True if every structure was labeled, so that the rest is background; False if only those in
        ``classes`` were.
    :param weight: how often it is drawn in training, relative to others.
    :param fold: of cross-validation.
    :param pseudo_label: label map that a model predicted; values are catalogue indices.
    :param predicted: indices of the structures that this model looked for; None if the list does not say.
    :param supervoxel: map of supervoxels.
    """

    name: str
    image: Path | None
    label: Path | None = None
    classes: Mapping[int, tuple[int, ...]] = field(default_factory=dict, hash=False)
    names: Mapping[int, str] = field(default_factory=dict, hash=False)
    complete: bool = False
    weight: float = 1.0
    fold: int | None = None
    pseudo_label: Path | None = None
    supervoxel: Path | None = None
    predicted: tuple[int, ...] | None = None


@dataclass(frozen=True)
class DataList:
    """A dataset.

    :param name: of the dataset.
    :param path: the file that it was read from.
    :param sections: the items by section: ``training``, ``validation``, ``testing`` and whatever else the list holds.
    """

    name: str
    path: Path
    sections: Mapping[str, tuple[DataItem, ...]] = field(hash=False)

    @property
    def training(self) -> tuple[DataItem, ...]:
        """What may be learned from, folds for validation included."""
        return self.sections.get(TRAINING, ())

    @property
    def validation(self) -> tuple[DataItem, ...]:
        """What judges a network while it learns; never learned from."""
        return self.sections.get(VALIDATION, ())

    @property
    def testing(self) -> tuple[DataItem, ...]:
        """What is never learned from."""
        return self.sections.get(TESTING, ())

    def section(self, name: str) -> tuple[DataItem, ...]:
        """Return the items of a section; ``train`` and ``test`` stand for ``training`` and ``testing``.

        :raises InputError: if there is none.
        """
        key = _SECTIONS.get(name, name)
        if key not in self.sections:
            held = ", ".join(self.sections) or "nothing"
            raise InputError(f"The data list '{self.path.name}' has no section '{name}'; it has: {held}.")
        return self.sections[key]


def read_data_list(
    path: str | PathLike[str], label_set: str = "vista3d-ct", instead: Mapping[str, Any] | None = None
) -> DataList:
    """Read a data list.

    :param path: a JSON file, or a folder that holds ``index.json`` or ``dataset.json``.
    :param label_set: the catalogue whose names and indices ``labels`` uses.
    :param instead: values that replace those of a list in MONAI's layout, such as ``name``, ``root`` or ``labels``.
    :raises InputError: if the file cannot be read or does not have the form of a list.
    """
    file = _file_of(Path(path))
    content = read_json(file)
    reader = _Reader(file, catalogue(label_set))
    if isinstance(content, dict):
        return reader.decathlon({**content, **(instead or {})})
    if isinstance(content, list):
        return reader.index(content)
    raise InputError(f"'{file}' is no data list; it must hold 'training' or 'testing' with images and labels.")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    :raises InputError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not valid JSON ({error}).") from error


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(f"The data folder '{path}' has neither {' nor '.join(_FILES)}.")


class _Reader:
    """Makes a :class:`DataList` of what a JSON file holds."""

    def __init__(self, file: Path, known: Catalogue) -> None:
        self._file, self._known, self._root = file, known, file.parent

    def decathlon(self, content: dict[str, Any]) -> DataList:
        """Read the layout of MONAI's decathlon lists."""
        self._root = self._file.parent / self._text(content.get("root", "."), "root")
        entries = {name: value for name, value in content.items() if isinstance(value, list) and _holds_images(value)}
        sections = {name: content[name] for name in (TRAINING, TESTING) if name in content} | entries
        if not sections:
            raise InputError(f"The data list '{self._file.name}' has neither 'training' nor 'testing'.")
        keys: tuple[str, ...] = ("labels", "complete", "weight")
        defaults = {key: content[key] for key in keys if key in content}
        items = {name: self._items(name, value, defaults) for name, value in sections.items()}
        return self._list(str(content.get("name") or self._file.stem), items)

    def index(self, entries: list[Any]) -> DataList:
        """Read an ``index.json``: entries with ``id``, ``split``, ``image``, ``label`` and their own label meanings."""
        sections: dict[str, list[dict[str, Any]]] = {}
        for number, entry in enumerate(entries, 1):
            split = entry.get("split") if isinstance(entry, dict) else None
            if not isinstance(split, str):
                raise InputError(f"Entry {number} of '{self._file}' lacks 'split'; it needs id, split and image.")
            sections.setdefault(_SECTIONS.get(split, split), []).append(_plain(entry))
        items = {name: self._items(name, value, {}) for name, value in sections.items()}
        return self._list(self._file.resolve().parent.name, items)

    def _list(self, name: str, sections: dict[str, tuple[DataItem, ...]]) -> DataList:
        for section, items in sections.items():
            names = [item.name for item in items]
            twice = next((one for one, count in Counter(names).items() if count > 1), None)
            if twice is not None:
                raise InputError(
                    f"'{section}' of the data list '{self._file.name}' holds '{twice}' twice; "
                    "give each entry its own 'name'."
                )
        return DataList(name, self._file, sections)

    def _items(self, section: str, entries: Any, defaults: Mapping[str, Any]) -> tuple[DataItem, ...]:
        if not isinstance(entries, list):
            raise InputError(f"'{section}' of the data list '{self._file.name}' must be a list of entries.")
        items = []
        for number, entry in enumerate(entries, 1):
            given = {"image": entry} if isinstance(entry, str) else entry
            if not isinstance(given, dict):
                raise InputError(f"Entry {number} of '{section}' in '{self._file.name}' must hold 'image' and 'label'.")
            items.append(self._item({**defaults, **given}, f"entry {number} of '{section}'"))
        return tuple(items)

    def _item(self, entry: Mapping[str, Any], place: str) -> DataItem:
        alone = "image" not in entry and bool(entry.get("label"))
        image = self._text(entry["label"] if alone else entry.get("image"), f"'image' in {place}")
        classes, names = self._labels(entry.get("labels", {}), place)
        given = self._checked(entry.get("label_names", {}), dict, f"'label_names' of {place}")
        names |= {self._value(value, place): str(name) for value, name in given.items()}
        complete = self._checked(entry.get("complete", False), bool, f"'complete' in {place}")
        label = self._path(entry, "label", place)
        if label is None:  # whatever the list says, this image was not annotated
            classes, names, complete = {}, {}, False
        return DataItem(
            name=str(entry.get("name") or entry.get("id") or _stem(image)),
            image=None if alone else self._root / image,
            label=label,
            classes={**dict.fromkeys(names, ()), **classes},
            names=names,
            complete=complete,
            weight=float(self._checked(entry.get("weight", 1.0), (int, float), f"'weight' in {place}")),
            fold=self._checked(entry.get("fold"), (int, type(None)), f"'fold' in {place}"),
            pseudo_label=self._path(entry, "pseudo_label", place),
            supervoxel=self._path(entry, "supervoxel", place),
            predicted=self._indices(entry.get("predicted"), f"'predicted' in {place}"),
        )

    def _labels(self, table: Any, place: str) -> tuple[dict[int, tuple[int, ...]], dict[int, str]]:
        """Return the indices and the names of label values."""
        classes: dict[int, tuple[int, ...]] = {}
        names: dict[int, str] = {}
        for key, meaning in self._checked(table, dict, f"'labels' of {place}").items():
            value = self._value(key, place)
            if value:  # 0 is background, whatever it is called
                classes[value], names[value] = self._meaning(meaning, value, place)
        return classes, names

    def _meaning(self, meaning: Any, value: int, place: str) -> tuple[tuple[int, ...], str]:
        try:
            if isinstance(meaning, str):
                return self._named(meaning)
            indices = meaning if isinstance(meaning, list) else [meaning]
            if any(isinstance(one, bool) or not isinstance(one, int) for one in indices):
                raise InputError(
                    f"Label {value} in {place} of '{self._file.name}' must be an index, a list of indices or a name."
                )
            found = [self._known.find(one) for one in indices]
        except UnknownStructureError as error:
            raise InputError(f"Label {value} in {place} of '{self._file.name}': {error}") from error
        return tuple(one.index for one in found), " + ".join(one.name for one in found)

    def _named(self, name: str) -> tuple[tuple[int, ...], str]:
        """Return what a name means; an object without class where the catalogue does not know it."""
        try:
            structure = self._known.find(name)
        except UnknownStructureError:
            return (), name
        return (structure.index,), structure.name

    def _indices(self, value: Any, what: str) -> tuple[int, ...] | None:
        if value is None:
            return None
        return tuple(self._checked(one, int, what) for one in self._checked(value, list, what))

    def _value(self, key: Any, place: str) -> int:
        try:
            return int(key)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The labels of {place} in '{self._file.name}' must map whole numbers to structures, "
                f"such as {{\"1\": 1}}; '{key}' is no whole number."
            ) from error

    def _path(self, entry: Mapping[str, Any], key: str, place: str) -> Path | None:
        return self._root / self._text(entry[key], f"'{key}' in {place}") if entry.get(key) else None

    def _text(self, value: Any, what: str) -> str:
        return self._checked(value, str, what)

    def _checked(self, value: Any, kind: type | tuple[type, ...], what: str) -> Any:
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise InputError(f"The data list '{self._file.name}' is not usable: {what} is missing or of a wrong kind.")
        return value


def _holds_images(entries: list[Any]) -> bool:
    return bool(entries) and all(isinstance(entry, dict) and {"image", "label"} & entry.keys() for entry in entries)


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of an ``index.json`` in the words of a data list."""
    keys = ("id", "image", "label", "fold", "pseudo_label", "supervoxel", "predicted")
    wanted = {key: entry[key] for key in keys if key in entry}
    complete = str(entry.get("label_protocol", "")).startswith("totalsegmentator")
    labels = entry.get("vista3d_ids") or {}
    return {**wanted, "labels": labels, "label_names": entry.get("label_names") or {}, "complete": complete}


def _stem(image: str) -> str:
    """Return a path without its type: the name of an entry that has none."""
    path = Path(image).as_posix().removeprefix("./").rstrip("/")
    return next((path[: -len(end)] for end in _IMAGE_TYPES if path.lower().endswith(end)), path)


def labeled(items: Iterable[DataItem]) -> list[DataItem]:
    """Return the items that have an image and a label map."""
    return [item for item in items if item.image is not None and item.label is not None]
