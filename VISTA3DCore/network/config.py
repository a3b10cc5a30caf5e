"""What distinguishes one model of the VISTA3D family from another: a few numbers that travel with its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from VISTA3DCore.errors import ModelError
from VISTA3DCore.json_dataclasses import UnknownFieldError, from_json


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a network and of the preprocessing that it was trained with.

    The defaults are those of the released model (``monai.networks.nets.vista3d132`` and the NV-Segment-CT bundle
    0.6.0). ``window`` is the training patch: instance statistics depend on it, so it is part of the model.

    :param name: the model's name, for provenance.
    :param width: feature channels (48 officially), a multiple of 8.
    :param click_width: channels of the interactive head where they differ from ``width``; its attention needs enough
        of them per head (6 officially) to tell directions in space apart, however narrow the rest is.
    :param blocks_down: residual blocks on each encoder level; its length is the number of levels.
    :param window: sides of the sliding window in voxels, multiples of 2^(levels - 1).
    :param spacing: voxel spacing of the model grid in mm, RAS.
    :param intensity_range: HU clipped to this range and scaled to [0, 1]; with ``intensity_percentiles`` it is ignored.
    :param intensity_percentiles: percentiles of the volume that map to 0 and 1 (CTMR), or None.
    :param label_set: name of the catalogue that gives meaning to class indices (``vista3d-ct`` or ``vista3d-ctmr``).
    :param classes: indices that were trained, or None for every supported leaf of the catalogue.
    :param click_branch: whether the interactive branch was trained.
    :param n_classes: rows of the embedding tables.
    :param last_supported: class indices above it get the zero-shot token in the click branch.
    """

    strict: ClassVar[bool] = True

    name: str = "vista3d-ct"
    width: int = 48
    click_width: int | None = None
    blocks_down: tuple[int, ...] = (1, 2, 2, 4, 4)
    window: tuple[int, int, int] = (128, 128, 128)
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)
    intensity_range: tuple[float, float] = (-963.8247715525971, 1053.678477684517)
    intensity_percentiles: tuple[float, float] | None = None
    label_set: str = "vista3d-ct"
    classes: tuple[int, ...] | None = None
    click_branch: bool = True
    n_classes: int = 512
    last_supported: int = 132

    def __post_init__(self) -> None:
        factor = 2 ** (len(self.blocks_down) - 1)
        for width in (self.width, self.click_features):
            if width % 8 or width <= 0:
                raise ModelError(f"The model's width is {width}; it must be a positive multiple of 8.")
        if len(self.window) != 3 or any(side <= 0 or side % factor for side in self.window):
            raise ModelError(f"The model's window {self.window} must have three sides that are multiples of {factor}.")

    @property
    def click_features(self) -> int:
        """Channels of the interactive head."""
        return self.width if self.click_width is None else self.click_width

    def to_json(self) -> str:
        """Return the configuration as JSON, as it is stored in a checkpoint's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read what :meth:`to_json` wrote; unknown keys are refused because they would change the results.

        :raises ModelError: if the text is not such a configuration.
        """
        try:
            return from_json(cls, json.loads(text))
        except UnknownFieldError as error:
            names = sorted(error.names)
            raise ModelError(f"The model needs a newer version of VISTA3D (unknown settings: {names}).") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"The model's configuration cannot be read ({error}).") from error
