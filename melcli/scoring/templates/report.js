// A click on a column's head sorts its table by that column; another one turns the order round. Rows of averages stay below.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : head.classList.contains("n");
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (one, other) => {
        const a = Number.parseFloat(value(one)), b = Number.parseFloat(value(other));
        if (head.classList.contains("n")) return (Number.isNaN(a) ? Infinity : a) - (Number.isNaN(b) ? Infinity : b) || 0;
        return value(one).localeCompare(value(other));
      };
      const rows = [...body.rows].sort((one, other) => (down ? compare(other, one) : compare(one, other)));
      body.append(...rows);
    });
  });
}
