"""Imported by who tests Numba's kernels: where they cannot work, as without the system's libgomp, that is skipped."""

import pytest

try:
    from cluster.model import numba_layers
    from cluster.model.numba_attention import NumbaAttention
    from cluster.model.numba_decoder import NumbaDecoder
except (ImportError, ValueError) as error:
    pytest.skip(f"Numba's kernels cannot work here: {error}", allow_module_level=True)

__all__ = ["NumbaAttention", "NumbaDecoder", "numba_layers"]
