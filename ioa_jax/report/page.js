"use strict";
// Everything can be read without this: it sorts tables and changes the theme.
const root = document.documentElement;
const theme = document.getElementById("theme");
const isDark = () =>
  root.dataset.theme
    ? root.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.hidden = false;
nameTheme();
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});

const valueOf = (cell) => {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replace(/,/g, "").replace(/^< /, ""));
  return Number.isNaN(number) ? text : number;
};
for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const rising = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const compare = (a, b) => {
      const [x, y] = [a, b].map((row) => valueOf(row.cells[head.cellIndex]));
      // Figures before words, such as the "-" of what isn't there.
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      const order = typeof x === "number" ? x - y : x.localeCompare(y);
      return rising ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}
