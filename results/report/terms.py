"""Explanations of the words in a report: column headings and verdicts."""

from results.schema import COLUMNS

VERDICT_KINDS = {
    "WIN": "good", "LOSS": "bad", "INFEASIBLE": "bad", "FAILED": "bad", "KILLED": "stopped", "INCOMPLETE": "open",
    "TOO FEW SEEDS": "open", "INCONCLUSIVE": "open", "SMALL": "even", "NOISE": "even", "NOT COMPARABLE": "even",
    "CONTROL": "control",
}  # fmt: skip
"""Verdict -> its class in report.css, which gives it a colour and a shape."""

_WORDS = {
    "seeds": "Finished seeds in the comparison. paired: the same seeds as the control; welch: other seeds.",
    "Δ ± 95 % CI": "Mean difference from the control and its 95 % confidence interval (t). Below 0 is better.",
    "p (Holm)": "Two-sided p of the difference, after Holm's correction for the number of arms.",
    "p (perm.)": "Exact two-sided p of the sign-flip permutation test, without correction; from 8 pairs on.",
    "verdict": "Hover a verdict for its meaning. docs/verdicts.md lists all of them.",
    "seeds needed": "Further seeds until a difference of this size would be a WIN or LOSS. ≥: at least.",
    "float": "float_bpb: the averaged weights before quantization; non-sliding.",
    "post-quant": "post_quant_bpb: the unpacked artifact; non-sliding.",
    "gap ± std": "quant_gap: post-quant minus float bpb, the cost of quantization; standard deviation over seeds.",
    "bytes, % of cap": "artifact_bytes of the largest seed: code and weights; the cap is 16,000,000 bytes. !: over it.",
    "steps × ms": "Optimizer steps, and training time per step in milliseconds.",
    "QAT start, coverage": "Step at which quantization-aware training began, its share of the quantized elements, and "
    "whether it was measured to act.",
    "Δ": "Mean difference from the control in bits per byte: the sum of the terms to the right.",
    "at equal steps": "Difference of the raw weights at the last step that both runs reached.",
    "fewer steps": "What the longer of the two runs gained after that step: the price of a slower step.",
    "averaging": "Difference in what averaging the weights gains.",
    "quant gap": "Difference in the cost of quantization.",
    "sliding window": "Difference in what a longer context gains.",
    "effect": "A factor, averaged over the levels of the others; or an interaction: a difference of differences.",
    "levels": "The level, against the reference level.",
    "bpb": "Bits per byte of text: lower is better.",
    "GPU-hours": "GPUs times the time that jobs held them.",
    "wall hours": "Sum over the trials, each with its share of a shared training run.",
}


def explain(heading: str) -> str:
    """Return the explanation of a column heading; empty for an unknown one."""
    known = {column.name: column.meaning for column in COLUMNS} | _WORDS
    return known.get(heading) or (known["bpb"] if heading.endswith(" bpb") else "")
