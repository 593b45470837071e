// Several prompts of one clip, each from its second on; the form's own then goes before each.
import { $, figure, Rows, words } from "./fields.js";
import { round } from "./words.js";

let rows, end = 2;

export function setUp({ changed }) {
  rows = new Rows({ list: "prompts", add: "prompt-add", noun: "prompt", fresh, fields, changed });
}

export function offer(can) {
  $("prompts-tools").hidden = !can.prompts;
}

export function setLength(seconds) {
  end = seconds;
}

// Whether there is one to render by itself.
export const any = () => said().length > 0;

export function body() {
  return said().length ? { prompts: said().map(({ from_s, text }) => ({ fromSeconds: from_s, text: text.trim() })) } : {};
}

// Those of an example in place of what there is.
export function fill({ prompts = [] }) {
  rows.fill(prompts.map(({ fromSeconds, text }) => ({ from_s: fromSeconds, text })));
}

const said = () => ($("prompts-tools").hidden ? [] : rows.entries.filter(({ text }) => text.trim()));

// The first begins with the clip, another halfway from the one before to the end.
function fresh(entries) {
  const before = entries.at(-1);
  return { from_s: before ? round(Math.round(5 * (before.from_s + end)) / 10) : 0, text: "" };
}

function fields(prompt, named, number) {
  const from = figure("from", "s", named("Second"), prompt.from_s, 0, 3600, (value) => { prompt.from_s = value ?? 0; rows.changed(); });
  if (!number) { prompt.from_s = 0; from.querySelector("input").value = 0; from.querySelector("input").disabled = true; }
  return [from, words(named("Text"), prompt.text, { class: "wide", placeholder: "what is to be seen from then on", maxlength: 4000 }, (value) => { prompt.text = value; rows.changed(); })];
}
