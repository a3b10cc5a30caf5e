"""The processes of one run and their arithmetic, by Accelerate: one process, or several that ``torchrun`` started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object

from VISTA3DCore.backends.devices import choose_device
from VISTA3DCore.errors import DeviceError, InputError
from VISTA3DCore.training.branches import Arithmetic


class Processes:
    """This process among those of the run.

    Gradients are averaged here, once for each update, and not by a wrapper around the network: a sample goes back
    through the click head several times, and which parameters a step touches differs between processes. Both are what
    torch's own wrapper cannot do.

    :param device: as :func:`choose_device`; with several processes ``cpu`` or ``cuda`` alone.
    :param precision: one of ``recipe.PRECISIONS``.
    :raises DeviceError: if the device is not there or cannot compute so.
    """

    def __init__(self, device: str, precision: str) -> None:
        chosen = choose_device(device).device
        # A process may train several times, with another precision each time.
        AcceleratorState._reset_state()
        self.precision = _precision(chosen, precision)
        mixed = "no" if self.precision == "fp32" else self.precision
        self._accelerator = Accelerator(mixed_precision=mixed, cpu=chosen.type == "cpu", device_placement=False)
        self.count, self.rank = self._accelerator.num_processes, self._accelerator.process_index
        self.device = chosen if self.count == 1 else self._accelerator.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def arithmetic(self) -> Arithmetic:
        """How to compute with the run's precision."""
        scaler = self._accelerator.scaler
        plain = Arithmetic(self.device, self._accelerator.autocast)
        return plain if scaler is None else Arithmetic(self.device, self._accelerator.autocast, scaler.scale)

    def places(self, batch: int) -> range:
        """Return which places of a batch are this process's.

        :raises InputError: if the batch cannot be shared evenly.
        """
        if batch % self.count:
            raise InputError(
                f"A batch of {batch} cannot be shared by {self.count} processes; set batch={self.count} or a multiple."
            )
        return range(self.rank, batch, self.count)

    def prepared(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer in a form that knows about precision."""
        return self._accelerator.prepare_optimizer(optimizer, device_placement=False)

    def summed(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        if self.count == 1:
            return list(values)
        return self._accelerator.reduce(torch.tensor(values, device=self.device), "sum").tolist()

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter], touched: Sequence[bool]) -> None:
        """Replace gradients by their mean over the processes.

        :param touched: whether any process has a gradient, for each parameter.
        """
        if self.count == 1:
            return
        used = [one for one, has in zip(parameters, touched, strict=True) if has]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in used]
        if gradients:
            flat = torch.cat([one.flatten() for one in gradients])
            means = self._accelerator.reduce(flat, "mean").split([one.numel() for one in gradients])
            for parameter, mean in zip(used, means, strict=True):
                # A fused optimizer walks through memory: gradients must be stored as their parameters are.
                parameter.grad = torch.empty_like(parameter).copy_(mean.view_as(parameter))

    def clip(self, parameters: list[torch.nn.Parameter], most: float | None) -> float:
        """Unscale gradients, bound their norm, and return what it was."""
        return float(self._accelerator.clip_grad_norm_(parameters, float("inf") if most is None else most))

    def gathered(self, texts: list[str]) -> list[str]:
        """Return the texts of all processes."""
        return texts if self.count == 1 else gather_object(texts)

    def scaler_state(self) -> dict:
        """Return the state of the scaling of losses; empty where there is none."""
        return {} if self._accelerator.scaler is None else self._accelerator.scaler.state_dict()

    def restore_scaler(self, state: dict) -> None:
        """Go on with a scaling of losses."""
        if self._accelerator.scaler is not None and state:
            self._accelerator.scaler.load_state_dict(state)


def _precision(device: torch.device, wanted: str) -> str:
    if wanted == "fp16" and device.type != "cuda":
        raise DeviceError(f"Precision fp16 needs an NVIDIA GPU, not '{device}'; use bf16 or fp32.")
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
