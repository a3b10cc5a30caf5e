"""The reference's side: the bundle's pipeline as shipped, or tuned as far as its own switches go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from beside_reference import reference
from beside_reference import scene as scenes
from beside_reference.measuring import Stopwatch, synchronize
from beside_reference.scene import Scene
from beside_reference.sides import TUNED, SideName
from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.errors import DeviceError
from VISTA3DCore.models.checkpoints import load_checkpoint
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.network.architecture import build_network

_BATCHES = (1, 2, 4)


class ReferenceSide:
    """Runs the measures with MONAI's pipeline: float16 autocast on CUDA as the bundle does, float32 elsewhere.

    ``tuned`` leaves out the calls of ``empty_cache``, lets cuDNN choose its algorithms and takes the fastest of 1, 2
    and 4 windows at a time.

    :raises DeviceError: if a precision is asked for that the bundle cannot run.
    """

    def __init__(self, name: SideName, scene: Scene) -> None:
        self._name, self._scene = name, scene
        self.device = choose_device(scene.device).device
        half = self.device.type == "cuda" if name.precision == "auto" else name.precision == "float16"
        if half and self.device.type != "cuda":
            raise DeviceError("The reference computes in float16 on CUDA devices only.")
        # By default cuDNN rounds float32 convolutions to TF32; what the others are compared with must be float32.
        torch.backends.cudnn.allow_tf32 = False
        self._config, state = load_checkpoint(ModelStore().resolve(scene.model))
        network = build_network(self._config)
        network.load_state_dict(state)
        self._reference = reference.Reference(network.to(self.device), self._config, half)
        self._classes = scenes.class_lists(self._config)
        self._patch = self._image = None
        self._tuned, self._volume = False, ""

    def about(self) -> dict[str, str]:
        """Return what really runs."""
        facts = {
            "runtime": "torch",
            "precision": "float16" if self._reference.half else "float32",
            "device": str(self.device),
            "reason": "MONAI's transforms, sliding window and network",
        }
        return {**facts, "batch": str(self._reference.batch)} if self._tuned else facts

    def gate(self) -> dict[str, str]:
        """Leave behind what is compared; the float32 reference is what the others are compared with."""
        files, patch = {}, torch.from_numpy(scenes.gate_patch(self._config))[None, None]
        logits = self._reference.window_logits(patch, self._classes[0])[0]
        files["logits"] = self._save("logits", scenes.thinned(logits.float().cpu().numpy()))
        del logits
        watch = Stopwatch(self.device)
        files["labels"] = self._chain(self._scene.gate_volume, self._classes[0], watch, write=False)["labels"]
        if self._config.click_branch:
            places, positive = scenes.click_places(self._config, 3)
            scores = self._reference.click_logits(patch, places, positive, self._classes[1][0])[0, 0]
            # MONAI adds up the answers of the clicks' windows, which here are one and the same.
            files["clicks"] = self._save("clicks", scenes.thinned(np.asarray(scores.float().cpu())) / len(positive))
        return files

    def begin(self, measure: str, volume: str) -> None:
        """Prepare a measure on a volume (a file); nothing of this is timed."""
        self._volume = volume
        patch = torch.from_numpy(scenes.gate_patch(self._config))[None, None].to(self.device)
        if self._name.kind == TUNED and not self._tuned:
            self._tune(patch)
        if measure == scenes.WINDOW:
            self._patch = patch
        elif measure.startswith((scenes.CLICK, scenes.FIRST_CLICK)):
            self._image = self._preprocessed(self._scene.click_volume)

    def end(self) -> None:
        """Free what the measure needed."""
        self._patch = self._image = None

    def run(self, measure: str, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        """Run a measure once; ``watch`` counts its stages."""
        return self._actions()[measure](repetition, watch)

    def profiled(self, watch: Stopwatch) -> dict[str, Any]:
        """Run "everything" once; its stages are apart anyway."""
        return self._chain(self._volume, self._classes[0], watch)

    def _actions(self) -> dict[str, Callable[[int, Stopwatch], dict[str, Any]]]:
        everything, one, second = self._classes
        actions = {
            scenes.WINDOW: lambda _, watch: self._window(watch),
            scenes.EVERYTHING: lambda _, watch: self._chain(self._volume, everything, watch),
            scenes.MEMORY: lambda _, watch: self._chain(self._volume, everything, watch),
            scenes.ONE_CLASS: lambda _, watch: self._chain(self._volume, one, watch),
            scenes.SECOND_CLASS: lambda _, watch: self._chain(self._volume, second, watch),
            scenes.FIRST_CLICK: lambda number, watch: self._clicks(1, number, watch),
        }
        for count in scenes.CLICK_COUNTS:
            actions[f"{scenes.CLICK} {count}"] = lambda number, watch, count=count: self._clicks(count, number, watch)
        return actions

    def _window(self, watch: Stopwatch) -> dict[str, Any]:
        with watch.stage("network"):
            self._reference.window_logits(self._patch, self._classes[0])
        return {}

    @torch.inference_mode()
    def _chain(self, volume: str, classes: list[int], watch: Stopwatch, write: bool = True) -> dict[str, Any]:
        """From file to file, as the bundle does it."""
        with watch.stage("reading"):
            data = reference.reading()({"image": volume})
        with watch.stage("preprocessing"):
            transforms = reference.preprocessing(self._config, self.device)
            data = transforms(data)
        image = data["image"]
        with watch.stage("network"):
            logits = self._reference.logits(image[0].as_tensor(), classes)
        shape = list(image.shape[1:])
        data |= {"pred": type(image)(logits[0], meta=image.meta), "label_prompt": torch.tensor(classes)}
        del logits
        with watch.stage("labels"):
            data = reference.labelling()(data)
        with watch.stage("restoration"):
            data = reference.restoration(transforms)(data)
        if write:
            with watch.stage("writing"):
                reference.writing(self._scene.file(str(self._name), "files", ""))(data)
        labels = np.rint(data["pred"][0].cpu().numpy()).astype(np.uint16)
        return {"model_shape": shape, "windows": len(self._reference.windows), "labels": self._save("run", labels)}

    def _clicks(self, count: int, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        """All clicks again, as for each new one; what the bundle does around it is left out."""
        places, positive = scenes.click_places(self._config, count, repetition)
        with watch.stage("click"):
            self._reference.click_logits(self._image, places, positive, self._classes[1][0])
        return {"windows_encoded": count}

    def _preprocessed(self, volume: str) -> torch.Tensor:
        data = reference.preprocessing(self._config, self.device)(reference.reading()({"image": volume}))
        return data["image"].as_tensor()[None]

    def _tune(self, patch: torch.Tensor) -> None:
        """Turn the switches; the batch is the one with the shortest time for a window."""
        self._tuned = True
        torch.cuda.empty_cache = lambda: None
        torch.backends.cudnn.benchmark = True
        self._reference.batch = min(
            _BATCHES, key=lambda batch: self._seconds_of(patch.expand(batch, -1, -1, -1, -1)) / batch
        )

    def _seconds_of(self, patches: torch.Tensor) -> float:
        """Return the time of the second pass (the first one lets cuDNN choose); infinite where memory is too small."""
        try:
            self._reference.window_logits(patches, self._classes[0])
            synchronize(self.device)
            started = time.perf_counter()
            self._reference.window_logits(patches, self._classes[0])
            synchronize(self.device)
        except torch.OutOfMemoryError:
            return math.inf
        return time.perf_counter() - started

    def _save(self, what: str, array: np.ndarray) -> str:
        path = self._scene.file(str(self._name), what, ".npy")
        np.save(path, array)
        return str(path)
