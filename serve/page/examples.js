// What the chosen model can be asked for, to fill the form with.
import { $ } from "./fields.js";
import { el } from "./words.js";

let shown = null;

// The examples of a model, or of none; `pick` is called with the one that is chosen.
export function show(variant, pick) {
  const examples = variant?.examples ?? [];
  if (examples === shown) return; // a button that was pressed keeps its focus
  shown = examples;
  $("examples").hidden = !examples.length;
  $("examples-list").replaceChildren(...examples.map((example) => {
    const button = el("button", { type: "button", class: "quiet", title: example.request.promptText ?? "" }, example.title);
    button.addEventListener("click", () => pick(example));
    return el("li", {}, button);
  }));
}

// The model that the form begins with: the first whose examples say more than a prompt, as they show what the form is for.
export const first = (variants) => variants.find(({ examples }) => examples.some(({ request }) => request.inputs || request.paths || request.camera));
