"""Which cupy, NCCL and CUDA go together; what does not is refused in a sentence that says what to install.

The same versions stand in the extra `gpu` of pyproject.toml.
"""

from cluster.links.nccl_device import NcclUnavailable

MIN_CUPY = (14, 2)
MIN_NCCL = (2, 26)  # every link ends in an abort, which hangs in 2.25 (pytorch#149153)
_INSTALL = "pip install 'baton[gpu]' (for CUDA 13: cupy-cuda13x and nvidia-nccl-cu13)"
NO_CUPY = f"KV on a GPU moves over NCCL by cupy {'.'.join(map(str, MIN_CUPY))} or later, and there is none; {_INSTALL}"
NO_NCCL = f"cupy finds no NCCL library; {'.'.join(map(str, MIN_NCCL))} or later is needed: {_INSTALL}"


def check_cupy(version: str) -> None:
    """Raises NcclUnavailable, as all here do. `version`: such as "14.2.0" or "15.0.0a1"."""
    parts = version.split(".")
    found = tuple(int(part) for part in parts[:2] if part.isdecimal())
    if found < MIN_CUPY:
        raise NcclUnavailable(f"cupy {version} is too old; {_dotted(MIN_CUPY)} or later is needed: {_INSTALL}")


def no_kernels(version: str, error: Exception) -> NcclUnavailable:
    """Of a cupy whose compiler or headers are missing, or do not fit; they say so in many lines."""
    said = (str(error).strip().splitlines() or [repr(error)])[0]
    return NcclUnavailable(f"cupy {version} cannot load its kernels: {said}; {_INSTALL}")


def check_nccl(version: int, *, built_for: int) -> None:
    """Of the library that is loaded, and of the one that cupy was built with; 22501 is 2.25.1."""
    found, built = _nccl(version), _nccl(built_for)
    if found[:2] < MIN_NCCL:
        raise NcclUnavailable(f"NCCL {_dotted(found)} is too old; {_dotted(MIN_NCCL)} or later is needed: {_INSTALL}")
    if found[0] != built[0]:
        raise NcclUnavailable(
            f"NCCL {_dotted(found)} is loaded and cupy was built for {_dotted(built)}; "
            f"{built[0]}.x is needed: {_INSTALL}"
        )


def check_cuda(cupy_cuda: int, other_cuda: str | None) -> None:
    """That cupy (12090 is CUDA 12.9) and torch ("12.8"; None: nothing else is there) are for the same generation."""
    of_cupy, of_torch = cupy_cuda // 1000, int((other_cuda or "0").split(".")[0])
    if of_torch and of_cupy != of_torch:
        raise NcclUnavailable(
            f"cupy is built for CUDA {of_cupy} and torch for CUDA {other_cuda}: "
            f"install cupy-cuda{of_torch}x and nvidia-nccl-cu{of_torch}, and no other cupy"
        )


def _nccl(version: int) -> tuple[int, int, int]:
    return version // 10_000, version // 100 % 100, version % 100


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
