"""Put measured tables into sweeps/README.md: `python docs/fill_sweep_tables.py RUNS`.

What stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->` is replaced by the table of the run folder RUNS/NAME,
where there is one: both tables of arms, and the trials that brought no number. Verdicts and text are left as they are.
"""

import re
import sys
from pathlib import Path

from results.present.files import render

PAGE = Path(__file__).parents[1] / "sweeps/README.md"
PLACE = re.compile(r"(<!-- table:(?P<name>[a-z0-9-]+) -->\n).*?(<!-- /table:(?P=name) -->)", re.DOTALL)


def fill(text: str, runs: Path) -> tuple[str, list[str]]:
    """The page with the tables of `runs`, and the names of the sweeps that were filled in."""
    filled: list[str] = []

    def measured(match: re.Match[str]) -> str:
        run = runs / match["name"]
        if not (run / "ledger.jsonl").is_file():
            return match[0]
        filled.append(match["name"])
        return f"{match[1]}{arms_table(render(run, 'md'))}\n{match[3]}"

    return PLACE.sub(measured, text), filled


def arms_table(markdown: str) -> str:
    """Of a run's Markdown: the tables of arms with their footnotes, and that of trials without a number, less padding."""
    blocks = markdown.strip().split("\n\n")
    sections = [i for i, block in enumerate(blocks) if block.startswith("## ")] or [len(blocks)]
    kept = [block for block in blocks[: sections[0]] if block.startswith(("|", "- ["))] or ["No trials yet."]
    if "## Without a number" in blocks:
        kept += ["Without a number:", blocks[blocks.index("## Without a number") + 1]]
    return "\n\n".join(re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", block)) for block in kept)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/fill_sweep_tables.py RUNS")
    text, filled = fill(PAGE.read_text(encoding="utf-8"), Path(sys.argv[1]))
    PAGE.write_text(text, encoding="utf-8")
    print(f"filled in: {', '.join(filled) or 'none; no run folder has the name of a sweep'}")


if __name__ == "__main__":
    main()
