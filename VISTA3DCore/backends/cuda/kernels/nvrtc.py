"""Kernels in CUDA C++, compiled when they are needed by the compiler that comes with PyTorch (NVRTC).

Nothing but PyTorch and the driver is needed: no CUDA toolkit, no headers, no compiler of the host.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch

# CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of the driver's interface.
_MOST_SHARED = 8
# CUDA_ERROR_OUT_OF_MEMORY.
_OUT_OF_MEMORY = 2


class CompilerError(RuntimeError):
    """The compiler or the driver is missing or refuses."""


class Kernel:
    """A compiled kernel of the current device.

    :param source: CUDA C++ with one ``extern "C"`` kernel, which includes nothing.
    :param name: the kernel's.
    :param defines: macros, e.g. ``C=48``.
    :param threads: of a block; :param shared: bytes of dynamic shared memory of a block.
    :raises CompilerError: if it cannot be compiled or loaded.
    """

    def __init__(self, source: str, name: str, defines: Sequence[str], threads: int, shared: int) -> None:
        major, minor = torch.cuda.get_device_capability()
        torch.cuda.current_stream().synchronize()  # there is a context from here on
        binary = compiled(source, [f"--gpu-architecture=sm_{major}{minor}", *(f"-D{define}" for define in defines)])
        self._threads, self._shared = threads, shared
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        _drive("cuModuleLoadData", ctypes.byref(self._module), binary)
        _drive("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())
        _drive("cuFuncSetAttribute", self._function, _MOST_SHARED, shared)

    def __call__(self, grid: tuple[int, int, int], *arguments: torch.Tensor | int | float) -> None:
        """Launch it on the current stream. Tensors are passed as pointers, numbers as int and float."""
        values = [_argument(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _drive("cuLaunchKernel", self._function, *grid, self._threads, 1, 1, self._shared, stream, pointers, None)


def _argument(value: torch.Tensor | int | float) -> ctypes._SimpleCData:
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int(value) if isinstance(value, int) else ctypes.c_float(value)


def compiled(source: str, options: Sequence[str]) -> bytes:
    """Return the machine code of a program.

    :raises CompilerError: with the compiler's first complaint.
    """
    compiler, program = _compiler(), ctypes.c_void_p()
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    if compiler.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None):
        raise CompilerError("the compiler does not start")
    try:
        if compiler.nvrtcCompileProgram(program, len(options), given):
            log = _text(compiler, "ProgramLog", program).decode(errors="replace").strip("\0\n ")
            raise CompilerError((log.splitlines() or ["the compiler fails without a word"])[0])
        return _text(compiler, "CUBIN", program)
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def _text(compiler: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    getattr(compiler, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(compiler, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


@cache
def _compiler() -> ctypes.CDLL:
    found = next(filter(None, map(_library, _candidates())), None)
    if found is None:
        raise CompilerError("PyTorch's runtime compiler is not found")
    return found


def _library(path: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(path)
    except OSError:
        return None


def _candidates() -> Iterator[str]:
    """Hand out where the compiler may be: where the loader looks, and where PyTorch's packages have it."""
    if torch.version.cuda is None:
        return
    major = torch.version.cuda.split(".")[0]
    name = f"nvrtc64_{major}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{major}"
    package = Path(torch.__file__).parent
    folders = [
        package / "lib",
        *sorted((package.parent / "nvidia").glob("*/lib")),
        *(package.parent / "nvidia").glob("*/bin"),
    ]
    for folder in folders:
        if (folder / name).exists():
            # It loads its second half by name, which is found only where that is loaded already.
            for helper in folder.glob("*nvrtc-builtins*"):
                _library(str(helper))
            yield str(folder / name)
    yield name


@cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise CompilerError("the driver's library is not found") from error


def _drive(call: str, *arguments: object) -> None:
    """Call the driver.

    :raises CompilerError: if it refuses. :raises torch.OutOfMemoryError: if the device's memory runs out.
    """
    code = getattr(_driver(), call)(*arguments)
    if code == _OUT_OF_MEMORY:
        raise torch.OutOfMemoryError(f"the driver's {call} finds no memory")
    if code:
        raise CompilerError(f"the driver's {call} gives error {code}")
