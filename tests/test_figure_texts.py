"""Every text of a figure of the published records can be read: none is cut off, none lies on another."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from msam.analysis import beyond, figures, overhead, radius, sources
from msam.analysis.figures.draw import STYLE

RESULTS = Path(__file__).parents[1] / "results"
PIXEL = 1.0
CASES = {
    "accuracy": ("main", figures.accuracy_points),
    "many names": ("dominance", figures.accuracy_points),
    "curves": ("main", lambda s: figures.gap_curves(s, "modalities")),
    "selection": ("main", figures.selection_points),
    "cost": ("main", figures.cost_points),
    "measures": ("probes", figures.measure_points),
    "parts": ("probes", lambda s: figures.part_points(s, beyond.disturbed(s, 1.0), "test (%)")),
    "variants": (overhead.STUDY, figures.variant_points),
    "scaling": ("main", lambda s: figures.scaling_points(s.root)),
    "sweep": ("radius", lambda s: figures.sweep_curves(s, radius.measures(s), "rho", "radius rho")),
    "trade-off": ("radius", figures.tradeoff_points),
}


def seen(figure):
    """Text and box in pixels of what is drawn: ticks outside of their axis are not."""
    with mpl.rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {tick.label1, tick.label2}
    texts = [t for t in figure.findobj(Text) if t not in hidden and t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]


@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_off_or_lies_on_another(case):
    study, draw = CASES[case]
    figure = draw(sources.read(RESULTS, study=study)).figure
    texts, page = seen(figure), figure.bbox.padded(PIXEL)
    assert len(texts) > 10
    assert not [t for t, box in texts if not (page.contains(*box.min) and page.contains(*box.max))]
    assert not [(a, b) for (a, one), (b, two) in combinations(texts, 2) if one.padded(-PIXEL).overlaps(two)]
