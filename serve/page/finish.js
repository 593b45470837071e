// What is done to the clip after it was rendered, step by step.
import { $, choice, figure, Rows, words } from "./fields.js";
import { el } from "./words.js";

const STEPS = { upscale: "Larger", interpolate: "Smoother", fit: "To a size", reframe: "Moving" };
const LARGER = [["2", "2 ×"], ["3", "3 ×"], ["4", "4 ×"], "720p", "1080p", "4k"];
const FITS = [["pad", "with bars"], ["crop", "cut off what overhangs"], ["stretch", "stretched"]];
// Of a window that moves from rest to where it is at the end: unit, least, most, at rest.
const TURNS = { pan: ["°", -20, 20, 0], tilt: ["°", -20, 20, 0], roll: ["°", -45, 45, 0], zoom: ["×", 0.5, 4, 1] };
let rows, can = { finishers: [] }, end = 2;

export function setUp({ changed }) {
  rows = new Rows({ list: "finish", add: "finish-add", noun: "step", fresh, fields, changed });
}

export function offer(offered) {
  can = offered;
  $("finish-tools").hidden = !steps().length;
  rows.show();
}

export function setLength(seconds) {
  end = seconds;
}

// Examples say nothing of it.
export function fill() {
  rows.fill([]);
}

export function body() {
  const done = rows.entries.filter(({ step }) => steps().includes(step)).map((entry) => ({ ...SAID[entry.step](entry), ...(who(entry.step).includes(entry.by) ? { by: entry.by } : {}) }));
  return done.length ? { finish: done } : {};
}

const SAID = {
  upscale: ({ upscale }) => ({ upscale: Number(upscale) || upscale }),
  interpolate: ({ interpolate }) => ({ interpolate }),
  fit: ({ fit, size }) => ({ fit, ...(size.trim() ? { size: size.trim().replace(/\s*[x×]\s*/, ":") } : {}) }),
  reframe: ({ turns }) => ({ reframe: [{ atSeconds: end, ...turns }] }),
};

const steps = () => Object.keys(STEPS).filter((step) => who(step).length);
const who = (step) => can.finishers.filter(({ operations }) => operations.includes(step)).map(({ name }) => name);
const fresh = (entries) => ({ step: steps().find((step) => !entries.some((one) => one.step === step)) ?? steps()[0], upscale: "2", interpolate: 24, fit: "pad", size: "", turns: {}, by: "" });

function fields(entry, named) {
  const set = (name) => (value) => { entry[name] = value; rows.changed(); };
  const how = {
    upscale: () => [choice(named("How much"), LARGER, entry.upscale, set("upscale"))],
    interpolate: () => [figure("to", "fps", named("Frames a second"), entry.interpolate, 1, 240, (value) => set("interpolate")(value ?? 24))],
    reframe: () => Object.entries(TURNS).map(([turn, [unit, least, most, rest]]) => figure(turn, unit, named(`At the end, ${turn}`), entry.turns[turn] ?? rest, least, most, (value) => { entry.turns[turn] = value ?? rest; rows.changed(); })),
    fit: () => [choice(named("How"), FITS, entry.fit, set("fit")), words(named("Size"), entry.size, { placeholder: "as asked, or 1280:720", maxlength: 40 }, set("size"))],
  }[entry.step]();
  const names = who(entry.step);
  const by = names.length > 1 ? [choice(named("By whom"), [["", `by ${names[0]}`], ...names.slice(1).map((one) => [one, `by ${one}`])], entry.by, set("by"))] : [];
  return [el("span", { class: "number" }, `${rows.entries.indexOf(entry) + 1}.`), choice(named("What"), steps().map((step) => [step, STEPS[step]]), entry.step, (step) => rows.refit(entry, { step, by: "" })), ...how, ...by];
}
