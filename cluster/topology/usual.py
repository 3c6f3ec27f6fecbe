"""What to take for links of which nothing is known: what is usual among those that are."""

import numpy as np

from cluster.topology.topology import Matrix


def fill_links(alpha_s: Matrix, beta_bytes_per_s: Matrix) -> None:
    """Unknown pairs get the medians of the links between nodes, nodes by themselves those within nodes; in place.

    Where nothing is known of any of a kind, it stays so.
    """
    is_known = np.isfinite(beta_bytes_per_s)
    between = ~np.eye(len(alpha_s), dtype=bool)
    for where in (between, ~between):
        known, unknown = where & is_known, where & ~is_known
        if known.any():
            for values in (alpha_s, beta_bytes_per_s):
                values[unknown] = np.median(values[known])
