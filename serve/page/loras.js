// LoRAs beside the model's own, from where this endpoint takes them.
import { $, choice, figure, Rows, words } from "./fields.js";
import { el } from "./words.js";

let rows, can = { loraSources: [] };

export function setUp({ changed }) {
  rows = new Rows({ list: "loras", add: "lora-add", noun: "lora", fresh: () => ({ source: exact()[0] ?? folders()[0], weight: 1 }), fields, changed });
}

export function offer(offered) {
  can = offered;
  $("loras-tools").hidden = !can.loras || !can.loraSources.length;
  $("lora-sources").replaceChildren(...exact().map((value) => el("option", { value })));
  rows.show();
}

// Examples say nothing of it.
export function fill() {
  rows.fill([]);
}

export function body() {
  const said = $("loras-tools").hidden ? [] : rows.entries.filter(({ source }) => source && !source.endsWith("/"));
  return said.length ? { loras: said.map(({ source, weight }) => ({ source, ...(weight === 1 ? {} : { weight }) })) } : {};
}

// Below a source that ends with a slash there are others, whose names only people know.
const folders = () => can.loraSources.filter((one) => one.endsWith("/"));
const exact = () => can.loraSources.filter((one) => !one.endsWith("/"));

function fields(lora, named) {
  const set = (source) => { lora.source = source; rows.changed(); };
  const source = folders().length
    ? words(named("Source"), lora.source, { list: "lora-sources", placeholder: `${folders()[0]}…`, maxlength: 1000 }, set) : choice(named("Source"), exact(), lora.source, set);
  return [source, figure("weight", "", named("Weight"), lora.weight, -8, 8, (value) => { lora.weight = value ?? 1; rows.changed(); })];
}
