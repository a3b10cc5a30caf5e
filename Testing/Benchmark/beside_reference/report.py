"""The report in Markdown: conditions first, then the roof, the gate, and a table for each measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beside_reference.measuring import Summary
from beside_reference.results import BenchmarkReport, Measurement

_NOTHING = "–"


def markdown(report: BenchmarkReport) -> str:
    """Return the report."""
    parts = [_head(report), _roof(report), _gate(report), *_measures(report), _profiles(report), _memory(report)]
    return "\n\n".join(part for part in (*parts, _not_measured(report)) if part) + "\n"


def _head(report: BenchmarkReport) -> str:
    settings, versions = report.settings, report.versions
    weights = settings["weights"]
    if weights in ("random", "structured"):
        weights += f", width {settings['width']}, window {settings['window']}^3, seed {settings['seed']}"
    facts = {
        "Date": report.date[:16].replace("T", " ") + " UTC",
        "Device": versions.get("device", "the processor"),
        "Processor": f"{versions.get('processor')}, {versions.get('capability')}, {settings['threads']} threads",
        "Versions": ", ".join(f"{name} {versions[name]}" for name in _LIBRARIES if name in versions),
        "Weights": weights,
        "Protocol": f"{settings['warmups']} warm-ups, {settings['repetitions']} repetitions, sides taking turns",
    }
    return "# Benchmark\n\n" + "\n".join(f"- **{name}**: {value}" for name, value in facts.items())


_LIBRARIES = ("python", "torch", "cuda", "cudnn", "monai", "openvino", "triton", "nninteractive")


def _roof(report: BenchmarkReport) -> str:
    if not report.roof:
        return ""
    rates = [(f"matrix product, {dtype}, GFLOP/s", counts) for dtype, counts in report.roof["gemm"].items()] + [
        ("copy, GB/s read and written", report.roof["copy"])
    ]
    threads = list(report.roof["copy"])
    rows = [[name, *(f"{counts[count]:,.0f}" for count in threads)] for name, counts in rates]
    note = (
        "'Of the roof' counts the products of ordinary convolutions beside the matrix products of all threads; a side "
        "that needs fewer products may exceed it."
    )
    return _table("What the hardware gives", ["", *(f"threads: {count}" for count in threads)], rows, note)


def _gate(report: BenchmarkReport) -> str:
    rows = []
    for side in report.sides:
        agreement, about = side.agreement, side.about
        rows.append([
            side.name, about.get("runtime", _NOTHING), about.get("precision", _NOTHING),
            _small(agreement.logits), _percent(agreement.winners, 3), _percent(agreement.labels, 3),
            _small(agreement.clicks), _seconds(side.starting),
            "no: " + side.refused if side.refused else "yes",
        ])  # fmt: skip
    heads = [
        "side", "runtime", "precision", "logits", "same class", "same labels", "click logits", "start, s", "measured",
    ]  # fmt: skip
    note = (
        "Beside the reference in float32: largest difference of logits relative to the largest one; voxels of a window "
        "with the same best class; labels after the whole chain. Start: from a new process to a loaded model."
    )
    return _table("Agreement, checked before anything was timed", heads, rows, note)


def _measures(report: BenchmarkReport) -> Iterable[str]:
    for measure, volume in dict.fromkeys((one.measure, one.volume) for one in report.measurements):
        members = [one for one in report.measurements if (one.measure, one.volume) == (measure, volume)]
        title = measure if volume == "window" else f"{measure}, volume {volume}"
        yield _table(title[:1].upper() + title[1:], _HEADS, [_row(one) for one in members], _shape_of(members))


_HEADS = [
    "side", "median, s", "minimum", "quartiles", "n", "cold", "processor, s", "GFLOP/s", "of the roof", "times faster",
    "same labels", "stages, s",
]  # fmt: skip


def _row(one: Measurement) -> list[str]:
    summary = one.seconds
    rate = _NOTHING if one.flops is None else f"{one.flops / summary.median / 1e9:,.0f}"
    stages = ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in one.stages.items())
    return [
        one.side, _seconds(summary.median), _seconds(summary.minimum), _quartiles(summary), str(summary.repetitions),
        _seconds(summary.cold), _seconds(one.processor), rate, _percent(one.of_peak, 0), _times(one.faster),
        _percent(one.labels, 3), stages if len(one.stages) > 1 else _NOTHING,
    ]  # fmt: skip


def _shape_of(members: Sequence[Measurement]) -> str:
    shapes = [one.facts["model_shape"] for one in members if "model_shape" in one.facts]
    return "" if not shapes else f"{' x '.join(map(str, shapes[0]))} voxels on the model grid."


def _profiles(report: BenchmarkReport) -> str:
    if not report.profiles:
        return ""
    stages = list(dict.fromkeys(name for one in report.profiles for name in one.stages))
    rows = [
        [one.volume, one.side, *(_seconds(one.stages.get(name)) for name in stages), _percent(one.outside, 1),
         _percent(one.network_of_peak, 0)]
        for one in report.profiles
    ]  # fmt: skip
    note = (
        "One run whose clock waits for the device at every stage, in seconds. The reference scores the classes in its "
        "network; the rest of ours (blending, reporting) is 'segmenting'."
    )
    heads = ["volume", "side", *stages, "outside the network", "network, of the roof"]
    return _table("Where the time of everything goes", heads, rows, note)


def _memory(report: BenchmarkReport) -> str:
    rows = [
        [one.volume, one.side, _gigabytes(one.peak), _gigabytes(one.one_window), _gigabytes(one.device_peak),
         _seconds(one.seconds)]
        for one in report.memory
    ]  # fmt: skip
    heads = ["volume", "side", "process, GB", "with one window only, GB", "device, GB", "seconds"]
    note = "The most that a process of its own held, from start to the end of everything."
    return _table("Memory", heads, rows, note) if rows else ""


def _not_measured(report: BenchmarkReport) -> str:
    rows = [[one["side"], one["measure"], one["volume"], one["reason"]] for one in report.not_measured]
    return _table("Not measured", ["side", "measure", "volume", "why"], rows) if rows else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
    return f"## {title}\n\n" + (f"{note}\n\n" if note else "") + table


def _seconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _times(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _quartiles(summary: Summary) -> str:
    return f"{_seconds(summary.lower_quartile)} to {_seconds(summary.upper_quartile)}"


def _percent(share: float | None, digits: int) -> str:
    return _NOTHING if share is None else f"{100 * share:.{digits}f} %"


def _small(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1e}"


def _gigabytes(size: int | None) -> str:
    return _NOTHING if size is None else f"{size / 1e9:.2f}"
