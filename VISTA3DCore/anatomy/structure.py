"""What is known about one anatomical structure, and the standard codes that name it."""

from __future__ import annotations

from dataclasses import dataclass

_ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Code:
    """A coded concept, as DICOM and Slicer's terminologies write it.

    :param value: the code, e.g. ``10200004``.
    :param scheme: its coding scheme; ``SCT`` is SNOMED CT.
    :param meaning: its text in English, e.g. ``Liver``.
    """

    value: str
    scheme: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.scheme}^{self.value}^{self.meaning}"


# A segment must carry some code to be exported as DICOM SEG; this one says no more than we know.
TISSUE = Code("85756007", "SCT", "Tissue")


@dataclass(frozen=True)
class Structure:
    """One entry of a label set.

    :param index: the model's class number, which is also the value in label maps.
    :param name: the official name, unique in its label set, e.g. ``left kidney``.
    :param display_name: the name for people, e.g. ``Left kidney``.
    :param group: key of the branch that holds it in a tree, e.g. ``organs``.
    :param color: red, green, blue, 0 to 255.
    :param laterality: ``left``, ``right`` or None.
    :param synonyms: other names under which it is found.
    :param keywords: further words for the search box that are not names: parts, adjectives, diseases.
    :param category: segmented property category, or None where no code is recorded.
    :param type: segmented property type, or None where no code is recorded.
    :param type_modifier: side of the type, where the type itself does not say it.
    :param region: where a lesion or a vessel lies, if its type does not say it.
    :param region_modifier: side of the region.
    :param in_everything: part of the default automatic run.
    :param overlapping: lies inside or around other structures and gets a mask of its own.
    :param special_click_tokens: clicks are ambiguous between it and its organ, so they use tokens of their own.
    :param members: indices of the structures that make it up; not empty for groups such as ``kidney``.
    :param supported: False for slots that the published weights were not trained for.
    :param modalities: kinds of image that the model was trained on for it (``CT``, ``MRI``).
    :param advice: for unsupported slots, what to use instead.
    """

    index: int
    name: str
    display_name: str
    group: str
    color: tuple[int, int, int]
    laterality: str | None = None
    synonyms: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    category: Code | None = None
    type: Code | None = None
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    in_everything: bool = False
    overlapping: bool = False
    special_click_tokens: bool = False
    members: tuple[int, ...] = ()
    supported: bool = True
    modalities: tuple[str, ...] = ()
    advice: str = ""

    @property
    def is_group(self) -> bool:
        """Whether it stands for other structures and is never segmented itself."""
        return bool(self.members)

    def terminology_entry(self, context: str = "Segmentation category and type - VISTA3D") -> str:
        """Return Slicer's serialized terminology entry, the value of a segment's terminology tag.

        Structures without a recorded code become generic tissue: true, and valid in DICOM. In a segmentation file a
        ``|`` separates it from the next tag; it is not part of the entry.

        :param context: name of the terminology in which Slicer looks the codes up.
        """
        category, kind = (self.category, self.type) if self.category and self.type else (TISSUE, TISSUE)
        fields = [context, category, kind, self.type_modifier, _ANATOMIC_CONTEXT, self.region, self.region_modifier]
        return "~".join("^^" if field is None else str(field) for field in fields)


# Beyond the indices of every label set, and a label that still fits into uint16.
NEW_OBJECT_INDEX = 1000


def new_object() -> Structure:
    """Return a stand-in for an object that no label set knows; its code says no more than "tissue"."""
    return Structure(NEW_OBJECT_INDEX, "new object", "New object", "lesions", (255, 214, 10), overlapping=True)
