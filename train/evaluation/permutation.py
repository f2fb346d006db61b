"""Whether two samples are of the same law: a permutation test of paired figures' means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def permutation_test(ones: Floats, others: Floats, *, permutations: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of the mean difference of pairs, by swapping pairs at random (Fisher 1935).

    Under the same law it is uniform on (0, 1]; a pair's two figures are of the same question, so what questions differ
    in does not blur the comparison. The observed order counts as one of the permutations, so p is never 0.
    """
    differences = ones - others
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, len(differences)))
    # Sums of equal terms in another order differ by rounding.
    reached = np.abs(signs @ differences) >= np.abs(differences.sum()) - 1e-9
    return float((1 + reached.sum()) / (1 + permutations))
