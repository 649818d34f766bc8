"""ASAM: adaptive sharpness-aware minimization (Kwon et al., ICML 2021).

    eps = rho * w^2 * g / || |w| * g ||_2        entry by entry

SAM in the geometry of the weights' own sizes. Acts on all parameters; cost: two forward and two backward
passes. The radius is about ten times that of SAM.
"""

from __future__ import annotations

from msam.methods.sam import Sam


class Asam(Sam):
    """Joint training with the gradient at the adaptively perturbed weights."""

    adaptive = True
