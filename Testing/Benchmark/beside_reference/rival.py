"""An interactive rival: nnInteractive's network and its whole answer to a click, with random weights.

Its prompts are input channels, so every click is a forward pass. Needs the package ``nninteractive`` (2.6), which is no
dependency of the project. The network is nnU-Net's residual encoder L with 8 input channels (image, previous mask, six
of prompts) and a patch of 192^3 voxels at the image's own spacing; the sizes are those of the published model.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from beside_reference import scene as scenes
from beside_reference.measuring import Stopwatch
from beside_reference.scene import Scene
from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.errors import DeviceError, InputError
from VISTA3DCore.imaging.volume import Volume

PATCH = (192, 192, 192)
_CHANNELS = 8
_CLASSES = 2
_FEATURES = (32, 64, 128, 256, 320, 320)
_BLOCKS = (1, 3, 4, 6, 6, 6)
_POINT_RADIUS = 4
_INTERACTION_DECAY = 0.9
_CLICK_SPREAD_VOXELS = 12


class RivalSide:
    """Runs the measures that mean something for an interactive network: a forward pass, and clicks one after another.

    AutoZoom is off, its best case: one forward pass per click.

    :param patch: sides of the patch in voxels.
    :raises DeviceError: if the package is not installed.
    """

    def __init__(self, scene: Scene, patch: tuple[int, int, int] = PATCH) -> None:
        self._scene, self.device, self._patch = scene, choose_device(scene.device).device, patch
        self._session = _session(self.device, patch, scene.threads)
        self._volume: Volume | None = None
        self._input: torch.Tensor | None = None

    def about(self) -> dict[str, str]:
        """Return what really runs."""
        from importlib.metadata import version

        return {
            "runtime": f"nnInteractive {version('nninteractive')}",
            "precision": "float16" if self.device.type == "cuda" else "float32",
            "device": str(self.device),
            "reason": "random weights, AutoZoom off",
        }

    def gate(self) -> dict[str, str]:
        """There is nothing to compare: it is another network."""
        return {}

    def begin(self, measure: str, _volume: str) -> None:
        """Prepare a measure ; nothing of this is timed."""
        if measure == scenes.WINDOW:
            self._input = torch.zeros(1, _CHANNELS, *self._patch, device=self.device)
        elif measure.startswith((scenes.CLICK, scenes.FIRST_CLICK)):
            self._volume = Volume.read(self._scene.click_volume)
            self._session.set_image(np.asarray(self._volume.array)[None])
            self._session.set_target_buffer(np.zeros(self._volume.shape, dtype=np.uint8))
        else:
            raise InputError(f"nnInteractive has no automatic branch, so '{measure}' is not measured.")

    def end(self) -> None:
        """Free what the measure needed."""
        self._volume = self._input = None

    def run(self, measure: str, repetition: int, watch: Stopwatch) -> dict[str, Any]:
        """Run a measure once."""
        if measure == scenes.WINDOW:
            return self._window(watch)
        count = 1 if measure == scenes.FIRST_CLICK else int(measure.rsplit(maxsplit=1)[-1])
        self._session.reset_interactions()
        clicks = self._clicks(count, repetition)
        for place, positive in clicks[:-1]:
            self._session.add_point_interaction(place, positive, run_prediction=False)
        with watch.stage("click"):
            self._session.add_point_interaction(*clicks[-1])
        return {"windows_encoded": 1}

    def profiled(self, _watch: Stopwatch) -> dict[str, Any]:
        """There are no stages to tell apart."""
        return {}

    @torch.inference_mode()
    def _window(self, watch: Stopwatch) -> dict[str, Any]:
        with watch.stage("network"), torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            self._session.network(self._input)
        return {}

    def _clicks(self, count: int, repetition: int) -> list[tuple[tuple[int, ...], bool]]:
        angles = np.arange(count) * 2.4
        spread = np.stack([np.cos(angles), np.sin(angles), angles / 10], axis=1) * _CLICK_SPREAD_VOXELS
        places = np.clip(np.array(self._volume.shape) // 2 + spread + repetition, 0, np.subtract(self._volume.shape, 1))
        return [(tuple(map(int, place)), number % 2 == 0) for number, place in enumerate(places)]


def _session(device: torch.device, patch: tuple[int, int, int], threads: int) -> Any:
    """Return a session of nnInteractive that holds a network with random weights."""
    try:
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession
        from nnInteractive.interaction.point import PointInteraction_stub
    except ImportError as error:
        raise DeviceError(
            f"nnInteractive cannot be loaded ({error}); install the package 'nninteractive' beside this one, in "
            "an environment of its own."
        ) from error
    session = nnInteractiveInferenceSession(device=device, torch_n_threads=threads, do_autozoom=False)
    session.initialize_from_loaded_artifacts(
        {
            "network": rival_network().to(device).eval(),
            "configuration_manager": SimpleNamespace(patch_size=list(patch)),
            "point_interaction": PointInteraction_stub(_POINT_RADIUS, True),
            "capability_content": {"interaction_channels": _CHANNELS - 2},
            "preferred_scribble_thickness": [2, 2, 2],
            "interaction_decay": _INTERACTION_DECAY,
            "pad_mode_data": "constant",
            **dict.fromkeys(("plans_manager", "dataset_json", "trainer_name", "label_manager", "license")),
        }
    )
    return session


def rival_network() -> nn.Module:
    """Return the network with random weights."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    stages = len(_FEATURES)
    return ResidualEncoderUNet(
        input_channels=_CHANNELS, n_stages=stages, features_per_stage=_FEATURES, conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1] + [2] * (stages - 1), n_blocks_per_stage=_BLOCKS, num_classes=_CLASSES,
        n_conv_per_stage_decoder=[1] * (stages - 1), conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )  # fmt: skip
