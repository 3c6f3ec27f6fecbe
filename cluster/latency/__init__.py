"""How long a step takes: fitted, from the literature, or put together from kernels that were timed. All pure."""
