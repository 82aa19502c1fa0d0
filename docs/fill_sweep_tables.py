"""Copy measured tables into sweeps/README.md: `python docs/fill_sweep_tables.py RUNS`.

If there is a run folder RUNS/NAME, its tables replace the text between `<!-- table:NAME -->` and `<!-- /table:NAME -->`:
both tables of arms, and the trials without a result. Verdicts and other text stay as they are.
"""

import re
import sys
from pathlib import Path

from results.present.files import render

PAGE = Path(__file__).parents[1] / "sweeps/README.md"
TABLE = re.compile(r"(<!-- table:(?P<name>[a-z0-9-]+) -->\n).*?(<!-- /table:(?P=name) -->)", re.DOTALL)


def fill(text: str, runs: Path) -> tuple[str, list[str]]:
    """Return the page with the tables of `runs`, and the names of the sweeps that have one."""
    filled: list[str] = []

    def measured(match: re.Match[str]) -> str:
        run = runs / match["name"]
        if not (run / "ledger.jsonl").is_file():
            return match[0]
        filled.append(match["name"])
        return f"{match[1]}{arms_table(render(run, 'md'))}\n{match[3]}"

    return TABLE.sub(measured, text), filled


def arms_table(markdown: str) -> str:
    """Return the tables of arms with their footnotes and the table of trials without a result, without padding."""
    blocks = markdown.strip().split("\n\n")
    sections = [i for i, block in enumerate(blocks) if block.startswith("## ")] or [len(blocks)]
    kept = [block for block in blocks[: sections[0]] if block.startswith(("|", "- ["))] or ["No trials yet."]
    if "## Trials without a result" in blocks:
        kept += ["Trials without a result:", blocks[blocks.index("## Trials without a result") + 1]]
    return "\n\n".join(re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", block)) for block in kept)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/fill_sweep_tables.py RUNS")
    text, filled = fill(PAGE.read_text(encoding="utf-8"), Path(sys.argv[1]))
    PAGE.write_text(text, encoding="utf-8")
    print(f"filled in: {', '.join(filled) or 'none: no run folder has the name of a sweep'}")


if __name__ == "__main__":
    main()
