// Directing a shot: inputs by role, a mask and paths drawn over the picture, keys of the camera, and the guide that shows
// what a model would be shown of it all.
import { el, round, within } from "./words.js";

const $ = (id) => document.getElementById(id);
const WIDE = 384; // pixels of the stage, and of a mask
const MOST_MIB = { image: 3.7, video: 10.4 }; // of a data: URI, before it is written in base64
const GRAB = 12; // pixels around a key that take hold of it

// What a role is called, and what it may be given as.
const ROLES = {
  first_frame: ["First frame", ["image"]], last_frame: ["Last frame", ["image"]], keyframe: ["Frame at an instant", ["image"]],
  source: ["Source, to be changed", ["video"]], structure: ["Structure", ["video", "image"]], mask: ["Mask of the source", ["image", "video"]],
  style: ["Style", ["image"]], reference: ["Reference", ["image"]],
};
// Unit, least, most, step, at rest.
const AXES = {
  pan: ["°", -90, 90, 1, 0], tilt: ["°", -90, 90, 1, 0], roll: ["°", -180, 180, 1, 0], zoom: ["×", 0.25, 4, 0.05, 1],
  dolly: ["", -0.9, 0.9, 0.05, 0], truck: ["", -1, 1, 0.05, 0], pedestal: ["", -1, 1, 0.05, 0],
};
const EASES = ["linear", "in", "out", "in-out"];
const state = { inputs: [], paths: [], at: -1, timed: false, camera: [], picture: null, frame: null, strokes: 0, roles: new Map(), steers: new Set(), held: null };
const mask = el("canvas", {});
let tell = () => {}, fail = () => {};

// --- What the page asks ----------------------------------------------------------------------------------------------

// `changed` is called whenever what is directed changes, `refused` with an Error or null.
export function setUp(changed, refused) {
  [tell, fail] = [changed, refused];
  for (const [axis, [unit, least, most, step, rest]] of Object.entries(AXES)) {
    const id = `camera-${axis}`;
    const slider = el("input", { id, type: "range", min: least, max: most, step, value: rest, "data-axis": axis });
    slider.addEventListener("input", () => setAxis(axis, Number(slider.value)));
    $("camera-axes").append(el("div", { class: "axis" }, el("label", { for: id }, axis), slider, el("output", { for: id, "data-unit": unit }, `${rest}${unit}`)));
  }
  $("camera-at").addEventListener("input", showCamera);
  $("camera-clear").addEventListener("click", () => { state.camera = []; showCamera(); tell(); });
  $("input-add").addEventListener("click", addInput);
  $("path-new").addEventListener("click", () => { state.at = -1; showPaths(); $("path-label").focus(); });
  $("path-remove").addEventListener("click", () => { state.paths.splice(state.at, 1); state.at = state.paths.length - 1; showPaths(); tell(); });
  $("path-key").addEventListener("click", () => addKey(0.5, 0.5));
  $("path-label").addEventListener("input", () => { if (state.paths[state.at]) { state.paths[state.at].label = $("path-label").value; draw(); tell(); } });
  $("mask-clear").addEventListener("click", () => { clearMask(); draw(); tell(); });
  for (const tool of document.getElementsByName("tool")) tool.addEventListener("change", showTools);
  const stage = $("stage");
  stage.addEventListener("pointerdown", press);
  stage.addEventListener("pointermove", drag);
  for (const over of ["pointerup", "pointercancel"]) stage.addEventListener(over, release);
  $("direct").addEventListener("toggle", draw);
  showCamera();
  showPaths();
}

// What of it the chosen models can do; `others` says which could do more.
export function offer(variants, others) {
  state.roles = new Map();
  state.steers = new Set();
  for (const variant of variants) {
    for (const { role, kinds } of variant.inputs) if (ROLES[role]) state.roles.set(role, [...new Set([...(state.roles.get(role) ?? []), ...(kinds ?? [])])]);
    for (const steer of variant.motion) state.steers.add(steer);
  }
  $("camera-tools").hidden = !state.steers.has("camera");
  const names = others.filter((one) => one.inputs.length + one.motion.length > state.roles.size + state.steers.size).map((one) => one.name);
  const can = state.roles.size + state.steers.size;
  $("direct-hint").textContent = [can ? "" : "This model is directed by its prompt only.", names.length ? `More can be said to: ${names.join(", ")}.` : ""].filter(Boolean).join(" ");
  $("input-add").hidden = !state.roles.size;
  showTools();
  showInputs();
}

// The first frame of the form, a data: URI or null.
export function setFrame(uri) {
  state.frame = uri;
  show();
}

// The shot's proportion and length, as the form has them.
export function setShape(ratio, seconds) {
  const [wide, high] = ratio.split(":").map(Number);
  const stage = $("stage"), height = wide && high ? Math.round((WIDE * high) / wide) : Math.round((WIDE * 9) / 16);
  if (stage.height !== height || stage.width !== WIDE) {
    Object.assign(stage, { width: WIDE, height });
    Object.assign(mask, { width: WIDE, height });
    clearMask();
  }
  $("camera-at").max = Math.floor((seconds || 2) * 100) / 100; // no key is after the end
  if (!state.timed) for (const path of state.paths) respread(path);
  showCamera();
  showPaths();
}

// Its part of a create's body. With `media` false, that there is one and not which.
export function body(media = true) {
  const out = {};
  const inputs = state.inputs.filter((one) => one.uri).map(({ role, medium, uri, kind, at_s, strength }) => ({
    role, [medium]: media ? uri : "data:,", ...(asksKind(role) ? { kind } : {}), ...(role === "keyframe" ? { atSeconds: at_s } : {}), ...(strength ? { strength } : {}),
  }));
  if (masks() && state.strokes && !inputs.some(({ role }) => role === "mask")) inputs.push({ role: "mask", image: media ? drawnMask() : "data:," });
  if (inputs.length) out.inputs = inputs;
  if (state.camera.length && state.steers.has("camera")) {
    // What rests all the time is not said, but by the first key if all of it does.
    const said = Object.keys(AXES).filter((axis) => state.camera.some((key) => key[axis] !== AXES[axis][4]));
    if (said.length) out.camera = state.camera.map((key) => ({ atSeconds: key.at, ...Object.fromEntries(said.map((axis) => [axis, key[axis]])) }));
  }
  const paths = state.steers.has("paths") ? state.paths.filter(({ keys }) => keys.length) : [];
  if (paths.length) out.paths = paths.map(({ label, box, point, keys }) => ({
    label: label || "it", ...(box ? { box } : { point }), keys: keys.map(({ at, x, y, ease }) => ({ atSeconds: at, x, y, ...(ease === "linear" ? {} : { ease }) })),
  }));
  return out;
}

export const roles = () => new Set(state.inputs.filter(({ uri }) => uri).map(({ role }) => role));

// Play a guide, a data: URI of a video, or say that there is none.
export function showGuide(uri, name) {
  const video = $("guide");
  if (video.src) URL.revokeObjectURL(video.src);
  video.hidden = !uri;
  $("guide-said").textContent = uri
    ? `Left what ${name} is shown, right in white what it makes anew.` : `${name} is shown its text only.`;
  if (!uri) { video.removeAttribute("src"); return; }
  video.src = URL.createObjectURL(blobOf(uri));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
}

// --- Inputs ----------------------------------------------------------------------------------------------------------

function addInput() {
  const taken = new Set(state.inputs.map(({ role }) => role));
  const role = [...state.roles.keys()].find((one) => !taken.has(one)) ?? [...state.roles.keys()][0];
  state.inputs.push({ role, medium: ROLES[role][1][0], uri: null, name: "", kind: state.roles.get(role)[0], at_s: 0, strength: null });
  showInputs();
  $("inputs").lastElementChild.querySelector("select").focus();
}

// A structure says what it shows; a frame too, where the model wants drawings of it.
const asksKind = (role) => (state.roles.get(role) ?? []).some((kind) => role === "structure" || kind !== "raw");

function showInputs() {
  $("inputs").replaceChildren(...state.inputs.map(inputRow));
}

function inputRow(input, number) {
  const named = (what) => `${what} of input ${number + 1}`;
  const offered = state.roles.has(input.role) ? [...state.roles.keys()] : [input.role, ...state.roles.keys()];
  const role = el("select", { "aria-label": named("Role") }, ...offered.map((one) => el("option", { value: one }, ROLES[one][0])));
  role.value = input.role;
  role.addEventListener("change", () => {
    const media = ROLES[role.value][1];
    Object.assign(input, { role: role.value, kind: (state.roles.get(role.value) ?? [])[0] });
    if (!media.includes(input.medium)) Object.assign(input, { medium: media[0], uri: null, name: "" });
    showInputs(); show(); tell();
  });
  const accept = ROLES[input.role][1].map((medium) => (medium === "image" ? "image/png,image/jpeg,image/webp" : "video/mp4,video/webm,video/quicktime")).join(",");
  const file = el("input", { type: "file", accept, "aria-label": named("File") });
  file.addEventListener("change", () => take(input, file.files[0]));
  const more = [];
  if (asksKind(input.role)) {
    const kind = el("select", { "aria-label": named("Kind") }, ...state.roles.get(input.role).map((one) => el("option", { value: one }, one)));
    kind.value = input.kind;
    kind.addEventListener("change", () => { input.kind = kind.value; tell(); });
    more.push(kind);
  }
  if (input.role === "keyframe") more.push(figure("At", "s", named("Second"), input.at_s, 0, 3600, (value) => { input.at_s = value; }));
  if (["structure", "source", "reference", "style"].includes(input.role)) more.push(figure("Strength", "", named("Strength"), input.strength ?? "", 0.05, 1, (value) => { input.strength = value || null; }));
  const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove input ${number + 1}` }, "Remove");
  remove.addEventListener("click", () => { state.inputs.splice(number, 1); showInputs(); show(); tell(); $("input-add").focus(); });
  return el("li", { class: "input" }, role, file, el("span", { class: "hint" }, input.name || "no file yet"), ...more, remove);
}

function figure(text, unit, name, value, min, max, set) {
  const field = el("input", { type: "number", "aria-label": name, value, min, max, step: "any" }); // what is drawn has no steps
  field.addEventListener("input", () => { if (field.value === "" || field.checkValidity()) { set(Number(field.value)); tell(); } });
  return el("span", { class: "number" }, text, field, unit);
}

async function take(input, file) {
  Object.assign(input, { uri: null, name: "" });
  if (file) {
    const medium = file.type.startsWith("video/") ? "video" : "image";
    try {
      if (!ROLES[input.role][1].includes(medium)) throw new Error(`${ROLES[input.role][0]} is given as ${ROLES[input.role][1].join(" or ")}, not as ${medium}.`);
      Object.assign(input, { medium, uri: await inline(file, medium), name: file.name });
      fail(null);
    } catch (error) { fail(error); }
  }
  showInputs();
  await show();
  tell();
}

// A file as a data: URI, where it is small enough to be sent so.
export async function inline(file, medium) {
  if (file.size > MOST_MIB[medium] * 2 ** 20) throw new Error(`This ${medium} is too large to send inline: at most ${MOST_MIB[medium]} MB. Larger ones go through /v1/uploads.`);
  return await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("This file cannot be read."));
    reader.readAsDataURL(file);
  });
}

// --- The stage: the picture, paths, a mask -----------------------------------------------------------------------------

const tool = () => [...document.getElementsByName("tool")].find((one) => one.checked)?.value ?? "path";
const masks = () => state.roles.has("mask") && state.inputs.some(({ role, uri }) => role === "source" && uri);

function showTools() {
  const can = { path: state.steers.has("paths"), mask: state.roles.has("mask") };
  for (const one of document.getElementsByName("tool")) one.disabled = !can[one.value];
  $("stage-tools").hidden = !can.path && !can.mask;
  if (!can[tool()]) for (const one of document.getElementsByName("tool")) one.checked = can[one.value] || (!can.path && !can.mask && one.value === "path");
  $("path-tools").hidden = tool() !== "path";
  $("mask-tools").hidden = tool() !== "mask";
  $("mask-hint").textContent = masks() ? "Paint what is to be made anew." : "A mask is of a source: add one as an input, then paint what is to be made anew.";
  draw();
}

// The picture that is drawn over: the first frame, else the source's first.
async function show() {
  const given = (role) => state.inputs.find((one) => one.role === role && one.uri);
  const frame = state.frame ?? given("first_frame")?.uri, source = given("source")?.uri;
  try {
    state.picture = frame ? await loaded("img", frame) : source ? await loaded("video", source) : null;
  } catch { state.picture = null; } // the endpoint says what is wrong with it
  showTools();
}

async function loaded(tag, uri) {
  const node = el(tag, tag === "video" ? { muted: "", playsinline: "", preload: "auto" } : {});
  if (tag === "img") { node.src = uri; await node.decode(); return node; }
  await new Promise((done, failed) => {
    node.addEventListener("loadeddata", done, { once: true });
    node.addEventListener("error", failed, { once: true });
    node.src = URL.createObjectURL(blobOf(uri));
  });
  return node;
}

function blobOf(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (one) => one.charCodeAt(0));
  return new Blob([bytes], { type: uri.slice(5, uri.indexOf(";")) });
}

function draw() {
  const stage = $("stage"), pen = stage.getContext("2d"), { width, height } = stage;
  const style = getComputedStyle(stage), accent = style.accentColor && style.accentColor !== "auto" ? style.accentColor : "#e8590c";
  pen.fillStyle = "#6b6b73";
  pen.fillRect(0, 0, width, height);
  const picture = state.picture;
  if (picture) {
    const [w, h] = [picture.videoWidth || picture.naturalWidth, picture.videoHeight || picture.naturalHeight];
    const share = Math.max(width / w, height / h); // cut to the shot's proportion, as the model gets it
    pen.drawImage(picture, (width - w * share) / 2, (height - h * share) / 2, w * share, h * share);
  }
  if (state.strokes && masks()) {
    pen.save();
    pen.globalAlpha = 0.6;
    pen.drawImage(mask, 0, 0);
    pen.restore();
  }
  if (!state.steers.has("paths")) return;
  state.paths.forEach((path, number) => {
    const here = number === state.at, points = [middle(path), ...path.keys.map(({ x, y }) => [x, y])].map(([x, y]) => [x * width, y * height]);
    pen.lineWidth = here ? 3 : 1.5;
    for (const [colour, more] of [["rgb(0 0 0 / .55)", 2], [here ? accent : "#ffffff", 0]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = (here ? 3 : 1.5) + more;
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

const middle = ({ box, point }) => (box ? [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] : point);

function place(event) {
  const frame = $("stage").getBoundingClientRect();
  return [within((event.clientX - frame.left) / frame.width), within((event.clientY - frame.top) / frame.height)];
}

function press(event) {
  event.preventDefault();
  $("stage").setPointerCapture(event.pointerId);
  const [x, y] = place(event);
  if (tool() === "mask") {
    if (!masks()) return;
    state.held = { paint: [x, y] };
    paint(x, y);
    return;
  }
  const path = state.paths[state.at];
  const grabbed = path?.keys.findIndex((key) => Math.hypot((key.x - x) * $("stage").width, (key.y - y) * $("stage").height) < GRAB) ?? -1;
  if (grabbed >= 0) state.held = { key: path.keys[grabbed] };
  else if (path) { addKey(x, y); state.held = { key: state.paths[state.at].keys.at(-1) }; }
  else state.held = { corner: [x, y] };
}

function drag(event) {
  if (!state.held) return;
  const [x, y] = place(event);
  if (state.held.paint) paint(x, y);
  else if (state.held.key) { Object.assign(state.held.key, { x: round(x), y: round(y) }); showPaths(); }
  else {
    draw();
    const stage = $("stage"), pen = stage.getContext("2d"), [left, top] = state.held.corner;
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = 2;
    pen.strokeRect(left * stage.width, top * stage.height, (x - left) * stage.width, (y - top) * stage.height);
  }
}

function release(event) {
  const held = state.held, [x, y] = place(event);
  state.held = null;
  if (!held) return;
  if (held.corner) {
    const [a, b] = held.corner, wide = Math.abs(x - a) * $("stage").width > 6 && Math.abs(y - b) * $("stage").height > 6;
    const path = { label: $("path-label").value, keys: [] };
    if (wide) path.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)].map(round);
    else path.point = [round(x), round(y)];
    state.at = state.paths.push(path) - 1;
  }
  showPaths();
  tell();
}

function paint(x, y) {
  const pen = mask.getContext("2d"), [a, b] = state.held.paint;
  Object.assign(pen, { strokeStyle: "#ffffff", lineCap: "round", lineJoin: "round", lineWidth: Number($("mask-brush").value) });
  pen.beginPath();
  pen.moveTo(a * mask.width, b * mask.height);
  pen.lineTo(x * mask.width, y * mask.height);
  pen.stroke();
  state.held.paint = [x, y];
  state.strokes += 1;
  draw();
}

function clearMask() {
  mask.getContext("2d").clearRect(0, 0, mask.width, mask.height);
  state.strokes = 0;
}

function drawnMask() {
  const page = el("canvas", { width: mask.width, height: mask.height }), pen = page.getContext("2d");
  pen.fillStyle = "#000000";
  pen.fillRect(0, 0, page.width, page.height);
  pen.drawImage(mask, 0, 0);
  return page.toDataURL("image/png");
}

// --- Paths -------------------------------------------------------------------------------------------------------------

function addKey(x, y) {
  if (!state.paths[state.at]) state.at = state.paths.push({ label: $("path-label").value, point: [0.25, 0.5], keys: [] }) - 1;
  const path = state.paths[state.at];
  const end = Number($("camera-at").max);
  path.keys.push({ at: end, x: round(x), y: round(y), ease: "linear" });
  if (!state.timed) respread(path);
  else path.keys.at(-1).at = Math.max(end, round((path.keys.at(-2)?.at ?? 0) + 0.5));
  showPaths();
  tell();
}

// Until somebody sets a time, keys are as far apart as the clip is long.
function respread(path) {
  const end = Number($("camera-at").max);
  path.keys.forEach((key, number) => { key.at = round((end * (number + 1)) / path.keys.length); });
}

function showPaths() {
  const path = state.paths[state.at];
  $("path-hint").textContent = path ? (path.keys.length ? "Click to go on, drag a key to move it." : "Click where it goes to.")
    : state.paths.length ? "Draw a box around another thing, or click on it." : "Draw a box around the thing, or click on it; then click where it goes.";
  $("path-new").hidden = !state.paths.length || !path;
  $("path-remove").hidden = !path;
  if (document.activeElement !== $("path-label")) $("path-label").value = path?.label ?? "";
  const rows = (path?.keys ?? []).map((key, number) => {
    const ease = el("select", { "aria-label": `How it gets to key ${number + 1}` }, ...EASES.map((one) => el("option", { value: one }, one)));
    ease.value = key.ease;
    ease.addEventListener("change", () => { key.ease = ease.value; tell(); });
    const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove key ${number + 1}` }, "✕");
    remove.addEventListener("click", () => { path.keys.splice(number, 1); showPaths(); tell(); });
    const set = (name) => (value) => { key[name] = value; if (name === "at") state.timed = true; draw(); };
    return el("li", {}, figure("at", "s", `Second of key ${number + 1}`, key.at, 0, 3600, set("at")), figure("x", "", `x of key ${number + 1}`, key.x, -2, 3, set("x")),
      figure("y", "", `y of key ${number + 1}`, key.y, -2, 3, set("y")), ease, remove);
  });
  if (!$("path-keys").contains(document.activeElement) || $("path-keys").children.length !== rows.length) $("path-keys").replaceChildren(...rows);
  draw();
}

// --- The camera ----------------------------------------------------------------------------------------------------------

// Where the camera is at an instant: as at the keys, and evenly between them.
function cameraAt(at) {
  const keys = state.camera, rest = Object.fromEntries(Object.entries(AXES).map(([axis, told]) => [axis, told[4]]));
  const before = keys.findLast((key) => key.at <= at) ?? { at: 0, ...rest }, after = keys.find((key) => key.at > at);
  if (!after) return before;
  const share = after.at === before.at ? 1 : (at - before.at) / (after.at - before.at);
  return Object.fromEntries(Object.keys(AXES).map((axis) => [axis, round(before[axis] + (after[axis] - before[axis]) * share)]));
}

function setAxis(axis, value) {
  const at = round(Number($("camera-at").value));
  let key = state.camera.find((one) => one.at === at);
  if (!key) {
    // A first key that is not at the beginning is come to from rest.
    state.camera.push((key = { ...cameraAt(at), at }));
    state.camera.sort((a, b) => a.at - b.at);
  }
  key[axis] = value;
  showCamera();
  tell();
}

function showCamera() {
  const at = round(Number($("camera-at").value)), now = cameraAt(at);
  $("camera-at-said").textContent = `${at} s`;
  for (const [axis, [unit]] of Object.entries(AXES)) {
    const slider = $(`camera-${axis}`);
    if (document.activeElement !== slider) slider.value = now[axis];
    slider.nextElementSibling.textContent = `${now[axis]}${unit}`;
  }
  $("camera-clear").hidden = !state.camera.length;
  $("camera-keys").replaceChildren(...state.camera.map((key) => {
    const said = Object.entries(AXES).filter(([axis, told]) => key[axis] !== told[4]).map(([axis, [unit]]) => `${axis} ${key[axis]}${unit}`).join(", ") || "at rest";
    const go = el("button", { type: "button", class: "quiet" }, `${key.at} s: ${said}`);
    go.addEventListener("click", () => { $("camera-at").value = key.at; showCamera(); });
    const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove the key at ${key.at} s` }, "✕");
    remove.addEventListener("click", () => { state.camera = state.camera.filter((one) => one !== key); showCamera(); tell(); });
    return el("li", {}, go, remove);
  }));
}
