"""Where results go, checked before the long work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from VISTA3DCore.errors import OutputError
from VISTA3DCore.packages import require

SEPARATE = "separate"


@dataclass(frozen=True)
class Outputs:
    """Checked destinations.

    :param segmentation: a file, or the folder for one file per structure.
    :param format: ``separate`` for the folder, else None: the suffix tells.
    """

    segmentation: Path
    format: str | None
    statistics: Path | None = None
    preview: Path | None = None

    @classmethod
    def checked(
        cls, image: Path, output: str, format_: str | None, statistics: Path | None, preview: Path | None
    ) -> Outputs:
        """Check everything that can be known in advance.

        :param output: as typed; an existing folder or a trailing slash means one file per structure in that folder.
        :param format_: a suffix without its dot, ``separate``, or None.
        :raises OutputError: naming what is wrong and what to do.
        """
        separate = format_ == SEPARATE or (
            format_ is None and (output.endswith(("/", os.sep)) or Path(output).is_dir())
        )
        path = Path(output) if separate else _with_suffix(output, format_)
        if separate:
            _check_folder(path, image)
        else:
            check_file(path, "the segmentation")
        for extra, what, suffix in ((statistics, "the statistics", ".csv"), (preview, "the preview", ".png")):
            if extra is not None:
                check_extra(extra, what, suffix)
        _check_distinct(image, [path, *filter(None, (statistics, preview))])
        if preview is not None:
            require("A preview", "matplotlib")
        return cls(path, SEPARATE if separate else None, statistics, preview)

    def keep(self, inputs: Iterable[Path]) -> None:
        """Check that none of several further inputs would be overwritten.

        :raises OutputError: naming the one that would be.
        """
        for path in inputs:
            _check_distinct(path, [self.segmentation, *filter(None, (self.statistics, self.preview))])


def check_file(path: Path, what: str) -> None:
    """Check that a file can appear at a path.

    :param what: what the file is, for the message.
    :raises OutputError: if its folder does not exist or is not writable, or the path is a folder.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder; give the name of a file for {what}.")
    if not folder.is_dir():
        raise OutputError(f"The folder '{folder}' for {what} does not exist; create it or choose another one.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"The folder '{folder}' for {what} is not writable; choose another one.")


def _with_suffix(output: str, format_: str | None) -> Path:
    if format_ is not None:
        suffix = f".{format_}"
        return Path(output if output.lower().endswith(suffix) else output + suffix)
    from VISTA3DCore.imaging.segmentation import FORMATS

    if not output.lower().endswith(FORMATS):
        known = ", ".join(FORMATS)
        raise OutputError(f"The suffix of '{output}' tells no format; use {known}, or end it with / for a folder.")
    return Path(output)


def _check_folder(folder: Path, image: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; give the name of a folder for one file per structure.")
    if folder.resolve() in (image.resolve(), image.resolve().parent):
        raise OutputError(f"'{folder}' holds the input; choose another folder for the results.")
    check_file(folder / "structure", "the segmentation") if folder.is_dir() else check_file(folder, "the segmentation")


def check_extra(path: Path, what: str, suffix: str) -> None:
    """Check that a file of one type can appear at a path.

    :raises OutputError: if its name ends differently, or as :func:`check_file`.
    """
    if path.suffix.lower() != suffix:
        raise OutputError(f"'{path}' does not end with {suffix}; {what} can be written as {suffix} only.")
    check_file(path, what)


def _check_distinct(image: Path, paths: list[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    if image.resolve() in resolved:
        raise OutputError(f"'{image}' is the input and would be overwritten; choose another name for the output.")
    if len(set(resolved)) < len(resolved):
        raise OutputError("Two outputs have the same name; choose different ones.")
