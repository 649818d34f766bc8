"""Shapley values against their axioms, a brute force over permutations, and the paper's equations."""

from itertools import permutations

import pytest
import torch

from msam import modality_shares, shapley_values
from msam.shapley import coalitions, sampled_weights, shapley_weights


def random_values(count, seed=0, shape=()):
    source = torch.Generator().manual_seed(seed)
    names = [f"m{i}" for i in range(count)]
    return {s: torch.randn(shape, generator=source, dtype=torch.float64) for s in coalitions(tuple(names))}


def brute_force(values):
    """Mean marginal contribution over all orders in which the modalities can arrive."""
    names = sorted(frozenset().union(*values))
    total = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        before = frozenset()
        for name in order:
            after = before | {name}
            total[name] = total[name] + (
                values[after] - (values[before] if before else values.get(before, 0.0))
            )
            before = after
    return {name: value / len(orders) for name, value in total.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_values_equal_the_brute_force_over_permutations(count):
    values = random_values(count, count, (3, 2))
    for name, expected in brute_force(values).items():
        torch.testing.assert_close(shapley_values(values)[name], expected)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_efficiency_the_values_sum_to_that_of_all_modalities(count):
    """Eq. 18 of the paper."""
    values = random_values(count, count, (4, 3))
    torch.testing.assert_close(sum(shapley_values(values).values()), values[max(values, key=len)])


def test_efficiency_with_a_value_for_the_empty_coalition():
    values = random_values(3) | {frozenset(): torch.tensor(0.7, dtype=torch.float64)}
    expected = values[max(values, key=len)] - 0.7
    torch.testing.assert_close(sum(shapley_values(values).values()), expected)


def test_symmetric_modalities_get_equal_values_and_a_null_player_nothing():
    worth = {0: 0.0, 1: 2.0, 2: 5.0}  # of a coalition by how many of a and b it has; c adds nothing
    values = {s: worth[len(s & {"a", "b"})] for s in coalitions(("a", "b", "c"))}
    result = shapley_values(values)
    assert result["a"] == pytest.approx(result["b"]) == pytest.approx(2.5)
    assert result["c"] == pytest.approx(0.0)


def test_the_printed_equation_19_breaks_equation_18_and_ours_does_not():
    values = random_values(2, 3)
    both, first, second = (
        values[frozenset({"m0", "m1"})],
        values[frozenset({"m0"})],
        values[frozenset({"m1"})],
    )
    printed = (0.5 * (both - second) + first) + (0.5 * (both - first) + second)
    assert not torch.isclose(printed, both)
    torch.testing.assert_close(shapley_values(values)["m0"], 0.5 * (both - second + first))
    torch.testing.assert_close(sum(shapley_values(values).values()), both)


def test_three_modalities_as_in_agm():
    v = {"".join(sorted(s)): x for s, x in zip(coalitions(tuple("avt")), torch.randn(7), strict=True)}
    result = shapley_values({frozenset(k): x for k, x in v.items()})
    expected = (v["atv"] - v["tv"] + v["a"]) / 3 + (v["at"] - v["t"] + v["av"] - v["v"]) / 6
    torch.testing.assert_close(result["a"], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [({frozenset("a"): 1.0, frozenset("ab"): 2.0}, "missing.*'b'"), ({}, "there is no modality")],
)
def test_missing_coalitions_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        shapley_values(values)


@pytest.mark.parametrize(
    ("contributions", "expected"),
    [
        ({"a": 1.0, "v": 3.0}, {"a": 0.25, "v": 0.75}),
        ({"a": -1.0, "v": 3.0}, {"a": 0.0, "v": 1.0}),
        ({"a": 0.0, "v": 0.0, "t": -2.0}, {"a": 1 / 3, "v": 1 / 3, "t": 1 / 3}),
        ({"a": 5.0}, {"a": 1.0}),
    ],
)
def test_shares_are_clipped_and_sum_to_one(contributions, expected):
    shares = modality_shares(contributions)
    assert {m: pytest.approx(float(v)) for m, v in shares.items()} == expected
    assert float(sum(shares.values())) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_contribution_that_is_not_finite_does_not_go_unnoticed(bad):
    assert all(share.isnan() for share in modality_shares({"a": bad, "v": 1.0}).values())


@pytest.mark.parametrize(
    "large", [torch.tensor(4e4, dtype=torch.float16), 2**62, torch.tensor(1e38), torch.tensor(2)]
)
def test_shares_of_large_contributions_are_right(large):
    shares = modality_shares({"a": large, "v": large})
    assert [float(share) for share in shares.values()] == [0.5, 0.5]
    kept = isinstance(large, torch.Tensor) and large.is_floating_point()
    assert shares["a"].dtype == (large.dtype if kept else torch.float32)


def test_shares_of_what_is_no_scalar_are_refused():
    with pytest.raises(
        ValueError, match=r"contribution of 'v' must be a number, not a tensor of shape \[1\]"
    ):
        modality_shares({"a": 1.0, "v": torch.ones(1)})


def test_shares_need_a_modality():
    with pytest.raises(ValueError, match="at least one modality"):
        modality_shares({})


def test_sampled_weights_are_unbiased_and_always_efficient():
    names = ("a", "b", "c")
    torch.manual_seed(0)
    one = sampled_weights(names, 1)
    assert {s for row in one.values() for s in row} == {frozenset(), *_chain(one)}
    values = {s: float(number) for number, s in enumerate(coalitions(names), 3)} | {frozenset(): 0.0}
    total = sum(c * values[s] for row in one.values() for s, c in row.items())
    assert total == pytest.approx(values[frozenset(names)])

    exact, many = shapley_weights(names), sampled_weights(names, 6000)
    for m in names:
        for s, weight in exact[m].items():
            assert many[m][s] == pytest.approx(weight, abs=0.02)


def _chain(weights):
    """The coalitions of one order of arrival: one of each size, each within the next."""
    sets = sorted({s for row in weights.values() for s in row if s}, key=len)
    assert [len(s) for s in sets] == [1, 2, 3]
    assert sets[0] < sets[1] < sets[2]
    return sets
