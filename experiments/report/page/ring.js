"use strict";

// A panorama that closes, seen from its middle and turned around, by Pannellum (vendor/pannellum). A picture on a disk
// may not become a texture, for every file there counts as an origin of its own. So a ring's picture lies there a second
// time, in a script that puts it into `rings` as a data: URL. All of it is loaded when it is first asked for.

const rings = {}; // picture -> its data: URL
const around = { element: document.getElementById("ring"), viewer: null, asked: null };
const WIDEST = 8192; // pixels of a texture that devices can be relied upon to hold
const WIDE = 100; // degrees from left to right at first, or as many as the picture is high enough for
const loads = {};

function loadOnce(tag, file, properties) {
  return (loads[file] ??= new Promise((done, failed) => {
    const element = make(tag, properties);
    element.addEventListener("load", done);
    element.addEventListener("error", () => failed(new Error(`${file} is not there`)));
    document.head.append(element);
  }));
}

const loadScript = (file) => loadOnce("script", file, { src: file });
const loadSheet = (file) => loadOnce("link", file, { rel: "stylesheet", href: file });

/** Show the ring whose picture is `src` in place of what was shown; says so in words where it cannot. */
async function showRing(src, heading) {
  endRing();
  around.asked = src;
  around.element.setAttribute("aria-label", `${heading}, turned with the arrow keys`);
  try {
    const own = loadScript(src.replace(/\.\w+$/, ".js"));
    await Promise.all([loadSheet("pannellum/pannellum.css"), loadScript("pannellum/pannellum.js"), own]);
    const image = make("img", { src: rings[src] });
    await image.decode();
    if (around.asked === src) begin(src, image);
  } catch (error) {
    if (around.asked === src) around.element.replaceChildren(make("p", {}, `It cannot be turned here: ${error.message}.`));
  }
}

function begin(src, image) {
  const { canvas, vaov } = equirectangular(image);
  const viewer = pannellum.viewer(around.element, {
    type: "equirectangular", panorama: canvas, dynamic: true, dynamicUpdate: true, autoLoad: true,
    haov: 360, vaov, hfov: WIDE, minHfov: 10, minPitch: -vaov / 2, maxPitch: vaov / 2, avoidShowingBackground: true,
    showControls: false,
    capturedKeyNumbers: [37, 38, 39, 40, 61, 107, 109, 173, 187, 189], // arrows, plus, minus; the page has the others
  });
  around.viewer = viewer;
  const ready = () => {
    viewer.setUpdate(false); // a picture is no film
    around.element.dataset.shown = src;
  };
  if (viewer.isLoaded()) ready();
  else viewer.on("load", ready);
  around.element.focus();
}

/** Pictures are cylinders and the viewer wants a sphere's rows: one for each angle above the horizon. vaov: degrees. */
function equirectangular(image) {
  const scale = Math.min(1, WIDEST / image.naturalWidth);
  const width = Math.round(image.naturalWidth * scale), radius = width / (2 * Math.PI);
  const half = Math.atan((image.naturalHeight * scale) / 2 / radius);
  const height = Math.round(2 * half * radius), canvas = make("canvas", { width, height });
  const brush = canvas.getContext("2d");
  const rowAt = (angle) => image.naturalHeight / 2 - (radius * Math.tan(angle)) / scale;
  for (let row = 0; row < height; row++) {
    const top = rowAt(half - (2 * half * row) / height), bottom = rowAt(half - (2 * half * (row + 1)) / height);
    brush.drawImage(image, 0, top, image.naturalWidth, bottom - top, 0, row, width, 1);
  }
  return { canvas, vaov: (2 * half * 180) / Math.PI };
}

function endRing() {
  around.viewer?.destroy();
  around.viewer = around.asked = null;
  delete around.element.dataset.shown;
  around.element.replaceChildren();
}

/** Zoom in by a factor; 0 goes back to the first sight. */
function zoomRing(factor) {
  around.viewer?.setHfov(factor ? around.viewer.getHfov() / factor : WIDE);
}
