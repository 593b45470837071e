// Keys of the camera: sliders say where it is at an instant.
import { $, removal } from "./fields.js";
import { el, round } from "./words.js";

// Unit, least, most, step, at rest.
const AXES = {
  pan: ["°", -90, 90, 1, 0], tilt: ["°", -90, 90, 1, 0], roll: ["°", -180, 180, 1, 0], zoom: ["×", 0.25, 4, 0.05, 1],
  dolly: ["", -0.9, 0.9, 0.05, 0], truck: ["", -1, 1, 0.05, 0], pedestal: ["", -1, 1, 0.05, 0],
};
let keys = [], tell = () => {};

export function setUp({ changed }) {
  tell = changed;
  for (const [axis, [unit, least, most, step, rest]] of Object.entries(AXES)) {
    const id = `camera-${axis}`;
    const slider = el("input", { id, type: "range", min: least, max: most, step, value: rest, "data-axis": axis });
    slider.addEventListener("input", () => setAxis(axis, Number(slider.value)));
    $("camera-axes").append(el("div", { class: "axis" }, el("label", { for: id }, axis), slider, el("output", { for: id, "data-unit": unit }, `${rest}${unit}`)));
  }
  $("camera-at").addEventListener("input", show);
  $("camera-clear").addEventListener("click", () => { keys = []; show(); tell(); });
  show();
}

export function offer(can) {
  $("camera-tools").hidden = !can.steers.has("camera");
}

export function setLength(seconds) {
  $("camera-at").max = Math.floor(seconds * 100) / 100; // no key is after the end
  show();
}

export function body() {
  if (!keys.length || $("camera-tools").hidden) return {};
  // What rests all the time is not said, but by the first key if all of it does.
  const said = Object.keys(AXES).filter((axis) => keys.some((key) => key[axis] !== AXES[axis][4]));
  return said.length ? { camera: keys.map((key) => ({ atSeconds: key.at, ...Object.fromEntries(said.map((axis) => [axis, key[axis]])), ...(key.ease ? { ease: key.ease } : {}) })) } : {};
}

// The keys of an example in place of what there is.
export function fill({ camera = [] }) {
  keys = camera.map(({ atSeconds, ...axes }) => ({ ...atRest(), ...axes, at: atSeconds }));
  $("camera-at").value = 0;
  show();
}

const atRest = () => Object.fromEntries(Object.entries(AXES).map(([axis, told]) => [axis, told[4]]));

// Where the camera is at an instant: as at the keys, and evenly between them.
function cameraAt(at) {
  const before = keys.findLast((key) => key.at <= at) ?? { at: 0, ...atRest() }, after = keys.find((key) => key.at > at);
  if (!after) return before;
  const share = after.at === before.at ? 1 : (at - before.at) / (after.at - before.at);
  return Object.fromEntries(Object.keys(AXES).map((axis) => [axis, round(before[axis] + (after[axis] - before[axis]) * share)]));
}

function setAxis(axis, value) {
  const at = round(Number($("camera-at").value));
  let key = keys.find((one) => one.at === at);
  if (!key) {
    // A first key that is not at the beginning is come to from rest.
    keys.push((key = { ...cameraAt(at), at }));
    keys.sort((a, b) => a.at - b.at);
  }
  key[axis] = value;
  show();
  tell();
}

function show() {
  const at = round(Number($("camera-at").value)), now = cameraAt(at);
  $("camera-at-said").textContent = `${at} s`;
  for (const [axis, [unit]] of Object.entries(AXES)) {
    const slider = $(`camera-${axis}`);
    if (document.activeElement !== slider) slider.value = now[axis];
    slider.nextElementSibling.textContent = `${now[axis]}${unit}`;
  }
  $("camera-clear").hidden = !keys.length;
  $("camera-keys").replaceChildren(...keys.map((key) => {
    const said = Object.entries(AXES).filter(([axis, told]) => key[axis] !== told[4]).map(([axis, [unit]]) => `${axis} ${key[axis]}${unit}`).join(", ") || "at rest";
    const go = el("button", { type: "button", class: "quiet" }, `${key.at} s: ${said}`);
    go.addEventListener("click", () => { $("camera-at").value = key.at; show(); });
    const remove = removal(`Remove the key at ${key.at} s`, () => { keys = keys.filter((one) => one !== key); show(); tell(); });
    return el("li", {}, go, remove);
  }));
}
