"""The paper's layout, the tables of the search and of the costs on fabricated records."""

import json
import re
from dataclasses import replace

import pytest
from test_analysis_records import cell_record, fabricate, write

from msam.analysis import accuracy, budget, cost, paper, setup
from msam.analysis.names import label
from msam.analysis.sources import read

DASH = "\N{EN DASH}"
DIGITS, CONTROLLED = "av_digits: embedded (miniature of AV-MNIST)", "controlled: embedded"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The fabricated study with some of the paper's baselines; ogm_ge is not defined on controlled."""
    results = fabricate(tmp_path_factory.mktemp("project") / "results" / "embedded")
    for dataset in ("av_digits", "controlled"):
        for fusion in ("late", "early"):
            for name in ("ogm_ge", "agm", "asam"):
                record = cell_record(dataset, fusion, name)
                if (dataset, name) == ("controlled", "ogm_ge"):
                    record |= {"state": "undefined", "seeds": [], "reason": "needs two modalities"}
                write(results / "main" / dataset / fusion / f"{name}.json", record)
    return read(results.parent)


def shown(table):
    return table.blocks[0].rows.set_index(("", "method"))


def test_rows_are_exactly_the_papers(study):
    late = list(shown(accuracy.paper_layout(study, "late")).index)
    singles, rest = ["Single-*"], late[1:]
    assert late[:1] == singles
    theirs = paper.reported().query("fusion == 'late'")["method"].unique()
    assert rest == [text for text in theirs if not text.startswith("Single-")]
    early = list(shown(accuracy.paper_layout(study, "early")).index)
    assert early == list(paper.reported().query("fusion == 'early'")["method"].unique())


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_every_cell_stands_in_one_of_the_two_tables(study, fusion):
    tables = [accuracy.paper_layout(study, fusion), accuracy.additional_layout(study, fusion)]
    cells = study.cells[study.cells["fusion"] == fusion]
    counts = [set(table.data["method"]) for table in tables]
    assert counts[0] | counts[1] == set(cells["name"])
    assert not counts[0] & counts[1]


def test_additional_methods_follow_in_reading_order(study):
    late = list(shown(accuracy.additional_layout(study, "late")).index)
    assert late[:3] == ["M-SAM (encoder)", "M-SAM (response)", "SAM/SGD mixture"]
    assert "ASAM" in late
    early = list(shown(accuracy.additional_layout(study, "early")).index)
    assert early[0] == "Single-*"
    assert "OGM-GE" in early
    assert "AGM" not in early


def test_datasets_are_across_with_their_level_in_the_heading(study):
    columns = list(accuracy.paper_layout(study, "late").blocks[0].rows.columns)
    assert columns[:5] == [("", "method"), *((DIGITS, x) for x in ("image", "audio", "fused", "n"))]
    assert (CONTROLLED, "m3") in columns


def test_numbers_are_those_of_the_detailed_table(study):
    detail = accuracy.detail_table(study, "late").blocks[0].rows.set_index("method")
    for table in (accuracy.paper_layout(study, "late"), accuracy.additional_layout(study, "late")):
        for heading, row in shown(table).iterrows():
            name = {"Joint-Train": "joint"}.get(heading, heading)
            if name in detail.index and detail.loc[name, "n"]:
                for output in ("image", "audio", "fused"):
                    assert row[DIGITS, output] == detail.loc[name, output]
                assert row[DIGITS, "n"] == str(detail.loc[name, "n"])


def test_single_modalities_share_a_row(study):
    row = shown(accuracy.paper_layout(study, "late")).loc["Single-*"]
    detail = accuracy.detail_table(study, "late").blocks[0].rows.set_index("method")
    assert row[DIGITS, "image"] == detail.loc["only image", "image"] != DASH
    assert row[DIGITS, "audio"] == detail.loc["only audio", "audio"]
    assert row[DIGITS, "fused"] == DASH


def test_cells_without_numbers_say_why(study):
    late, early = (accuracy.paper_layout(study, fusion) for fusion in ("late", "early"))
    assert shown(late).loc["OGM-GE", (CONTROLLED, "fused")] == DASH
    assert "Not defined: needs two modalities (OGM-GE on controlled)." in late.note
    assert shown(early).loc["SAM", (DIGITS, "fused")] == "failed"
    assert shown(early).loc["SAM", (DIGITS, "image")] == DASH
    assert shown(early).loc["SAM", (DIGITS, "n")] == DASH
    assert "Failed: out of memory (SAM on av_digits)." in early.note
    more = accuracy.additional_layout(study, "early")
    assert shown(more).loc["SAM/SGD mixture", (DIGITS, "fused")] == "missing"
    assert "Not defined: needs &lt;late&gt; fusion (M-SAM (encoder) on av_digits)." in more.to_html()
    mixture = accuracy.additional_layout(study, "late")
    assert shown(mixture).loc["SAM/SGD mixture", (DIGITS, "n")] == "2"
    assert "Diverged 1/3 seeds (SAM/SGD mixture on av_digits)." in mixture.note
    assert "SAM/SGD mixture" not in late.note


def test_a_method_that_no_study_lists_is_not_run(tmp_path):
    results = tmp_path / "results" / "own"
    write(results / "main/av_digits/late/msam.json", cell_record("av_digits", "late", "msam"))
    rows = shown(accuracy.paper_layout(read(results.parent), "late"))
    assert rows.loc["CGGM", ("av_digits: own", "fused")] == "not run"
    assert rows.loc["M-SAM", ("av_digits: own", "fused")].startswith("5")


def test_seeds_that_all_diverged_are_said(tmp_path):
    results = tmp_path / "results" / "own"
    record = cell_record("av_digits", "late", "agm")
    for seed in record["seeds"]:
        seed |= {"state": "diverged", "reason": "loss is nan", "final": {}}
    write(results / "main/av_digits/late/agm.json", record)
    write(results / "main/av_digits/late/msam.json", cell_record("av_digits", "late", "msam"))
    table = accuracy.paper_layout(read(results.parent), "late")
    assert shown(table).loc["AGM", ("av_digits: own", "fused")] == "diverged"
    assert not table.blocks[0].strong  # a method without numbers is not beaten


def test_bold_is_the_best_of_both_tables(tmp_path):
    results = tmp_path / "results" / "own"

    def bold(tables):
        return [
            table.blocks[0].rows.loc[i, ("", "method")] for table in tables for i, _ in table.blocks[0].strong
        ]

    for name in ("joint", "sam", "msam"):
        write(results / f"main/av_digits/late/{name}.json", cell_record("av_digits", "late", name))

    def tables():
        study = read(results.parent)
        return [accuracy.paper_layout(study, "late"), accuracy.additional_layout(study, "late")]

    assert bold(tables()) == ["M-SAM"]
    best = cell_record("av_digits", "late", "asam")
    for seed in best["seeds"]:
        seed["final"]["last"]["test"]["accuracy"]["fused"] = 0.9
    write(results / "main/av_digits/late/asam.json", best)
    assert bold(tables()) == ["ASAM"]


@pytest.mark.parametrize(
    ("make", "ungrouped"),
    [(lambda s: accuracy.paper_layout(s, "late"), 1), (lambda s: budget.budget_cells_table(s, s), 6)],
)
def test_two_lines_of_headings_have_as_many_columns_as_the_rows(study, make, ungrouped):
    head, body = make(study).to_html().split("</thead>")
    assert 'class="dataframe grouped"' in head
    above, below = head.split("</tr><tr>")
    spans = [int(span or 1) for span in re.findall(r'<th(?: colspan="(\d+)")?>', above)]
    assert sum(spans) == below.count("<th>") == body.split("</tr>")[0].count("<td")
    assert spans[:ungrouped] == [1] * ungrouped
    assert min(spans[ungrouped:]) > 1


@pytest.fixture
def searched(tmp_path):
    """A search record with parameters of single methods."""
    results = fabricate(tmp_path / "results" / "embedded", datasets=("av_digits",))
    search = json.loads((results / "search.json").read_text())
    search["space"]["methods"] = {"asam": {"rho": [0.5, 5.0]}, "agm": {"alpha": [0.1, 2.0]}}
    search["trials"][0] |= {"name": "agm", "options": {"alpha": 0.8}}
    search["trials"][1]["options"] = {}
    search["chosen"].append(
        {**search["chosen"][0], "name": "agm", "options": {"alpha": 0.8, "mode": "sum", "k": 3}}
    )
    write(results / "search.json", search)
    return read(results.parent)


def test_the_space_lists_shared_ranges_and_those_of_single_methods(searched, study):
    rows = setup.space_table(searched).blocks[0].rows
    assert rows[["method", "parameter", "from", "to"]].to_numpy().tolist() == [
        ["every method", "lr", "0.01", "0.1"],
        ["every method", "rho", "0.05", "0.1"],
        ["AGM", "alpha", "0.1", "2"],
        ["ASAM", "rho", "0.5", "5"],
    ]
    assert set(setup.space_table(study).blocks[0].rows["method"]) == {"every method"}


def test_parameters_of_a_method_stand_in_its_row(searched, study):
    chosen = setup.chosen_table(searched).blocks[0].rows.set_index("method")["own parameters"]
    assert chosen.to_dict() == {"joint": DASH, "AGM": "alpha 0.8, mode sum, k 3"}
    trials = setup.search_table(searched).blocks[0].rows
    agm = trials[trials["method"] == label("agm")]
    assert agm["own parameters"].tolist() == ["alpha 0.8"]
    assert set(trials.loc[trials["method"] != "AGM", "own parameters"]) == {DASH}
    assert set(setup.search_table(study).blocks[0].rows["own parameters"]) == {DASH}


def test_the_search_sentence_names_methods_with_ranges_of_their_own(searched, study):
    text = setup.search_sentence(searched)
    assert "(lr from 0.01 to 0.1, rho from 0.05 to 0.1; with ranges of their own: AGM, ASAM)" in text
    assert "ranges of their own" not in setup.search_sentence(study)


def trials_of(**counts):
    """A search of 8 draws at a fixed learning rate: method -> number of its trials on two datasets."""
    trials = [
        {"dataset": dataset, "fusion": "late", "name": name}
        for dataset in ("mosi", "watch")
        for name, count in counts.items()
        for _ in range(count)
    ]
    space = {"lr": [1e-3, 1e-3], "rho": [0.01, 0.5], "methods": {"agm": {"alpha": [0.3, 6.0]}}}
    return {"budget": 8, "seed": 1000, "space": space, "trials": trials}


def test_the_search_sentence_counts_the_trials_of_methods_with_nothing_to_draw(study):
    searches = {"paper": trials_of(joint=1, mslr=1, agm=8, msam=8)}
    text = setup.search_sentence(replace(study, searches=searches, homes={"mosi": "paper"}))
    assert "the same 8 draws, log-uniform (lr 0.001, rho from 0.01 to 0.5;" in text
    assert "a dataset and fusion had 8 trials, but 1 for joint and MSLR. They" in text
    searches = {"paper": trials_of(agm=8, msam=8)}
    text = setup.search_sentence(replace(study, searches=searches, homes={"mosi": "paper"}))
    assert "; each had 8 trials. They" in text


def test_costs_come_in_reading_order_with_gaps_for_what_was_not_measured(tmp_path):
    results = fabricate(tmp_path / "results" / "embedded", datasets=("av_digits",))
    path = results.parent / "benchmarks" / "step_cost.json"
    costs = json.loads(path.read_text())
    agm = {k: v for k, v in costs["rows"][0].items() if k != "ratio_to_sam_iqr"} | {"method": "agm"}
    costs["rows"].append(agm)
    write(path, costs)
    rows = cost.cost_table(read(results.parent)).blocks[0].rows
    assert rows["method"].tolist()[:5] == ["joint", "AGM", "SAM", "M-SAM", "M-SAM (naive)"]
    assert rows.loc[rows["method"] == "AGM", "quartiles"].tolist() == [DASH]
    assert rows["fusion"].tolist() == sorted(rows["fusion"], reverse=True)


def test_peers_have_their_range_over_the_networks_and_their_memory(tmp_path):
    results = fabricate(tmp_path / "results" / "embedded", datasets=("av_digits",))
    path = results.parent / "benchmarks" / "step_cost.json"
    assert cost.peers_sentence(read(results.parent)) == "The library has not been timed beside other SAMs."
    assert cost.peers_table(read(results.parent)).blocks[0].rows.empty
    costs = json.loads(path.read_text())
    rows = [row | {"net": "small", "memory": 3.25} for row in costs["rows"] if "naive" not in row["method"]]
    peers = [row | {"method": "sam (two calls)"} for row in rows if row["method"] == "sam"]
    write(path.with_name("peers.json"), costs | {"rows": rows + peers})
    study = read(results.parent)
    assert set(cost.peers_table(study).blocks[0].rows["memory"]) == {"3.25"}
    assert cost.peers_sentence(study) == (
        "Relative to a step of this library's SAM, by network: SAM by two calls 1.00 to 1.10, "
        "M-SAM 1.04 to 1.14."
    )
    assert cost.gpu_sentence(study) == ""
    gpu = {"environment": {"device": "cuda: NVIDIA X"}, "rows": [r | {"ratio_to_sam": 1.5} for r in rows]}
    write(path.parent / "cuda" / "peers.json", gpu)
    assert cost.gpu_sentence(study) == (
        "On a GPU (NVIDIA X): Relative to a step of this library's SAM, by network: M-SAM 1.50 to 1.50."
    )
    table = cost.peers_table(study, cost.GPU)
    assert "memory" not in table.blocks[0].rows
    assert table.footer.endswith("remake: `make benchmark DEVICE=cuda`.")
    assert table.file == "cuda_peers"
    assert cost.gpu_table(study).blocks[0].rows.empty
    write(
        path.parent / "cuda" / "step_cost.json",
        costs | {"rows": [*costs["rows"], rows[0] | {"net": "paper"}]},
    )
    wide = cost.gpu_table(study).blocks[0].rows.set_index(("", "method"))
    assert wide.loc["M-SAM", ("small, early fusion", "M = 3")] == "1.14"
    assert wide["paper, late fusion", "M = 2"].tolist() == ["0.50", DASH, DASH, DASH]
