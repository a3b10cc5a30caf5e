"""CUDA graphs: a sequence of kernels that is launched as one, for work that is too short for its launches."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from VISTA3DCore.errors import SlowerWarning

# Runs before a capture: the first one lets cuDNN and Triton choose their kernels, the second finds their memory.
_WARM_UP = 2

Function = Callable[..., torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Captured:
    """A captured call: its inputs are read, and its output written, where they lay at the capture."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, ...]
    output: torch.Tensor
    copied: list[Callable[[], torch.Tensor | None]]

    def replay(self, given: tuple[torch.Tensor, ...], constant: int) -> torch.Tensor:
        """Run on other inputs; those of the first ``constant`` that were copied last time are there already."""
        for number, (static, one) in enumerate(zip(self.inputs, given, strict=True)):
            if number >= constant or self.copied[number]() is not one:
                static.copy_(one, non_blocking=True)
                self.copied[number] = weakref.ref(one)
        self.graph.replay()
        return self.output


class GraphCache:
    """Calls functions of tensors, on a CUDA device by replaying what they did the first time.

    The functions must do the same for all inputs of the same shapes, and look at no value on the host.

    :param enabled: False calls them as they are.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self._device, self._enabled = device, enabled and device.type == "cuda"
        self._captured: dict[Hashable, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._enabled else None

    @property
    def enabled(self) -> bool:
        return self._enabled

    def call(self, key: Hashable, function: Function, *inputs: torch.Tensor, constant: int = 0) -> torch.Tensor:
        """Return function(*inputs).

        :param key: stands for the function and its inputs' shapes.
        :param constant: the values of so many inputs, the first ones, never change.
        :return: where graphs are enabled, a tensor that the next call with any key may overwrite.
        :raises torch.OutOfMemoryError: nothing was captured then.
        """
        if not self._enabled:
            return function(*inputs)
        if key not in self._captured:
            try:
                with torch.cuda.device(self._device):
                    self._captured[key] = self._capture(function, inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if isinstance(error.__context__, torch.OutOfMemoryError):  # a broken-off capture complains, too
                    raise error.__context__ from None
                self._give_up(error)
                return function(*inputs)
        return self._captured[key].replay(inputs, constant)

    def forget(self) -> None:
        """Drop what was captured, and with it its memory."""
        self._captured.clear()

    def _capture(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> _Captured:
        static = tuple(torch.empty_like(one, device=self._device).copy_(one) for one in inputs)
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                function(*static)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = function(*static)
        return _Captured(graph, static, output, [lambda: None] * len(static))

    def _give_up(self, error: RuntimeError) -> None:
        self._enabled = False
        self._captured.clear()
        reason = (str(error).splitlines() or ["unknown"])[0]
        sentence = f"CUDA graphs cannot be used here ({reason}); clicks take some milliseconds longer."
        warnings.warn(sentence, SlowerWarning, stacklevel=4)
