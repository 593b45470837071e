// Where things go: boxes and points with keys, drawn on the picture or written.
import { $, choice, figure, removal } from "./fields.js";
import { el, round } from "./words.js";

const EASES = ["linear", "in", "out", "in-out"];
const GRAB = 12; // pixels around a key that take hold of it
const state = { paths: [], at: -1, timed: false, end: 2, offered: false };
let tell = () => {}, redraw = () => {};

export function setUp(page) {
  [tell, redraw] = [page.changed, page.redraw];
  $("path-new").addEventListener("click", () => { state.at = -1; show(); $("path-label").focus(); });
  $("path-remove").addEventListener("click", () => { state.paths.splice(state.at, 1); state.at = state.paths.length - 1; show(); tell(); });
  $("path-key").addEventListener("click", () => addKey(0.5, 0.5));
  $("path-label").addEventListener("input", () => { if (here()) { here().label = $("path-label").value; redraw(); tell(); } });
  show();
}

export function offer(can) {
  state.offered = can.steers.has("paths");
}

export function setLength(seconds) {
  state.end = Math.floor(seconds * 100) / 100;
  if (!state.timed) state.paths.forEach(respread);
  show();
}

export function body() {
  const paths = state.offered ? state.paths.filter(({ keys }) => keys.length) : [];
  return paths.length ? { paths: paths.map(({ label, box, point, keys }) => ({
    label: label || "it", ...(box ? { box } : { point }), keys: keys.map(({ at, x, y, ease }) => ({ atSeconds: at, x, y, ...(ease === "linear" ? {} : { ease }) })),
  })) } : {};
}

// Those of an example in place of what there is, at its times.
export function fill({ paths = [] }) {
  state.paths = paths.map(({ label, box, point, keys }) => ({
    label, ...(box ? { box: [...box] } : { point: [...point] }), keys: keys.map(({ atSeconds, x, y, ease }) => ({ at: atSeconds, x, y, ease: ease ?? "linear" })),
  }));
  state.timed = paths.length > 0;
  state.at = paths.length ? 0 : -1;
  show();
}

const here = () => state.paths[state.at];
const middle = ({ box, point }) => (box ? [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] : point);

// What a press at a place takes hold of: a key that is there or a new one, or null where a path is to begin.
export function hold(x, y, width, height) {
  const path = here();
  if (!path) return null;
  const key = path.keys.find((one) => Math.hypot((one.x - x) * width, (one.y - y) * height) < GRAB);
  if (!key) addKey(x, y);
  return key ?? path.keys.at(-1);
}

export function move(key, x, y) {
  Object.assign(key, { x: round(x), y: round(y) });
  show();
}

// A new path, of the box between two corners or of a point.
export function begin([a, b], [x, y], isBox) {
  const path = { label: $("path-label").value, keys: [] };
  if (isBox) path.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)].map(round);
  else path.point = [round(x), round(y)];
  state.at = state.paths.push(path) - 1;
}

function addKey(x, y) {
  if (!here()) state.at = state.paths.push({ label: $("path-label").value, point: [0.25, 0.5], keys: [] }) - 1;
  const path = here();
  path.keys.push({ at: state.end, x: round(x), y: round(y), ease: "linear" });
  if (!state.timed) respread(path);
  else path.keys.at(-1).at = Math.max(state.end, round((path.keys.at(-2)?.at ?? 0) + 0.5));
  show();
  tell();
}

// Until somebody sets a time, keys are as far apart as the clip is long.
function respread(path) {
  path.keys.forEach((key, number) => { key.at = round((state.end * (number + 1)) / path.keys.length); });
}

export function draw(pen, width, height, accent) {
  if (!state.offered) return;
  state.paths.forEach((path, number) => {
    const isHere = number === state.at, points = [middle(path), ...path.keys.map(({ x, y }) => [x, y])].map(([x, y]) => [x * width, y * height]);
    for (const [colour, more] of [["rgb(0 0 0 / .55)", 2], [isHere ? accent : "#ffffff", 0]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = (isHere ? 3 : 1.5) + more;
      pen.beginPath();
      points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
      if (path.box) { const [l, t, r, b] = path.box; pen.strokeRect(l * width, t * height, (r - l) * width, (b - t) * height); }
    }
    points.forEach(([x, y], i) => {
      pen.beginPath();
      pen.arc(x, y, i ? 5 : 7, 0, 2 * Math.PI);
      pen.fillStyle = i ? "#ffffff" : accent;
      pen.fill();
      pen.strokeStyle = "rgb(0 0 0 / .7)";
      pen.lineWidth = 1.5;
      pen.stroke();
    });
  });
}

export function show() {
  const path = here();
  $("path-hint").textContent = path ? (path.keys.length ? "Click to go on, drag a key to move it." : "Click where it goes to.")
    : state.paths.length ? "Draw a box around another thing, or click on it." : "Draw a box around the thing, or click on it; then click where it goes.";
  $("path-new").hidden = !state.paths.length || !path;
  $("path-remove").hidden = !path;
  if (document.activeElement !== $("path-label")) $("path-label").value = path?.label ?? "";
  const rows = (path?.keys ?? []).map((key, number) => {
    const of = `of key ${number + 1}`;
    const set = (name) => (value) => { key[name] = value ?? 0; if (name === "at") state.timed = true; redraw(); tell(); };
    return el("li", {}, figure("at", "s", `Second ${of}`, key.at, 0, 3600, set("at")), figure("x", "", `x ${of}`, key.x, -2, 3, set("x")), figure("y", "", `y ${of}`, key.y, -2, 3, set("y")),
      choice(`How it gets to key ${number + 1}`, EASES, key.ease, (ease) => { key.ease = ease; tell(); }),
      removal(`Remove key ${number + 1}`, () => { path.keys.splice(number, 1); show(); tell(); }));
  });
  if (!$("path-keys").contains(document.activeElement) || $("path-keys").children.length !== rows.length) $("path-keys").replaceChildren(...rows);
  redraw();
}
