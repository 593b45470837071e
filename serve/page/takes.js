// How many clips are made, and whether they have sound.
import { $ } from "./fields.js";

export function setUp({ changed }) {
  for (const id of ["samples", "sound"]) $(id).addEventListener("input", changed);
}

export function offer(can) {
  $("sound-field").hidden = !can.sound;
}

// Examples say nothing of it.
export function fill() {
  $("samples").value = 1;
  $("sound").value = "";
}

export function body() {
  const samples = Number($("samples").value) || 1, sound = $("sound-field").hidden ? "" : $("sound").value;
  return { ...(samples > 1 ? { samples } : {}), ...(sound ? { audio: sound === "with" } : {}) };
}
