# SPDX-License-Identifier: Apache-2.0
"""Labelmaps of segmentations as arrays, and the lattices that their voxels lie on.

A lattice is a 4x4 matrix, voxel index -> RAS mm. A labelmap holds the part of it that its extent names, so the first
voxel of its array has an index of its own.
"""

from __future__ import annotations

import itertools

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from VISTA3DCore.imaging.geometry import apply_affine

from .boxes import NO_BOX, Ranges, Shape, intersection, shape_of, slices
from .matrices import to_array, to_matrix

# Voxels that are displaced by less than this (in voxels) are the same: headers round, transforms are multiplied.
_SAME_VOXEL = 1e-2


def oriented_image(array: np.ndarray, ijk_to_ras: np.ndarray, start: Shape = (0, 0, 0)) -> slicer.vtkOrientedImageData:
    """Return a copy of an array as a labelmap.

    :param array: [i, j, k], bool or an unsigned integer type.
    :param ijk_to_ras: 4x4, voxel index -> RAS mm.
    :param start: index of the array's first voxel.
    """
    box = tuple((first, first + size) for first, size in zip(start, array.shape, strict=True))
    image = unfilled_image(box, ijk_to_ras, np.dtype(np.uint8) if array.dtype == bool else array.dtype)
    array_of(image)[0][...] = array
    return image


def unfilled_image(box: Ranges, lattice: np.ndarray, dtype: np.dtype) -> slicer.vtkOrientedImageData:
    """Return a labelmap for a box of a lattice; its voxels are not initialized."""
    image = _geometry(box, lattice)
    image.AllocateScalars(numpy_support.get_vtk_array_type(dtype), 1)
    return image


def array_of(image: slicer.vtkOrientedImageData) -> tuple[np.ndarray, Shape]:
    """Return a labelmap's voxels as a view [i, j, k], and the index of the first one; a size of 0 if it is empty."""
    scalars = None if image.IsEmpty() else image.GetPointData().GetScalars()
    if scalars is None:
        return np.zeros((0, 0, 0), dtype=np.uint8), (0, 0, 0)
    array = numpy_support.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    return array.transpose(2, 1, 0), tuple(image.GetExtent()[::2])


def box_of_image(image: slicer.vtkOrientedImageData) -> Ranges:
    """Return the box of the lattice that a labelmap covers."""
    extent = image.GetExtent()
    return NO_BOX if image.IsEmpty() else tuple((extent[2 * n], extent[2 * n + 1] + 1) for n in range(3))


def lattice_of(image: slicer.vtkOrientedImageData) -> np.ndarray:
    """Return a labelmap's lattice, 4x4."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return to_array(matrix)


def reference_geometry(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkOrientedImageData | None:
    """Return a segmentation's reference geometry as a labelmap without voxels; None if it has none."""
    parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentation_node.GetSegmentation().GetConversionParameter(parameter)
    image = slicer.vtkOrientedImageData()
    if not geometry or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        return None
    return image


def reference_lattice(segmentation_node: slicer.vtkMRMLSegmentationNode) -> np.ndarray | None:
    """Return the lattice of a segmentation's reference geometry, 4x4; None if it has none."""
    geometry = reference_geometry(segmentation_node)
    return None if geometry is None else lattice_of(geometry)


def move_to(image: slicer.vtkOrientedImageData, lattice: np.ndarray, shift: Shape) -> None:
    """Put a labelmap, in place, on another lattice whose voxels coincide; see :func:`shift_between`."""
    image.SetExtent(_extent(moved(box_of_image(image), shift)))
    image.SetGeometryFromImageToWorldMatrix(to_matrix(lattice))


def moved(box: Ranges, shift: Shape) -> Ranges:
    """Return a box with a shift added to its indices."""
    return tuple((start + by, stop + by) for (start, stop), by in zip(box, shift, strict=True))


def shift_between(source: np.ndarray, target: np.ndarray, box: Ranges) -> Shape | None:
    """Return what to add to the indices of one lattice to get those of another; None if voxels do not coincide.

    :param box: of the source, in which they must.
    """
    between = np.linalg.inv(target) @ source
    shift = np.rint(between[:3, 3])
    corners = np.array(list(itertools.product(*box)), dtype=np.float64)
    if np.abs(apply_affine(between, corners) - corners - shift).max() > _SAME_VOXEL:
        return None
    return tuple(int(value) for value in shift)


def resampled(
    image: slicer.vtkOrientedImageData, lattice: np.ndarray, within: Ranges | None = None
) -> slicer.vtkOrientedImageData:
    """Return a labelmap on another lattice, by nearest neighbor; only the part that it covers there.

    :param within: what of the lattice is wanted; None: everything.
    """
    result, box = slicer.vtkOrientedImageData(), _covered(image, lattice)
    if box is not None and within is not None:
        box = intersection(box, within)
    if box is not None:
        resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
        resample(image, _geometry(box, lattice), result)
    return result


def labels_in(image: slicer.vtkOrientedImageData, lattice: np.ndarray, box: Ranges) -> np.ndarray:
    """Return what a labelmap holds in a box of a lattice, a new array [i, j, k] with i running fastest.

    A labelmap on a lattice whose voxels do not coincide is brought there by nearest neighbor.
    """
    shift = shift_between(lattice_of(image), lattice, box_of_image(image))
    if shift is None:
        image, shift = resampled(image, lattice, box), (0, 0, 0)
    voxels, _start = array_of(image)
    labels = np.zeros(shape_of(box), dtype=voxels.dtype, order="F")
    placed = moved(box_of_image(image), shift)
    common = intersection(placed, box)
    if common is not None:
        labels[slices(common, box)] = voxels[slices(common, placed)]
    return labels


def covering(box: Ranges, source: np.ndarray, target: np.ndarray) -> Ranges:
    """Return the box of a lattice that holds all voxels that a box of another lattice touches.

    :param source, target: the lattices, 4x4 in the same coordinates.
    """
    corners = np.array(list(itertools.product(*((start - 0.5, stop - 0.5) for start, stop in box))))
    places = apply_affine(np.linalg.inv(target) @ source, corners)
    starts, stops = np.floor(places.min(axis=0)), np.ceil(places.max(axis=0)) + 1
    return tuple((int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def _geometry(box: Ranges, lattice: np.ndarray) -> slicer.vtkOrientedImageData:
    """Return a labelmap without memory for voxels."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(_extent(box))
    image.SetGeometryFromImageToWorldMatrix(to_matrix(lattice))
    return image


def _extent(box: Ranges) -> list[int]:
    """Return a box as VTK writes it: the first and the last index along i, j, k."""
    return [int(value) for start, stop in box for value in (start, stop - 1)]


def _covered(image: slicer.vtkOrientedImageData, lattice: np.ndarray) -> Ranges | None:
    """Return the box of a lattice in which voxels of a labelmap can lie; None for an empty labelmap."""
    return None if image.IsEmpty() else covering(box_of_image(image), lattice_of(image), lattice)
