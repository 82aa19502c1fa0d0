"""Runs the code cells of docs/analysis.ipynb and keeps their outputs: `python docs/notebook.py [--check]`.

A cell shows what it prints and the value of its last line, as in Jupyter. The outputs are text, and the runner needs no
package beyond those of pgray.
"""

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "analysis.ipynb"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with new outputs. The cells run in order, in the folder of the notebook."""
    names: dict[str, Any] = {}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            text = _run("".join(cell["source"]), names)
            outputs = (
                [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []
            )
            cell = cell | {"execution_count": number, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def _run(source: str, names: dict[str, Any]) -> str:
    """Run one cell. Return what it printed, and the text of its last line's value."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
        if value is not None:
            print(value)
    return printed.getvalue()


def main() -> None:
    os.chdir(NOTEBOOK.parent)
    old = NOTEBOOK.read_text(encoding="utf-8")
    new = json.dumps(executed(json.loads(old)), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        NOTEBOOK.write_text(new, encoding="utf-8")
    elif new != old:
        sys.exit("docs/analysis.ipynb shows other outputs than its cells print: run python docs/notebook.py")


if __name__ == "__main__":
    main()
