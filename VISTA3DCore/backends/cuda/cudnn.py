"""Combinations of torch and cuDNN whose 3-D convolutions are known to be slow or wrong."""

from __future__ import annotations


def slow_in_half_precision(torch_version: str, cudnn_version: int) -> bool:
    """Return whether 3-D convolutions in half precision avoid cuDNN.

    Torch 2.9 runs them four times slower and with far more memory unless cuDNN is 9.15 or newer (pytorch issues 166122,
    166643, 166790; fixed in 2.10).

    :param cudnn_version: as ``torch.backends.cudnn.version()`` gives it, e.g. 91002 for 9.10.2.
    """
    return torch_version.startswith("2.9.") and cudnn_version < 91500


def wrong_in_bfloat16(cudnn_version: int) -> bool:
    """Return whether 3-D convolutions in bfloat16 can be wrong: in cuDNN 9.10.2 (pytorch issue 163539)."""
    return cudnn_version == 91002


def cudnn_problems(torch_version: str, cudnn_version: int) -> list[str]:
    """Return a sentence for each problem of a combination of torch and cuDNN; versions as above."""
    problems = []
    if slow_in_half_precision(torch_version, cudnn_version):
        problems.append(
            f"torch {torch_version} with cuDNN {_readable(cudnn_version)} runs 3-D convolutions in half precision "
            "about four times slower and needs far more memory; install torch 2.10 or newer, or cuDNN 9.15 or newer."
        )
    if wrong_in_bfloat16(cudnn_version):
        problems.append("cuDNN 9.10.2 can compute 3-D convolutions in bfloat16 wrongly; install another version.")
    return problems


def _readable(cudnn_version: int) -> str:
    return f"{cudnn_version // 10000}.{cudnn_version // 100 % 100}.{cudnn_version % 100}"
