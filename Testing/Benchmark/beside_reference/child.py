"""A side in a process of its own: answers questions, one JSON line each, until its input ends.

``python -m beside_reference.child SIDE SCENE`` is started by
:mod:`beside_reference.process`; what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from beside_reference.scene import MEMORY, Scene
from beside_reference.sides import OURS, RIVAL, SideName, parse_side
from VISTA3DCore.errors import VistaError, runtime_errors

#: The name under which the roof is measured.
PROBE = "probe"


class Answering:
    """One side and its clock.

    :param name: the side, or :data:`PROBE`.
    """

    def __init__(self, name: str, scene: Scene) -> None:
        import torch

        from VISTA3DCore.backends.devices import choose_device

        torch.set_num_threads(scene.threads)
        self.device, self._scene = choose_device(scene.device).device, scene
        if self.device.type == "cuda" and scene.device_memory is not None:
            share = scene.device_memory / torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(share, 1.0), self.device)
        self._side = None if name == PROBE else _side(parse_side(name), scene)
        self.questions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "about": lambda _: self._side.about(),
            "gate": lambda _: self._side.gate(),
            "begin": self._begin,
            "run": self._run,
            "profile": self._profile,
            "end": self._end,
            "roof": self._roof,
            "versions": lambda _: versions(self.device),
        }

    def _begin(self, question: dict[str, Any]) -> dict[str, Any]:
        self._side.begin(question["measure"], question["volume"])
        return {}

    def _end(self, _question: dict[str, Any]) -> dict[str, Any]:
        self._side.end()
        return {}

    def _run(self, question: dict[str, Any]) -> dict[str, Any]:
        from beside_reference.measuring import Stopwatch, device_peak, peak_memory

        watch = Stopwatch(self.device)
        if question["measure"] == MEMORY and self.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        before = peak_memory()
        facts = self._side.run(question["measure"], question["repetition"], watch)
        return {
            "seconds": sum(watch.stages.values()),
            "stages": dict(watch.stages),
            "processor": watch.processor,
            "peak_before": before,
            "peak": peak_memory(),
            "device_peak": device_peak(self.device),
            "facts": facts,
        }

    def _profile(self, _question: dict[str, Any]) -> dict[str, Any]:
        from beside_reference.measuring import Stopwatch

        watch = Stopwatch(self.device)
        facts = self._side.profiled(watch)
        return {"stages": dict(watch.stages), "facts": facts}

    def _roof(self, question: dict[str, Any]) -> dict[str, Any]:
        from beside_reference.roofline import probe

        return probe(self.device, self._scene.threads, question.get("side"), question.get("copy_bytes"))


def versions(device: Any) -> dict[str, str]:
    """Return what the figures depend on: versions of libraries and names of the hardware."""
    import platform
    from importlib import metadata

    import torch

    names = ("torch", "monai", "numpy", "openvino", "triton", "nninteractive")
    found = {name: _version(metadata, name) for name in names}
    facts = {name: version for name, version in found.items() if version} | {"python": platform.python_version()}
    facts |= {
        "system": platform.platform(),
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "device_memory_gb": f"{properties.total_memory / 1e9:.1f}"}
        facts |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return facts


def _version(metadata: Any, name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Return the processor's name as the system has it."""
    import platform
    from pathlib import Path

    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _side(name: SideName, scene: Scene) -> Any:
    """Return a side; its libraries are imported only now."""
    if name.kind == OURS:
        from beside_reference.ours import OurSide

        return OurSide(name, scene)
    if name.kind == RIVAL:
        from beside_reference.rival import RivalSide

        return RivalSide(scene)
    from beside_reference.theirs import ReferenceSide

    return ReferenceSide(name, scene)


def serve(name: str, scene: Scene, questions: TextIO, answers: TextIO) -> None:
    """Say hello, then answer until the questions end; an error is an answer, too."""

    def answer(action: Callable[[], dict[str, Any]]) -> None:
        try:
            with runtime_errors():
                result = action()
        except VistaError as error:
            result = {"error": str(error)}
        except Exception as error:  # another side's libraries may raise anything
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()

    answering: list[Answering] = []

    def start() -> dict[str, Any]:
        started = time.perf_counter()
        answering.append(Answering(name, scene))
        return {"loading": time.perf_counter() - started}

    answer(start)
    for line in questions:
        question = json.loads(line)
        answer(lambda question=question: answering[0].questions[question["ask"]](question))


def main() -> None:
    """Keep the real output for answers, and send what libraries print to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.argv[1], Scene.from_json(sys.argv[2]), sys.stdin, answers)


if __name__ == "__main__":
    main()
