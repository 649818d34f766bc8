"""Tables, figures, sentences and notebooks made from fabricated records."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_analysis_records import cell_record, fabricate, fabricate_both, write

from msam.analysis import (
    accuracy,
    beyond,
    budget,
    claims,
    claims_table,
    compare,
    cost,
    dominance,
    figures,
    findings,
    flatness,
    metrics,
    mixing,
    paper,
    paper_check,
    provenance,
    radius,
    ranking_table,
    reported,
    selection,
    setup,
    status,
    tables,
    values,
)
from msam.analysis.figures.draw import band
from msam.analysis.figures.training import spent
from msam.analysis.sources import read
from msam.analysis.table import Block, Table, number

judged = cache(claims.evaluate_all)  # of a root, which no test here changes
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
MINE = [
    *("overview", "setup", "datasets", "dataset", "results", "ranking", "convergence", "dominance", "cost"),
    *("ablation_dominance", "ablation_mixing", "ablation_values", "ablation_radius"),
    *("overhead", "flatness", "beyond", "rate", "paper_check", "selection", "status", "comparison"),
]
TABLES = [
    lambda s: accuracy.paper_layout(s, "late"),
    lambda s: accuracy.paper_layout(s, "early"),
    lambda s: accuracy.additional_layout(s, "late"),
    lambda s: accuracy.additional_layout(s, "early"),
    lambda s: accuracy.detail_table(s, "late"),
    ranking_table.ranking_table,
    ranking_table.against_table,
    ranking_table.cells_table,
    lambda s: budget.budget_table(s, s),
    lambda s: budget.budget_cells_table(s, s),
    lambda s: reported.paper_table(s, "late"),
    lambda s: reported.paper_table(s, "early"),
    tables.rules_table,
    selection.gains_table,
    selection.order_table,
    tables.heads_table,
    findings.pairwise_table,
    lambda s: claims_table.claims_table(judged(s.root), s.root),
    lambda s: claims_table.rules_table(judged(s.root), s.root),
    setup.settings_table,
    setup.common_settings,
    setup.space_table,
    setup.chosen_table,
    setup.search_table,
    status.status_table,
    status.failures_table,
    status.totals_table,
    status.versions_table,
    dominance.dominance_table,
    mixing.mixing_table,
    values.agreement_table,
    radius.radius_table,
    paper_check.beyond_table,
    flatness.flatness_table,
    flatness.ratio_table,
    beyond.robustness_table,
    lambda s: beyond.label_table(s, s),
    beyond.further_table,
    cost.cost_table,
    lambda s: compare.comparison_table(s, s),
]
FIGURES = [
    figures.accuracy_points,
    figures.gain_points,
    figures.rank_points,
    figures.against_points,
    figures.profile_curves,
    figures.selection_points,
    lambda s: figures.budget_points(s, s),
    figures.accuracy_curves,
    lambda s: figures.accuracy_curves(s, "modalities"),
    figures.evaluation_curves,
    figures.loss_curves,
    figures.spent_curves,
    figures.gap_curves,
    figures.share_curves,
    figures.dominance_curves,
    figures.switch_curves,
    figures.dominant_share_curves,
    lambda s: figures.mixing_curves(s, metrics.by_seed(s.frames.runs)),
    lambda s: figures.sweep_curves(s, radius.measures(s), "rho", "rho"),
    figures.tradeoff_points,
    figures.identification_curves,
    figures.measure_points,
    lambda s: figures.part_points(s, beyond.disturbed(s, 1.0), "test (%)"),
    lambda s: figures.landscape_contours(s, "av_digits"),
    lambda s: figures.samples(s.descriptions.get("av_digits")),
    figures.cost_points,
]
SENTENCES = [
    findings.answer,
    lambda s: claims_table.answer(judged(s.root)),
    findings.best_sentence,
    ranking_table.rank_sentence,
    ranking_table.against_sentence,
    lambda s: budget.budget_sentence(s, s),
    tables.rules_sentence,
    selection.gains_sentence,
    selection.order_sentence,
    lambda s: findings.gap_sentence(s, "msam", "sam"),
    setup.setup_sentence,
    setup.search_sentence,
    status.status_sentence,
    dominance.dominance_sentence,
    mixing.mixing_sentence,
    mixing.sweep_sentence,
    values.agreement_sentence,
    values.identification_sentence,
    radius.radius_sentence,
    radius.tradeoff_sentence,
    paper_check.beyond_sentence,
    flatness.flatness_sentence,
    flatness.encoder_sentence,
    lambda s: beyond.disturbed_sentence(s, s),
    beyond.further_sentence,
    cost.cost_sentence,
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read(fabricate(tmp_path_factory.mktemp("project") / "results" / "embedded").parent)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same profile beside another one, with other data and fewer seeds."""
    return read(fabricate_both(tmp_path_factory.mktemp("project") / "results"))


@pytest.fixture(scope="module", params=["study", "both"])
def any_study(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return read(tmp_path_factory.mktemp("project") / "results")


def rows(table, block=0):
    return table.blocks[block].rows


def test_accuracies_are_those_of_the_records(study):
    block = rows(accuracy.detail_table(study, "late"))
    msam = block[block["method"] == "M-SAM"].iloc[0]
    runs = study.frames.runs.query(
        "dataset == 'av_digits' and fusion == 'late' and name == 'msam' and rule == 'last'"
    )
    values = 100 * runs.query("split == 'test' and output == 'fused'")["accuracy"]
    half = 4.302652729911275 * values.std() / np.sqrt(3)
    assert msam["fused"] == f"{values.mean():.1f} ± {half:.1f}"
    assert msam["n"] == 3
    assert msam["evidence"] == "embedded (miniature of AV-MNIST)"


def test_a_single_modality_stands_in_its_own_column(study):
    block = rows(accuracy.detail_table(study, "late")).set_index("method")
    assert block.loc["only image", "image"] != "\N{EN DASH}"
    assert block.loc["only image", "audio"] == "\N{EN DASH}"
    assert block.loc["only image", "fused"] == "\N{EN DASH}"


def test_bold_only_where_supported(tmp_path):
    study = read(
        fabricate(tmp_path / "results" / "own").parent
    )  # a profile of which no study file lists more cells
    late, early = (accuracy.detail_table(study, fusion) for fusion in ("late", "early"))
    strong = {late.blocks[0].rows.loc[i, "method"] for i, _ in late.blocks[0].strong}
    assert strong == {"M-SAM"}
    assert not early.blocks[0].strong  # one method failed there, so it is not beaten


@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("SAM", "failed: out of memory"),
        ("M-SAM (encoder)", "not defined: needs <late> fusion"),
        ("SAM/SGD mixture", "missing: no record"),
        ("joint", "done"),
    ],
)
def test_a_cell_without_numbers_keeps_its_row(study, method, state):
    block = rows(accuracy.detail_table(study, "early")).set_index("method")
    assert block.loc[method, "state"] == state


def test_diverged_seeds_are_counted_and_left_out_of_the_mean(study):
    block = rows(accuracy.detail_table(study, "late")).set_index("method")
    assert block.loc["SAM/SGD mixture", "state"] == "diverged 1/3 seeds"
    assert block.loc["SAM/SGD mixture", "n"] == 2
    assert "loss is nan" in status.failures_table(study).to_html()


def test_what_failed_in_another_study_is_told_too(study, tmp_path):
    root = shutil.copytree(study.root, tmp_path / "results")
    profile = next(iter(study.profiles))
    broken = cell_record("av_digits", "late", "msam+rho_0.2")
    broken["seeds"][1] |= {"state": "diverged", "reason": "loss is inf", "final": {}}
    write(root / profile / "radius" / "av_digits" / "late" / "msam+rho_0.2.json", broken)
    whole = read(root)
    table = status.failures_table(whole)
    assert f"1 record under results/{profile}/radius" in table.footer
    found = rows(table)
    new = found[found["study"] == "radius"]
    assert new[["method", "seed", "reason"]].to_numpy().tolist() == [["M-SAM (rho 0.2)", "1", "loss is inf"]]
    assert (found["study"] == "main").sum() == len(rows(status.failures_table(study)))


def test_status_links_a_record_and_the_notebook_beside_it(study, tmp_path):
    root = shutil.copytree(study.root, tmp_path / "results")
    profile = next(iter(study.profiles))
    place = f"{profile}/main/av_digits/late"
    (root / place / "sam.ipynb").write_text("{}")
    block = next(b for b in status.status_table(read(root)).blocks if b.heading.startswith("av_digits, late"))
    links = {row.method: re.findall(r'href="(.+?)"', str(row.record)) for row in block.rows.itertuples()}
    assert links["SAM"] == [f"records/{place}/sam.json", f"records/{place}/sam.ipynb"]
    assert links["joint"] == [f"records/{place}/joint.json"]


REPORTED = ": reported by the paper"


def test_a_stand_in_never_stands_beside_the_papers_numbers(study):
    table = reported.paper_table(study, "late")
    ours = rows(table)[[column for column in rows(table) if column[1] == "ours"]]
    assert list(ours) == [(name, "ours") for name in ("AV-MNIST", "CREMA-D", "UR-Funny", "AVE")]
    assert set(ours.to_numpy().ravel()) == {"not run"}
    theirs = rows(table).set_index(("", "method"))
    assert theirs.loc["M-SAM", ("AVE" + REPORTED, "fused")] == "79.67"
    assert theirs.loc["OGM-GE", ("UR-Funny" + REPORTED, "fused")] == "\N{EN DASH}"
    assert "Not run: data not available here (AV-MNIST, CREMA-D, UR-Funny, AVE)." in table.note
    assert "`msam data get ur_funny`" in table.note
    assert "`make reproduce PROFILE=paper`" in table.note


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_a_rebuild_stands_beside_the_papers_dataset_and_says_what_it_is(both, fusion):
    table = reported.paper_table(both, fusion)
    found = rows(table).set_index(("", "method"))
    relation = "compact (AV-MNIST rebuilt from its public ingredients)"
    group = f"ours: av_mnist, {relation}, 20 train samples, small encoders"
    assert [column for column in found if column[0] == group] == [
        (group, output) for output in ("audio", "image", "fused", "n")
    ]
    assert list(found.columns.get_level_values(0).unique())[:2] == ["AV-MNIST" + REPORTED, group]
    mine = rows(accuracy.paper_layout(both, fusion), 1).set_index(("", "method"))
    for name in ("Joint-Train", "SAM", "M-SAM"):
        for output in ("audio", "image", "fused", "n"):
            assert found.loc[name, (group, output)] == mine.loc[name, (f"av_mnist: {relation}", output)]
        assert "±" in found.loc[name, (group, "fused")]
    assert found.loc["CGGM", (group, "fused")] == "missing"  # the study file lists it
    assert "av_digits" not in " ".join(found.columns.get_level_values(0))
    assert "(CREMA-D, UR-Funny, AVE)" in table.note
    if fusion == "late":
        singles = found.loc[["Single-audio", "Single-video", "Single-text"], group]
        detail = rows(accuracy.detail_table(both, "late"), 3).set_index("method")
        assert singles.loc["Single-audio", "audio"] == detail.loc["only audio", "audio"]
        assert singles.loc["Single-video", "image"] == detail.loc["only image", "image"]
        assert set(singles.loc["Single-text"]) == {"\N{EN DASH}"}
    msam = table.data.query("method == 'M-SAM' and dataset == 'AV-MNIST' and output == 'fused'").iloc[0]
    assert 100 * msam["accuracy"] == pytest.approx(
        float(found.loc["M-SAM", (group, "fused")].split()[0]), abs=0.05
    )
    assert msam["reported"] == {"late": 74.08, "early": 74.48}[fusion]


def test_names_of_the_papers_datasets_are_those_of_the_package():
    from msam.datasets import _source

    for theirs, name in paper.DATASETS.items():
        source = _source.find(name)
        assert source.constant("STANDS_FOR") == theirs
        outputs = {paper.MODALITIES.get(modality, modality) for modality in source.kinds}
        assert outputs | {"fused"} == set(paper.OUTPUTS[theirs])


def test_what_was_spent_until_an_epoch_is_its_part_of_the_run(study):
    found = spent(study, "loss")
    assert not found["name"].str.startswith("unimodal").any()
    runs = study.frames.seeds.set_index(["dataset", "fusion", "name", "seed"])
    for key, mine in found.groupby(list(runs.index.names)):
        run = runs.loc[key]
        mine = mine.sort_values("epoch")
        assert mine["steps"].iloc[-1] * 1000 == pytest.approx(run["steps"])
        assert mine["seconds"].iloc[-1] == pytest.approx(run["seconds"])
        assert mine["gradient_evaluations"].iloc[0] * 1000 == pytest.approx(
            run["gradient_evaluations"] / len(mine)
        )


def test_a_band_has_a_gap_where_there_is_no_interval():
    low = np.array([0.0, 0.0, np.nan, 0.0, 0.0])
    axes = Figure().subplots()
    band(axes, pd.DataFrame({"x": range(5), "mean": 0.5, "low": low, "high": low + 1}), "C0", "-", "")
    (region,) = axes.collections
    inside = [any(path.contains_point((x, 0.5)) for path in region.get_paths()) for x in (0.5, 2, 3.5)]
    assert inside == [True, False, True]


def test_gradient_norms_are_drawn_where_records_have_them(study):
    assert spent(study, "gradient_norm").empty
    epochs = study.frames.epochs
    fused = (epochs["split"] == "train") & (epochs["output"] == "fused")
    more = epochs.assign(gradient_norm=epochs["loss"].astype(float).where(fused))
    norms = replace(study, frames=replace(study.frames, epochs=more))
    assert len(spent(norms, "gradient_norm")) == len(spent(study, "loss"))
    assert figures.spent_curves(norms, "gradient_norm").svg.count("<path") > 10
    assert figures.spent_curves(study, "gradient_norm").svg.count("<path") < 40


@pytest.mark.parametrize("make", TABLES)
def test_every_table_is_sound_html_with_provenance(any_study, make):
    table = make(any_study)
    html = table.to_html()
    assert html.count("<table") == html.count("</table>") == html.count('<div class="table-scroll">')
    assert "<late>" not in html  # escaped
    assert re.search(r"remake: <code>make \w+[^<]*</code>|paper\.csv", html)
    for block in table.blocks:
        if len(block.rows) and "version" not in block.rows:
            headings = [block.heading, *(text for column in block.rows for text in np.atleast_1d(column))]
            names = ("evidence", "embedded", "compact", ": reported by the paper")
            level = any(name in text for text in headings for name in names)
            assert level or "median (ms)" in headings


@pytest.mark.parametrize("make", TABLES)
def test_no_table_needs_records(empty, make):
    assert "<p>" in make(empty).to_html()


@pytest.mark.parametrize("draw", FIGURES)
def test_every_figure_is_drawn_with_and_without_records(any_study, empty, draw):
    svg = draw(any_study).svg
    assert svg.count("<path") > 10
    assert svg == draw(any_study).svg
    assert "<svg" in draw(empty).svg
    background = re.search(r'<g id="patch_1">\s*<path[^>]*style="([^"]*)"', svg)
    assert background is None or "fill: none" in background.group(1)


@pytest.mark.parametrize("say", SENTENCES)
def test_every_sentence_stands_with_and_without_records(any_study, empty, say):
    for sentence in (say(any_study), say(empty)):
        assert sentence.endswith(".")
        assert not re.search(r"\bnan\b", sentence)


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_no_error(tmp_path, seeds):
    few = fabricate(tmp_path / "results" / "embedded", seeds=seeds, epochs=2, datasets=("av_digits",))
    few = read(few.parent)
    for make in TABLES:
        make(few).to_html()
    shown = rows(accuracy.detail_table(few, "late")).set_index("method")
    if seeds == 1:
        assert shown.loc["M-SAM", "95 % interval"] == "one seed: no interval"
        assert not accuracy.detail_table(few, "late").blocks[0].strong
    figures.accuracy_points(few)
    figures.accuracy_curves(few)


def test_csv_holds_the_numbers(study):
    (encoded,) = re.findall(
        r'href="data:text/csv;base64,([^"]+)"', accuracy.detail_table(study, "late").to_html()
    )
    late = pd.read_csv(io.BytesIO(base64.b64decode(encoded)))
    fused = late.query("dataset == 'av_digits' and method == 'msam' and output == 'fused'").iloc[0]
    runs = study.frames.runs.query(
        "dataset == 'av_digits' and fusion == 'late' and name == 'msam' and rule == 'last'"
    )
    assert fused["accuracy"] == pytest.approx(
        runs.query("split == 'test' and output == 'fused'")["accuracy"].mean()
    )
    assert set(late["level"]) == {"embedded", "embedded (miniature of AV-MNIST)"}


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.2, "higher"), (-0.2, -0.1, "lower"), (-0.1, 0.1, "apart"), (0.0, 0.1, "apart")],
)
def test_words_follow_the_interval(low, high, word):
    assert findings.verdict(findings.Interval((low + high) / 2, low, high, 3)) == word
    assert findings.verdict(findings.Interval(0.1, np.nan, np.nan, 1)) == "unknown"


def test_counts_name_the_levels(both):
    text = findings.count_sentence(both, "msam", "joint")
    assert text.startswith(
        "M-SAM against joint: higher in 8 of 10 blocks (embedded 4 of 6, compact 4 of 4), "
    )
    assert text.endswith("too few common seeds in 2 (embedded 2, compact 0).")
    assert status.status_sentence(both).startswith("65 of ")


def test_sentences_count_what_the_records_hold(study):
    text = findings.count_sentence(study, "msam", "joint")
    assert text.startswith("M-SAM against joint: higher in 4 of 6 blocks, lower in 0")
    assert text.endswith("too few common seeds in 2.")  # watch has no records
    reverse = findings.count_sentence(study, "joint", "msam")
    assert "higher in 0 of 6 blocks, lower in 4" in reverse


def test_footer_names_records_commit_and_device(study, empty):
    text = provenance.footer(study)
    assert "records under results/embedded/main, commit abc1234 (clean); cpu: test" in text
    assert text.endswith("remake: `make reproduce SEEDS=3`.")
    assert provenance.footer(empty).startswith("Made from 0 records")


def test_texts_of_records_are_escaped():
    table = Table("<b>", (Block(pd.DataFrame([{"reason": "<script>"}])),), pd.DataFrame())
    assert "<script>" not in table.to_html()
    assert "&lt;b&gt;" in table.to_html()


def test_dominance_counts_batches(study):
    data = dominance.dominance_data(study).query("dataset == 'av_digits' and name == 'msam' and seed == 2")
    late = data[data["fusion"] == "late"].set_index("modality")
    assert late["fraction"].to_dict() == {"image": 0.9, "audio": pytest.approx(0.1)}
    assert late["switches"].iloc[0] == 2


@pytest.fixture
def two_runs(tmp_path):
    folders = [tmp_path / "results" / "embedded", tmp_path / "results" / "local" / "embedded"]
    for folder in folders:
        fabricate(folder, datasets=("av_digits",))
    return folders


def compared(folders, fusion="late", name="msam"):
    table = compare.compare(*compare.read_both(*(folder.parent for folder in folders)))
    return table.set_index(["dataset", "fusion", "name"]).loc[("av_digits", fusion, name)]


def edit(folder, change, name="msam"):
    path = folder / "main" / "av_digits" / "late" / f"{name}.json"
    record = json.loads(path.read_text())
    change(record)
    write(path, record)


def test_the_same_run_is_identical_and_inside(two_runs):
    row = compared(two_runs)
    assert (row["identical"], row["inside"], row["difference"].mean) == ("yes", "yes", 0)


def test_one_changed_number_is_not_identical(two_runs):
    def change(record):
        record["seeds"][1]["epochs"][0]["validation"]["accuracy"]["audio"] += 1e-12

    edit(two_runs[1], change)
    row = compared(two_runs)
    assert (row["identical"], row["inside"]) == ("no", "yes")


def test_another_device_explains_other_numbers_and_may_have_the_same(two_runs):
    edit(two_runs[1], lambda record: record["provenance"].update(device="cuda: other"))
    assert compared(two_runs)["identical"] == "yes"
    edit(two_runs[1], lambda record: record["seeds"][1]["epochs"][0]["train"].update(loss=0.1234))
    assert compared(two_runs)["identical"] == "other device"
    sentence = compare.comparison_sentence(*compare.read_both(*(folder.parent for folder in two_runs)))
    assert "0 are not, and 1 are not but come from another device" in sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["config"]["optimizer"].update(lr=0.2), "other settings"),
        (lambda r: [s.update(seed=s["seed"] + 10) for s in r["seeds"]], "no common seed"),
    ],
)
def test_identity_is_asked_only_where_it_can_hold(two_runs, change, said):
    edit(two_runs[1], change)
    assert compared(two_runs)["identical"] == said


def test_a_mean_outside_the_published_interval_is_said(two_runs):
    def change(record):
        for seed in record["seeds"]:
            seed["final"]["last"]["test"]["accuracy"]["fused"] -= 0.3

    edit(two_runs[1], change)
    row = compared(two_runs)
    assert row["inside"] == "no"
    assert row["difference"].mean == pytest.approx(-0.3)


def test_cells_of_one_run_only_are_shown(two_runs):
    (two_runs[1] / "main" / "av_digits" / "late" / "joint.json").unlink()
    row = compared(two_runs, name="joint")
    assert row["state"] == "yours missing: no record"
    assert row["inside"] == "no local number"
    assert compared(two_runs, "early", "sam")["state"] == (
        "published failed: out of memory; yours failed: out of memory"
    )


def test_fewer_local_seeds_compare_over_the_common_ones(two_runs):
    write(
        two_runs[1] / "main" / "av_digits" / "late" / "msam.json",
        cell_record("av_digits", "late", "msam", seeds=2),
    )
    row = compared(two_runs)
    assert (row["difference"].n, row["identical"]) == (2, "yes")


@pytest.mark.parametrize("name", MINE)
def test_notebooks_are_stripped_and_tagged(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert [cell for cell in code if "parameters" in cell.metadata.tags] == code[:1]
    assert notebook.cells[0].source.startswith("# ")
    assert "**Question.**" in notebook.cells[0].source
    for cell in code:
        assert {"hide-input", "remove-input"} & set(cell.metadata.tags)
        if "figures." in cell.source and "import" not in cell.source:
            meta = cell.metadata.mystnb
            assert meta.figure.name
            assert meta.figure.caption
            assert meta.image.alt


@pytest.mark.parametrize("name", MINE)
def test_notebooks_run_as_code(any_study, name, monkeypatch):
    """Every code cell in order, as a kernel would, but in this process."""
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr("msam.analysis.pages.say", lambda **texts: None)
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    scope: dict = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, scope)
            if "parameters" in cell.metadata.tags:
                scope["results"] = str(any_study.root)


def test_glued_names_are_used_and_used_names_glued():
    for name in MINE:
        cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
        used = {
            key
            for cell in cells
            if cell.cell_type == "markdown"
            for key in re.findall(r"\{glue:text\}`(\w+)`", cell.source)
        }
        source = "".join(cell.source for cell in cells if cell.cell_type == "code")
        block = re.search(r"pages\.say\((.*?)\n?\)\n?$|pages\.say\((.*)\)", source, re.S)
        glued = set(re.findall(r"(\w+)=", "".join(block.groups("")))) if block else set()
        assert used <= glued, name


def test_a_difference_of_nothing_has_no_sign_of_its_own():
    assert number(findings.Interval(-0.001, -0.1, 0.1, 3), 2, signed=True).startswith("+0.00")
