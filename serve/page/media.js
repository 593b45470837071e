// Files as data: URIs, and what can be drawn of them.
import { el } from "./words.js";

const MOST_MIB = { image: 3.7, video: 10.4 }; // of a data: URI, before it is written in base64

// A file as a data: URI, where it is small enough to be sent so.
export async function inline(file, medium) {
  if (file.size > MOST_MIB[medium] * 2 ** 20) throw new Error(`This ${medium} is too large to send inline: at most ${MOST_MIB[medium]} MB. Larger ones go through /v1/uploads.`);
  return await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("This file cannot be read."));
    reader.readAsDataURL(file);
  });
}

export function blobOf(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (one) => one.charCodeAt(0));
  return new Blob([bytes], { type: uri.slice(5, uri.indexOf(";")) });
}

// A picture, or a video at its first frame.
export async function loaded(tag, uri) {
  const node = el(tag, tag === "video" ? { muted: "", playsinline: "", preload: "auto" } : {});
  if (tag === "img") { node.src = uri; await node.decode(); return node; }
  await new Promise((done, failed) => {
    node.addEventListener("loadeddata", done, { once: true });
    node.addEventListener("error", failed, { once: true });
    node.src = URL.createObjectURL(blobOf(uri));
  });
  return node;
}
