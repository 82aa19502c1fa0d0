"""Charts: their numbers equal the tables', every arm is shown or named as missing, and no information needs colour."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

import results
from results import plots
from results.plots import labels, style
from results.plots.curves import learning_curves
from results.schema import frame
from tests.results.five_seeds import ARMS, HOSTILE, SEEDS, write_five_seeds
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.limits import WIN_NATS

FIGURES: dict[str, Callable[[pd.DataFrame], go.Figure]] = {
    "deltas": lambda trials: plots.deltas(trials, metric="post_quant_bpb"),
    "sizes": lambda trials: plots.sizes(trials, metric="post_quant_bpb"),
    "gaps": plots.gaps,
    "step_tax": lambda trials: plots.step_tax(trials, metric="post_quant_bpb"),
    "curves": lambda trials: learning_curves(results.curves(trials.attrs["runs"]), trials),
}
WITH_NUMBERS = [arm for arm, about in ARMS.items() if "fails" not in about]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return results.load(write_five_seeds(tmp_path_factory.mktemp("runs") / "five-seeds").root)


def by_name(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("template", [style.LIGHT, style.DARK])
def test_colours_have_contrast_on_both_backgrounds(template: go.layout.Template) -> None:
    back = template.layout.paper_bgcolor
    assert contrast(template.layout.font.color, back) >= 7
    assert all(contrast(color, back) >= 3 for color in (*style.COLORS, style.GREY))


def test_every_arm_has_its_own_style() -> None:
    arms = [f"a{i}" for i in range(73)]
    look = style.styles(arms, "a0")
    assert len({(style.color, style.symbol) for style in look.values()}) == 73
    assert len({(style.color, style.dash) for style in list(look.values())[1:41]}) == 40


POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=12)


@given(POINTS, st.integers(1, 20))
def test_labels_cover_neither_each_other_nor_a_marker_at_any_width(
    points: list[tuple[float, float, float]], chars: int
) -> None:
    bars = [(x, low, min(1.0, low + bar)) for x, low, bar in points]
    sides = labels.place_labels(bars, [chars] * len(bars), (0, 1), (0, 1), 300)
    apart = 1e-6
    for width in (470, 640, 1250):
        markers = {
            i: (x * width - 6, 300 * (1 - high) - 6, x * width + 6, 300 * (1 - low) + 6)
            for i, (x, low, high) in enumerate(bars)
        }
        boxes = {}
        for i, side in enumerate(sides):
            x, top, bottom = bars[i][0] * width, markers[i][1], markers[i][3]
            if side:
                boxes[i] = (
                    x - chars * 3.3,
                    top - 15 if side > 0 else bottom,
                    x + chars * 3.3,
                    top if side > 0 else bottom + 15,
                )
        for i, a in boxes.items():
            assert a[0] >= -apart
            assert a[2] <= width + apart
            for b in [b for j, b in boxes.items() if j > i] + [b for j, b in markers.items() if j != i]:
                is_beside = a[2] <= b[0] + apart or b[2] <= a[0] + apart
                assert is_beside or a[3] <= b[1] + apart or b[3] <= a[1] + apart


def test_points_with_free_space_are_labelled() -> None:
    bars = [(0.5, 0.5, 0.6), (0.5, 0.52, 0.55), (0.5, 0.1, 0.2), (0.01, 0.9, 0.9)]
    assert labels.place_labels(bars, [10] * 4, (0, 1), (0, 1), 300) == [1, None, 1, None]


@given(st.lists(st.floats(-500, 500), max_size=20), st.floats(1, 20))
def test_spread_positions_keep_distance_and_order(heights: list[float], gap: float) -> None:
    moved = labels.spread(heights, gap)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(moved[b] - moved[a] >= gap - 1e-9 for a, b in itertools.pairwise(order))


def test_spread_positions_share_the_shift() -> None:
    """Two labels at one place move apart equally; labels with room stay."""
    assert labels.spread([5.0, 5.0], 2.0) == [4.0, 6.0]
    assert labels.spread([1.0, 4.0], 2.0) == [1.0, 4.0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_only_few_and_distant_values_are_outliers(values: list[float]) -> None:
    kept = style.core(values)
    assert len(kept) >= len(values) - len(values) // 4
    if len(kept) < len(values):
        assert max(values) - min(values) > 10 * (max(kept) - min(kept)) > 0


def test_one_distant_value_does_not_compress_the_others() -> None:
    assert sorted(style.core([0.1, 0.2, 0.3, 9.0])) == [0.1, 0.2, 0.3]
    assert style.core([0.1, 0.2, 9.0]) == [0.1, 0.2, 9.0]  # a quarter of three values is none


def test_deltas_are_those_of_the_ablation(trials: pd.DataFrame) -> None:
    figure = plots.deltas(trials)
    table = results.ablation(trials).set_index("arm")
    drawn = by_name(figure)
    assert set(drawn) == {style.short(arm) for arm in WITH_NUMBERS if arm != "int6"}
    for arm in WITH_NUMBERS[1:]:
        trace = drawn[style.short(arm)]
        assert trace.x[0] == pytest.approx(table.loc[arm, "delta"])
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(table.loc[arm, "ci_high"])
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(table.loc[arm, "ci_low"])
    rule = WIN_NATS / (math.log(2) * 2.4)  # 240,000 bytes and 100,000 tokens
    assert {round(shape.x0, 9) for shape in figure.layout.shapes} == {0, round(rule, 9), round(-rule, 9)}


def test_verdicts_and_failures_have_a_symbol_and_a_text(trials: pd.DataFrame) -> None:
    figure = plots.deltas(trials)
    drawn = by_name(figure)
    symbols = {arm: drawn[arm].marker.symbol for arm in ("late-qat", "qna", "wide")}
    assert symbols["late-qat"] in style._SYMBOLS  # a WIN is solid
    assert symbols["qna"].endswith("-open")
    assert symbols["wide"] == "x"
    ticks = figure.layout.yaxis.ticktext
    assert len(ticks) == len(ARMS) - 1
    words = {
        arm: next(tick for tick in ticks if tick.startswith(f"{arm}<br>"))
        for arm in ("muon-vs", "svd", "waiting", "wide")
    }
    assert "infeasible" in words["wide"]
    said = {annotation.y: annotation.text for annotation in figure.layout.annotations}
    assert [said[ticks.index(words[arm])] for arm in ("muon-vs", "svd", "waiting")] == [
        "5 failed: diverged",
        "2 killed",
        "5 queued",
    ]
    drawn_rows = {round(y) for trace in figure.data for y in trace.y}
    assert not drawn_rows & {
        ticks.index(words[arm]) for arm in ("muon-vs", "svd", "waiting")
    }  # no marker without a value


def test_sizes_show_the_cap_the_front_and_missing_arms(trials: pd.DataFrame) -> None:
    figure = plots.sizes(trials)
    drawn = by_name(figure)
    measured = trials[trials["status"] == "finished"]
    for arm, own in measured.groupby("arm"):
        trace = drawn[style.short(str(arm))]
        assert trace.x == (own["artifact_bytes"].max(),)
        assert trace.y[0] == pytest.approx(own["sliding_bpb"].mean())
    assert [shape.x0 for shape in figure.layout.shapes] == [16_000_000]
    assert "cap 16,000,000" in [annotation.text for annotation in figure.layout.annotations]
    assert drawn["wide"].marker.symbol.endswith("-open")
    front = next(trace for trace in figure.data if trace.line.shape == "hv")
    assert [name for name, trace in drawn.items() if trace.x[0] in front.x] == [
        "late-qat",
        style.short("int4-mlp+late-qat-and-a-long-name"),
        "int4-mlp",
    ]
    assert list(front.y) == sorted(front.y, reverse=True)
    for arm in ("muon-vs (5 failed: diverged)", "svd (2 killed)", "waiting (5 queued)"):
        assert arm in figure.layout.meta["note"]


def test_a_distant_cap_is_mentioned_not_drawn(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    for arm, num_bytes in (("int8", 500_000), ("int6", 400_000)):
        run.finish(arm, 1, model_bytes=num_bytes)
    figure = plots.sizes(results.load(run.layout.root), metric="post_quant_bpb")
    assert not figure.layout.shapes
    assert "16,000,000 bytes is far to the right" in figure.layout.meta["note"]


def test_sizes_without_an_arm_within_the_cap_have_no_front(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 1, model_bytes=17_000_000)
    figure = plots.sizes(results.load(run.layout.root), metric="post_quant_bpb")
    assert by_name(figure)["int8"].marker.symbol.endswith("-open")
    assert not next(trace for trace in figure.data if trace.line.shape == "hv").x


def test_gaps_are_per_stored_bit(trials: pd.DataFrame) -> None:
    drawn = by_name(plots.gaps(trials))
    own = trials[(trials["arm"] == "int4-mlp") & (trials["status"] == "finished")]
    assert drawn["int4-mlp"].x[0] == pytest.approx((8 * own["model_bytes"] / own["num_params"]).mean())
    assert drawn["int4-mlp"].y[0] == pytest.approx(own["quant_gap"].mean())


def test_step_tax_is_that_of_the_decomposition(trials: pd.DataFrame) -> None:
    figure = plots.step_tax(trials)
    parts = results.decompose(trials, metrics=["sliding_bpb"]).set_index("arm")
    drawn = by_name(figure)
    arms = ("late-qat", "wide", "deep-delta", "int4-mlp+late-qat-and-a-long-name")
    assert set(drawn) == {style.short(arm) for arm in arms}
    for arm in arms:
        trace, line = drawn[style.short(arm)], parts.loc[arm]
        assert trace.x[0] == pytest.approx(100 * (line["step_ms"] / line["control_step_ms"] - 1))
        assert trace.y[0] == pytest.approx(line["delta"])
        hollow = next(t for t in figure.data if not t.name and t.marker.size == 9 and t.x[0] == trace.x[0])
        assert hollow.y[0] == pytest.approx(line["delta"] - line["fewer_steps"])
        ends = (trace.y[0] - trace.error_y.arrayminus[0], trace.y[0] + trace.error_y.array[0])
        assert ends == pytest.approx(sorted([trace.y[0], hollow.y[0]]))  # the bar joins the two
    assert "qna" in figure.layout.meta["note"]  # same step time as the control


def test_curves_share_lines_mark_gates_and_failures(trials: pd.DataFrame) -> None:
    logged = results.curves(trials.attrs["runs"])
    figure = learning_curves(logged, trials)
    upper = [trace for trace in figure.data if trace.mode == "lines" and trace.yaxis == "y"]
    assert len(upper) == len(ARMS) - 2  # int4-mlp shares int6's training run; `waiting` has none
    assert upper[0].name == "int6 +1"
    gates = [trace for trace in figure.data if trace.marker.symbol == "triangle-up" and trace.yaxis == "y"]
    assert [trace.x for trace in gates] == 2 * [(5900,)]
    assert "▲ QAT starts." in figure.layout.meta["note"]
    assert "muon-vs ✕ at step 1,000, svd ✕ at step 1,000" in figure.layout.meta["note"]
    names = [annotation.text for annotation in figure.layout.annotations]
    assert "late-qat" in names
    assert figure.layout.yaxis.title.text == "validation bpb, raw weights"


def test_the_lower_panel_is_the_difference_at_the_same_step_and_seed(trials: pd.DataFrame) -> None:
    logged = results.curves(trials.attrs["runs"])
    figure = learning_curves(logged, trials)
    lower = {trace.name: trace for trace in figure.data if trace.mode == "lines" and trace.yaxis == "y2"}
    points = logged.dropna(subset=["val_bpb"]).pivot_table(index="step", columns=["arm", "seed"], values="val_bpb")
    expected = (points["qna"] - points["int6"]).dropna().mean(axis=1)
    drawn = dict(zip(lower["qna"].x, lower["qna"].y, strict=True))
    assert drawn == pytest.approx(expected.to_dict())
    assert set(lower["int6 +1"].y) == {0.0}


def test_training_loss_where_nothing_was_validated(trials: pd.DataFrame) -> None:
    logged = results.curves(trials.attrs["runs"])
    logged["train_loss_nats"] = logged["val_bpb"] + 1
    logged.loc[logged["event"].isna(), "val_bpb"] = pd.NA
    figure = learning_curves(logged, trials)
    assert figure.layout.yaxis.title.text == "training loss, nats per token"


def test_the_curves_fill_their_panels(trials: pd.DataFrame) -> None:
    figure = learning_curves(results.curves(trials.attrs["runs"]), trials)
    (x_low, x_high), (y_low, y_high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    assert x_low > 0
    for line in figure.data:
        if line.mode == "lines" and line.yaxis == "y" and "✕" not in line.name:
            shown = [x for x, y in zip(line.x, line.y, strict=True) if x_low <= x <= x_high and y_low <= y <= y_high]
            assert min(shown) <= x_low + 250  # the distance of two validations
    labelled = [a for a in figure.layout.annotations if a.ax is not None]
    assert labelled
    assert all(x_low <= a.x <= x_high for a in labelled)


@pytest.mark.parametrize("name", FIGURES)
def test_tick_labels_have_as_many_digits_as_they_need(trials: pd.DataFrame, name: str) -> None:
    layout = FIGURES[name](trials).layout
    axes = [layout[key] for key in layout if key.startswith(("xaxis", "yaxis"))]
    assert axes
    assert {axis.tickformat for axis in axes} == {None}  # a fixed number of digits makes ticks equal after a zoom


@pytest.mark.parametrize("name", FIGURES)
def test_names_of_arms_are_escaped(trials: pd.DataFrame, name: str) -> None:
    figure = FIGURES[name](trials)
    texts: list[str] = []
    for trace in figure.data:
        texts += [trace.name or "", *(trace.text or ()), *(trace.hovertext or ())]
    texts += [annotation.text for annotation in figure.layout.annotations]
    texts += [figure.layout.title.text, figure.layout.title.subtitle.text, *(figure.layout.yaxis.ticktext or ())]
    assert not [text for text in texts if HOSTILE in text or "<script" in text]
    assert HOSTILE in figure.layout.meta["note"] or any("&lt;script" in text for text in texts)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("kind", ["empty", "one arm", "all failed", "imported"])
def test_a_chart_without_data_shows_the_reason(tmp_path: Path, kind: str, name: str) -> None:
    run = Run(tmp_path / "bits")
    if kind == "one arm":
        run.finish("int8", 1)
    if kind == "all failed":
        for arm in ("int8", "int6"):
            run.entry(arm, 1, "failed", failure_kind="oom", reason="out of memory")
    trials = results.load(run.layout.root)
    if kind == "imported":
        trials = frame([{"arm": arm, "seed": 1, "status": "finished", "sliding_bpb": 1.2} for arm in ("a", "b")])
        trials.attrs = results.load(run.layout.root).attrs | {"control": "a"}
    figure = FIGURES[name](trials)
    why = style.why_empty(figure)
    assert why or (kind, name) in {("one arm", "sizes"), ("one arm", "gaps")}
    assert figure.to_json()
    if kind == "all failed" and name != "curves":
        assert "failed: oom" in (why or "")


def test_a_large_search_shows_its_best(tmp_path: Path) -> None:
    run = Run(tmp_path / "search", "name: s\ncontrol: t000\n")
    for i in range(100):
        run.finish(f"t{i:03d}", 1, 2.5 + (i * 37 % 100) / 1000)
    figure = plots.deltas(results.load(run.layout.root), metric="post_quant_bpb")
    drawn = by_name(figure)
    assert len(drawn) == style.MOST_ARMS
    assert max(trace.x[0] for trace in drawn.values()) == pytest.approx(0.040)
    assert "The best 40 of 99 arms" in figure.layout.meta["note"]
    plane = plots.sizes(results.load(run.layout.root), metric="post_quant_bpb")
    assert len(by_name(plane)) == style.MOST_ARMS
    dots = next(trace for trace in plane.data if trace.marker.size == 5)
    assert len(dots.x) == 60
    assert min(dots.y) > max(trace.y[0] for arm, trace in by_name(plane).items() if arm != "t000") - 1e-9


def test_an_unknown_control_is_refused(trials: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="not among the arms"):
        plots.deltas(trials, control="nobody")


def test_paired_seeds_are_dots(trials: pd.DataFrame) -> None:
    dots = [trace for trace in plots.deltas(trials).data if trace.marker.size == 4]
    assert {len(trace.x) for trace in dots} == {len(SEEDS)}


def test_long_names_of_arms_never_become_equal(tmp_path: Path) -> None:
    grid = [f"quant.bits.mlp={bits},average.kind=ema,average.decay={decay}" for bits in (4, 6) for decay in (0.9, 0.99)]
    written = [f"late quantization-aware training with {n} bits and a very long name" for n in (4, 6)]
    run = Run(tmp_path / "x", "name: x\n")
    for arm in ("int8", *grid, *written):
        for seed in (1, 2):
            run.finish(arm, seed, 2.5 + len(arm) * seed * 1e-4)
    chart = plots.deltas(results.load(run.layout.root), "int8", "post_quant_bpb")
    ticks = [text.partition("<br>")[0] for text in chart.layout.yaxis.ticktext]
    assert ticks[:4] == [
        "mlp=4 ema decay=0.9",
        "mlp=4 ema decay=0.99",
        "mlp=6 ema decay=0.9",
        "mlp=6 ema decay=0.99",
    ] or (len(set(ticks)) == len(ticks) == 6 and not any("quant" in tick for tick in ticks[:4]))
    for figure in (plots.sizes(results.load(run.layout.root), "int8", "post_quant_bpb"),):
        named = [trace.name for trace in figure.data if trace.name]
        assert len(set(named)) == len(named) == 7
