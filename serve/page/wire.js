// Talking to the endpoint: JSON calls and a stream of events, with the key in a header and in this tab's memory only.
const KEY = "rushes-key";

export const fetchKey = () => sessionStorage.getItem(KEY) ?? "";
export function storeKey(key) {
  if (key.trim()) sessionStorage.setItem(KEY, key.trim()); else sessionStorage.removeItem(KEY);
}

export class WireError extends Error {
  constructor(status, body) {
    super(body?.error || `HTTP ${status}`);
    this.status = status;
    this.issues = body?.issues;
  }
}

const headers = (more) => ({ ...(fetchKey() ? { Authorization: `Bearer ${fetchKey()}` } : {}), "X-Runway-Version": "2024-11-06", ...more });

export async function api(method, path, body, more = {}, signal = undefined) {
  const answer = await fetch(path, {
    method, signal, credentials: "omit", cache: "no-store",
    headers: headers(body === undefined ? more : { "Content-Type": "application/json", ...more }),
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let said = null;
  try { said = text ? JSON.parse(text) : null; } catch { /* not ours: a proxy's page */ }
  if (!answer.ok) throw new WireError(answer.status, said);
  return said;
}

// EventSource cannot send a header, so the stream is read by hand. Returns when the server ends it.
export async function events(path, signal, heard) {
  const answer = await fetch(path, { signal, credentials: "omit", cache: "no-store", headers: headers({ Accept: "text/event-stream" }) });
  if (!answer.ok) throw new WireError(answer.status, null);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
      if (data.length) heard(name, JSON.parse(data.join("\n")));
    }
  }
}
