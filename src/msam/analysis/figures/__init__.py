"""Figures of the book: transparent SVG, readable on white and on near-black, and at a width of 400 px."""

from msam.analysis.figures.cost import cost_points
from msam.analysis.figures.curves import accuracy_curves, evaluation_curves, gap_curves, loss_curves
from msam.analysis.figures.draw import Picture
from msam.analysis.figures.identification import identification_curves
from msam.analysis.figures.landscape import landscape_contours
from msam.analysis.figures.margins import margin_points
from msam.analysis.figures.overhead import modality_curves, scaling_points, variant_points
from msam.analysis.figures.parts import measure_points, part_points
from msam.analysis.figures.points import accuracy_points, gain_points
from msam.analysis.figures.ranking import (
    against_points,
    budget_points,
    profile_curves,
    rank_points,
    selection_points,
)
from msam.analysis.figures.rate import decay_curves, rate_curves
from msam.analysis.figures.samples import samples
from msam.analysis.figures.setup import search_points
from msam.analysis.figures.shares import (
    dominance_curves,
    dominant_share_curves,
    share_curves,
    switch_curves,
)
from msam.analysis.figures.sweep import mixing_curves, sweep_curves, tradeoff_points
from msam.analysis.figures.training import spent_curves

__all__ = [
    "Picture",
    "accuracy_curves",
    "accuracy_points",
    "against_points",
    "budget_points",
    "cost_points",
    "decay_curves",
    "dominance_curves",
    "dominant_share_curves",
    "evaluation_curves",
    "gain_points",
    "gap_curves",
    "identification_curves",
    "landscape_contours",
    "loss_curves",
    "margin_points",
    "measure_points",
    "mixing_curves",
    "modality_curves",
    "part_points",
    "profile_curves",
    "rank_points",
    "rate_curves",
    "samples",
    "scaling_points",
    "search_points",
    "selection_points",
    "share_curves",
    "spent_curves",
    "sweep_curves",
    "switch_curves",
    "tradeoff_points",
    "variant_points",
]
