"use strict";

// What the page holds, the header, the tables and the plots. Text of any kind enters the page as text nodes alone.

const content = JSON.parse(document.getElementById("content").textContent);

/** An element with properties and children; a string becomes text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** What the reader has chosen stands in the URL's hash, so that a reload or a link shows the same. */
function remembered() {
  return new URLSearchParams(location.hash.slice(1));
}

function remember(choices) {
  const all = remembered();
  for (const [name, value] of Object.entries(choices)) {
    if (value) all.set(name, value);
    else all.delete(name);
  }
  history.replaceState(null, "", `#${all}`);
}

function showHeader() {
  document.title = content.name;
  document.getElementById("name").textContent = content.name;
  const warning = document.getElementById("warning");
  warning.textContent = content.warning;
  warning.hidden = !content.warning;
  for (const [name, value] of content.facts) {
    document.getElementById("facts").append(make("div", {}, make("dt", {}, name), make("dd", { dir: "auto" }, value)));
  }
}

// --- tables ---

const MANY = 9; // columns; of more, what stands beside a number goes below it

/** A section with one table, or with several to choose from. */
function showTables({ id, title, notes, tables }) {
  const heading = make("h2", { id: `${id}-title` }, title);
  const frame = make("div", { className: "frame", tabIndex: 0 });
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-labelledby", heading.id);
  const section = make("section", { id }, heading);
  const choose = (index) => frame.replaceChildren(tableOf(tables[index]));
  let chosen = 0;
  if (tables.length > 1) {
    const options = tables.map((table, index) => make("option", { value: index }, table.name));
    const select = make("select", { name: id }, ...options);
    chosen = Math.max(0, tables.findIndex((table) => table.name === remembered().get(id)));
    select.value = chosen;
    select.addEventListener("change", () => {
      choose(select.value);
      remember({ [id]: tables[select.value].name });
    });
    section.append(make("label", { className: "choose" }, "Prompt ", select));
  }
  choose(chosen);
  section.append(frame, ...notes.map((note) => make("p", { className: "note" }, note)));
  document.getElementById("tables").append(section);
}

/** columns: title, note, hint; rows: cells of text, what stands beside it, best, what others published, letters of
 * footnotes, and the value to sort by. */
function tableOf({ columns, rows }) {
  const body = make("tbody");
  const headings = columns.map((column, index) => {
    const button = make("button", { type: "button", title: column.hint }, column.title);
    const className = typeof rows[0]?.[index].value === "string" ? "word" : "";
    return make("th", { scope: "col", ariaSort: "none", className }, button, make("small", {}, column.note));
  });
  headings.forEach((heading, index) => {
    heading.firstChild.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.ariaSort];
      for (const each of headings) each.ariaSort = "none";
      heading.ariaSort = next;
      body.replaceChildren(...sorted(rows, index, next).map(lineOf));
    });
  });
  body.append(...rows.map(lineOf));
  const className = columns.length > MANY ? "stacked" : "";
  return make("table", { className }, make("thead", {}, make("tr", {}, ...headings)), body);
}

/** Numbers by size, words by the alphabet, what is missing last. */
function sorted(rows, index, direction) {
  if (direction === "none") return rows;
  const sign = direction === "ascending" ? 1 : -1;
  return [...rows].sort(({ [index]: { value: a } }, { [index]: { value: b } }) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  });
}

function lineOf(cells) {
  return make(
    "tr",
    {},
    ...cells.map(({ text, beside, best, published, marks, value }, index) => {
      const className = best ? "best" : typeof value === "string" ? "word" : "";
      const cell = make(index ? "td" : "th", { className }, make("span", { dir: "auto" }, text));
      if (!index) cell.scope = "row";
      const letters = marks ? [make("sup", { className: "beside" }, marks)] : [];
      if (beside) cell.append(" ", make("span", { className: "beside" }, beside, ...letters));
      else cell.append(...letters);
      if (published) cell.append(make("span", { className: "beside published" }, `; ${published}`));
      return cell;
    }),
  );
}

// --- plots ---

function showPlots() {
  const plots = content.plots.map(({ file, caption }, index) => {
    const image = make("img", { src: file, alt: `Plot: ${caption}`, loading: "lazy" });
    const button = make("button", { type: "button", className: "picture" }, image);
    const item = (_, column) => ({ src: content.plots[column].file, heading: content.plots[column].caption });
    button.addEventListener("click", () => openLightbox({ rows: 1, columns: content.plots.length, item }, 0, index));
    return make("figure", {}, button, make("figcaption", {}, caption));
  });
  document.querySelector("#plots .plots").append(...plots);
  document.getElementById("plots").hidden = !plots.length;
}

/** Buttons, not links: the URL's hash holds what the reader has chosen. */
function showParts() {
  const buttons = [...document.querySelectorAll("main section:not([hidden])")].map((section) => {
    const button = make("button", { type: "button" }, section.querySelector("h2").textContent);
    button.addEventListener("click", () => section.scrollIntoView());
    return button;
  });
  document.querySelector("nav").append(...buttons);
}

showHeader();
content.sections.forEach(showTables);
showPlots();
showParts();
