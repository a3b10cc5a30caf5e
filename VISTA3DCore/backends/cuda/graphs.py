"""CUDA graphs: a sequence of kernels that is launched as one, for work that is too short for its launches."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.errors import SlowerWarning

# Runs before a capture: the first one lets cuDNN and Triton choose their kernels, the second finds their memory.
_WARM_UP = 2

Function = Callable[..., torch.Tensor]


class _Input:
    """Where captured kernels read an input."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.static = torch.empty_like(tensor)
        self._copied: Callable[[], torch.Tensor | None] = lambda: None

    def put(self, tensor: torch.Tensor, constant: bool) -> None:
        """Copy a tensor there; one whose values never change only if it is not there already."""
        if constant and self._copied() is tensor:
            return
        self.static.copy_(tensor, non_blocking=True)
        self._copied = weakref.ref(tensor)


@dataclass(frozen=True, eq=False)
class _Captured:
    """A captured call and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[_Input, ...]
    output: torch.Tensor


class GraphCache:
    """Calls functions of tensors, on a CUDA device by replaying what they did the first time.

    The functions must do the same for all inputs of the same shapes, and look at no value on the host.

    :param enabled: False calls them as they are.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self._device, self._enabled = device, enabled and device.type == "cuda"
        self._captured: dict[Hashable, _Captured] = {}
        self._inputs: dict[Hashable, _Input] = {}
        self.forget()

    @property
    def enabled(self) -> bool:
        return self._enabled

    def call(self, name: str, function: Function, *inputs: torch.Tensor, constant: int = 0) -> torch.Tensor:
        """Return function(*inputs).

        :param name: stands for the function; calls of one name and shape share the memory of that input.
        :param inputs: on the device.
        :param constant: the values of so many inputs, the first ones, never change.
        :return: where graphs are enabled, a tensor that the next call may overwrite.
        :raises RuntimeError: if memory runs out, in whatever words; nothing was captured then.
        """
        if not self._enabled:
            return function(*inputs)
        places = [self._input((name, number, tensor.shape), tensor) for number, tensor in enumerate(inputs)]
        for number, (place, tensor) in enumerate(zip(places, inputs, strict=True)):
            place.put(tensor, number < constant)
        captured = self._replayable((name, *(tensor.shape for tensor in inputs)), function, tuple(places))
        if captured is None:
            return function(*inputs)
        captured.graph.replay()
        return captured.output

    def forget(self) -> None:
        """Drop what was captured, and with it its memory."""
        self._captured.clear()
        self._inputs.clear()
        self._pool = torch.cuda.graph_pool_handle() if self._enabled else None

    def _input(self, key: Hashable, tensor: torch.Tensor) -> _Input:
        if key not in self._inputs:
            self._inputs[key] = _Input(tensor)
        return self._inputs[key]

    def _replayable(self, key: Hashable, function: Function, inputs: tuple[_Input, ...]) -> _Captured | None:
        """Return a captured call, capturing it if need be, or None if that cannot be done."""
        if key not in self._captured:
            try:
                with torch.cuda.device(self._device):
                    self._captured[key] = self._capture(function, inputs)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                if error.__context__ is not None and is_out_of_memory(error.__context__):
                    raise error.__context__ from None  # a broken-off capture complains, too
                self._give_up(error)
        return self._captured.get(key)

    def _capture(self, function: Function, inputs: tuple[_Input, ...]) -> _Captured:
        static = [one.static for one in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                function(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = function(*static)
        return _Captured(graph, inputs, output)

    def _give_up(self, error: RuntimeError) -> None:
        self._enabled = False
        self.forget()
        reason = (str(error).splitlines() or ["unknown"])[0]
        sentence = f"CUDA graphs cannot be used here ({reason}); clicks take some milliseconds longer."
        warnings.warn(sentence, SlowerWarning, stacklevel=4)
