"""The demonstration CT: fetched by the real pip from a local folder, verified, kept; and the phantom."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import Cancelled, InputError, OfflineError
from VISTA3DCore.imaging import samples
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.progress import Progress

# A build backend inside the package: pip asks it for metadata, and nothing has to be downloaded to build it.
_BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "totalsegmentator-2.18.0.dist-info"
    os.makedirs(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: totalsegmentator\\nVersion: 2.18.0\\n")
    return name
def build_wheel(*_, **__): raise NotImplementedError
def build_sdist(*_, **__): raise NotImplementedError
"""
_PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_LABELS = '<LabelTable><Label Key="5" Red="1"><![CDATA[liver]]></Label>\n<Label Key="3"><![CDATA[kidney_left]]></Label>'


def _nifti(array: np.ndarray, table: str = "") -> bytes:
    image = nibabel.Nifti1Image(array, np.diag([3.0, 3.0, 3.0, 1.0]))
    if table:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, table.encode()))
    return gzip.compress(image.to_bytes())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Put a package like the real one, with other content, into a local folder; return its two members."""
    labels = np.zeros((8, 9, 10), np.uint8)
    labels[:4], labels[4:6], labels[7] = 5, 3, 99
    ct = np.arange(720, dtype=np.int16).reshape(8, 9, 10)
    members = {samples.CT_FILE: _nifti(ct), samples.LABEL_FILE: _nifti(labels, _LABELS)}
    files = {
        "pyproject.toml": _PROJECT.encode(),
        "backend.py": _BACKEND.encode(),
        "PKG-INFO": b"Name: totalsegmentator\n",
    }
    files |= {f"tests/reference_files/{name}": content for name, content in members.items()}
    links = tmp_path / "links"
    links.mkdir()
    archive = links / "totalsegmentator-2.18.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"totalsegmentator-2.18.0/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    hashes = {
        f"totalsegmentator-2.18.0/tests/reference_files/{name}": hashlib.sha256(content).hexdigest()
        for name, content in members.items()
    }
    published = replace(samples.PACKAGE, sha256=hashlib.sha256(archive.read_bytes()).hexdigest(), members=hashes)
    monkeypatch.setattr(samples, "PACKAGE", published)
    return members


def test_fetched_through_pip_once_then_kept(
    package: dict[str, bytes], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples.demonstration_ct()
    assert (home / "samples" / samples.CT_FILE).read_bytes() == package[samples.CT_FILE]
    assert sorted(path.name for path in (home / "samples").iterdir()) == sorted(package)
    monkeypatch.delenv("PIP_FIND_LINKS")
    again = samples.demonstration_ct()
    np.testing.assert_array_equal(again.volume.array, sample.volume.array)
    assert not again.synthetic


def test_reference_labels_become_ours_by_name(package: dict[str, bytes]) -> None:
    reference = samples.demonstration_ct().reference
    assert reference.dtype == np.uint16
    assert [int(reference[i, 0, 0]) for i in (0, 5, 6, 7)] == [
        catalogue()["liver"].index, catalogue()["left kidney"].index, 0, 0,
    ]  # fmt: skip


def test_changed_package_is_refused_before_it_can_run_code(
    package: dict[str, bytes], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "PACKAGE", replace(samples.PACKAGE, sha256="0" * 64))
    with pytest.raises(InputError, match="not the published one"):
        samples.demonstration_ct()
    assert not (home / "samples").exists()


def test_changed_member_is_refused(package: dict[str, bytes], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {
        member: "0" * 64 if samples.LABEL_FILE in member else digest
        for member, digest in samples.PACKAGE.members.items()
    }
    monkeypatch.setattr(samples, "PACKAGE", replace(samples.PACKAGE, members=hashes))
    with pytest.raises(InputError, match="checksum"):
        samples.demonstration_ct()
    assert [path.name for path in (home / "samples").iterdir()] == [samples.CT_FILE]


def test_damaged_copy_is_not_used(package: dict[str, bytes], home: Path) -> None:
    (home / "samples").mkdir(parents=True)
    for name in package:
        (home / "samples" / name).write_bytes(b"damaged")
    samples.demonstration_ct()
    assert (home / "samples" / samples.CT_FILE).read_bytes() == package[samples.CT_FILE]


def test_without_a_network_the_reason_is_told() -> None:
    with pytest.raises(OfflineError, match="cannot be fetched with pip"):
        samples.demonstration_ct()


def test_cancelling_stops_pip() -> None:
    progress = Progress(lambda _: progress.cancel())
    with pytest.raises(Cancelled):
        samples.demonstration_ct(progress=progress)


def test_label_table_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(_nifti(np.zeros((2, 2, 2), np.uint8), _LABELS))
    assert samples._label_names(path) == {5: "liver", 3: "kidney_left"}
    offset = struct.unpack("<f", gzip.decompress(path.read_bytes())[108:112])[0]
    assert offset > 352


def test_phantom_has_organs_at_plausible_densities() -> None:
    sample = samples.phantom_sample()
    assert sample.synthetic
    means = {name: sample.volume.array[sample.reference == catalogue()[name].index].mean() for name in (
        "liver", "spleen", "left lung lower lobe", "vertebrae L3", "bladder")}  # fmt: skip
    assert 35 < means["liver"] < 65
    assert -900 < means["left lung lower lobe"] < -700
    assert means["vertebrae L3"] > 150 > means["bladder"]
    right, left = (np.argwhere(sample.reference == catalogue()[f"{side} kidney"].index)[:, 0].mean() for side in (
        "right", "left"))  # fmt: skip
    assert right > left  # RAS: the first axis runs towards the right


def test_phantom_fills_any_shape_with_the_same_anatomy() -> None:
    small, labels = paint_phantom((31, 23, 25), seed=3)
    extent = np.array(small.shape) * small.spacing
    np.testing.assert_allclose(extent, (372, 276, 300))
    assert {1, 3, 5, 14} <= set(np.unique(labels).tolist())
