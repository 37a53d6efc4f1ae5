"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// The figures' own inks read on both grounds; text and grid are the page's.
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") };
  const result = { ...layout, font, hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font, align: "left" } };
  for (const axis of ["xaxis", "yaxis", "yaxis2"]) {
    if (layout[axis]) {
      result[axis] = { gridcolor: colour("--line"), linecolor: colour("--line"), ...layout[axis] };
    }
  }
  return result;
}

function draw() {
  for (const place of document.querySelectorAll("[data-figure]")) {
    const figure = figures[place.dataset.figure];
    Plotly.react(place, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false });
  }
}
draw();
dark.addEventListener("change", draw);

for (const table of document.querySelectorAll("#trials")) {
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === ""); // what is empty stays below, whichever way
      const order = typeof a === typeof b ? (a < b ? -1 : a > b) : typeof a === "number" ? -1 : 1;
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });
}
