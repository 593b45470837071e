// A mask that is painted over the picture: white is made anew.
import { $ } from "./fields.js";
import { el } from "./words.js";

const canvas = el("canvas", {});
let strokes = 0, from = null;

export const isPainted = () => strokes > 0;

export function setSize(width, height) {
  Object.assign(canvas, { width, height });
  clear();
}

export function clear() {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  strokes = 0;
}

export function begin(x, y) {
  from = [x, y];
  to(x, y);
}

export function to(x, y) {
  const pen = canvas.getContext("2d"), { width, height } = canvas;
  Object.assign(pen, { strokeStyle: "#ffffff", lineCap: "round", lineJoin: "round", lineWidth: Number($("mask-brush").value) });
  pen.beginPath();
  pen.moveTo(from[0] * width, from[1] * height);
  pen.lineTo(x * width, y * height);
  pen.stroke();
  from = [x, y];
  strokes += 1;
}

// Over what is drawn.
export function draw(pen) {
  pen.save();
  pen.globalAlpha = 0.6;
  pen.drawImage(canvas, 0, 0);
  pen.restore();
}

// White on black, as a data: URI.
export function picture() {
  const page = el("canvas", { width: canvas.width, height: canvas.height }), pen = page.getContext("2d");
  pen.fillStyle = "#000000";
  pen.fillRect(0, 0, page.width, page.height);
  pen.drawImage(canvas, 0, 0);
  return page.toDataURL("image/png");
}
