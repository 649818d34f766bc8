"""What holds for any input: Shapley values, shares and the update rule, on inputs made up by Hypothesis."""

from itertools import permutations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msam import modality_shares, shapley_values
from msam.optim import _update
from msam.shapley import coalitions, normalized

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")

NUMBERS = st.floats(-1e6, 1e6)


def close(found, expected):
    """In double precision, relative to the size of the numbers that go in."""
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-9, atol=1e-6)


@st.composite
def games(draw, values=NUMBERS, smallest=1):
    """A value of every coalition of 1 to 5 modalities."""
    count = draw(st.integers(smallest, 5))
    names = draw(st.permutations(["audio", "b", "Ä", "text", "video"]))[:count]
    return {s: draw(values) for s in coalitions(tuple(names))}


@st.composite
def tensor_games(draw):
    """The same with tensors of one shape, 0 to 3 dimensions."""
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.floats(1e-3, 1e3))
    return draw(games(st.builds(lambda: scale * torch.randn(shape, generator=source, dtype=torch.float64))))


def names_of(values):
    return sorted(frozenset().union(*values))


@given(games() | tensor_games())
def test_shapley_values_sum_to_the_value_of_all(values):
    close(sum(shapley_values(values).values()), values[frozenset(names_of(values))])


@given(games() | tensor_games())
def test_shapley_values_are_mean_gains_over_all_orders_of_arrival(values):
    orders = list(permutations(names_of(values)))
    for name, found in shapley_values(values).items():
        gains = []
        for order in orders:
            before = frozenset(order[: order.index(name)])
            gains.append(values[before | {name}] - (values[before] if before else 0.0))
        close(found, sum(gains) / len(gains))


@given(games() | tensor_games(), st.randoms(use_true_random=False))
def test_shapley_values_follow_when_modalities_are_renamed(values, random):
    old = names_of(values)
    new = dict(zip(old, random.sample([f"x{i}" for i in range(9)], len(old)), strict=True))
    renamed = shapley_values({frozenset(new[m] for m in s): v for s, v in values.items()})
    for name, value in shapley_values(values).items():
        close(renamed[new[name]], value)


@given(games())
def test_modalities_that_always_add_the_same_have_the_same_value(values):
    by_size = {s: values[min(values, key=lambda t: (abs(len(t) - len(s)), sorted(t)))] for s in values}
    first, *others = shapley_values(by_size).values()
    for other in others:
        close(other, first)


@given(games(smallest=2), st.data())
def test_a_modality_that_adds_nothing_has_the_value_zero(values, data):
    null = data.draw(st.sampled_from(names_of(values)))
    blind = {s: values[s - {null}] if s - {null} else 0.0 for s in values}
    close(shapley_values(blind)[null], 0.0)


@given(tensor_games(), NUMBERS, NUMBERS)
def test_shapley_values_are_linear(values, a, b):
    other = {s: v.flip(0) if v.dim() else v.square() for s, v in values.items()}
    both = shapley_values({s: a * values[s] + b * other[s] for s in values})
    one, two = shapley_values(values), shapley_values(other)
    for name in both:
        scale = 1 + abs(a) + abs(b)
        close(both[name] / scale, (a * one[name] + b * two[name]) / scale)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=5), st.data())
def test_a_missing_coalition_is_refused(numbers, data):
    sets = coalitions(tuple("abcde"[: len(numbers)]))
    left_out = data.draw(st.sampled_from(sets[len(numbers) :]))
    with pytest.raises(ValueError, match="coalition values are missing"):
        shapley_values({s: numbers[0] for s in sets if s != left_out})


CONTRIBUTIONS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5)


@given(CONTRIBUTIONS)
def test_shares_are_a_point_of_the_simplex_in_the_order_of_the_contributions(numbers):
    shares = modality_shares({f"m{i}": x for i, x in enumerate(numbers)})
    assert list(shares) == [f"m{i}" for i in range(len(numbers))]
    found = torch.stack(list(shares.values()))
    assert (found >= 0).all()
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    for a, x in zip(found, numbers, strict=True):
        assert all(a >= b for b, y in zip(found, numbers, strict=True) if x >= y)


@given(CONTRIBUTIONS)
def test_shares_of_nothing_positive_are_equal(numbers):
    shares = modality_shares({i: -abs(x) for i, x in enumerate(numbers)})
    assert all(float(s) == pytest.approx(1 / len(numbers)) for s in shares.values())


@given(st.lists(st.just(0.0) | st.floats(1e-3, 1e3), min_size=1, max_size=5), st.floats(1e-6, 1e6))
def test_shares_do_not_depend_on_the_scale(numbers, scale):
    vector = torch.tensor(numbers, dtype=torch.float64)
    close(normalized(scale * vector), normalized(vector))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_shares_of_many_examples_are_those_of_each(modalities, examples, seed):
    several = torch.randn(examples, modalities, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(normalized(several), torch.stack([normalized(row) for row in several]))


SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32)
RADII = st.floats(1e-4, 1e2)
SCALES = st.floats(1e-4, 1e4)


def tensors(shapes, seed, scale=1.0):
    """Normally distributed, so no gradient is zero."""
    source = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(s, generator=source, dtype=torch.float64) for s in shapes]


def moved(parameters, gradients, radii, adaptive=False):
    """How far `ascend` moves each parameter, from zero where that is exact."""
    after = [p.clone() for p in parameters]
    _update.ascend(after, gradients, radii, adaptive)
    return [a - p for a, p in zip(after, parameters, strict=True)]


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


@given(SHAPES, SEEDS, RADII, SCALES)
def test_the_perturbation_has_length_rho_and_the_direction_of_the_gradient(shapes, seed, rho, scale):
    gradients, kept = tensors(shapes, seed, scale), tensors(shapes, seed, scale)
    eps = flat(moved([torch.zeros_like(g) for g in gradients], gradients, [rho] * len(shapes)))
    assert float(eps.norm()) == pytest.approx(rho, rel=1e-6)
    g = flat(gradients)
    close(eps / rho, g / g.norm())
    assert torch.equal(g, flat(kept)), "the gradients were changed"


@given(SHAPES, SEEDS, SCALES, st.booleans())
def test_the_perturbation_does_not_depend_on_the_scale_of_the_gradient(shapes, seed, scale, adaptive):
    parameters, gradients = tensors(shapes, seed), tensors(shapes, seed + 1)
    radii = [0.1] * len(shapes)
    scaled = moved(parameters, [scale * g for g in gradients], radii, adaptive)
    close(flat(scaled), flat(moved(parameters, gradients, radii, adaptive)))


@given(SHAPES, SEEDS, st.data())
def test_every_parameter_has_its_own_radius(shapes, seed, data):
    gradients = tensors(shapes, seed)
    radii = data.draw(st.lists(st.floats(0, 10), min_size=len(shapes), max_size=len(shapes)))
    norm = flat(gradients).norm()
    found = moved([torch.zeros_like(g) for g in gradients], gradients, radii)
    for eps, g, rho in zip(found, gradients, radii, strict=True):
        close(eps, rho * g / norm)


@given(SHAPES, SEEDS, RADII)
def test_the_adaptive_perturbation_has_length_rho_in_units_of_the_weights(shapes, seed, rho):
    parameters, gradients = tensors(shapes, seed), tensors(shapes, seed + 1)
    w, g = flat(parameters), flat(gradients)
    eps = flat(moved(parameters, gradients, [rho] * len(shapes), adaptive=True))
    close(eps / rho, w.square() * g / (w.abs() * g).norm())
    assert float((eps / w.abs()).norm()) == pytest.approx(rho, rel=1e-5)


@given(SHAPES, SEEDS, st.booleans())
def test_a_zero_gradient_moves_nothing(shapes, seed, adaptive):
    parameters = tensors(shapes, seed)
    eps = moved(parameters, [torch.zeros_like(p) for p in parameters], [1.0] * len(shapes), adaptive)
    assert not flat(eps).any()


@st.composite
def gradient_pairs(draw):
    """Gradients before and after the perturbation; each may be missing."""
    shapes, seed = draw(SHAPES), draw(SEEDS)
    pairs = zip(tensors(shapes, seed), tensors(shapes, seed + 1), strict=True)
    return [(draw(st.sampled_from((g, g, None))), draw(st.sampled_from((h, h, None)))) for g, h in pairs]


def mixed(pairs, share):
    return _update.interpolate([g for g, _ in pairs], [h for _, h in pairs], share)


@pytest.mark.parametrize("kind", [float, torch.tensor])
@given(gradient_pairs())
def test_interpolation_is_exact_at_its_ends(kind, pairs):
    for share in (0.0, 1.0):
        for found, pair in zip(mixed(pairs, kind(share)), pairs, strict=True):
            other, end = pair if share else pair[::-1]
            if end is not None:
                assert torch.equal(found, end)
            else:
                assert found is None if other is None else not found.any()


@pytest.mark.parametrize("kind", [float, lambda share: torch.tensor(share, dtype=torch.float64)])
@given(gradient_pairs(), st.floats(0, 1))
def test_interpolation_lies_between_and_a_missing_gradient_counts_as_zero(kind, pairs, share):
    for found, (g, h) in zip(mixed(pairs, kind(share)), pairs, strict=True):
        if g is None and h is None:
            assert found is None
            continue
        low = torch.zeros_like(h) if g is None else g
        high = torch.zeros_like(g) if h is None else h
        close(found, (1 - share) * low + share * high)
        slack = 1e-12 * (low.abs() + high.abs())
        assert (found >= torch.minimum(low, high) - slack).all()
        assert (found <= torch.maximum(low, high) + slack).all()


@given(gradient_pairs(), st.floats(0, 1))
def test_interpolation_between_equal_gradients_is_that_gradient(pairs, share):
    assume(any(g is not None for g, _ in pairs))
    for found, (g, _) in zip(mixed([(g, g) for g, _ in pairs], share), pairs, strict=True):
        assert found is None if g is None else torch.equal(found, g)
