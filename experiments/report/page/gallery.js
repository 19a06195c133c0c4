"use strict";

// The panoramas: a row per prompt and seed, a column per method; which are shown, and in which order.

const FIRST = 12; // rows that stand before the tables, until all are asked for
const PIECE = 16; // rows that enter the page at once, once they are
const form = document.forms.controls;
const list = document.getElementById("rows");
const boxes = content.methods.map(({ label, title }) => {
  const box = make("input", { type: "checkbox", name: "method", value: label, defaultChecked: true });
  document.getElementById("methods").append(make("label", { className: "switch" }, box, ` ${title}`));
  return box;
});
// What is shown: rows of `content`, numbers of methods, the number of the metric that rows are ordered by, or -1.
const now = { rows: [], methods: [], metric: -1, written: 0, all: false };

function short(value, digits = 3) {
  return value === null ? "–" : value.toPrecision(digits);
}

/** A metric of the shown panoramas of a row, as far as they have it. */
function valuesOf(row, metric) {
  return now.methods.map((method) => row.cells[method]?.scores[metric] ?? null).filter((value) => value !== null);
}

/** How far the shown methods lie apart in a metric: greatest less least; null where fewer than two have it. */
function spread(row, metric) {
  const values = valuesOf(row, metric);
  return values.length < 2 ? null : Math.max(...values) - Math.min(...values);
}

function chosenRows({ prompt, seed, search }, metric) {
  const wanted = search.value.trim().toLowerCase();
  const rows = content.rows.filter((row) => {
    const text = content.prompts[row.prompt];
    return [text, ""].includes(prompt.value) && [row.seed, ""].includes(seed.value)
      && text.toLowerCase().includes(wanted);
  });
  if (metric < 0) return rows;
  const apart = new Map(rows.map((row) => [row, spread(row, metric) ?? -1]));
  return rows.sort((a, b) => apart.get(b) - apart.get(a));
}

/** Show what the controls say. */
function refresh() {
  now.methods = boxes.flatMap((box, index) => (box.checked ? [index] : []));
  now.metric = content.metrics.findIndex(({ name }) => name === form.elements.order.value);
  now.rows = chosenRows(form.elements, now.metric);
  now.written = 0;
  list.replaceChildren();
  list.style.setProperty("--columns", Math.max(1, now.methods.length));
  list.style.setProperty("--cell", `${form.elements.size.value}px`);
  list.classList.toggle("without-scores", !form.elements.scores.checked);
  const [rows, methods] = [now.rows.length, now.methods.length];
  document.getElementById("count").textContent =
    `${rows} of ${content.rows.length} rows, ${methods} of ${boxes.length} methods`;
  writeMore();
}

/** The first rows, and once all are asked for the next as soon as the end of those written comes near. */
function writeMore() {
  const next = now.rows.slice(now.written, now.written + (now.all ? PIECE : FIRST));
  list.append(...next.map((row, index) => rowOf(row, now.written + index)));
  now.written += next.length;
  near.unobserve(end); // observed again, it reports again where the end is still near
  const more = now.written < now.rows.length;
  if (more && now.all) near.observe(end);
  form.elements.all.hidden = !more || now.all;
  form.elements.all.textContent = `Show all ${now.rows.length} rows`;
}

const end = document.getElementById("end");
const near = new IntersectionObserver(([entry]) => entry.isIntersecting && writeMore(), { rootMargin: "1500px" });

function rowOf(row, place) {
  const heading = make("h3", {}, make("span", { dir: "auto" }, content.prompts[row.prompt]));
  heading.append(make("small", {}, `seed ${row.seed}`));
  if (now.metric >= 0) {
    const apart = short(spread(row, now.metric));
    heading.append(make("small", {}, `${content.metrics[now.metric].title} apart by ${apart}`));
  }
  const best = content.metrics.map(({ better }, metric) => {
    const values = valuesOf(row, metric);
    return values.length < 2 ? null : Math[better === "lower" ? "min" : "max"](...values);
  });
  const cells = now.methods.map((method, column) => cellOf(row, method, best, (turned) => openRow(place, column, turned)));
  return make("article", {}, heading, make("div", { className: "cells" }, ...cells));
}

function cellOf(row, index, best, open) {
  const cell = row.cells[index], method = content.methods[index];
  const frame = make("button", { type: "button", className: "picture", disabled: !cell?.image });
  frame.style.aspectRatio = `${method.width} / ${method.height}`;
  if (cell?.image) {
    const { width, height } = method, alt = `${method.title}: ${content.prompts[row.prompt]}, seed ${row.seed}`;
    frame.append(make("img", { loading: "lazy", decoding: "async", width, height, alt, src: cell.image }));
    if (method.windows) frame.append(windowsOverlay(method));
    frame.addEventListener("click", () => open(false));
  } else frame.append(cell ? "no picture" : "not made");
  const scores = make("dl");
  if (cell) {
    content.metrics.forEach(({ title }, metric) => {
      const value = cell.scores[metric], className = value !== null && value === best[metric] ? "best" : "";
      scores.append(make("div", { className }, make("dt", {}, title), make("dd", {}, short(value))));
    });
    scores.append(make("div", {}, make("dt", {}, "seconds"), make("dd", {}, cell.seconds)));
  }
  return make("figure", {}, captionOf(method, cell, open), frame, scores);
}

/** A method's name, and of a ring that it is one, with a way to turn it around. */
function captionOf(method, cell, open) {
  const caption = make("figcaption", {}, method.title);
  if (!method.closed || !cell) return caption;
  caption.append(" ", make("small", {}, "closes to a ring"));
  if (cell.image) {
    const button = make("button", { type: "button", className: "turn" }, "Turn around");
    button.addEventListener("click", () => open(true));
    caption.append(" ", button);
  }
  return caption;
}

/** The lightbox steps through all rows that are shown, written or not. */
function openRow(place, column, turned) {
  const { rows, methods } = now;
  const item = (r, c) => {
    const row = rows[r], method = content.methods[methods[c]], cell = row.cells[methods[c]];
    if (!cell?.image) return null;
    const scores = content.metrics.map(({ title }, metric) => `${title} ${short(cell.scores[metric], 4)}`);
    return {
      src: cell.image,
      heading: method.title,
      place: `${content.prompts[row.prompt]}, seed ${row.seed}`,
      details: [...scores, `${cell.seconds} seconds`],
      method,
    };
  };
  openLightbox({ rows: rows.length, columns: methods.length, item }, place, column, turned);
}

// --- the controls and the URL's hash ---

const CHOICES = ["prompt", "seed", "search", "order", "size"];
const usual = (control) => control.defaultValue ?? ""; // a <select> has none; its first option is all

function keep() {
  const controls = CHOICES.map((name) => form.elements[name]), labels = now.methods.map((method) => boxes[method].value);
  remember({
    ...Object.fromEntries(controls.map((each) => [each.name, each.value === usual(each) ? "" : each.value])),
    scores: form.elements.scores.checked ? "" : "off",
    methods: labels.length === boxes.length ? "" : labels.join(",") || "none",
  });
}

function restore() {
  const hash = remembered(), labels = hash.get("methods")?.split(",");
  for (const name of CHOICES) {
    const control = form.elements[name];
    control.value = hash.get(name) ?? usual(control);
    if (control.selectedIndex < 0) control.value = ""; // no such option
  }
  form.elements.scores.checked = !hash.has("scores");
  for (const box of boxes) box.checked = !labels || labels.includes(box.value);
  showWindows(hash.has("windows"));
  refresh();
}

function changed(event) {
  if (event.target.name === "windows") return showWindows(event.target.checked);
  if (event.target.name === "size") list.style.setProperty("--cell", `${event.target.value}px`);
  else refresh();
  keep();
}

const addOption = (select, value, text) => select.append(make("option", { value }, text));
for (const text of content.prompts) addOption(form.elements.prompt, text, text);
for (const seed of content.seeds) addOption(form.elements.seed, seed, seed);
for (const { name, title } of content.metrics) addOption(form.elements.order, name, `most apart in ${title}`);

let waiting;
const soon = (event) => {
  clearTimeout(waiting); // a browser refuses a page that changes its address at every key
  waiting = setTimeout(changed, event.target.name === "search" ? 150 : 0, event);
};
for (const kind of ["input", "change"]) form.addEventListener(kind, soon); // some browsers and tools send but one
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => {
  showWindows(false);
  refresh();
  keep();
}));
form.elements.none.addEventListener("click", () => {
  for (const box of boxes) box.checked = false;
  refresh();
  keep();
});
form.elements.all.addEventListener("click", () => {
  now.all = true;
  writeMore();
});
addEventListener("hashchange", restore);
const pictures = content.rows.some((row) => row.cells.some((cell) => cell?.image));
document.getElementById("no-pictures").hidden = pictures;
for (const part of [form, list, document.getElementById("count")]) part.hidden = !pictures;
if (pictures) restore();
