"""The measured rate: the problem against autograd and SciPy, the steps against the optimizer, the bound."""

import json
import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from msam import ModalityAwareSAM, cli, rate
from msam.coalitions import batch_shares

DATA = rate.problem()
WIDTH = 2 * rate.DIMENSIONS


def one_weight(seed=0):
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def robust(weights, inputs, labels):
    """The loss once more, of one vector of weights."""
    r = labels - inputs @ weights
    return (r**2 / (2 * (1 + r**2))).mean()


def library_shares(weights, inputs, labels):
    """Through logits of two classes and the library's coalitions."""
    scores = [
        x @ w for x, w in zip(inputs.split(rate.DIMENSIONS, 1), weights.split(rate.DIMENSIONS), strict=True)
    ]
    scores.append(scores[0] + scores[1])
    logits = torch.stack([torch.stack([-z, z], 1) for z in scores])
    return batch_shares(logits, (labels > 0).long(), ["a", "b"])


@pytest.mark.parametrize("seed", range(3))
def test_loss_gradient_and_shares_of_many_runs_are_those_of_one(seed):
    weights = torch.stack([one_weight(seed), one_weight(seed + 10)])
    gradients, losses = rate.gradient(weights, *DATA), rate.loss(weights, *DATA)
    found = rate.shares(weights, *DATA)
    for i, w in enumerate(weights):
        w = w.clone().requires_grad_()
        value = robust(w, *DATA)
        assert float(losses[i]) == pytest.approx(value.item(), rel=1e-12)
        assert torch.allclose(gradients[i], torch.autograd.grad(value, w)[0], rtol=1e-10, atol=0)
        assert found[i].tolist() == pytest.approx(library_shares(w.detach(), *DATA).tolist(), rel=1e-6)


def test_the_constants_are_the_extremes_of_the_loss():
    def slope(r):
        return r / (1 + r**2) ** 2

    def curvature(r):
        return (1 - 3 * r**2) / (1 + r**2) ** 3

    steepest = minimize_scalar(lambda r: -slope(r), bounds=(0, 5), method="bounded")
    assert -steepest.fun == pytest.approx(rate.BOUND, rel=1e-9)
    assert -minimize_scalar(lambda r: -curvature(r), bounds=(-1, 1)).fun == pytest.approx(rate.LIPSCHITZ)
    assert torch.allclose(DATA.inputs.norm(dim=1), torch.ones(rate.EXAMPLES, dtype=torch.float64))


def test_the_problem_is_not_convex_where_the_runs_start():
    hessian = torch.autograd.functional.hessian(lambda w: robust(w, *DATA), 2 * one_weight())
    values = torch.linalg.eigvalsh(hessian)
    assert values.min() < 0
    assert values.abs().max() <= rate.LIPSCHITZ


@pytest.mark.parametrize("schedule", rate.SCHEDULES)
@pytest.mark.parametrize("rule", rate.RULES)
def test_the_runs_are_those_of_the_optimizer(rule, schedule):
    """One run by the library's optimizer, closure and shares, from the same source of random numbers."""
    steps, seed = 15, 1
    source = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(torch.randn(WIDTH, generator=source, dtype=torch.float64))
    optimizer = ModalityAwareSAM([w], torch.optim.SGD, lr=0.1)
    norms, used = [], []
    for t in range(1, steps + 1):
        norms.append(float(torch.autograd.grad(robust(w, *DATA), w)[0].square().sum()))
        chosen = torch.randint(rate.EXAMPLES, (rate.BATCH,), generator=source)
        coin = float(torch.rand((), generator=source))
        x, y = DATA.inputs[chosen], DATA.labels[chosen]
        a, b = library_shares(w.detach(), x, y).tolist()
        random = a if coin < 0.5 else b
        share = {"dynamic": max(a, b), "fixed a": a, "fixed b": b, "random": random, "sam": 1.0, "sgd": 0.0}
        used.append(share[rule])

        def closure(x=x, y=y):
            optimizer.zero_grad()
            value = robust(w, x, y)
            value.backward()
            return value

        optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"] = rate.SCHEDULES[schedule](t)
        optimizer.step(closure, share=share[rule])
    found = rate.measure(DATA, steps, 2)
    assert found["horizons"][-1] == steps
    run = next(r for r in found["runs"] if (r["schedule"], r["rule"], r["seed"]) == (schedule, rule, seed))
    assert run["average"][-1] == pytest.approx(sum(norms) / steps, rel=1e-5)
    assert run["smallest"][-1] == pytest.approx(min(norms), rel=1e-5)
    assert run["share"] == pytest.approx(sum(used) / steps, rel=1e-6)


def test_the_repaired_bound_holds_at_every_step_and_is_not_empty():
    rows = rate.descent(DATA, 500)
    for row in rows:
        assert row["change"] <= row["gradient"] + row["perturbation"] + row["curvature"]
    assert any(row["change"] > row["gradient"] for row in rows)


def test_the_bound_as_printed_fails_at_a_step_of_sam():
    """One example x = y = 1 with residual 1, where the loss is concave; Eq. 13 of the paper has rho^2."""
    w, x, y = (torch.tensor(v, dtype=torch.float64) for v in ([[0.0]], [[1.0]], [1.0]))
    eta, rho, one = 1e-3, 0.1, torch.ones(1, dtype=torch.float64)
    g = rate.gradient(w, x, y)
    assert g.item() == -0.25
    after = w - eta * rate.mixed_gradient(w, x, y, one, rho * one)
    change = float(rate.loss(after, x, y) - rate.loss(w, x, y))
    printed = eta * rho**2 * rate.BOUND + eta**2 * rate.BOUND**2
    repaired = eta * rho * rate.BOUND + eta**2 * rate.BOUND**2 / 2
    assert -eta * 0.0625 + printed < change < -eta * 0.0625 + repaired


def test_schedules_have_the_sums_that_the_proof_needs_or_have_not():
    def total(name, steps):
        return sum(rate.SCHEDULES[name](t)[0] for t in range(1, steps + 1))

    assert total("sqrt", 40_000) == pytest.approx(2 * math.sqrt(40_000), rel=0.01)
    assert total("steps", 40_000) == pytest.approx(70 / 0.9)
    assert total("epochs", 40_000) == pytest.approx(70 * rate.EPOCH / 0.9)


def test_the_command_writes_a_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rate, "run", lambda output, run=rate.run: run(output, steps=20, seeds=2))
    output = tmp_path / "rate" / "rate.json"
    assert cli.main(["rate", "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    record = json.loads(output.read_text())
    assert len(record["measured"]["runs"]) == len(rate.RULES) * len(rate.SCHEDULES) * 2
    assert record["descent"]["violations"] == 0
    assert record["provenance"]["data_checksum"]
    horizons = record["measured"]["horizons"]
    assert {len(run["average"]) for run in record["measured"]["runs"]} == {len(horizons)}
