// Fields of forms that people add to, and the lists that hold them: one row an entry, with a button that removes it.
import { el } from "./words.js";

export const $ = (id) => document.getElementById(id);

// `options`: values, or pairs of a value and what it is called.
export function choice(name, options, value, set) {
  const field = el("select", { "aria-label": name }, ...options.map((one) => [one].flat()).map(([key, text]) => el("option", { value: key }, text ?? key)));
  field.value = value;
  field.addEventListener("change", () => set(field.value));
  return field;
}

// `set` gets null where nothing is said.
export function figure(text, unit, name, value, min, max, set) {
  const field = el("input", { type: "number", "aria-label": name, value: value ?? "", min, max, step: "any" }); // what is drawn has no steps
  field.addEventListener("input", () => { if (field.value === "" || field.checkValidity()) set(field.value === "" ? null : Number(field.value)); });
  return el("span", { class: "number" }, text, field, unit);
}

export function words(name, value, more, set) {
  const field = el("input", { "aria-label": name, value, autocomplete: "off", ...more });
  field.addEventListener("input", () => set(field.value));
  return field;
}

export function removal(name, act) {
  const button = el("button", { type: "button", class: "quiet", "aria-label": name }, "✕");
  button.addEventListener("click", act);
  return button;
}

// A list of entries, shown in `list` and added to with the button `add`. `fresh` makes an entry, `fields` the nodes of
// its row, given the entry, how its fields are named, its number, and a function that makes its row anew.
export class Rows {
  constructor({ list, add, noun, fresh, fields, changed }) {
    Object.assign(this, { list: $(list), button: $(add), noun, fresh, fields, changed, entries: [] });
    this.button.addEventListener("click", () => this.add());
  }

  add() {
    this.entries.push(this.fresh(this.entries));
    this.show();
    this.list.lastElementChild.querySelector("select, input:not(:disabled), textarea").focus();
    this.changed();
  }

  // Entries in place of those that there are. Nobody is told.
  fill(entries) {
    this.entries = entries;
    this.show();
  }

  show() {
    this.list.replaceChildren(...this.entries.map((entry, number) => {
      const remove = removal(`Remove ${this.noun} ${number + 1}`, () => { this.entries.splice(number, 1); this.show(); this.changed(); this.button.focus(); });
      return el("li", { class: "entry" }, ...this.fields(entry, (what) => `${what} of ${this.noun} ${number + 1}`, number, () => this.show()), remove);
    }));
  }

  // An entry's row is made anew where a choice in it asks for other fields.
  refit(entry, changes) {
    Object.assign(entry, changes);
    this.show();
    this.changed();
  }
}
