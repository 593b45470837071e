// Directing a shot: what is said beside the form's own fields, each part in a module of its own, and the guide that shows
// what a model would be shown of it all.
import * as camera from "./camera.js";
import { $ } from "./fields.js";
import * as finish from "./finish.js";
import * as inputs from "./inputs.js";
import * as loras from "./loras.js";
import { blobOf } from "./media.js";
import * as paths from "./paths.js";
import * as prompts from "./prompts.js";
import * as stage from "./stage.js";
import * as takes from "./takes.js";

// Each is set up once, told what the chosen models can do and how long the clip is, and asked for its part of a body.
const PARTS = [inputs, paths, stage, camera, prompts, finish, loras, takes];
let offered = "";

// `changed` is called whenever what is directed changes, `refused` with an Error or null.
export function setUp(changed, refused) {
  for (const part of PARTS) part.setUp({ changed, refused, pictured: stage.show, redraw: stage.draw });
}

// What of it the chosen models can do in a mode; `others` says which could do more. `endpoint` is what it told of itself
// beside its models.
export function offer(variants, others, mode, endpoint) {
  const able = (told) => variants.some((variant) => variant[told].includes(mode));
  const can = {
    roles: new Map(), steers: new Set(variants.flatMap(({ motion }) => motion)),
    prompts: able("severalPrompts"), sound: able("audio"), loras: able("loras"), ...endpoint,
  };
  for (const { role, kinds } of variants.flatMap((variant) => variant.inputs)) if (inputs.known(role)) can.roles.set(role, [...new Set([...(can.roles.get(role) ?? []), ...(kinds ?? [])])]);
  const size = can.roles.size + can.steers.size;
  const names = others.filter((one) => one.inputs.length + one.motion.length > size).map(({ name }) => name);
  $("direct-hint").textContent = [size ? "" : "This model is directed by its prompt only.", names.length ? `More can be said to: ${names.join(", ")}.` : ""].filter(Boolean).join(" ");
  const now = JSON.stringify([can, [...can.roles], [...can.steers]]);
  if (now === offered) return; // rows keep their focus
  offered = now;
  for (const part of PARTS) part.offer(can);
}

export const setFrame = stage.setFrame;

// The shot's proportion and length, as the form has them.
export function setShape(ratio, seconds) {
  stage.setRatio(ratio);
  for (const part of PARTS) part.setLength?.(seconds || 2);
}

// What a request says, in place of all that was directed before. True where it says anything beside a prompt.
export function fill(request) {
  for (const part of PARTS) part.fill(request);
  stage.setFrame(null);
  $("guide").hidden = true; // it is of what was said before
  $("guide-said").textContent = "";
  return ["inputs", "prompts", "paths", "camera"].some((field) => request[field]);
}

// Its part of a create's body. With `media` false, that there is one and not which.
export function body(media = true) {
  const out = Object.assign({}, ...PARTS.map((part) => part.body?.(media)));
  const mask = stage.paintedMask(media);
  return mask ? { ...out, inputs: [...(out.inputs ?? []), mask] } : out;
}

export const roles = inputs.roles;
export const hasPrompts = prompts.any;

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
