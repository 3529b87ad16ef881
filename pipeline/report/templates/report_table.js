// A table is sorted by the column whose head is pressed, once more the other way round; its filter shows one status.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const order = new Intl.Collator(undefined, {numeric: true});
  const value = (row, column) => row.cells[column].dataset.value;

  const compare = (one, other) => {
    if (one === "" || other === "") return 0;
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? order.compare(one, other) : difference;
  };
  const sort = (column) => {
    const turn = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const missing = (row) => Number(value(row, column) === "");  // last, whichever way
    const rows = [...body.rows].sort((one, other) =>
      missing(one) - missing(other) || turn * compare(value(one, column), value(other, column)));
    body.append(...rows);
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.scope = "col";
    head.setAttribute("aria-sort", "none");
    head.append(button);
  });
}

for (const select of document.querySelectorAll("select[data-filters]")) {
  const rows = [...document.getElementById(select.dataset.filters).tBodies[0].rows];
  const line = select.closest(".filter"), told = line.querySelector("[role=status]");
  line.hidden = false;
  select.addEventListener("change", () => {
    for (const row of rows) row.hidden = select.value !== "" && row.dataset.status !== select.value;
    const shown = rows.filter((row) => !row.hidden).length;
    told.textContent = select.value === "" ? "" : `${shown} of ${rows.length} rows; the last row is of all`;
  });
}
