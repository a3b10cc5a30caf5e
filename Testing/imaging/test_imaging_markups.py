"""Point lists that Slicer's own storage nodes wrote, read back as clicks; damaged and doubtful files are refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.formats.markups import MAX_POINTS, read_clicks, read_markups

POSITIONS = [(1.5, -2.25, 3.125), (-10.0, 20.0, -30.123456789), (0.1, 250.0, -1200.0)]
SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"


@pytest.fixture(params=["LPS", "RAS"])
def system(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def save_points(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves a point list with Slicer's storage nodes; further points may be prepared."""
    slicer = pytest.importorskip("slicer")
    import vtk

    def save(name: str, system: str = "LPS", labels: tuple = (), prepare: Callable | None = None) -> Path:
        scene, node = slicer.vtkMRMLScene(), slicer.vtkMRMLMarkupsFiducialNode()
        node.SetName("F")
        scene.AddNode(node)
        for n, position in enumerate(POSITIONS):
            node.AddControlPoint(vtk.vtkVector3d(*position), labels[n] if n < len(labels) else f"F-{n + 1}")
        if prepare:
            prepare(node)
        kind = (
            slicer.vtkMRMLMarkupsFiducialStorageNode if name.endswith(".fcsv") else slicer.vtkMRMLMarkupsJsonStorageNode
        )
        storage = kind()
        scene.AddNode(storage)
        storage.SetCoordinateSystem(getattr(slicer.vtkMRMLStorageNode, f"CoordinateSystem{system}"))
        storage.SetFileName(str(tmp_path / name))
        assert storage.WriteData(node) == 1
        return tmp_path / name

    return save


@pytest.fixture
def read_with_slicer() -> Callable[[Path], list[tuple[float, ...]]]:
    """Return a function that tells which positions Slicer itself sees in a file."""
    slicer = pytest.importorskip("slicer")

    def read(path: Path) -> list[tuple[float, ...]]:
        scene, node = slicer.vtkMRMLScene(), slicer.vtkMRMLMarkupsFiducialNode()
        scene.AddNode(node)
        fcsv = path.name.endswith(".fcsv")
        storage = slicer.vtkMRMLMarkupsFiducialStorageNode() if fcsv else slicer.vtkMRMLMarkupsJsonStorageNode()
        scene.AddNode(storage)
        storage.SetFileName(str(path))
        assert storage.ReadData(node) == 1
        positions = []
        for n in range(node.GetNumberOfControlPoints()):
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPosition(n, position)
            positions.append(tuple(position))
        return positions

    return read


@pytest.mark.parametrize("name", ["points.mrk.json", "points.fcsv", "points.json"])
def test_what_slicer_saved_is_read_in_ras(save_points: Callable, name: str, system: str) -> None:
    path = save_points(name, system)
    points = read_markups(path)
    np.testing.assert_allclose([point.position for point in points], POSITIONS, rtol=0, atol=1e-9)
    assert [point.label for point in points] == ["F-1", "F-2", "F-3"]
    assert {point.markup for point in points} == {"points"}
    clicks = read_clicks(path)
    assert all(click.positive for click in clicks)
    np.testing.assert_allclose([click.position for click in clicks], POSITIONS, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv"])
def test_labels_with_commas_quotes_and_umlauts_survive(save_points: Callable, name: str, system: str) -> None:
    labels = ('neg, "unten" \\ links', "Köln", "")
    points = read_markups(save_points(name, system, labels, lambda node: node.SetNthControlPointDescription(0, "x, y")))
    assert tuple(point.label for point in points)[:2] == labels[:2]
    assert points[0].description == "x, y"
    assert [point.positive for point in points] == [False, True, True]


@pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv"])
def test_only_defined_points_count(save_points: Callable, name: str, system: str) -> None:
    def unset(node: object) -> None:
        node.UnsetNthControlPointPosition(0)
        node.SetNthControlPointPositionMissing(2)

    assert [point.label for point in read_markups(save_points(name, system, prepare=unset))] == ["F-2"]


@pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv"])
def test_points_that_are_not_selected_are_left_out_and_said(save_points: Callable, name: str) -> None:
    path = save_points(name, prepare=lambda node: node.SetNthControlPointSelected(1, False))
    with pytest.warns(UserWarning, match="not selected: 1 of the 3 points"):
        assert len(read_clicks(path)) == 2
    assert len(read_markups(path)) == 3

    def nothing(node: object) -> None:
        for n in range(3):
            node.SetNthControlPointSelected(n, False)

    with pytest.raises(InputError, match=r"No point of .* is selected"):
        read_clicks(save_points(name, prepare=nothing))


@pytest.mark.parametrize(
    ("label", "file", "positive"),
    [
        ("F-1", "points", True),
        ("Negative-1", "points", False),
        (" NEG 3", "points", False),
        ("- here", "points", False),
        ("\N{MINUS SIGN}", "points", False),
        ("background", "points", False),
        ("F-1", "neg_clicks", False),
        ("F-1", "-", False),
        ("F-1", "Background", False),
        ("positive-1", "neg_clicks", True),
        ("+", "neg_clicks", True),
        ("foreground", "neg_clicks", True),
        ("", "neg_clicks", False),
        ("not negative", "points", True),
        ("negligible", "points", True),
        ("negligible", "neg", False),
        ("posterior wall", "neg", False),
        ("backgrounds", "points", True),
        ("positron", "negative points", False),
        ("neg1", "points", False),
        ("neg_1", "points", False),
        ("NegativePoints-1", "points", False),
        ("F-1", "negativePoints", False),
    ],
)
def test_polarity_by_name(save_points: Callable, label: str, file: str, positive: bool) -> None:
    path = save_points(f"{file}.mrk.json", labels=(label,) * 3)
    assert [click.positive for click in read_clicks(path)] == [positive] * 3
    assert all(click.positive for click in read_clicks(path, "positive"))
    assert not any(click.positive for click in read_clicks(path, "negative"))
    with pytest.raises(InputError, match="no polarity 'both'"):
        read_clicks(path, "both")


def _json(path: Path, *markups: dict, **changes: object) -> Path:
    content = {"@schema": SCHEMA + "markups-schema-v1.0.3.json#", "markups": list(markups), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _list(*positions: object, **changes: object) -> dict:
    points = [{"label": f"F-{n}", "position": position} for n, position in enumerate(positions)]
    return {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points, **changes}


@pytest.mark.parametrize("system", [None, "LPS", "RAS", "0", "1"])
def test_coordinate_systems_of_json_as_slicer_understands_them(
    tmp_path: Path, read_with_slicer: Callable, system: str | None
) -> None:
    markup = _list([1, 2, 3], [4.5, 5, 6], coordinateSystem=system)
    if system is None:
        del markup["coordinateSystem"]
    path = _json(tmp_path / "a.mrk.json", markup)
    assert [point.position for point in read_markups(path)] == read_with_slicer(path)


def _fcsv(path: Path, *rows: str, system: str | None = "0", version: str = "4.10") -> Path:
    lines = [f"# Markups fiducial file version = {version}"] if version else []
    lines += [f"# CoordinateSystem = {system}"] if system else []
    lines += ["# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID", *rows]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return path


ROW = "vtkMRMLMarkupsFiducialNode_0,1.5,2,3,0,0,0,1,1,1,0,F-1,,vtkMRMLScalarVolumeNode1"


@pytest.mark.parametrize("system", ["0", "1", "LPS", "RAS"])
@pytest.mark.parametrize("version", ["4.6", "4.10", "5.6"])
def test_old_fcsv_files_as_slicer_understands_them(
    tmp_path: Path, read_with_slicer: Callable, system: str, version: str
) -> None:
    path = _fcsv(tmp_path / "a.fcsv", ROW, ROW.replace("1.5", "-7e1"), system=system, version=version)
    assert [point.position for point in read_markups(path)] == read_with_slicer(path)


def test_several_lists_in_one_file_with_names_of_their_own(tmp_path: Path) -> None:
    inside, outside = _list([1, 2, 3], name="Tumour"), _list([4, 5, 6], name="negatives", coordinateSystem="RAS")
    clicks = read_clicks(_json(tmp_path / "a.mrk.json", inside, outside))
    assert clicks == [Click((-1, -2, 3), True), Click((4, 5, 6), False)]


@pytest.mark.parametrize("kind", ["ClosedCurve", "Curve", "Line", "Angle", "Plane", "ROI"])
def test_points_of_curves_and_boxes_are_no_clicks(tmp_path: Path, kind: str) -> None:
    slicer = pytest.importorskip("slicer")
    import vtk

    scene, node = slicer.vtkMRMLScene(), getattr(slicer, f"vtkMRMLMarkups{kind}Node")()
    scene.AddNode(node)
    node.AddControlPoint(vtk.vtkVector3d(1, 2, 3))
    storage = getattr(slicer, f"vtkMRMLMarkups{kind}JsonStorageNode", slicer.vtkMRMLMarkupsJsonStorageNode)()
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "a.mrk.json"))
    assert storage.WriteData(node) == 1
    with pytest.raises(InputError, match=f"'a.mrk.json' holds markups of type '{kind}'.*point list"):
        read_markups(tmp_path / "a.mrk.json")
    both = _json(
        tmp_path / "b.mrk.json", json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0], _list([1, 2, 3])
    )
    with pytest.warns(UserWarning, match="left out"):
        assert [point.position for point in read_markups(both)] == [(-1, -2, 3)]


@pytest.mark.parametrize("units", ["mm", ["mm", "UCUM", "millimeter"], ["mm", "mm", "mm"]])
def test_millimetres_are_accepted_however_they_are_written(tmp_path: Path, units: object) -> None:
    assert read_markups(_json(tmp_path / "a.mrk.json", _list([1, 2, 3], coordinateUnits=units)))


@pytest.mark.parametrize("units", ["um", "cm", ["cm", "UCUM", "centimeter"], ["mm", "mm", "cm"], [], None, 3])
def test_other_units_are_refused(tmp_path: Path, units: object) -> None:
    with pytest.raises(InputError, match="must be in millimeters"):
        read_markups(_json(tmp_path / "a.mrk.json", _list([1, 2, 3], coordinateUnits=units)))


@pytest.mark.parametrize("system", ["2", "IJK", "lps", "", None, 1, ["LPS"], {}])
def test_other_coordinate_systems_are_refused(tmp_path: Path, system: object) -> None:
    with pytest.raises(InputError, match=r"coordinate system .* must be 'LPS' or 'RAS'"):
        read_markups(_json(tmp_path / "a.mrk.json", _list([1, 2, 3], coordinateSystem=system)))


def test_fcsv_must_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say its coordinate system"):
        read_markups(_fcsv(tmp_path / "a.fcsv", ROW, system=None))
    with pytest.raises(InputError, match="must be 'LPS' or 'RAS'"):
        read_markups(_fcsv(tmp_path / "a.fcsv", ROW, system="2"))
    with pytest.raises(InputError, match="not a markups file"):
        read_markups(_fcsv(tmp_path / "a.fcsv", ROW, version=""))


@pytest.mark.parametrize(
    "position",
    [[1, 2], [1, 2, 3, 4], ["1", "2", "3"], [True, 2, 3], "", None, {}, [1, 2, None], [1, 2, 10**400], [[1], 2, 3]],
)
def test_positions_that_are_none(tmp_path: Path, position: object) -> None:
    with pytest.raises(InputError, match=r"position of point 1 in 'a\.mrk.json' is not three finite numbers"):
        read_markups(_json(tmp_path / "a.mrk.json", _list(position)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_positions_that_are_not_finite(tmp_path: Path, number: str) -> None:
    path = _json(tmp_path / "a.mrk.json", _list([1, 2, 12345]))
    path.write_text(path.read_text().replace("12345", number))
    with pytest.raises(InputError, match="finite"):
        read_markups(path)
    with pytest.raises(InputError, match="finite"):
        read_markups(_fcsv(tmp_path / "a.fcsv", ROW.replace("1.5", number)))


@pytest.mark.parametrize("row", ["", "1,2", "1,x,y,z", "1,,,", "1,2,3,4abc", '"1,2,3', "\0,1,2", ","])
def test_damaged_rows(tmp_path: Path, row: str) -> None:
    with pytest.raises(InputError):
        read_markups(_fcsv(tmp_path / "a.fcsv", row))


@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"{", b"[]", b"null", b"{}", b'{"markups": 3}', b'{"markups": [3]}', b'{"markups": [{}]}',
        b'{"markups": []}', b'{"markups": [{"type": "Fiducial", "controlPoints": {}}]}', b"\xff\xfe{",
        b'{"markups": [{"type": "Fiducial", "controlPoints": [3]}]}', b"[" * 100000, b'{"a":' * 100000,
        b'{"markups": [{"type": ["Fiducial"]}]}', b"NRRD0004\n", b"\x1f\x8b\x08", b"1" * 10000, b"# x = y\n",
        b"# Markups fiducial file version = 5\n# CoordinateSystem = RAS\n1," + b"2" * 200000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.mrk.json", "a.fcsv"])
def test_damaged_files_are_one_sentence(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"'{name}'"):
        read_markups(tmp_path / name)


def test_no_file_no_points_too_many_points(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_markups(tmp_path / "none.mrk.json")
    with pytest.raises(InputError, match="cannot be opened"):
        read_markups(tmp_path)
    with pytest.raises(InputError, match="no point whose position is defined"):
        read_markups(_json(tmp_path / "a.mrk.json", _list()))
    with pytest.raises(InputError, match="more than 1,000"):
        read_markups(_json(tmp_path / "a.mrk.json", _list(*[[1, 2, 3]] * (MAX_POINTS + 1))))
    (tmp_path / "large.fcsv").write_bytes(b"#" * (9 << 20))
    with pytest.raises(InputError, match="larger than 8 MB"):
        read_markups(tmp_path / "large.fcsv")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["type", "coordinateSystem", "coordinateUnits", "controlPoints", "name"]), value=json_values)
def test_no_value_crashes_the_reader(tmp_path: Path, key: str, value: object) -> None:
    markup = {**_list([1, 2, 3]), key: value}
    markup["controlPoints"] = [{"position": [1, 2, 3], "label": value, "selected": value}, *(
        [value] if key == "controlPoints" else []
    )]  # fmt: skip
    with contextlib.suppress(InputError):
        assert read_markups(_json(tmp_path / "a.mrk.json", markup))[0].position == (-1, -2, 3)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path: Path, data: bytes) -> None:
    header = b"# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n"
    for content in (data, header + data, b'{"markups": [' + data):
        (tmp_path / "a.fcsv").write_bytes(content)
        with contextlib.suppress(InputError):
            assert read_markups(tmp_path / "a.fcsv")
