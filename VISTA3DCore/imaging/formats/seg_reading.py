"""Masks from segmentation files: those of 3D Slicer (.seg.nrrd) and label maps (NIfTI, NRRD, MHA)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from VISTA3DCore.anatomy import naming
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.anatomy.structure import TISSUE, Code, Structure, new_object
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.itk import read_layers
from VISTA3DCore.imaging.formats.nifti import is_nifti, read_nifti
from VISTA3DCore.imaging.placing import place
from VISTA3DCore.imaging.volume import Volume, check_affine
from VISTA3DCore.paths import expanded

_SEGMENT_KEY = re.compile(r"Segment(\d+)_(\w+)")
# Programs write a mask as 0 and 1, or as 0 and the highest value of its type, so that it can be seen.
_MASK_VALUES = (1, 255, 65535)
_MOST_NAMES = 12
# How a segment tells what it is, the surest first.
_BY_NAME, _BY_INDEX, _BY_CODE = range(3)


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a file.

    :param name: for people; in label maps the catalogue's name of the label.
    :param value: its label in its layer.
    :param layer: the layer that holds it.
    :param id: Slicer's identifier; in label maps the label as text.
    :param index: the catalogue index that a file of ours, or a label map, gives.
    :param codes: category, type, type modifier, region and its modifier, as "scheme^value" or "".
    :param color: red, green, blue, 0 to 255, or None.
    :param entry: its terminology as Slicer writes it, or "".
    """

    name: str
    value: int
    layer: int = 0
    id: str = ""
    index: int | None = None
    codes: tuple[str, ...] = ()
    color: tuple[int, int, int] | None = None
    entry: str = ""

    def as_object(self, index: int, name: str) -> Structure:
        """Return a structure that keeps the segment's name for people, its color and its codes.

        :param index: its label from now on. :param name: its official name.
        """
        fields = (self.entry.split("~") + [""] * 7)[:7]
        codes = dict(
            zip(("category", "type", "type_modifier", "", "region", "region_modifier"), fields[1:], strict=True)
        )
        known = {field: code for field, text in codes.items() if field and (code := _code(text))}
        changes: dict[str, Any] = {"index": index, "name": name, "display_name": self.name, **known}
        if self.color:
            changes["color"] = self.color
        return replace(new_object(), **changes)

    def fit(self, structure: Structure) -> int | None:
        """Return how the segment tells that it is a structure (smaller is surer), or None if it does not."""
        names = (structure.name, structure.display_name, *structure.synonyms)
        if naming.key(self.name) in map(naming.key, names):
            return _BY_NAME
        if self.index == structure.index:
            return _BY_INDEX
        # Generic tissue is Slicer's default and says nothing.
        codes = structure.type not in (None, TISSUE) and _codes(structure.terminology_entry())
        return _BY_CODE if codes and self.codes == codes else None

    def structure(self, structures: Iterable[Structure]) -> Structure | None:
        """Return which of several structures the segment is, or None."""
        fits = [(fit, one) for one in structures if (fit := self.fit(one)) is not None]
        return min(fits, key=lambda pair: pair[0])[1] if fits else None


class StoredSegmentation:
    """What a segmentation file holds, on its own grid.

    :param segments: in the file's order.
    """

    def __init__(
        self, name: str, segments: tuple[StoredSegment, ...], layers: list[np.ndarray], affine: np.ndarray
    ) -> None:
        try:
            check_affine(affine)
        except InputError as error:
            raise InputError(f"'{name}' cannot be used: {error}") from error
        self.name, self.segments = name, segments
        self._layers, self._affine = layers, affine

    @classmethod
    def read(cls, path: str | PathLike[str]) -> StoredSegmentation:
        """Read a ``.seg.nrrd`` file (of Slicer or ours) or a label map whose values are catalogue indices.

        :raises InputError: if it cannot be read or is not a segmentation.
        """
        path = expanded(path)
        if not path.is_file():
            raise InputError(f"The segmentation '{path}' does not exist, or is not a file.")
        if is_nifti(path):
            array, affine = read_nifti(path)
            layers, entries = [array], dict[str, str]()
        else:
            layers, affine, entries = read_layers(path)
        segments = _slicer_segments(entries, len(layers), path.name)
        if not segments:
            layers, segments = _label_segments(layers, path.name)
        return cls(path.name, tuple(segments), layers, affine)

    def find(self, structure: Structure | None = None, name: str | None = None) -> StoredSegment:
        """Return the segment that was asked for.

        A name (or Slicer's ID, or a label) counts before the structure. A structure is found by its names, by the index
        that files of ours carry, or by its terminology. The only segment of a file need not be found by anything, as
        long as it is not known to be another structure.

        :raises InputError: if there is none or more than one; the message names the segments.
        """
        if not self.segments:
            raise InputError(f"'{self.name}' is empty; leave --base out to begin from nothing.")
        if name is not None:
            key = naming.key(name)
            found = [one for one in self.segments if name == one.id or key == naming.key(one.name)]
            return self._only(found, f"'{name}'")
        if structure is not None:
            fits = [(one.fit(structure), one) for one in self.segments]
            best = min((fit for fit, _ in fits if fit is not None), default=None)
            found = [one for fit, one in fits if fit is not None and fit == best]
            if found or not self._is_plain(structure):
                return self._only(found, f"'{structure.name}'")
        return self._only(list(self.segments), None)

    def structure(self, segment: StoredSegment, structures: Iterable[Structure]) -> Structure | None:
        """Return which of several structures a segment is; None if it is none of them, or the file a mask."""
        return None if self.is_mask else segment.structure(structures)

    @property
    def is_mask(self) -> bool:
        """Whether the file is a label map of one value that says no more than "inside": 1, 255 or 65535."""
        return len(self.segments) == 1 and _is_mask([self.segments[0].value]) and self.holds_labels

    @property
    def holds_labels(self) -> bool:
        """Whether the file is a label map, whose labels have no names."""
        return all(segment.id == str(segment.value) for segment in self.segments)

    def _is_plain(self, structure: Structure) -> bool:
        """Whether the file has one segment only, which is not known to be another structure."""
        if len(self.segments) != 1:
            return False
        return self.structure(self.segments[0], catalogue("vista3d-ctmr")) in (None, structure)

    def _only(self, found: list[StoredSegment], wanted: str | None) -> StoredSegment:
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"'{one.name}'" for one in self.segments[:_MOST_NAMES])
        names += ", ..." if len(self.segments) > _MOST_NAMES else ""
        several = f"more than one segment {wanted}" if wanted else "several segments"
        held = f"holds {several}" if found else f"has no segment {wanted}"
        raise InputError(f"'{self.name}' {held}; choose one of {names} with --segment (its name or ID).")

    def mask(self, segment: StoredSegment, grid_of: Volume, resample: bool = False) -> np.ndarray:
        """Return a segment as bool [i, j, k] on the grid of an image.

        :param resample: allow another geometry; resampled by nearest neighbour.
        :raises InputError: if the geometry is another one and ``resample`` is False, or the segment is empty or lies
            outside the image.
        """
        mask = np.equal(self._layers[segment.layer], segment.value)
        if not mask.any():
            empty = f"The segment '{segment.name}' in '{self.name}' is empty"
            raise InputError(f"{empty}; leave --base out to begin from nothing.")
        placed = place(mask, self._affine, grid_of, self.name, resample)
        if not placed.any():
            outside = f"The segment '{segment.name}' in '{self.name}' lies outside the image"
            raise InputError(f"{outside}; is it the segmentation of another image?")
        return placed

    def label_maps(
        self, labels: Mapping[StoredSegment, int], grid_of: Volume, resample: bool = False
    ) -> Iterator[np.ndarray]:
        """Yield several segments with new labels: a uint16 label map on the grid of an image for each layer.

        :param labels: what to call each segment, 1 to 65535; the others are left out.
        :raises InputError: if the geometry is another one and ``resample`` is False.
        """
        for number, layer in enumerate(self._layers):
            wanted = {segment.value: label for segment, label in labels.items() if segment.layer == number}
            if wanted:
                yield place(_relabeled(layer, wanted), self._affine, grid_of, self.name, resample)


def _relabeled(layer: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Return a label map, uint16 of the layer's shape, with other labels; those that are not mentioned become 0."""
    values = np.array(sorted(labels))
    new = np.array([labels[value] for value in values.tolist()], dtype=np.uint16)
    result = np.zeros(layer.shape, dtype=np.uint16)
    for k in range(layer.shape[2]):
        inside = layer[:, :, k] != 0
        old = layer[:, :, k][inside]
        place_of = np.searchsorted(values, old).clip(max=len(values) - 1)
        result[:, :, k][inside] = np.where(values[place_of] == old, new[place_of], 0)
    return result


def read_mask(
    path: str | PathLike[str],
    grid_of: Volume,
    structure: Structure | None = None,
    segment: str | None = None,
    resample: bool = False,
) -> np.ndarray:
    """Read one segment of a segmentation file on the grid of an image.

    :param structure: whose segment, see :meth:`StoredSegmentation.find`; None where it is unknown.
    :param segment: name or ID of the segment, if it shall not be found by the structure.
    :param resample: allow another geometry; resampled by nearest neighbour.
    :return: bool [i, j, k], not empty.
    :raises InputError: if the file, the segment or the geometry cannot be used, or the segment is empty.
    """
    stored = StoredSegmentation.read(path)
    return stored.mask(stored.find(structure, segment), grid_of, resample)


def _slicer_segments(entries: Mapping[str, str], layers: int, name: str) -> list[StoredSegment]:
    """Return the segments that Slicer's keys describe; none for other files."""
    described: dict[int, dict[str, str]] = {}
    for key, value in entries.items():
        if match := _SEGMENT_KEY.fullmatch(key):
            described.setdefault(int(match[1]), {})[match[2]] = value
    try:
        segments = [_slicer_segment(number, described[number]) for number in sorted(described)]
    except ValueError as error:
        raise InputError(f"The header of '{name}' describes its segments wrongly; save it again in Slicer.") from error
    if any(not 0 <= segment.layer < layers for segment in segments):
        raise InputError(f"'{name}' lacks layers that its header names; save it again in Slicer.")
    return segments


def _slicer_segment(number: int, keys: Mapping[str, str]) -> StoredSegment:
    """Return a segment; files of Slicer 4.10 and older give each its own layer, with the value 1."""
    tags = dict(tag.partition(":")[::2] for tag in keys.get("Tags", "").split("|") if tag)
    index = tags.get("VISTA3D.index", "")
    return StoredSegment(
        name=keys.get("Name", keys.get("ID", str(number))),
        value=int(keys.get("LabelValue", 1)),
        layer=int(keys.get("Layer", number)),
        id=keys.get("ID", ""),
        index=int(index) if index.isdecimal() else None,
        codes=_codes(tags.get("TerminologyEntry", "")),
        color=_color(keys.get("Color", "")),
        entry=tags.get("TerminologyEntry", ""),
    )


def _color(text: str) -> tuple[int, int, int] | None:
    """Return a color that a header gives as three numbers from 0 to 1; None if it does not."""
    try:
        red, green, blue = (round(255 * min(max(float(channel), 0.0), 1.0)) for channel in text.split())
    except ValueError:
        return None
    return red, green, blue


def _code(text: str) -> Code | None:
    scheme, value, meaning = (text.split("^") + [""] * 3)[:3]
    return Code(value, scheme, meaning) if scheme and value else None


def _codes(entry: str) -> tuple[str, ...]:
    """Return "scheme^value" of category, type, modifier, region and modifier of a terminology entry."""
    fields = (entry.split("~") + [""] * 7)[:7]
    codes = ("^".join(fields[n].split("^")[:2]).strip("^") for n in (1, 2, 3, 5, 6))
    return tuple(codes)


def _label_segments(layers: list[np.ndarray], name: str) -> tuple[list[np.ndarray], list[StoredSegment]]:
    """Return a label map as the only layer, and its labels."""
    if len(layers) != 1:
        raise InputError(f"'{name}' is a color or vector image; give a label map or a .seg.nrrd file.")
    values = _labels(layers[0], name)
    if _is_mask(values) and values != [1]:
        return layers, [StoredSegment(str(values[0]), values[0], id=str(values[0]))]
    known = catalogue("vista3d-ctmr")
    names = {value: known[value].name if value in known else str(value) for value in values}
    return layers, [StoredSegment(names[value], value, id=str(value), index=value) for value in names]


def _is_mask(values: Sequence[int]) -> bool:
    return len(values) == 1 and values[0] in _MASK_VALUES


def _labels(array: np.ndarray, name: str) -> list[int]:
    """Return the labels of a label map, without 0, in order."""
    present: set[float] = set()
    for k in range(array.shape[2]):
        labels = np.unique(array[:, :, k])
        if not np.all(np.isfinite(labels)) or np.any(labels < 0) or np.any(labels != np.floor(labels)):
            raise InputError(f"'{name}' is not a label map: its voxels are not whole numbers of 0 or more.")
        present.update(labels.tolist())
    return sorted(int(value) for value in present if value)
