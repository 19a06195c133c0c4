"use strict";

// The windows of a joint-diffusion method, drawn over its picture: thin outlines, anchors thick, and the one window
// that the pointer is nearest to. Boxes are [left, top] in pixels of the picture, as the method itself places them.

/** The SVG path of one window; a window of a loop closure goes on at the left edge. */
function outline([left, top], { size }, width) {
  const right = left + size, bottom = top + size;
  if (right <= width) return `M${left} ${top}H${right}V${bottom}H${left}Z`;
  return `M${width} ${top}H${left}V${bottom}H${width}M0 ${top}H${right - width}V${bottom}H0`;
}

/** The number of the window whose centre is nearest to (x, y), of those that hold it; -1 where none does. */
function windowAt({ windows, width }, x, y) {
  const half = windows.size / 2;
  let best = -1, least = Infinity;
  windows.boxes.forEach(([left, top], number) => {
    const across = (x - left + width) % width, down = y - top;
    if (across > windows.size || down < 0 || down > windows.size) return;
    const distance = Math.hypot(across - half, down - half);
    if (distance < least) [best, least] = [number, distance];
  });
  return best;
}

/**
 * An SVG to lie over a picture of `method`. It follows the pointer; its `highlight(number)` marks one window, or none
 * (-1), and tells `say` in words.
 */
function windowsOverlay(method, say = () => {}) {
  const { windows, width, height } = method;
  const part = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const path = (name, d) => part("path", { class: name, d, "vector-effect": "non-scaling-stroke" });
  method.outlines ??= windows.boxes.map((box) => outline(box, windows, width));
  const all = method.outlines.join("");
  const anchor = windows.anchors.map((number) => method.outlines[number]).join("");
  const pointed = path("pointed", "");
  const overlay = part(
    "svg",
    { class: "overlay", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    path("shade", all), path("thin", all), path("shade thick", anchor), path("anchor", anchor), pointed,
  );
  overlay.highlight = (number) => {
    pointed.setAttribute("d", method.outlines[number] ?? "");
    overlay.number = number;
    if (number < 0) return say("");
    const [left, top] = windows.boxes[number], { size, boxes } = windows;
    const right = left + size > width ? left + size - width : left + size;
    const name = `window ${number} of 0–${boxes.length - 1}${windows.anchors.includes(number) ? ", an anchor" : ""}`;
    return say(`${name}: x ${left}–${right}, y ${top}–${top + size} px`);
  };
  overlay.number = -1;
  overlay.addEventListener("pointermove", (event) => {
    const box = overlay.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width, y = ((event.clientY - box.top) / box.height) * height;
    overlay.highlight(windowAt(method, x, y));
  });
  overlay.addEventListener("pointerleave", () => overlay.highlight(-1));
  return overlay;
}

function showWindows(on) {
  document.body.classList.toggle("with-windows", on);
  document.forms.controls.elements.windows.checked = on;
  document.querySelector("#lightbox [name=windows]").ariaPressed = on;
  remember({ windows: on ? "1" : "" });
}
