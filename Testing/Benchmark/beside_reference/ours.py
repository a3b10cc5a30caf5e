"""Our side: a :class:`Segmenter` with one runtime and precision, asked as its users ask it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from beside_reference import scene as scenes
from beside_reference.measuring import Stopwatch, counted_methods, synchronize
from beside_reference.scene import Scene
from beside_reference.sides import SideName
from VISTA3DCore.errors import DeviceError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.feature_map import BatchingBackend
from VISTA3DCore.inference.automatic.labels import ClassScores, LabelMap
from VISTA3DCore.inference.automatic.resample_on_device import DeviceRestorer
from VISTA3DCore.inference.automatic.resample_to_input import NearestRestorer
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.inference.session import Session
from VISTA3DCore.network.click_head import ClickTokens


class OurSide:
    """Runs the measures with our engine.

    :raises DeviceError: if the runtime or precision that was asked for is not what would run.
    """

    def __init__(self, name: SideName, scene: Scene) -> None:
        self._name, self._scene = name, scene
        self._segmenter = _loaded(name, scene)
        self._config = self._segmenter.config
        self._classes = scenes.class_lists(self._config)
        self._session: Session | None = None
        self._patch: torch.Tensor | None = None
        self._volume = ""

    @property
    def device(self) -> torch.device:
        return self._segmenter.device

    def about(self) -> dict[str, str]:
        """Return what really runs."""
        chosen = self._segmenter
        return {
            "runtime": chosen.runtime,
            "precision": chosen.precision,
            "device": str(chosen.device),
            "reason": chosen.runtime_reason,
        }

    def gate(self) -> dict[str, str]:
        """Leave behind what is compared with the reference: logits of a window and of clicks, labels of a chain."""
        backend, files = self._segmenter.backend, {}
        patch = torch.from_numpy(scenes.gate_patch(self._config))[None, None]
        features = scenes.thinned(backend.automatic_features(patch).float().cpu().numpy())
        matrix = backend.class_matrix(self._classes[0]).float().cpu().numpy()
        files["logits"] = self._save("logits", np.tensordot(matrix, features, axes=1))
        with self._segmenter.open(Volume.read(self._scene.gate_volume)) as session:
            files["labels"] = self._save("labels", session.segment("everything", streaming=True, cleanup=False).labels)
        if self._config.click_branch:
            places, positive = scenes.click_places(self._config, 3)
            tokens = ClickTokens(tuple(map(tuple, places.tolist())), tuple(positive))
            scores = backend.click_scores(backend.click_features(patch), tokens)
            files["clicks"] = self._save("clicks", scenes.thinned(scores.float().cpu().numpy()))
        return files

    def begin(self, measure: str, volume: str) -> None:
        """Prepare a measure on a volume (a file); nothing of this is timed."""
        self._volume = volume
        if measure == scenes.WINDOW:
            self._patch = torch.from_numpy(scenes.gate_patch(self._config))[None, None].to(self.device)
        elif measure == scenes.SECOND_CLASS:
            self._session = self._segmenter.open(Volume.read(self._volume))
            self._session.segment(self._classes[0])
        elif measure.startswith((scenes.CLICK, scenes.FIRST_CLICK)):
            self._session = self._segmenter.open(Volume.read(self._scene.click_volume), click_cache_bytes=1 << 30)

    def end(self) -> None:
        """Free what the measure needed."""
        if self._session is not None:
            self._session.close()
        self._session = self._patch = None

    def run(self, measure: str, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        """Run a measure once; ``watch`` counts its stages.

        :return: facts about the run.
        """
        return self._actions()[measure](repetition, watch)

    def profiled(self, watch: Stopwatch) -> dict[str, Any]:
        """Run "everything" once with the network, labels and restoration counted apart; waiting makes it slower."""
        methods = [
            *((self._segmenter.backend, name, "network") for name in self._passes()),
            (ClassScores, "classify", "class scores"),
            *((owner, "take", "labels") for owner in (LabelMap, DeviceRestorer)),
            *((owner, "result", "restoration") for owner in (NearestRestorer, DeviceRestorer)),
        ]
        with counted_methods(watch, methods):
            return self._automatic("everything", watch)

    def _actions(self) -> dict[str, Callable[[int, Stopwatch], dict[str, Any]]]:
        _, one, second = self._classes
        actions = {
            scenes.WINDOW: lambda _, watch: self._window(watch),
            scenes.EVERYTHING: lambda _, watch: self._automatic("everything", watch),
            scenes.MEMORY: lambda _, watch: self._automatic("everything", watch),
            scenes.ONE_CLASS: lambda _, watch: self._automatic(one, watch),
            scenes.SECOND_CLASS: lambda _, watch: self._second(second, watch),
            scenes.FIRST_CLICK: self._first_click,
        }
        for count in scenes.CLICK_COUNTS:
            actions[f"{scenes.CLICK} {count}"] = lambda number, watch, count=count: self._click(count, number, watch)
        return actions

    def _passes(self) -> list[str]:
        """Return the methods that run the network over windows; the last one is what a whole run calls."""
        batching = isinstance(self._segmenter.backend, BatchingBackend)
        return ["automatic_features", *(["automatic_features_batch"] if batching else [])]

    def _window(self, watch: Stopwatch) -> dict[str, Any]:
        run = getattr(self._segmenter.backend, self._passes()[-1])
        with watch.stage("network"):
            run(self._patch)
        return {}

    def _automatic(self, structures: str | list[int], watch: Stopwatch) -> dict[str, Any]:
        """From file to file, as the command line does it."""
        with watch.stage("reading"):
            volume = Volume.read(self._volume)
        with watch.stage("preprocessing"):
            session = self._segmenter.open(volume)
        with session:
            with watch.stage("segmenting"):
                result = session.segment(structures, streaming=True, cleanup=False)
            shape = list(session.model_grid[0].shape)
        with watch.stage("writing"):
            result.write(self._scene.file(str(self._name), "result", ".nii.gz"))
        return {"model_shape": shape, "labels": self._save("run", result.labels)}

    def _second(self, structures: list[int], watch: Stopwatch) -> dict[str, Any]:
        with watch.stage("segmenting"):
            self._session.segment(structures, cleanup=False)
        return {}

    def _first_click(self, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        self._session.free_caches()
        synchronize(self.device)
        return self._timed_click(self._clicks(1, repetition), watch)

    def _click(self, count: int, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        clicks = self._clicks(count, repetition)
        if count == 1:
            self._session.warm(clicks[0].position)
        else:
            shown = self._session.click(self._classes[1][0], clicks[:-1]).mask
            # A click that the mask serves already would ask the network nothing.
            clicks[-1] = replace(clicks[-1], positive=not shown[self._voxel(clicks[-1], shown.shape)])
        return self._timed_click(clicks, watch)

    def _voxel(self, click: Click, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the voxel of a click; the volume for clicks is the model grid."""
        index = apply_affine(np.linalg.inv(self._session.model_grid[1]), np.array(click.position))
        return tuple(np.clip(np.floor(index + 0.5), 0, np.subtract(shape, 1)).astype(int).tolist())

    def _timed_click(self, clicks: list[Click], watch: Stopwatch) -> dict[str, Any]:
        with watch.stage("click"):
            result = self._session.click(self._classes[1][0], clicks)
        return {"windows_encoded": result.encoded}

    def _clicks(self, count: int, repetition: int) -> list[Click]:
        places, positive = scenes.click_places(self._config, count, repetition)
        positions = apply_affine(self._session.model_grid[1], places)
        return [Click(tuple(one), sign) for one, sign in zip(positions.tolist(), positive, strict=True)]

    def _save(self, what: str, array: np.ndarray) -> str:
        path = self._scene.file(str(self._name), what, ".npy")
        np.save(path, array)
        return str(path)


def _loaded(name: SideName, scene: Scene) -> Segmenter:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wishes = {"runtime": name.runtime, "precision": name.precision, "claimed_only": False}
        segmenter = Segmenter.from_pretrained(scene.model, device=scene.device, **wishes)
    for asked, chosen in ((name.runtime, segmenter.runtime), (name.precision, segmenter.precision)):
        if asked not in ("auto", chosen):
            reasons = " ".join(dict.fromkeys(str(one.message) for one in said)) or segmenter.runtime_reason
            raise DeviceError(f"'{asked}' was asked for, but '{chosen}' would run: {reasons}")
    return segmenter
