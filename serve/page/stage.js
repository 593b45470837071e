// The picture that is drawn over: paths, a mask.
import { $ } from "./fields.js";
import * as inputs from "./inputs.js";
import * as mask from "./mask.js";
import { loaded } from "./media.js";
import * as paths from "./paths.js";
import { within } from "./words.js";

const WIDE = 384; // pixels of the stage, and of a mask
const LEAST = 6; // pixels of a box; a smaller one is a point
const state = { picture: null, frame: null, held: null, asked: 0, can: { path: false, mask: false } };
let tell = () => {};

export function setUp({ changed }) {
  tell = changed;
  $("mask-clear").addEventListener("click", () => { mask.clear(); draw(); tell(); });
  for (const one of tools()) one.addEventListener("change", showTools);
  const stage = $("stage");
  stage.addEventListener("pointerdown", press);
  stage.addEventListener("pointermove", drag);
  for (const over of ["pointerup", "pointercancel"]) stage.addEventListener(over, release);
  $("direct").addEventListener("toggle", draw);
}

export function offer(can) {
  state.can = { path: can.steers.has("paths"), mask: can.roles.has("mask") };
  showTools();
}

// Nothing of an example is painted.
export function fill() {
  mask.clear();
  for (const one of tools()) one.checked = one.value === "path";
  showTools();
}

// The form's first frame, a data: URI or null.
export function setFrame(uri) {
  state.frame = uri;
  return show();
}

export function setRatio(ratio) {
  const [wide, high] = ratio.split(":").map(Number);
  const stage = $("stage"), height = wide && high ? Math.round((WIDE * high) / wide) : Math.round((WIDE * 9) / 16);
  if (stage.height !== height || stage.width !== WIDE) {
    Object.assign(stage, { width: WIDE, height });
    mask.setSize(WIDE, height);
    draw();
  }
}

// The painted mask, as an input of a body, or null.
export function paintedMask(media) {
  return !inputs.given("mask") && masks() && mask.isPainted() ? { role: "mask", image: media ? mask.picture() : "data:," } : null;
}

const tools = () => [...document.getElementsByName("tool")];
const tool = () => tools().find((one) => one.checked)?.value ?? "path";
const masks = () => state.can.mask && inputs.given("source");

function showTools() {
  const { can } = state;
  for (const one of tools()) one.disabled = !can[one.value];
  $("stage-tools").hidden = !can.path && !can.mask;
  if (!can[tool()]) for (const one of tools()) one.checked = can[one.value] || (!can.path && !can.mask && one.value === "path");
  $("path-tools").hidden = tool() !== "path";
  $("mask-tools").hidden = tool() !== "mask";
  $("mask-hint").textContent = masks() ? "Paint what is to be made anew." : "A mask is of a source: add one as an input, then paint what is to be made anew.";
  draw();
}

// The first frame, else the source's first.
export async function show() {
  const frame = state.frame ?? inputs.given("first_frame")?.uri, source = inputs.given("source")?.uri, asked = (state.asked += 1);
  let picture = null;
  try {
    picture = frame ? await loaded("img", frame) : source ? await loaded("video", source) : null;
  } catch { /* the endpoint says what is wrong with it */ }
  if (asked !== state.asked) return; // another one was asked for meanwhile
  state.picture = picture;
  showTools();
}

export function draw() {
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
  if (mask.isPainted() && masks()) mask.draw(pen);
  paths.draw(pen, width, height, accent);
}

function place(event) {
  const frame = $("stage").getBoundingClientRect();
  return [within((event.clientX - frame.left) / frame.width), within((event.clientY - frame.top) / frame.height)];
}

function press(event) {
  event.preventDefault();
  const stage = $("stage"), [x, y] = place(event);
  stage.setPointerCapture(event.pointerId);
  if (tool() === "mask") {
    if (!masks()) return;
    state.held = { brush: true };
    mask.begin(x, y);
    draw();
    return;
  }
  const key = paths.hold(x, y, stage.width, stage.height);
  state.held = key ? { key } : { corner: [x, y] };
}

function drag(event) {
  if (!state.held) return;
  const [x, y] = place(event);
  if (state.held.brush) { mask.to(x, y); draw(); }
  else if (state.held.key) paths.move(state.held.key, x, y);
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
    const [a, b] = held.corner;
    paths.begin([a, b], [x, y], Math.abs(x - a) * $("stage").width > LEAST && Math.abs(y - b) * $("stage").height > LEAST);
  }
  paths.show();
  tell();
}
