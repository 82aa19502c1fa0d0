// Sorts a table by a column: a click on its heading sorts ascending, the next descending, the third restores the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells], rows = [...body.rows];
  if (rows.length < 2) continue;
  const keyOf = (row, column) => {
    const text = row.cells[column].textContent.trim(), number = text.replaceAll(",", "").match(/-?\d+(\.\d+)?(e-?\d+)?/);
    return text === "–" || text === "" ? null : !number || /^[a-z★✕]/i.test(text) ? text : Number(number[0]);
  };
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = {ascending: "descending", descending: ""}[heading.ariaSort] ?? "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      if (!next) return body.append(...rows);
      heading.ariaSort = next;
      const keyed = rows.map((row) => [keyOf(row, column), row]);
      const known = keyed.filter(([key]) => key !== null).sort(([a], [b]) => compare(a, b));
      if (next === "descending") known.reverse();
      body.append(...known.map(([, row]) => row), ...keyed.filter(([key]) => key === null).map(([, row]) => row));
    });
  });
}
