"use strict";

// One picture over the whole screen. Zoom and place are kept as fractions of the picture, so that the next method is
// seen at the same place. A ring may be turned around instead (ring.js). `grid` is { rows, columns, item(row, column) }; an item is null where there is no picture.

const lightbox = document.getElementById("lightbox");
const view = document.getElementById("view");
const stage = document.getElementById("stage");
const picture = stage.querySelector("img");
const at = { grid: null, row: 0, column: 0, zoom: 1, x: 0.5, y: 0.5, overlay: null, turned: false };

function openLightbox(grid, row, column, turned = false) {
  Object.assign(at, { grid, row, column, zoom: 1, x: 0.5, y: 0.5, turned });
  lightbox.showModal();
  showItem();
}

function showItem() {
  const { src, heading, place = "", details = [], method } = at.grid.item(at.row, at.column);
  const [strong, span] = document.getElementById("lightbox-title").children;
  strong.textContent = heading;
  span.textContent = place;
  document.getElementById("lightbox-details").replaceChildren(...details.map((each) => make("span", {}, each)));
  const status = document.getElementById("lightbox-window");
  status.textContent = "";
  picture.src = src;
  picture.alt = heading;
  at.overlay = method?.windows ? windowsOverlay(method, (words) => (status.textContent = words)) : null;
  stage.replaceChildren(picture, ...(at.overlay ? [at.overlay] : []));
  const closed = Boolean(method?.closed), turned = closed && at.turned;
  const bar = lightbox.querySelector("[name=turn]");
  bar.hidden = lightbox.querySelector(".keys span").hidden = !closed;
  bar.ariaPressed = turned;
  view.hidden = lightbox.querySelector("[name=windows]").hidden = turned;
  around.element.hidden = !turned;
  document.getElementById("ring-keys").hidden = !turned;
  document.getElementById("ring-keys").previousElementSibling.hidden = turned;
  if (turned) showRing(src, heading);
  else {
    endRing();
    lay();
  }
}

/** Turn the ring that is shown around, or lay it flat again. */
function turn() {
  if (!at.grid.item(at.row, at.column).method?.closed) return;
  at.turned = !at.turned;
  showItem();
  if (!at.turned) view.focus();
}

/** Lay the picture so that the point (x, y) of it is in the middle, as far as its edges allow. */
function lay() {
  if (!picture.naturalWidth || view.hidden) return; // not there yet, or not seen; it calls again when it is
  const { width, height, fit } = shownSize();
  const within = (place, length, room) => {
    const margin = Math.min(0.5, room / 2 / length);
    return Math.min(1 - margin, Math.max(margin, place));
  };
  at.x = within(at.x, width, view.clientWidth);
  at.y = within(at.y, height, view.clientHeight);
  stage.style.width = `${width}px`;
  stage.style.height = `${height}px`;
  stage.style.left = `${view.clientWidth / 2 - at.x * width}px`;
  stage.style.top = `${view.clientHeight / 2 - at.y * height}px`;
  picture.classList.toggle("pixels", fit * at.zoom * devicePixelRatio >= 4);
}

/** fit: screen pixels per pixel of the picture where it just fits; width: the picture's on the screen. */
function shownSize() {
  const wide = picture.naturalWidth || 1, high = picture.naturalHeight || 1;
  const fit = Math.min(view.clientWidth / wide, view.clientHeight / high);
  return { fit, width: wide * fit * at.zoom, height: high * fit * at.zoom };
}

/** Zoom by a factor; what lies at (clientX, clientY), or in the middle, stays where it is. */
function zoom(factor, clientX, clientY) {
  if (view.hidden) return zoomRing(factor);
  const frame = view.getBoundingClientRect(), before = shownSize();
  const dx = clientX === undefined ? 0 : clientX - frame.left - frame.width / 2;
  const dy = clientY === undefined ? 0 : clientY - frame.top - frame.height / 2;
  at.zoom = Math.min(Math.max(8, 16 / before.fit), Math.max(1, at.zoom * factor));
  const after = shownSize();
  at.x += dx / before.width - dx / after.width;
  at.y += dy / before.height - dy / after.height;
  lay();
}

/** Move by fractions of the screen. */
function pan(across, down) {
  if (view.hidden) return; // a ring is turned by its own keys
  const { width, height } = shownSize();
  at.x += (across * view.clientWidth) / width;
  at.y += (down * view.clientHeight) / height;
  lay();
}

/** Go to the next picture in a direction; past cells without one, and not past the ends. */
function step(rows, columns) {
  let row = at.row + rows, column = at.column + columns;
  while (row >= 0 && row < at.grid.rows && column >= 0 && column < at.grid.columns) {
    if (at.grid.item(row, column)) {
      Object.assign(at, { row, column });
      return showItem();
    }
    row += rows;
    column += columns;
  }
}

function stepWindow(by) {
  if (!at.overlay) return;
  showWindows(true);
  const count = at.grid.item(at.row, at.column).method.windows.boxes.length;
  at.overlay.highlight((at.overlay.number + by + (at.overlay.number < 0 && by < 0 ? 1 : 0) + count) % count);
}

const toggleWindows = () => showWindows(!document.body.classList.contains("with-windows"));
const fitAgain = () => {
  if (view.hidden) return zoomRing(0);
  at.zoom = 1;
  lay();
};
const ACTIONS = {
  previous: () => step(0, -1), next: () => step(0, 1), in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: fitAgain,
  windows: toggleWindows, turn, close: () => lightbox.close(),
};
const KEYS = {
  ArrowLeft: ACTIONS.previous, ArrowRight: ACTIONS.next, ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0),
  "+": ACTIONS.in, "=": ACTIONS.in, "-": ACTIONS.out, 0: fitAgain, w: toggleWindows, r: turn,
  ",": () => stepWindow(-1), ".": () => stepWindow(1),
};
const PANS = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };

lightbox.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return; // or the ring took it
  const action = event.shiftKey && PANS[event.key] ? () => pan(...PANS[event.key]) : KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
lightbox.addEventListener("click", (event) => ACTIONS[event.target.closest("button")?.name]?.());
lightbox.addEventListener("close", endRing);
picture.addEventListener("load", lay);
addEventListener("resize", () => lightbox.open && lay());
view.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.003), event.clientX, event.clientY);
}, { passive: false });

view.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  view.setPointerCapture(event.pointerId);
});
view.addEventListener("pointermove", (event) => {
  if (!view.hasPointerCapture(event.pointerId)) return;
  pan(-event.movementX / view.clientWidth, -event.movementY / view.clientHeight);
});
