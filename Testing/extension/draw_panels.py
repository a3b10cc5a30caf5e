"""Draws the module's panel from its .ui files, without Slicer: a stand-in that shows sizes, wrapping and cut text.

Needs PySide6 in an environment of its own: ``python -m venv qt && qt/bin/pip install PySide6-Essentials``::

    QT_QPA_PLATFORM=offscreen qt/bin/python Testing/extension/draw_panels.py FOLDER

Writes a picture for each theme, font size and width, with every section open, and ``panel.png`` for the README;
prints which texts are cut and how wide each panel must be. Slicer's own widgets are replaced by simple ones of about
the same size, so this shows what the files ask for, not what Slicer makes of it: the tests in
``VISTA3DSegment/Testing/Python`` take pictures of that.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from PySide6.QtCore import QFile, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPalette
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QTableWidgetItem,
    QToolButton,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

FOLDER = Path(__file__).resolve().parents[2] / "VISTA3DSegment" / "Resources" / "UI"
THEMES, POINTS, WIDTHS = ("light", "dark"), (9, 13), (320, 500)
LONG = "A sentence of the engine that says what is wrong and what to do about it, which takes more than one line."
# What the parts of the panel say in the pictures.
TEXTS = {
    "estimateLabel": "About 9 minutes on this processor; about 40 seconds for a region of 20 cm.",
    "summaryLabel": f"77 of 112 structures were found.\nNot found in the volume: Liver and 34 more.\n{LONG}",
    "findingsLabel": f"PyTorch 2.9 works.\n{LONG}",
    "latencyLabel": "Last click: 0.42 s (0.31 s in the engine).",
    "modelLabel": "Model: VISTA3D for CT (NV-Segment-CT) (chosen in the VISTA3D module).",
    "stateLabel": LONG,
}
# What it says on an ordinary day, for the picture in the README.
EXAMPLE_TEXTS = {
    "estimateLabel": "About 40 seconds on this graphics card.",
    "summaryLabel": "77 of 112 structures were found.\nNot found in the volume: prostate and 34 more.",
    "latencyLabel": "Last click: 0.42 s (0.31 s in the engine).",
    "stateLabel": "Ready: click what belongs to 'liver', Ctrl+click what does not.",
}
EXAMPLE_CHOICES = {
    "volumeSelector": "CT abdomen",
    "segmentationSelector": "CT abdomen segmentation",
    "structuresSelector": "Everything (117 structures)",
    "modelSelector": "VISTA3D for CT",
    "deviceSelector": "Graphics card",
    "qualitySelector": "Standard",
    "regionSelector": "Whole volume",
    "objectBox": "liver",
    "pointsSelector": "None",
}


class Section(QFrame):
    """In the place of ``ctkCollapsibleButton``: a title, and below it what is in the section."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.StyledPanel)
        self.title = QLabel(self)

    def resizeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        height = self.title.sizeHint().height()
        self.setContentsMargins(0, height + 4, 0, 0)
        self.title.setGeometry(8, 2, self.width() - 16, height)


class NodeBox(QComboBox):
    """In the place of ``qMRMLNodeComboBox``, whose texts may be longer than its width."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.addItem("A volume with a long name")
        self.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)


class Editor(QLabel):
    """In the place of the Segment Editor."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("(Segment Editor)", parent)
        self.setFrameShape(QFrame.Box)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(280, 60)


STAND_INS = {
    "qMRMLWidget": QWidget,
    "ctkCollapsibleButton": Section,
    "qMRMLNodeComboBox": NodeBox,
    "ctkComboBox": QComboBox,
    "ctkSearchBox": QLineEdit,
    "ctkPathLineEdit": QLineEdit,
    "qMRMLSegmentEditorWidget": Editor,
    "qMRMLSegmentationShow3DButton": QPushButton,
}


class Loader(QUiLoader):
    """Reads .ui files with widgets in the place of Slicer's."""

    def createWidget(self, name: str, parent: QWidget | None = None, object_name: str = "") -> QWidget:  # noqa: N802
        if name not in STAND_INS:
            return super().createWidget(name, parent, object_name)
        widget = STAND_INS[name](parent)
        widget.setObjectName(object_name)
        return widget


def load(name: str) -> QWidget:
    file = QFile(str(FOLDER / f"{name}.ui"))
    file.open(QFile.ReadOnly)
    widget = Loader().load(file)
    for section in widget.findChildren(Section):
        section.title.setText(f"\N{BLACK DOWN-POINTING SMALL TRIANGLE} {section.property('text')}")
    for label, text in ((widget.findChild(QLabel, name), text) for name, text in TEXTS.items()):
        if label is not None and label.wordWrap():
            label.setText(text)
            label.setVisible(True)
    for button in widget.findChildren(QAbstractButton):
        button.setVisible(True)
    return widget


def message() -> QWidget:
    """Return what ``widgets/message.py`` makes."""
    bar = QFrame()
    bar.setFrameShape(QFrame.StyledPanel)
    bar.setObjectName("message")
    row, label = QHBoxLayout(bar), QLabel(f'{LONG} <a href="x">Open Setup</a>')
    row.setContentsMargins(8, 6, 4, 6)
    label.setWordWrap(True)
    row.addWidget(QLabel("\N{WARNING SIGN}"), 0, Qt.AlignTop)
    row.addWidget(label, 1)
    row.addWidget(QToolButton(text="\N{MULTIPLICATION SIGN}"), 0, Qt.AlignTop)
    return bar


def panel() -> tuple[QWidget, dict[str, QWidget]]:
    """Return the whole panel, put together as ``widgets/module_panel.py`` does it, and its parts."""
    whole = load("VISTA3DSegment")
    parts = {name: load(name) for name in ("AutomaticPanel", "RefinePanel", "ClickPanel", "ResultsPanel", "SetupPanel")}
    parts["AutomaticPanel"].findChild(QVBoxLayout, "segmentLayout").addWidget(message())
    parts["SetupPanel"].layout().addWidget(message())
    table, tree = (
        parts["ClickPanel"].findChild(QWidget, "clickTable"),
        parts["SetupPanel"].findChild(QWidget, "modelTree"),
    )
    table.setRowCount(1)
    for column, text in enumerate(("Add", "-12.3, 145.6, 78.9", "changed the segment")):
        table.setItem(0, column, QTableWidgetItem(text))
    tree.setHeaderLabels(["Model", "Size", "State"])
    tree.addTopLevelItem(QTreeWidgetItem(["VISTA3D for CT (NV-Segment-CT)", "872 MB", "Not downloaded"]))
    whole.layout().insertWidget(0, parts["AutomaticPanel"])
    for section, part in (("refine", "RefinePanel"), ("refine", "ClickPanel")):
        whole.findChild(Section, f"{section}Section").layout().addWidget(parts[part])
    whole.findChild(Section, "resultsSection").layout().addWidget(parts["ResultsPanel"])
    whole.findChild(Section, "setupSection").layout().addWidget(parts["SetupPanel"])
    return whole, parts


def cut_texts(widget: QWidget) -> list[str]:
    """Return the names of labels and buttons that are smaller than their texts."""
    cut = []
    for one in [*widget.findChildren(QLabel), *widget.findChildren(QAbstractButton)]:
        if not one.isVisibleTo(widget) or one is getattr(one.parent(), "title", None):
            continue
        wraps = isinstance(one, QLabel) and one.wordWrap()
        needed = one.heightForWidth(one.width()) if wraps else one.sizeHint().height()
        if one.height() < needed - 1 or (not wraps and one.width() < one.minimumSizeHint().width() - 1):
            cut.append(one.objectName() or one.text()[:20])
    return cut


def palette(theme: str) -> QPalette:
    found = QPalette()
    if theme == "dark":
        colors = {"Window": "#353535", "Base": "#232323", "AlternateBase": "#2b2b2b", "Button": "#404040"}
        for role, color in colors.items():
            found.setColor(QPalette.ColorRole[role], QColor(color))
        for role in ("WindowText", "Text", "ButtonText", "PlaceholderText"):
            found.setColor(QPalette.ColorRole[role], QColor("#e0e0e0"))
        found.setColor(QPalette.ColorRole.Link, QColor("#7ab8ff"))
    return found


def draw_example(path: Path) -> None:
    """Write the picture of the README: the panel as it looks in use, without Setup and messages."""
    whole, _ = panel()
    for name, text in EXAMPLE_TEXTS.items():
        whole.findChild(QLabel, name).setText(text)
    for name, text in EXAMPLE_CHOICES.items():
        box = whole.findChild(QComboBox, name)
        box.clear()
        box.addItem(text)
    for name in ("cleanupBox", "keepEmptyBox"):
        whole.findChild(QAbstractButton, name).setChecked(False)
    for name in ("keepBox", "positiveButton"):
        whole.findChild(QAbstractButton, name).setChecked(True)
    hidden = [one for one in whole.findChildren(QFrame) if one.objectName() == "message"]
    for one in [*hidden, whole.findChild(QWidget, "setupSection")]:
        one.hide()
    for button in whole.findChild(QWidget, "resultsSection").findChildren(QAbstractButton):
        button.setEnabled(True)
    whole.resize(380, 100)
    whole.show()
    QApplication.processEvents()
    whole.resize(380, whole.heightForWidth(380) if whole.hasHeightForWidth() else whole.sizeHint().height())
    QApplication.processEvents()
    whole.grab().save(str(path))


def main(folder: Path) -> None:
    app = QApplication([])
    app.setStyle("Fusion")
    folder.mkdir(parents=True, exist_ok=True)
    for theme, points, width in product(THEMES, POINTS, WIDTHS):
        app.setPalette(palette(theme))
        app.setFont(QFont("DejaVu Sans", points))
        area, (whole, parts) = QScrollArea(), panel()
        area.setWidgetResizable(True)
        area.setWidget(whole)
        area.resize(width, 1000)
        bars = [one for one in whole.findChildren(QFrame) if one.objectName() == "message"]
        for bar in bars:
            bar.hide()
        area.show()
        app.processEvents()
        for bar in bars:  # they come when the panel is there already
            bar.show()
        app.processEvents()
        area.resize(width, whole.height() + 40)
        app.processEvents()
        name = f"{theme}_{points}pt_{width}px"
        area.grab().save(str(folder / f"{name}.png"))
        if theme == THEMES[0]:
            wide = {part: widget.minimumSizeHint().width() for part, widget in parts.items()}
            print(name, "cut:", cut_texts(whole), "panel:", whole.width(), "at least:", wide)
    app.setPalette(palette("light"))
    app.setFont(QFont("DejaVu Sans", 9))
    draw_example(folder / "panel.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
