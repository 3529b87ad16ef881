// Pressing a heading sorts its table by that column, a second press in reverse; the filter shows one status only.
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
    const direction = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const missing = (row) => Number(value(row, column) === "");  // last in both orders
    const rows = [...body.rows].sort((one, other) =>
      missing(one) - missing(other) || direction * compare(value(one, column), value(other, column)));
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
  const line = select.closest(".filter"), counter = line.querySelector("[role=status]");
  line.hidden = false;
  select.addEventListener("change", () => {
    for (const row of rows) row.hidden = select.value !== "" && row.dataset.status !== select.value;
    const shown = rows.filter((row) => !row.hidden).length;
    counter.textContent = select.value === "" ? "" : `${shown} of ${rows.length} videos; the last row is the sum of all`;
  });
}
