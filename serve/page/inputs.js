// Images and videos that go in, each with its role.
import { $, choice, figure, Rows } from "./fields.js";
import { inline } from "./media.js";
import { el } from "./words.js";

// What a role is called, and what it may be given as.
const ROLES = {
  first_frame: ["First frame", ["image"]], last_frame: ["Last frame", ["image"]], keyframe: ["Frame at an instant", ["image"]],
  source: ["Source, to be changed", ["video"]], structure: ["Structure", ["video", "image"]], mask: ["Mask of the source", ["image", "video"]],
  style: ["Style", ["image"]], reference: ["Reference", ["image"]],
};
const WITH_STRENGTH = ["structure", "source", "reference", "style"];
const TYPES = { image: "image/png,image/jpeg,image/webp", video: "video/mp4,video/webm,video/quicktime" };
let rows, can, tell, fail, pictured;

export const known = (role) => role in ROLES;

export function setUp(page) {
  [tell, fail, pictured] = [page.changed, page.refused, page.pictured];
  rows = new Rows({ list: "inputs", add: "input-add", noun: "input", fresh, fields, changed: () => { pictured(); tell(); } });
}

export function offer(offered) {
  can = offered;
  $("input-add").hidden = !can.roles.size;
  rows.show();
}

export const given = (role) => rows.entries.find((one) => one.role === role && one.uri);
export const roles = () => new Set(rows.entries.filter(({ uri }) => uri).map(({ role }) => role));

export function body(media) {
  const inputs = rows.entries.filter(({ uri }) => uri).map(({ role, medium, uri, kind, extract, at_s, strength }) => ({
    role, [medium]: media ? uri : "data:,", ...(asksKind(role) ? { kind } : {}), ...(extractors(role, kind).includes(extract) ? { extract } : {}),
    ...(role === "keyframe" ? { atSeconds: at_s } : {}), ...(strength ? { strength } : {}),
  }));
  return inputs.length ? { inputs } : {};
}

// Those of an example in place of what there is.
export function fill({ inputs = [] }) {
  rows.fill(inputs.map(({ role, image, video, kind, extract, atSeconds, strength }) => {
    const shows = kind ?? (can.roles.get(role) ?? [])[0];
    return {
      role, medium: video ? "video" : "image", uri: video ?? image, name: "of the example", kind: shows, at_s: atSeconds ?? 0,
      extract: extract === true ? extractors(role, shows)[0] : extract || "", strength: strength ?? null,
    };
  }));
}

function fresh(entries) {
  const taken = new Set(entries.map(({ role }) => role));
  const role = [...can.roles.keys()].find((one) => !taken.has(one)) ?? [...can.roles.keys()][0];
  return { role, medium: ROLES[role][1][0], uri: null, name: "", kind: can.roles.get(role)[0], extract: "", at_s: 0, strength: null };
}

// A structure says what it shows; a frame too, where the model wants drawings of it.
const asksKind = (role) => (can.roles.get(role) ?? []).some((kind) => role === "structure" || kind !== "raw");

// Who finds such a structure in a plain picture or video.
const extractors = (role, kind) => (role === "structure" ? can.extractors.filter((one) => one.kind === kind).map(({ name }) => name) : []);

function fields(input, named) {
  const offered = can.roles.has(input.role) ? [...can.roles.keys()] : [input.role, ...can.roles.keys()];
  const role = choice(named("Role"), offered.map((one) => [one, ROLES[one][0]]), input.role, (value) => {
    const media = ROLES[value][1];
    rows.refit(input, { role: value, kind: (can.roles.get(value) ?? [])[0], ...(media.includes(input.medium) ? {} : { medium: media[0], uri: null, name: "" }) });
  });
  const accept = ROLES[input.role][1].map((medium) => TYPES[medium]).join(",");
  const file = el("input", { type: "file", accept, "aria-label": named("File") });
  file.addEventListener("change", () => take(input, file.files[0]));
  const more = [];
  if (asksKind(input.role)) more.push(choice(named("Kind"), can.roles.get(input.role), input.kind, (kind) => rows.refit(input, { kind })));
  const found = extractors(input.role, input.kind);
  if (found.length) {
    const is = input.kind === "edges" ? "are drawn in it" : "is shown by it";
    more.push(choice(named("What it is"), [["", `${input.kind} ${is}`], ...found.map((one) => [one, `plain: found by ${one}`])], input.extract, (extract) => { input.extract = extract; tell(); }));
  }
  if (input.role === "keyframe") more.push(figure("At", "s", named("Second"), input.at_s, 0, 3600, (value) => { input.at_s = value ?? 0; tell(); }));
  if (WITH_STRENGTH.includes(input.role)) more.push(figure("Strength", "", named("Strength"), input.strength, 0.05, 1, (value) => { input.strength = value; tell(); }));
  const seen = input.uri && input.medium === "image" ? [el("img", { src: input.uri, alt: named("Picture") })] : [];
  return [role, file, ...seen, el("span", { class: "hint" }, input.name || "no file yet"), ...more];
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
  rows.show();
  await pictured();
  tell();
}
