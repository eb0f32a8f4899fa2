"use strict";
// The table of trials: clicking a heading sorts it, the inputs above filter it.
const table = document.getElementById("trials-table");
const body = table.tBodies[0];
const rows = Array.from(body.rows);
const headings = Array.from(table.tHead.rows[0].cells);
const search = document.getElementById("search");
const states = Array.from(document.querySelectorAll("input[name=state]"));
const count = document.getElementById("count");

function compare(a, b) {
  if (a === b) return 0;
  if (a === "") return 1; // Missing values come last in both directions.
  if (b === "") return -1;
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

function sort(column) {
  const heading = headings[column];
  const descending = heading.getAttribute("aria-sort") === "ascending";
  headings.forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value;
  rows.sort((a, b) => {
    const order = compare(value(a), value(b));
    const missing = value(a) === "" || value(b) === "";
    return descending && !missing ? -order : order;
  });
  body.append(...rows);
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = new Set(states.filter(box => box.checked).map(box => box.value));
  let visible = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !shown.has(row.dataset.state) || !words.every(word => text.includes(word));
    visible += !row.hidden;
  }
  count.textContent = `${visible} of ${rows.length} trials`;
}

headings.forEach((heading, column) =>
  heading.querySelector("button").addEventListener("click", () => sort(column)));
search.addEventListener("input", filter);
states.forEach(box => box.addEventListener("change", filter));
filter();
