"""The benchmark itself: roof, gate, then every measure with the sides taking turns (A, B, A, B ...)."""

from __future__ import annotations

import datetime
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beside_reference import scene as scenes
from beside_reference.child import PROBE
from beside_reference.effort import effort_of
from beside_reference.gate import equal_share, judge
from beside_reference.measuring import Summary
from beside_reference.process import SideError, SideProcess
from beside_reference.results import (
    BenchmarkReport,
    Measurement,
    MemoryReport,
    Profile,
    SideReport,
)
from beside_reference.roofline import peak_gemm
from beside_reference.scene import Scene
from beside_reference.sides import REFERENCE, RIVAL, SideName, parse_side
from beside_reference.volumes import Size, one_window, phantom, write_volume
from beside_reference.weights import RANDOM, STRUCTURED, write_weights
from beside_reference.work import NetworkWork, network_work
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.models.checkpoints import inspect_checkpoint
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

#: What all others are compared with.
_TRUTH = SideName(REFERENCE, precision="float32")
_GATE_SHARE = 0.75
_ON_VOLUMES = (scenes.EVERYTHING, scenes.ONE_CLASS, scenes.SECOND_CLASS)
_NO_VOLUME = "window"


@dataclass(frozen=True)
class Plan:
    """What to measure.

    :param sides: who; :param measures: names from :data:`beside_reference.scene.WHAT`.
    :param sizes: phantoms of the automatic measures; :param images: CTs of one's own, files.
    :param weights: ``random``, ``structured``, or a model's name or file; :param width: and :param window: of the
        network with random weights.
    :param warmups: runs before the repetitions; the first one is reported as the cold one.
    :param probe_side: and :param probe_bytes: sizes of the roof's probes instead of the usual ones.
    """

    sides: tuple[SideName, ...]
    measures: tuple[str, ...]
    sizes: tuple[Size, ...] = ()
    images: tuple[Path, ...] = ()
    weights: str = RANDOM
    width: int = 48
    window: int = 128
    device: str = "auto"
    threads: int = 1
    repetitions: int = 5
    warmups: int = 2
    seed: int = 0
    device_memory: int | None = None
    probe_side: int | None = None
    probe_bytes: int | None = None

    def check(self) -> None:
        """:raises InputError: if there is nothing to do, or a number makes no sense."""
        on_volumes = {*_ON_VOLUMES, scenes.MEMORY} & set(self.measures)
        if on_volumes and not (self.sizes or self.images):
            raise InputError("Nothing to segment was named; give --size or --image.")
        for path in self.images:
            if not path.exists():
                raise InputError(f"There is no file or folder '{path}'.")
        if self.repetitions < 1 or self.warmups < 0 or self.threads < 1:
            raise InputError("Give at least one repetition and one thread, and no negative number of warm-ups.")

    def facts(self) -> dict[str, Any]:
        """Return the plan for the report."""
        names = {"sides": [str(one) for one in self.sides], "images": [str(path) for path in self.images]}
        return {**asdict(self), **names}


def benchmark(plan: Plan, progress: Progress | None = None) -> BenchmarkReport:
    """Measure.

    :raises VistaError: if nothing can be measured at all; a side that fails is named in the report instead.
    """
    plan.check()
    with tempfile.TemporaryDirectory(prefix="vista3d-benchmark-") as folder:
        return _Run(plan, Path(folder).absolute(), Progress.of(progress)).whole()


class _Run:
    """One run with its folder."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._model, self._config = _model(plan, folder)
        self._work: NetworkWork = network_work(self._config)
        self._classes = len(scenes.class_lists(self._config)[0])
        self.report = BenchmarkReport(
            plan.facts(), datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")
        )
        self._scene = self._prepared_scene()

    def whole(self) -> BenchmarkReport:
        """Do everything in order."""
        self._progress.update(0.0, "Measuring the hardware")
        with SideProcess(PROBE, self._scene) as probe:
            self.report.versions = probe.ask("versions")
            self.report.roof = probe.ask("roof", side=self._plan.probe_side, copy_bytes=self._plan.probe_bytes)
        self._progress.update(0.02, "Computing what all sides must agree with")
        with SideProcess(str(_TRUTH), self._scene) as truth:
            expected = truth.ask("gate")
        with ExitStack() as stack:
            sides = [one for name in self._plan.sides if (one := self._started(name, expected, stack)) is not None]
            self._timed(sides)
        self._memory()
        self._progress.update(1.0, "Measured")
        return self.report

    def _prepared_scene(self) -> Scene:
        """Write the small volumes."""
        files = {name: self._folder / f"{name}.nii.gz" for name in ("clicks", "gate")}
        for path, share in zip(files.values(), (1.0, _GATE_SHARE), strict=True):
            size = one_window(self._config.window, self._config.spacing, share)
            write_volume(path, phantom(size, self._plan.seed))
        places = {"click_volume": str(files["clicks"]), "gate_volume": str(files["gate"]), "folder": str(self._folder)}
        plan = self._plan
        return Scene(self._model, **places, device=plan.device, threads=plan.threads, device_memory=plan.device_memory)

    def _started(self, name: SideName, expected: dict[str, str], stack: ExitStack) -> SideProcess | None:
        """Start a side and check it; what fails is reported and left out."""
        self._progress.update(0.05, "Checking that the sides agree", str(name))
        side = SideReport(str(name))
        self.report.sides.append(side)
        process = None
        try:
            process = stack.enter_context(SideProcess(str(name), self._scene))
            side.starting, side.loading = process.starting, process.loading
            side.about = process.ask("about")
            side.agreement = judge(name, side.about["precision"], process.ask("gate"), expected)
            side.refused = side.agreement.refused
        except SideError as error:
            side.refused = str(error)
        if side.refused is not None and process is not None:
            process.close()
        return process if side.refused is None else None

    def _timed(self, sides: Sequence[SideProcess]) -> None:
        """Run all measures but memory; the sides take turns."""
        steps = list(self._steps())
        for number, (measure, volume, path) in enumerate(steps):
            part = self._progress.part(0.1 + 0.8 * number / len(steps), 0.1 + 0.8 * (number + 1) / len(steps))
            self._measure(measure, volume, path, sides, part)

    def _steps(self) -> Iterator[tuple[str, str, str]]:
        """Yield measure, name of the volume and its file."""
        for measure in self._plan.measures:
            if measure not in (*_ON_VOLUMES, scenes.MEMORY):
                yield measure, _NO_VOLUME, ""
        on_volumes = [measure for measure in self._plan.measures if measure in _ON_VOLUMES]
        for name, path in self._volumes() if on_volumes else ():
            yield from ((measure, name, path) for measure in on_volumes)

    def _volumes(self) -> Iterator[tuple[str, str]]:
        """Yield names and files of the volumes; what is not there yet is painted or converted."""
        for number, source in enumerate((*self._plan.sizes, *self._plan.images)):
            path = self._folder / f"volume-{number}.nii.gz"
            if not path.exists():
                volume = phantom(source, self._plan.seed) if isinstance(source, Size) else Volume.read(source)
                write_volume(path, volume)
            yield source.name, str(path)

    def _measure(self, measure: str, volume: str, path: str, sides: Sequence[SideProcess], progress: Progress) -> None:
        ready = [side for side in sides if self._asked(side, measure, volume, "begin", volume=path) is not None]
        runs: dict[str, list[dict]] = {side.name: [] for side in ready}
        total = self._plan.warmups + self._plan.repetitions
        for repetition in range(total):
            for side in list(ready):
                progress.update(repetition / total, f"Measuring: {measure}", f"{volume}, {side.name}")
                answer = self._asked(side, measure, volume, "run", repetition=repetition)
                if answer is None:
                    ready.remove(side)
                    runs.pop(side.name)
                else:
                    runs[side.name].append(answer)
        if measure == scenes.EVERYTHING:
            self._profile(ready, volume)
        for side in ready:
            self._asked(side, measure, volume, "end")
        self._summarise(measure, volume, runs)

    def _asked(self, side: SideProcess, measure: str, where: str, question: str, **details: object) -> dict | None:
        """Ask a side; note what it cannot do and return None."""
        try:
            return side.ask(question, measure=measure, **details)
        except SideError as error:
            note = {"measure": measure, "volume": where, "side": side.name, "reason": str(error)}
            self.report.not_measured.append(note)
            return None

    def _summarise(self, measure: str, volume: str, runs: dict[str, list[dict]]) -> None:
        found = [self._measurement(measure, volume, name, answers) for name, answers in runs.items()]
        shipped = next((one for one in found if parse_side(one.side).kind == REFERENCE), None)
        for one in found:
            if shipped is None or one is shipped:
                self.report.measurements.append(one)
            else:
                faster = shipped.seconds.median / one.seconds.median
                self.report.measurements.append(replace(one, faster=faster, labels=_equal_labels(one, shipped)))
        for one in found:
            one.facts.pop("labels", None)

    def _measurement(self, measure: str, volume: str, name: str, answers: list[dict]) -> Measurement:
        counted = answers[self._plan.warmups :]
        cold = answers[0]["seconds"] if self._plan.warmups else None
        summary = Summary.of([one["seconds"] for one in counted], cold)
        facts = dict(counted[-1]["facts"])
        work = effort_of(parse_side(name).kind, measure, facts, self._config, self._work, self._classes)
        return Measurement(
            measure, volume, name, summary,
            processor=statistics.median(one["processor"] for one in counted),
            stages=_medians([one["stages"] for one in counted]),
            flops=work and work.flops, values=work and work.values,
            of_peak=self._share_of_peak(name, work and work.flops, summary.median), facts=facts,
        )  # fmt: skip

    def _share_of_peak(self, name: str, flops: int | None, seconds: float) -> float | None:
        about = next(side.about for side in self.report.sides if side.name == name)
        peak = peak_gemm(self.report.roof, about["precision"], self._plan.threads)
        return None if flops is None or peak is None else flops / seconds / 1e9 / peak

    def _profile(self, sides: Sequence[SideProcess], volume: str) -> None:
        for side in sides:
            answer = self._asked(side, scenes.EVERYTHING, volume, "profile")
            if answer is None or "network" not in answer["stages"]:
                continue
            stages, kind = answer["stages"], parse_side(side.name).kind
            work = effort_of(kind, scenes.EVERYTHING, answer["facts"], self._config, self._work, self._classes)
            share = self._share_of_peak(side.name, work and work.flops, stages["network"])
            outside = 1.0 - stages["network"] / sum(stages.values())
            self.report.profiles.append(Profile(volume, side.name, stages, outside, share))

    def _memory(self) -> None:
        """Measure the memory of each side in a new process, alone."""
        if scenes.MEMORY not in self._plan.measures:
            return
        accepted = [parse_side(one.name) for one in self.report.sides if one.refused is None]
        for volume, path in self._volumes():
            for name in (one for one in accepted if one.kind != RIVAL):
                self._progress.update(0.9, "Measuring memory", f"{volume}, {name}")
                try:
                    self.report.memory.append(self._memory_of(name, volume, path))
                except SideError as error:
                    note = {"measure": scenes.MEMORY, "volume": volume, "side": str(name), "reason": str(error)}
                    self.report.not_measured.append(note)

    def _memory_of(self, name: SideName, volume: str, path: str) -> MemoryReport:
        with SideProcess(str(name), self._scene) as side:
            side.ask("begin", measure=scenes.WINDOW, volume=path)
            before = side.ask("run", measure=scenes.WINDOW, repetition=0)
            side.ask("end")
            side.ask("begin", measure=scenes.MEMORY, volume=path)
            after = side.ask("run", measure=scenes.MEMORY, repetition=0)
        # Linux adds up its counters of pages now and then only: a peak may read a little lower later on.
        peak = None if after["peak"] is None else max(after["peak"], before["peak"])
        return MemoryReport(volume, str(name), peak, before["peak"], after["device_peak"], after["seconds"])


def _model(plan: Plan, folder: Path) -> tuple[str, ModelConfig]:
    """Return the checkpoint that all sides load, and its configuration."""
    if plan.weights not in (RANDOM, STRUCTURED):
        path = ModelStore().resolve(plan.weights).absolute()  # for processes that work elsewhere
        return str(path), inspect_checkpoint(path)[0]
    config = ModelConfig(name=f"{plan.weights} weights", width=plan.width, window=(plan.window,) * 3)
    path = folder / "weights.safetensors"
    write_weights(path, plan.weights, config, plan.seed)
    return str(path), config


def _equal_labels(one: Measurement, reference: Measurement) -> float | None:
    if "labels" not in one.facts or "labels" not in reference.facts:
        return None
    return equal_share(np.load(one.facts["labels"]), np.load(reference.facts["labels"]))


def _medians(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in stages) for name in stages[0]}
