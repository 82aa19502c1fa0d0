"""Writes the README.md of a submission: seeds, control, rules, configuration, how to reproduce it, provenance."""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from results.present.column_layout import markdown_text, number, pipe_table
from results.submission.gather import Submission, differences
from results.submission.rules import Rule
from trainer.records.results import LISTED
from trainer.records.text import count_of


def readme(s: Submission, rules: Sequence[Rule]) -> str:
    """Return the README.md of a submission."""
    values = [float(row[s.metric]) for row in s.rows]
    largest = max(map(s.artifact_bytes, s.rows))
    checked = [(rule.status, rule.name, rule.measured, rule.limit, rule.note) for rule in rules]
    blocks = [
        f"# {s.sweep}: {s.arm}",
        f"**{s.metric} {_with_std(values, '.4f')}** over {count_of(len(values), 'seed')}, largest artifact {largest:,} bytes, "
        f"{joined(row['hardware'] for row in s.rows)}.",
        markdown_text(blurb(s)),
        "## Results",
        _per_seed(s),
        "bpb = bits per byte. post-quant, sliding and ttt use the weights unpacked from the artifact; float uses the averaged "
        "weights before quantization; gap = post-quant - float. Artifact bytes = packed weights + train_gpt.py.",
        "## Comparison with the control",
        _comparison(s),
        "## Rules",
        pipe_table(("status", "rule", "measured", "limit", "note"), checked),
        "## Configuration",
        *_configuration(s),
        "## Reproduce",
        _repeat(s),
        "## Provenance",
        _provenance(s),
    ]
    return "\n\n".join(blocks) + "\n"


def _per_seed(s: Submission) -> str:
    shown = [name for name in LISTED if any(row[name] is not None for row in s.rows)]
    costs = {"artifact_bytes": ",.0f", "train_s": ".1f", "eval_s": ".1f"}
    specs = {"steps": ",.0f"} | dict.fromkeys(shown, ".6f") | costs
    rows = [{**row, "artifact_bytes": s.artifact_bytes(row)} for row in s.rows]
    lines = [(row["seed"], *(number(row[name], spec) for name, spec in specs.items())) for row in rows]
    means = [_with_std([row[name] for row in rows if row[name] is not None], spec) for name, spec in specs.items()]
    return pipe_table(["seed", *specs], [*lines, ("mean ± std", *means)], left=())


def _comparison(s: Submission) -> str:
    if s.comparison is None:
        return "None: the run names no control, or this arm is the control."
    line = s.comparison
    if line["delta"] is None:
        return markdown_text(
            f"{s.control}, in {s.compared_metric}: no comparison possible. {line['reason'] or ''}".strip()
        )
    interval = "" if line["ci_low"] is None else f", 95 % interval [{line['ci_low']:+.5f}, {line['ci_high']:+.5f}]"
    p_values = (number(line[name], ".2g", "unknown") for name in ("p", "p_holm"))
    cells = (
        ("control", s.control),
        ("metric", s.compared_metric),
        ("difference", f"{line['delta']:+.5f}{interval}"),
        ("nats per token", number(line["delta_nats"], "+.5f", "unknown")),
        ("test", f"{line['test'] or 'none'}, n = {line['n_pairs']}"),
        ("p, and p after Holm's correction over the arms", ", ".join(p_values)),
        ("p that the improvement is below 0.005 nats", number(line["p_margin"], ".2g", "unknown")),
        ("verdict", f"**{line['verdict']}**"),
        ("remarks", line["reason"] or "none"),
    )
    return pipe_table(("what", "value"), cells) + "\n\nThe control is an arm of this sweep, not the leaderboard's best."


def _configuration(s: Submission) -> list[str]:
    whole = "The top of `train_gpt.py` holds every setting that differs from the defaults."
    if s.control_config is None:
        return [whole]
    differs = differences(s.config, s.control_config)
    cells = [(f"`{change.key}`", f"`{change.control}`", f"`{change.arm}`") for change in differs]
    heading = ("key", markdown_text(str(s.control)), markdown_text(s.arm))
    return [pipe_table(heading, cells) if cells else "No key differs from the control.", whole]


def _repeat(s: Submission) -> str:
    machine = s.provenance.get("machine", {})
    ranks = s.rows[0]["world_size"]
    # on a CPU the number of threads sets the order of sums, so it is needed to reproduce the numbers exactly
    threads = f"OMP_NUM_THREADS={max(1, machine['cpus'] // ranks)} " if machine.get("gpus") == 0 else ""
    lines = [
        "```bash",
        "pip install -r requirements.txt",
        f"{threads}torchrun --standalone --nproc_per_node={ranks} train_gpt.py --data DIR --seed {s.rows[0]['seed']}",
        "```",
        "",
        "The script needs no other file of this folder. It trains, exports, evaluates the unpacked artifact and prints",
        "`final ... post_quant_bpb=...`. It writes the artifact and `result.json` to `reproduced/` (`--out`).",
        f"Defaults: `--data` (or `DATA_PATH`) `{s.config.data.path}`, `--tokenizer` (or `TOKENIZER_PATH`)",
        f"`{s.config.data.tokenizer or 'the *.model in that folder'}`, `--seed` (or `SEED`) {s.config.seed}.",
        "To print a source file: `python -c 'import train_gpt; print(train_gpt.S[\"trainer/pipeline.py\"])'`.",
    ]
    return "\n".join(lines)


def _provenance(s: Submission) -> str:
    p, row = s.provenance, s.rows[0]
    costs = [r["gpu_held_s"] for r in s.rows if r["gpu_held_s"] is not None]
    cells = [
        ("trials", ", ".join(r["trial_id"] for r in s.rows)),
        ("commit", joined(r["git_sha"] for r in s.rows)),
        ("uncommitted changes at launch", {True: "yes", False: "no"}.get(p.get("git_is_dirty", ""), "unknown")),
        ("preset", p.get("preset")),
        ("command line overrides", json.dumps(p["set"], ensure_ascii=False) if p.get("set") else None),
        ("sweep file, sha256", p.get("sweep_sha256")),
        ("data, sha256", joined(r["data_sha"] for r in s.rows)),
        ("tokenizer, sha256", row["tokenizer_sha"]),
        ("scored", f"{row['scored_tokens']:,} tokens, {row['scored_bytes']:,} bytes"),
        ("parameters", f"{row['num_params']:,}"),
        ("torch, python", f"{joined(r['torch_version'] for r in s.rows)}, {p.get('python', 'unknown')}"),
        ("GPU-hours", f"{sum(costs) / 3600:.2f}" if costs else None),
        ("record", f"schema version {row['schema_version']}"),
    ]
    return pipe_table(("what", "value"), [cell for cell in cells if cell[1] is not None])


def blurb(s: Submission) -> str:
    """Return the sweep's question, and what the arm sets differently from its control."""
    what = [s.question or f"An arm of the sweep {s.sweep}."]
    if s.control and s.control_config:
        differs = differences(s.config, s.control_config)
        set_to = ", ".join(f"{change.key} {change.arm}" for change in differs)
        what.append(f"Changes from {s.control}: {set_to}." if differs else f"Same configuration as {s.control}.")
    return " ".join(what)


def _with_std(values: Sequence[float], spec: str) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):{spec}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{spec}}{spread}"


def joined(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
