"""Where results go, checked before the long work, and how they get there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from VISTA3DCore.errors import OutputError
from VISTA3DCore.imaging.output import check_targets, try_targets, write_files
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.imaging.output import Encoder
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.progress import Progress

SEPARATE = "separate"


@dataclass(frozen=True)
class Outputs:
    """Checked destinations.

    :param segmentation: a file, or the folder for one file per structure.
    :param format: ``separate`` for the folder, else None: the suffix tells.
    :param inputs: files that must not be written.
    """

    segmentation: Path
    format: str | None
    statistics: Path | None = None
    preview: Path | None = None
    inputs: tuple[Path, ...] = ()

    @classmethod
    def checked(
        cls,
        image: Path,
        output: str,
        format_: str | None,
        statistics: Path | None,
        preview: Path | None,
        inputs: Iterable[Path] = (),
    ) -> Outputs:
        """Check everything that can be known in advance.

        :param output: as typed; an existing folder or a trailing slash means one file per structure in that folder.
        :param format_: a suffix without its dot, ``separate``, or None.
        :param inputs: files besides the image that must not be written.
        :raises OutputError: naming what is wrong and what to do.
        """
        output = os.path.expanduser(output)  # noqa: PTH111 - a path has no slash at its end
        is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)  # noqa: PTH112 - see check_file
        separate = format_ == SEPARATE or (format_ is None and is_folder)
        path = Path(output) if separate else _with_suffix(output, format_)
        if separate:
            _check_folder(path, image)
        else:
            check_file(path, "the segmentation")
        for extra, what, suffix in ((statistics, "the statistics", ".csv"), (preview, "the preview", ".png")):
            if extra is not None:
                check_extra(extra, what, suffix)
        if preview is not None:
            require("A preview", "matplotlib")
        outputs = cls(path, SEPARATE if separate else None, statistics, preview, (image, *inputs))
        named = [*([] if separate else [path]), *filter(None, (statistics, preview))]
        outputs._keep_inputs(named)
        check_targets(named)
        return outputs

    def masks(self, structures: Sequence[Structure], overlapping: Collection[int]) -> list[Path]:
        """Check the files that the user did not name: a mask for each structure that may overlap others.

        :param structures: all that are in the result. :param overlapping: the indices of those that may overlap others.
        :return: the masks beside a label map; none beside other results.
        :raises OutputError: if an input, or a file that is no part of an earlier result, would be replaced.
        """
        from VISTA3DCore.imaging.result_files import ResultFiles

        files = ResultFiles.of(self.segmentation, self.format, structures, overlapping)
        self._keep_inputs(files.parts)
        files.check()
        if not files.is_folder or self.segmentation.is_dir():
            try_targets(files.parts)
        return [] if files.is_folder else list(files.parts)

    def _keep_inputs(self, paths: Iterable[Path]) -> None:
        inputs = {path.resolve(): path for path in self.inputs}
        for path in paths:
            if found := inputs.get(path.resolve()):
                raise OutputError(
                    f"'{found}' is the input and would be overwritten; choose another name for the output."
                )

    def write(self, segmentation: Segmentation, more: Mapping[Path, Encoder], progress: Progress) -> list[Path]:
        """Write the segmentation and further files; they appear together.

        :param more: statistics and preview. A preview that fails costs no other file.
        :return: the files written.
        :raises OutputError: if something cannot be written; nothing is left behind.
        """
        files = segmentation.files(self.segmentation, self.format)
        return write_files(
            {**segmentation.encoders(files), **more},
            progress.part(0.95, 1.0),
            optional=[self.preview] if self.preview else [],
            obsolete=files.obsolete(),
            folder=files.folder,
        )


def check_file(path: Path, what: str) -> None:
    """Check that a file can appear at a path.

    :param what: what the file is, for the message.
    :raises OutputError: if its folder does not exist or is not writable, the path is a folder, a device or a read-only
        file, or the name cannot be used.
    """
    folder = path.absolute().parent
    if os.path.isdir(path):  # noqa: PTH112 - of a name that is too long, Path.is_dir raises
        raise OutputError(f"'{path}' is a folder; give the name of a file for {what}.")
    if not os.path.isdir(folder):  # noqa: PTH112
        raise OutputError(f"The folder '{folder}' for {what} does not exist; create it or choose another one.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"The folder '{folder}' for {what} is not writable; choose another one.")
    try_targets([path])


def _with_suffix(output: str, format_: str | None) -> Path:
    if format_ is not None:
        suffix = f".{format_}"
        return Path(output if output.lower().endswith(suffix) else output + suffix)
    from VISTA3DCore.imaging.result_files import FORMATS

    if not output.lower().endswith(FORMATS):
        known = ", ".join(FORMATS)
        raise OutputError(f"The suffix of '{output}' tells no format; use {known}, or end it with / for a folder.")
    return Path(output)


def _check_folder(folder: Path, image: Path) -> None:
    if os.path.exists(folder) and not folder.is_dir():  # noqa: PTH110
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
