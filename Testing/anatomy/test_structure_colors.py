"""Colours: as radiologists expect them, and neighbours can be told apart."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest

from VISTA3DCore.anatomy.catalogue import catalogue

CT = catalogue()
CTMR = catalogue("vista3d-ctmr")
SPINE = [*range(56, 32, -1), 127, 97]
LEFT_RIBS, RIGHT_RIBS = range(63, 75), range(75, 87)

# Structures that touch or are seen side by side, by index; ribs, vertebrae and sides are added below.
TOUCHING = {
    1: (3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 25, 26, 32, 62, 115),
    3: (9, 12, 14, 28, 29, 62),
    4: (3, 6, 7, 9, 12, 13, 14, 17, 19, 24, 62),
    5: (7, 8, 13, 62, 107, 117),
    6: (7, 11, 17, 57, 58, 59, 109, 112, 115, 119, 123),
    7: (17, 58, 59, 60, 61),
    10: (13, 26),
    12: (11, 13, 19, 62),
    13: (6, 7, 19, 62),
    14: (4, 6, 9, 19, 62, 106, 116),
    15: (19, 62, 118),
    19: (15, 27, 62),
    22: (120, 121),
    24: (13, 17),
    25: (7, 17, 26),
    27: (15, 62),
    57: (6, 11, 109, 110, 111, 112, 113, 126, 132),
    58: (59, 60, 61, 106),
    59: (60, 61, 107),
    95: (58, 60, 93, 97, 98, 100, 102, 106),
    96: (59, 61, 94, 97, 99, 101, 103, 107),
    97: (95, 96, 98, 99, 104, 105),
    98: (93, 100, 102),
    99: (94, 101, 103),
    100: (102,),
    101: (103,),
    93: (102, 106),
    94: (103, 107),
    104: (33, 106, 127),
    105: (33, 107, 127),
    106: (33, 34, 35, 62),
    87: (89, 91),
    88: (90, 92),
    91: (63, 89, 122, 123),
    92: (75, 90, 122, 124),
    115: (6, 7, 11, 28, 29, 31, 32, 108, 119, 125),
    119: (6, 11, 28, 29, 30, 31, 32, 108),
    109: (110, 111, 112, 113, 124),
    110: (111, 112, 123, 125),
    111: (113, 124, 125),
    112: (123, 126),
    113: (124, 126),
    114: (122, *LEFT_RIBS, *RIGHT_RIBS),
    120: (56, 128),
    121: SPINE,
    122: (*LEFT_RIBS[:7], *RIGHT_RIBS[:7], 128),
    23: (28, 29, 30, 31, 32),
    128: (*SPINE, *LEFT_RIBS, *RIGHT_RIBS, *range(87, 97)),
    132: (11, 28, 29, 30, 31, 32, 115, 119),
}


def lab(color):
    """Convert sRGB (0 to 255) to CIE L*a*b* under D65."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color))
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def difference(first, second):
    """Return the CIE 1976 colour difference; about 2.3 is just noticeable side by side."""
    return math.dist(lab(first.color), lab(second.color))


def neighbours():
    pairs = {(first, second) for first, others in TOUCHING.items() for second in others}
    pairs |= {*pairwise(SPINE), *pairwise(LEFT_RIBS), *pairwise(RIGHT_RIBS), *zip(LEFT_RIBS, RIGHT_RIBS, strict=True)}
    for ribs in (LEFT_RIBS, RIGHT_RIBS):
        for n, rib in enumerate(ribs):  # a rib meets the vertebra of its number and the one above
            pairs |= {(rib, 49 - n), (rib, 50 - n), (rib, 104), (rib, 105)}
    return sorted(pairs | {(28, 29), (30, 31), (30, 32), (31, 32), (28, 30), (29, 32)})


@pytest.mark.parametrize("label_set", [CT, CTMR], ids=lambda label_set: label_set.name)
def test_no_two_structures_share_a_colour(label_set):
    usable = [structure for structure in label_set if structure.supported]
    assert len({structure.color for structure in usable}) == len(usable)
    assert all(0 <= channel <= 255 for structure in label_set for channel in structure.color)


def test_neighbours_can_be_told_apart():
    close = {(CT[a].name, CT[b].name): difference(CT[a], CT[b]) for a, b in neighbours()}
    assert not {pair: round(value, 1) for pair, value in close.items() if value < 15}


@pytest.mark.parametrize(("label_set", "least"), [(CT, 11), (CTMR, 8)], ids=["ct", "ctmr"])
def test_sides_can_be_told_apart(label_set, least):
    named = {structure.display_name: structure for structure in label_set if structure.supported}
    pairs = [(s, named.get(name.replace("Left", "Right"))) for name, s in named.items() if name.startswith("Left ")]
    assert not [(a.name, difference(a, b)) for a, b in pairs if b and difference(a, b) < least]


def test_conventions():
    def rgb(name):
        return CT[name].color

    arteries = [s for s in CT.groups["vessels"] if name_words(s) & {"artery", "aorta", "trunk"}]
    veins = [s for s in CT.groups["vessels"] if name_words(s) & {"vein", "vena", "vessel"}]
    assert len(arteries) + len(veins) == len(CT.groups["vessels"])
    assert all(s.color[0] == max(s.color) and s.color[0] > 1.3 * s.color[2] for s in arteries)
    assert all(s.color[2] == max(s.color) and s.color[2] > 1.3 * s.color[0] for s in veins)
    for bone in CT.resolve(["vertebrae", "ribs"]):
        lightness, _, yellowness = lab(bone.color)
        assert lightness > 50
        assert yellowness > 5
    for tumor in ("lung tumor", "pancreatic tumor", "hepatic tumor", "colon cancer primaries", "bone lesion"):
        assert rgb(tumor)[1] == max(rgb(tumor))
    red, green, blue = rgb("liver")
    assert red > green > blue


def name_words(structure):
    return set(structure.name.split())


def test_lesions_differ_from_each_other():
    lesions = CT.groups["lesions"]
    assert min(difference(a, b) for a, b in combinations(lesions, 2)) > 10
