/* The table of claims: filters by study, paper, tier, verdict and text; sorts by a column. No library. */
document.addEventListener("DOMContentLoaded", () => {
  const table = document.getElementById("every-claim");
  if (!table) return;
  const filters = document.getElementById("filters");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const fields = [...filters.querySelectorAll("select, input")];

  function filter() {
    const wanted = fields.filter((field) => field.value);
    let count = 0;
    for (const row of rows) {
      row.hidden = !wanted.every((field) =>
        field.name === "text"
          ? row.textContent.toLowerCase().includes(field.value.toLowerCase())
          : row.dataset[field.name] === field.value);
      count += !row.hidden;
    }
    document.getElementById("shown").textContent = `${count} of ${rows.length} claims`;
  }

  function key(row, column) {
    const cell = row.cells[column];
    return "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
  }

  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last
    const difference = Number(a) - Number(b);
    return sign * (Number.isNaN(difference) ? a.localeCompare(b, "en", { numeric: true }) : difference);
  }

  function sort(head) {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const column = head.cellIndex;
    rows.sort((a, b) => compare(key(a, column), key(b, column), up ? 1 : -1));
    body.append(...rows);
  }

  for (const head of table.tHead.rows[0].cells) {
    if (head.classList.contains("fixed")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head));
    head.replaceChildren(button);
  }
  const asked = new URLSearchParams(location.search); // claims.html?paper=colt&verdict=undecided
  for (const field of fields) {
    field.value = asked.get(field.name) ?? "";
    field.addEventListener("input", filter);
  }
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.hidden = false;
  filter();
});
