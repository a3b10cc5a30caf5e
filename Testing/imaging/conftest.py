"""Grids, DICOM series and a real Slicer storage node for the imaging tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def oblique() -> np.ndarray:
    """Affine of an oblique, left-handed, anisotropic grid."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [12, -21, 33], degrees=True).as_matrix() @ np.diag([-0.8, 0.9, 2.5])
    affine[:3, 3] = 10.5, -20.25, 33.0
    return affine


@pytest.fixture
def write_dicom() -> Callable[..., Path]:
    """Return a writer of small, valid DICOM CT series."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(folder: Path, array: np.ndarray, positions: np.ndarray | None = None, **changes: object) -> Path:
        """Write HU [i, j, k] as slices 2.5 mm apart (or at ``positions``, LPS mm); ``changes`` override attributes."""
        folder.mkdir(parents=True, exist_ok=True)
        series, frame = generate_uid(), generate_uid()
        if positions is None:
            positions = np.array([(-10.0, -20.0, 2.5 * k) for k in range(array.shape[2])])
        for k, position in enumerate(positions):
            dataset = pydicom.Dataset()
            dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = series, frame, frame
            dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "test", "Test"
            dataset.SeriesNumber, dataset.SeriesDescription = 3, "Abdomen"
            dataset.ImageType, dataset.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing, dataset.SliceThickness = [0.9, 0.8], 2.5
            dataset.Rows, dataset.Columns = array.shape[1], array.shape[0]
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
            for name, value in changes.items():
                setattr(dataset, name, value)
            stored = (array[:, :, k] - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope)
            dataset.PixelData = np.rint(stored).astype(np.uint16).T.tobytes()
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.save_as(folder / f"{series[-6:]}_{k:03d}.dcm", enforce_file_format=True)
        return folder

    return write


@dataclass
class SlicerSegment:
    """What Slicer shows of one segment: voxels on the whole grid [i, j, k] and its attributes."""

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str
    model: str
    mask: np.ndarray
    affine: np.ndarray


@pytest.fixture
def open_in_slicer() -> Callable[[Path, tuple[int, int, int]], list[SlicerSegment]]:
    """Return a function that opens a .seg.nrrd with Slicer's own storage node."""
    slicer = pytest.importorskip("slicer")
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    def matrix_of(image: object) -> np.ndarray:
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])

    def mask_of(segment: object, shape: tuple[int, int, int]) -> np.ndarray:
        image, mask = segment.GetRepresentation("Binary labelmap"), np.zeros(shape, dtype=bool)
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        if i1 >= i0 and image.GetPointData().GetScalars() is not None:
            values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
            mask[i0 : i1 + 1, j0 : j1 + 1, k0 : k1 + 1] = np.equal(values.T, segment.GetLabelValue())
        return mask

    def tag(segment: object, name: str) -> str:
        value = vtk.mutable("")
        segment.GetTag(name, value)
        return str(value)

    def open_file(path: Path, shape: tuple[int, int, int]) -> list[SlicerSegment]:
        scene = slicer.vtkMRMLScene()
        node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
        scene.AddNode(node)
        scene.AddNode(storage)
        storage.SetFileName(str(path))
        assert storage.ReadData(node) == 1
        segmentation = node.GetSegmentation()
        found = []
        for number in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(number)
            found.append(
                SlicerSegment(
                    segmentation.GetNthSegmentID(number),
                    segment.GetName(),
                    segment.GetColor(),
                    tag(segment, "TerminologyEntry"),
                    tag(segment, "VISTA3D.model"),
                    mask_of(segment, shape),
                    matrix_of(segment.GetRepresentation("Binary labelmap")),
                )
            )
        return found

    return open_file
