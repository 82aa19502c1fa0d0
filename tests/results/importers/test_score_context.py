"""Scores that need more than their own line: mixtures, repeated lines, several artifacts or averages, other runs."""

from pathlib import Path

import pytest

from results.importers import read_logs
from tests.results import foreign_logs as made

EXPORT = made.artifact()
MIXTURE = "ppm_mix bytes=29365687 mix_bpb=0.972343 ppm_only=2.270203 nn_only=1.085607"


def test_a_mixture_on_a_line_of_its_own_leaves_the_score_of_the_weights(tmp_path: Path) -> None:
    between = [made.TTT_BEGIN, "ppm:mix", MIXTURE, "ppm_mix_time:109.7s subset=8000000 tokens"]
    parts = (made.header(), made.training(), made.POST_EMA, EXPORT, made.PLAIN, made.SLIDING, between)
    run = made.read_one(tmp_path, *parts, made.score("quantized_ttt", 1.87, 1.1105))
    assert (run.get("ttt_bpb"), run.get("other_bpb")) == (1.1105, 0.972343)


def test_a_mixture_that_is_repeated_as_a_score_of_the_weights_is_not_one(tmp_path: Path) -> None:
    mixture = MIXTURE.replace("0.972343", "1.11023456")
    between = [mixture, "ppm_time:93.3s native=True"]
    parts = (made.header(), made.training(), made.POST_EMA, EXPORT, made.PLAIN, made.SLIDING, between)
    run = made.read_one(tmp_path, *parts, made.score("legal_ttt", 0.71, 1.11023456))
    assert (run.get("ttt_bpb"), run.get("other_bpb")) == (None, 1.11023456)


def test_a_log_of_an_evaluation_alone_tells_what_changed_the_scores(tmp_path: Path) -> None:
    """Without training: the settings, which name all that could be switched on, are not events."""
    settings = ["  ngram_tilt_order: 16", "logs/ngram_42.txt", "ppm_alpha=0.5", "model_params:26993756"]
    scored = made.score("quantized_ttt_phased", 2.29, 1.0461)
    for between, column in (([], "ttt_bpb"), (["ngram_tilt:hints total=478 gated=628"], "other_bpb")):
        run = made.read_one(tmp_path, made.header(), settings, between, scored)
        assert run.get(column) == 1.0461, column


def test_several_float_scores_are_decided_by_the_line_that_names_the_better_one(tmp_path: Path) -> None:
    float_scores = [
        "DIAGNOSTIC post_ema val_loss:1.9196 val_bpb:1.1369 eval_time:2007ms",
        "DIAGNOSTIC post_swa val_loss:1.9313 val_bpb:1.1438 eval_time:2073ms",
    ]
    rest = (EXPORT, made.PLAIN)
    for chosen in (["best_averaging:ema val_bpb:1.1369"], ["Using ema weights (val_bpb=1.1369)"]):
        run = made.read_one(tmp_path, made.header(), made.training(), float_scores, chosen, *rest)
        assert (run.get("float_bpb"), run.get("post_quant_bpb")) == (1.1369, 1.14500258)
    run = made.read_one(tmp_path, made.header(), made.training(), float_scores, *rest)
    assert "several scores" in run.nulls["float_bpb"]


def test_a_float_score_that_took_as_long_as_a_sliding_window_is_not_the_float_bpb(tmp_path: Path) -> None:
    scored = ["ema:applying EMA weights", "ema_eval val_bpb:1.1160 eval_time:71186ms"]
    run = made.read_one(tmp_path, made.header(), made.training(), scored, EXPORT, made.SLIDING)
    assert run.get("float_bpb") is None
    assert "as long as a sliding window" in run.nulls["float_bpb"]


@pytest.mark.parametrize("label", ["final_research_export", "final_int6_roundtrip"])
def test_two_artifacts_with_scores_of_their_own_are_null(label: str, tmp_path: Path) -> None:
    """Neither the decimals of a score nor its place tells which artifact counts."""
    second = ["gptq_int6_brotli: 15,772,447 bytes | code: 91,673 | total: 15,864,120 (15.86MB)"]
    scored = [*made.score(f"{label}_roundtrip", 1.93, 1.14500258), *second, "gptq_int6_brotli_roundtrip val_bpb:1.1851"]
    run = made.read_one(tmp_path, made.header(), made.training(), EXPORT, scored)
    assert [run.get(name) for name in ("post_quant_bpb", "artifact_bytes", "model_bytes")] == [None, None, None]
    assert "several scores" in run.nulls["post_quant_bpb"]


def test_research_is_not_a_search(tmp_path: Path) -> None:
    scored = ["final_research_export_roundtrip val_loss:1.9552 val_bpb:1.1580 eval_time:6754ms",
              "final_research_export_exact val_loss:1.95522422 val_bpb:1.15799392"]  # fmt: skip
    run = made.read_one(tmp_path, made.header(), made.training(), made.POST_EMA, EXPORT, scored)
    assert (run.get("post_quant_bpb"), run.get("other_bpb")) == (1.15799392, None)


def test_scores_that_the_end_of_a_log_repeats_are_no_second_run(tmp_path: Path) -> None:
    lines = [*made.header(), *made.training(), *made.POST_EMA, *EXPORT, *made.PLAIN]
    recap = ["=== val_bpb lines ===", *[line for line in lines if "val_bpb:" in line and "=" not in line]]
    run = made.read_one(tmp_path, lines, recap)
    assert (run.get("steps"), run.get("post_quant_bpb")) == (7000, 1.14500258)


def test_settings_before_the_environment_belong_to_the_next_run(tmp_path: Path) -> None:
    def one(seed: int, bpb: float) -> list[str]:
        settings = [
            made.RULER,
            "Hyperparameters:",
            "  ema_decay: 0.997",
            f"  seed: {seed}",
            "  eval_stride: 64",
            made.RULER,
        ]
        return [*settings, "Running Python 3.12.3", made.RULER, *made.header(None), *made.training(),
                *made.score("final_int6_roundtrip", 1.93, bpb, rest=" eval_time:2000ms")]  # fmt: skip

    path = tmp_path / "a.log"
    path.write_text("\n".join([*one(1, 1.145), *one(2, 1.146)]))
    assert [(run.get("seed"), run.get("post_quant_bpb")) for run in read_logs(path)] == [(1, 1.145), (2, 1.146)]


def test_a_gain_through_test_time_training_is_judged_by_the_weights_that_it_began_with(tmp_path: Path) -> None:
    """The last weights may be far worse than the averaged ones, so they are no measure if those were scored."""
    scored = made.score("legal_ttt", 1.77, 1.0607)
    run = made.read_one(tmp_path, made.header(), made.training(), made.POST_EMA, EXPORT, made.PLAIN, scored)
    assert (run.get("ttt_bpb"), run.get("other_bpb")) == (None, 1.0607)


@pytest.mark.parametrize(("loss", "column"), [(0.9063 * 2.43593 * 0.693147, "other_bpb"), (2.69, "post_quant_bpb")])
def test_a_score_below_every_valid_one_is_refused_or_has_a_note(loss: float, column: str, tmp_path: Path) -> None:
    """With the bytes per token of the published split nothing but the text explains it; else the denominator may."""
    scored = made.score("final_int6_roundtrip", loss, 0.9063, rest=" eval_time:2000ms")
    run = made.read_one(tmp_path, made.header(), made.training(raw="0.9019"), EXPORT, scored)
    assert run.get(column) == 0.9063
    if column == "other_bpb":
        assert "lower than any model reaches" in run.nulls["post_quant_bpb"]
    else:
        assert "lower than any valid public score" in str(run.columns["notes"])


def test_a_float_score_of_a_broken_model_does_not_refuse_the_quantized_ones(tmp_path: Path) -> None:
    """Weights trained with quantization in the forward pass may be useless without it."""
    lines = made.training(raw="3.1029")
    scored = made.score("final_int6_roundtrip", 1.93328889, 1.14500258, rest=" eval_time:2000ms")
    run = made.read_one(tmp_path, made.header(), lines, EXPORT, scored)
    assert (run.get("raw_bpb"), run.get("post_quant_bpb"), run.get("float_bpb")) == (3.1029, 1.14500258, None)
