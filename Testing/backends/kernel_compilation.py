"""Compiles every kernel for GPUs that are not here, without Triton's interpreter; prints a line for each."""

from __future__ import annotations

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from VISTA3DCore.backends.cuda.kernels import (
    triton_classify,
    triton_collapse,
    triton_convolve,
    triton_normalize,
    triton_rows,
)

_FLOATS, _INTEGER = "*fp32", "i32"
_TILE = {"CHANNELS": 48, "ROWS": 128, "COLUMNS": 64}
# Instructions that move 16 bytes.
_WIDE = ("v4.b32", "cp.async.cg")
# Types of the arguments in their order, then the constants. "*" stands for the image's type.
KERNELS = {
    "_part_statistics": ([*"**", _FLOATS, _FLOATS, _INTEGER], {**_TILE, "TILES": 16, "ADD": True}),
    "_merge_statistics": (
        [*[_FLOATS] * 6, *[_INTEGER] * 3, "fp32"],
        {"CHANNELS": 48, "PARTS": 1024, "COLUMNS": 8, "AFFINE": True},
    ),
    "_apply": ([*"***", _FLOATS, _FLOATS, _INTEGER, "fp32"], {**_TILE, "ADD": True, "GELU": False}),
    "_classify": (
        [_FLOATS, _FLOATS, "*i32", "*i16", "*i8", *[_INTEGER] * 8],
        {**_TILE, "CLASSES": 32, "PRECISION": "tf32x3"},
    ),
    "_multiply_taps": (
        [*"**", *[_FLOATS] * 3, _INTEGER, "fp32"],
        {**_TILE, "TAPS": 32, "GELU": True},
    ),
    "_add_taps": ([_FLOATS, _FLOATS, _INTEGER], {"Y": 128, "Z": 128, "VOXELS": 512}),
    "_normalise_rows": (
        [*[_FLOATS] * 6, _INTEGER, "fp32"],
        {"CHANNELS": 48, "ROWS": 64, "COLUMNS": 64},
    ),
    "_gather": (
        [*"****", _FLOATS, _FLOATS, _INTEGER],
        {
            "Y": 64,
            "Z": 64,
            "STRIDE": 1,
            "CHANNELS": 96,
            "COLUMNS": 96,
            "ROWS": 128,
            "DEEP": 64,
            "WIDE": 128,
            "ADD": True,
        },
    ),
}
MODULES = (triton_classify, triton_collapse, triton_convolve, triton_normalize, triton_rows)


def compile_kernel(name: str, image: str, capability: int) -> triton.compiler.CompiledKernel:
    """Compile one kernel for images of a type and a compute capability, e.g. 90."""
    types, constants = KERNELS[name]
    function = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    arguments = dict(zip(function.arg_names, [image if one == "*" else one for one in types], strict=False))
    # Tensors of torch begin at multiples of 16 bytes, so rows of 8 half-precision channels are read at once.
    aligned = {(place,): [["tt.divisibility", 16]] for place, one in enumerate(arguments.values()) if "*" in one}
    signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


def main() -> None:
    """Compile all of them."""
    for capability in map(int, sys.argv[1:]):
        for name in KERNELS:
            for image in ("*fp16", "*bf16") if name == "_gather" else ("*fp16", "*bf16", "*fp32"):
                program = compile_kernel(name, image, capability).asm["ptx"]
                wide = any(instruction in program for instruction in _WIDE)
                print(capability, name, image, "wide" if wide else "narrow")


if __name__ == "__main__":
    main()
