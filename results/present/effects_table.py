"""Main effects and interactions of a run whose arms are a full cross, as texts."""

from results.analysis.effects import effects
from results.present.column_layout import half_width, number
from results.present.table_model import RunTable
from results.schema import records
from trainer.errors import InputError

HEADINGS = ("effect", "levels", "Δ ± 95 % CI", "p (Holm)")


def effect_rows(table: RunTable) -> tuple[list[list[str]], list[str]]:
    """Return the rows under `HEADINGS` and the reasons to read them with care; nothing if the arms are no full cross."""
    try:
        estimates = effects(table.trials, None, table.control, table.metric)
    except InputError:  # no full cross, or arms that cannot be compared; the table of arms shows the latter
        return [], []
    rows, reasons = [], []
    for line in records(estimates):
        estimate = f"{number(line['estimate'], '+.4f')} {half_width(line['ci_low'], line['ci_high'])}".rstrip()
        rows.append([line["term"], line["levels"], estimate, number(line["p_holm"], ".2g")])
        reasons += [line["reason"]] if line["reason"] and line["reason"] not in reasons else []
    return rows, reasons
