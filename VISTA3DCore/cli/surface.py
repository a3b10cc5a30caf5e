"""Surfaces of a segmentation, seen from outside: an orthographic, shaded picture. Needs numpy and SimpleITK alone.

Each structure's mask is smoothed, and the first crossing of a threshold along each ray is its surface. Of several
structures, the nearest one is visible. The threshold makes the smoothed body as large as the mask, so that thin vessels
and ribs keep their thickness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.imaging.components import bounding_box, bounding_boxes
from VISTA3DCore.imaging.geometry import spacing_of, to_ras
from VISTA3DCore.imaging.segmentation import Segmentation

# Of a finer or longer grid, every second, third ... voxel is used: the rest costs time and shows little.
_FINEST_MM, _MOST_VOXELS = 1.5, 200
_SMOOTHING_MM, _SMOOTHING_VOXELS = 2.0, 0.8  # standard deviation: the larger one of both
_SHADING_SMOOTHER = 1.5  # for the directions of surfaces, which show every step of a voxel
_MARGIN = 3  # voxels around a structure, where its smoothed mask ends
_LIGHT = np.array([-0.45, -0.40, -0.80])  # towards the light: down, right, away from the viewer
_AMBIENT, _DIFFUSE, _GLOSS, _SHININESS = 0.30, 0.72, 0.16, 24.0
_RELIEF_MM, _RELIEF = 12.0, 0.45  # what lies behind its surroundings is darker: width, strength
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class View:
    """A direction of view.

    :param axis: RAS axis along which the viewer looks.
    :param from_high: whether the viewer is at its high end (R, A or S).
    :param letters: directions at the left, right, top and bottom edge.
    """

    name: str
    axis: int
    from_high: bool
    letters: str

    @property
    def _order(self) -> list[int]:
        return [2, 1 - self.axis, self.axis]

    @property
    def _flipped(self) -> tuple[bool, bool, bool]:
        # From the front, the patient's right is on the left; from behind and from the right it is the other way round.
        return True, self.from_high == (self.axis == 1), self.from_high

    def turned(self, array: np.ndarray) -> np.ndarray:
        """Turn a RAS array [i, j, k] into [down, right, away]."""
        return array.transpose(self._order)[tuple(slice(None, None, -1 if flip else 1) for flip in self._flipped)]

    def reordered(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Bring a value for each RAS axis into the order down, right, away."""
        return np.array(values)[self._order]

    def turned_corner(self, start: np.ndarray, size: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return where a box of a RAS array begins in the turned array.

        :param start: its first voxel. :param size: its voxels along each axis. :param shape: of the whole RAS array.
        """
        low, high = self.reordered(start), self.reordered(np.array(shape) - start - size)
        return np.where(self._flipped, high, low)


ANTERIOR = View("Anterior", 1, True, "RLSI")
POSTERIOR = View("Posterior", 1, False, "LRSI")
LEFT = View("Left lateral", 0, False, "APSI")
VIEWS = (ANTERIOR, LEFT, POSTERIOR)


@dataclass(frozen=True, eq=False)
class _Body:
    """A structure, smoothed.

    :param field: float32 [i, j, k], RAS: the smoothed mask, with a margin. :param start: its first voxel.
    :param smoother: a smoother field, for the directions of its surface.
    :param threshold: value of ``field`` at the surface.
    :param color: RGB in [0, 1].
    """

    field: np.ndarray
    smoother: np.ndarray
    threshold: float
    start: np.ndarray
    color: np.ndarray


def render(
    segmentation: Segmentation, background: str, views: Sequence[View] = VIEWS, height: int = 600
) -> dict[View, np.ndarray]:
    """Return a picture of all structures for each view, RGB [row, column, 3] in [0, 1], rows from top to bottom.

    It covers the whole volume, in true proportions. Oblique volumes are shown along their own axes.

    :param background: its color, ``#rrggbb``.
    :param height: number of rows; fewer if the volume is wider than it is high.
    """
    labels, affine = to_ras(segmentation.labels, segmentation.affine)
    spacing = spacing_of(affine)
    coarsest = max(_FINEST_MM, max(np.array(labels.shape) * spacing) / _MOST_VOXELS)
    step = np.maximum(coarsest // spacing, 1).astype(int)
    cut = tuple(slice(None, None, int(n)) for n in step)
    masks = {
        index: np.ascontiguousarray(to_ras(mask, segmentation.affine)[0][cut])
        for index, mask in segmentation.masks.items()
    }
    labels, spacing = labels[cut], spacing * step
    canvases = {view: _Canvas(view, labels.shape, spacing, height) for view in views}
    for body in _bodies(labels, masks, segmentation.structures, spacing):
        for canvas in canvases.values():
            canvas.add(body)
    color = np.array([int(background[n : n + 2], 16) / 255.0 for n in (1, 3, 5)])
    return {view: canvas.picture(color) for view, canvas in canvases.items()}


def _bodies(
    labels: np.ndarray, masks: Mapping[int, np.ndarray], structures: Sequence[Structure], spacing: np.ndarray
) -> Iterator[_Body]:
    boxes = bounding_boxes(labels)
    sigma = np.maximum(_SMOOTHING_MM / spacing, _SMOOTHING_VOXELS)
    for structure in structures:
        index = structure.index
        box = bounding_box(masks[index]) if index in masks else boxes.get(index)
        if box is None:
            continue
        mask = masks[index][box] if index in masks else labels[box] == index
        field = _smoothed(np.pad(mask, _MARGIN).astype(np.float32), sigma)
        threshold = _threshold(field, int(np.count_nonzero(mask)))
        start = np.array([side.start for side in box]) - _MARGIN
        smoother = _smoothed(field, _SHADING_SMOOTHER * sigma)
        yield _Body(field, smoother, threshold, start, np.array(structure.color) / 255.0)


class _Canvas:
    """What is visible so far in one view: depth, color and normal of each pixel.

    :param shape: of the volume, in voxels, RAS. :param spacing: mm, RAS.
    """

    def __init__(self, view: View, shape: tuple[int, ...], spacing: np.ndarray, height: int) -> None:
        self._view, self._shape, self._spacing = view, shape, view.reordered(spacing)
        extent = (view.reordered(shape) * self._spacing)[:2]
        self._pixel = max(extent) / (height * _SUPERSAMPLING)
        size = [max(round(one / self._pixel / _SUPERSAMPLING), 1) * _SUPERSAMPLING for one in extent]
        self._depth = np.full(size, np.inf, np.float32)
        self._color = np.zeros((*size, 3), np.float32)
        self._normal = np.zeros((*size, 3), np.float32)

    def add(self, body: _Body) -> None:
        """Draw a body where it is nearer than what is there."""
        field = self._view.turned(body.field)
        corner = self._view.turned_corner(body.start, np.array(body.field.shape), self._shape)
        (top, down), (left, right) = (self._weights(axis, corner[axis], field.shape[axis]) for axis in range(2))
        place = (slice(top, top + len(down)), slice(left, left + len(right)))
        depth = _first_crossing(field, down, right, body.threshold)
        away = (depth + corner[2]) * self._spacing[2]
        nearer = away < self._depth[place]
        row, column = np.nonzero(nearer)
        if not len(row):
            return
        across = [self._voxel(row + top, 0) - corner[0], self._voxel(column + left, 1) - corner[1]]
        voxels = np.stack([*across, depth[nearer]], axis=1)
        self._depth[place][nearer] = away[nearer]
        self._color[place][nearer] = body.color
        self._normal[place][nearer] = _normals(self._view.turned(body.smoother), voxels, self._spacing)

    def picture(self, background: np.ndarray) -> np.ndarray:
        """Return the shaded picture, averaged over the subpixels."""
        light = _LIGHT / np.linalg.norm(_LIGHT)
        half = light + np.array([0.0, 0.0, -1.0])
        diffuse = np.clip(self._normal @ light * 0.6 + 0.4, 0.0, 1.0)  # wrapped: the side in shadow keeps its shape
        gloss = np.clip(self._normal @ (half / np.linalg.norm(half)), 0.0, 1.0) ** _SHININESS
        shade = (_AMBIENT + _DIFFUSE * diffuse) * self._relief()
        seen = np.isfinite(self._depth)[..., None]
        lit = np.clip(self._color * shade[..., None] + _GLOSS * gloss[..., None], 0.0, 1.0)
        image = np.where(seen, lit, background)
        rows, columns = (n // _SUPERSAMPLING for n in image.shape[:2])
        return image.reshape(rows, _SUPERSAMPLING, columns, _SUPERSAMPLING, 3).mean(axis=(1, 3))

    def _relief(self) -> np.ndarray:
        """Return a factor below 1 where the surface lies behind its surroundings."""
        seen = np.isfinite(self._depth)
        if not seen.any():
            return np.ones(seen.shape, np.float32)
        depth = np.where(seen, self._depth, self._depth[seen].max()).astype(np.float32)
        image = sitk.GetImageFromArray(depth)
        sigma = max(_RELIEF_MM / self._pixel / 2.0, 0.5)
        around = (
            sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma)) if min(depth.shape) > 3 else depth
        )
        behind = np.clip((depth - around) / (2.0 * _RELIEF_MM), 0.0, 1.0)
        return 1.0 - _RELIEF * behind

    def _weights(self, axis: int, corner: int, count: int) -> tuple[int, np.ndarray]:
        """Return the first pixel in reach of some voxels, and weights [pixels, voxels] that interpolate there."""
        low, high = (corner + 0.5) * self._spacing[axis], (corner + count - 0.5) * self._spacing[axis]
        first = max(int(np.ceil(low / self._pixel - 0.5)), 0)
        last = min(int(np.floor(high / self._pixel - 0.5)), self._depth.shape[axis] - 1)
        places = self._voxel(np.arange(first, last + 1), axis) - corner
        return first, _cubic(places[:, None] - np.arange(count)).astype(np.float32)

    def _voxel(self, pixel: np.ndarray, axis: int) -> np.ndarray:
        """Return where the pixels' centers are in the volume, in voxels."""
        return (pixel + 0.5) * self._pixel / self._spacing[axis] - 0.5


def _smoothed(array: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return an array after a Gaussian filter; standard deviation in voxels."""
    variance = (sigma**2)[::-1].tolist()  # ITK counts the axes from the last one
    filtered = sitk.DiscreteGaussian(sitk.GetImageFromArray(array), variance, 32, 0.02, False)
    return sitk.GetArrayFromImage(filtered)


def _threshold(field: np.ndarray, count: int) -> float:
    """Return the value that as many voxels reach as the mask had."""
    return float(np.clip(np.partition(field.ravel(), -count)[-count], 0.15, 0.6))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return the weights of cubic convolution (Catmull-Rom) at distances in voxels."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _first_crossing(field: np.ndarray, down: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
    """Return where each pixel's ray enters the body, [row, column] in voxels along the ray; infinity where it does not.

    :param field: [down, right, away]. :param down: weights of the rows. :param right: weights of the columns.
    """
    depth = np.full((len(down), len(right)), np.inf, np.float32)
    outside = np.ones(depth.shape, bool)
    across = np.ascontiguousarray(right.T)
    before = None
    for number, plane in enumerate(field.transpose(2, 0, 1)):
        here = down @ np.ascontiguousarray(plane) @ across
        entering = outside & (here >= threshold)
        if entering.any():
            high = here[entering]
            low = np.zeros_like(high) if before is None else before[entering]
            depth[entering] = number - (high - threshold) / np.maximum(high - low, 1e-6)
            outside &= ~entering
        before = here
    return depth


def _normals(field: np.ndarray, voxels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return unit vectors [n, 3] that point out of the body: against its gradient, trilinearly interpolated."""
    base = np.clip(np.floor(voxels).astype(np.int32), 0, np.array(field.shape) - 2)
    part = (voxels - base).astype(np.float32)
    steps = np.array([field.shape[1] * field.shape[2], field.shape[2], 1])
    start = base @ steps
    gradients = [gradient.ravel() for gradient in np.gradient(np.ascontiguousarray(field), *spacing)]
    total = np.zeros(voxels.shape, np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1.0 - part), axis=1)
        place = start + steps @ corner
        for axis in range(3):
            total[:, axis] += weight * gradients[axis][place]
    return -total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
