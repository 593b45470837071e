// The page of a Rushes endpoint. No framework, nothing from elsewhere. Whatever comes from a server or a person goes
// through textContent or an attribute of a known element, never through markup.
import * as direct from "./direct.js";
import * as examples from "./examples.js";
import { inline } from "./media.js";
import { api, events, fetchKey, storeKey, WireError } from "./wire.js";
import { clock, el, percent, seconds, usd } from "./words.js";

const $ = (id) => document.getElementById(id);
const LIVE = new Set(["PENDING", "THROTTLED", "RUNNING"]);
const PAGE = 12;
const MOST_LONGER = 12; // lengths beyond one call that are offered
const state = { variants: [], endpoint: {}, mode: "text_to_video", templates: [], tasks: new Map(), cursor: null, skew_ms: 0, image: null, stream: null, open: false, begun: false };

// --- Key and connection ------------------------------------------------------------------------------------------

function notice(text) {
  $("notice").textContent = text || "";
  $("notice").hidden = !text;
}

function pulse(tone, text) {
  $("pulse").dataset.state = tone;
  if ($("pulse-text").textContent !== text) $("pulse-text").textContent = text;
}

async function connect() {
  if (state.stream) state.stream.abort();
  state.tasks.clear();
  $("tasks").replaceChildren();
  try {
    const { variants, ...endpoint } = await api("GET", "/v1/variants");
    Object.assign(state, { variants, endpoint });
    state.open = true;
    $("key").removeAttribute("aria-invalid");
    notice("");
    fillVariants();
    await Promise.all([loadTasks(), loadPools(), loadFailures(), loadTemplates()]);
    listen();
    quoteSoon();
  } catch (error) {
    state.open = false;
    if (error instanceof WireError && error.status === 401) {
      $("key").setAttribute("aria-invalid", fetchKey() ? "true" : "false");
      pulse("warn", "A key is needed");
      notice(fetchKey() ? "This key is not valid, or was revoked." : "Paste an API key to begin. Make one with: rushes keys create");
    } else {
      pulse("bad", "No answer");
      notice(`The endpoint does not answer (${error.message}). Trying again …`);
      setTimeout(connect, 4000);
    }
  }
}

// --- The form ----------------------------------------------------------------------------------------------------

// What the inputs make of it, as the endpoint has it.
function mode() {
  const roles = direct.roles();
  if (roles.has("source")) return "video_to_video";
  return state.image || ["first_frame", "last_frame", "keyframe"].some((role) => roles.has(role)) ? "image_to_video" : "text_to_video";
}

function chosenVariants() {
  const name = $("variant").value;
  if (name !== "auto") return state.variants.filter((variant) => variant.name === name);
  const able = state.variants.filter((variant) => variant.auto && variant.modes.includes(mode()));
  return able.length ? able : state.variants;
}

function fillVariants() {
  const select = $("variant"), before = select.value;
  select.replaceChildren(el("option", { value: "auto" }, "auto: the router chooses"));
  for (const variant of state.variants) select.append(el("option", { value: variant.name }, variant.aliases.length ? `${variant.name} (${variant.aliases.join(", ")})` : variant.name));
  const wanted = state.begun ? before : examples.first(state.variants)?.name;
  select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "auto";
  state.begun = true;
  fillShapes();
}

function refill(select, values, label, preferred) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => el("option", { value }, label(value))));
  const keep = values.map(String).includes(before) ? before : String(preferred);
  select.value = values.map(String).includes(keep) ? keep : String(values[0] ?? "");
}

function fillShapes() {
  const able = chosenVariants();
  const union = (field) => [...new Set(able.flatMap((variant) => variant[field]))];
  refill($("ratio"), union("ratios"), (ratio) => ratio.replace(":", " × "), able[0]?.default.ratio);
  refill($("duration"), lengths(able), (s) => `${Number(s.toFixed(2))} s`, able[0]?.default.duration);
  const only = able.length === 1 ? able[0] : null;
  $("variant-note").textContent = only
    ? `${only.title || only.name}. ${only.measured ? "Times measured." : "Times estimated, not measured here."}` : "";
  examples.show(state.variants.find(({ name }) => name === $("variant").value), fillExample);
  state.mode = mode();
  direct.offer($("variant").value === "auto" ? state.variants.filter((variant) => variant.auto) : able, state.variants.filter((variant) => !able.includes(variant)), state.mode, state.endpoint);
  direct.setShape($("ratio").value, Number($("duration").value));
  needPrompt();
}

// Those that one call renders; beyond them, where a model goes on, whole seconds.
function lengths(able) {
  const called = [...new Set(able.flatMap(({ durations }) => durations))].sort((a, b) => a - b), most = Math.max(...able.map(({ maxDuration }) => maxDuration));
  const step = Math.max(1, Math.round((most - called.at(-1)) / MOST_LONGER)), longer = [];
  for (let s = Math.floor(called.at(-1)) + step; s <= most; s += step) longer.push(s);
  return [...called, ...longer];
}

// The form as an example has it, and nothing of what was in it before. Nothing is sent.
function fillExample({ title, request }) {
  $("template").value = "";
  pickTemplate();
  $("image").value = "";
  pickImage();
  $("prompt").value = request.promptText ?? "";
  $("seed").value = request.seed ?? "";
  if (direct.fill(request)) $("direct").open = true;
  fillShapes(); // by now it may be another mode
  const standard = chosenVariants()[0].default;
  $("ratio").value = request.ratio ?? standard.ratio;
  const wanted = request.duration ?? standard.duration, offered = [...$("duration").options].map(({ value }) => value);
  $("duration").value = offered.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best), offered[0]);
  direct.setShape($("ratio").value, Number($("duration").value));
  showError(null);
  say(`The form holds the example: ${title}.`);
  quoteSoon();
}

// Called whenever something is said beside the form's own fields: it may be another mode, in which other things can be said.
function directed() {
  if (mode() !== state.mode) fillShapes();
  needPrompt();
  quoteSoon();
}

function needPrompt() {
  $("prompt").required = !$("template").value && !direct.hasPrompts();
}

function createBody(media = true) {
  const body = { model: $("variant").value };
  if ($("template").value) Object.assign(body, { template: $("template").value, slots: filledSlots() });
  else if ($("prompt").value.trim() || !direct.hasPrompts()) body.promptText = $("prompt").value.trim();
  if ($("ratio").value) body.ratio = $("ratio").value;
  if ($("duration").value) body.duration = Number($("duration").value);
  if ($("seed").value !== "") body.seed = Number($("seed").value);
  // For a quote it matters that there is one, not which.
  if (state.image) body.promptImage = media ? state.image : "data:,";
  return Object.assign(body, direct.body(media));
}

// --- Prompt templates ----------------------------------------------------------------------------------------------

async function loadTemplates() {
  state.templates = (await api("GET", "/v1/templates")).templates;
  const select = $("template"), before = select.value;
  select.replaceChildren(el("option", { value: "" }, "none: write the prompt"),
    ...state.templates.map(({ name, title }) => el("option", { value: name, title }, title ? `${name}: ${title}` : name)));
  if (state.templates.some(({ name }) => name === before)) select.value = before;
  $("template-field").hidden = !state.templates.length;
}

function pickTemplate() {
  const chosen = state.templates.find(({ name }) => name === $("template").value);
  $("prompt-field").hidden = Boolean(chosen);
  needPrompt();
  $("slots").replaceChildren(...Object.entries(chosen?.slots ?? {}).map(([name, slot]) => {
    const id = `slot-${name}`;
    const field = slot.choices.length
      ? el("select", { id, "data-slot": name }, ...(slot.default || slot.required ? [] : [el("option", { value: "" }, "–")]),
          ...slot.choices.map((choice) => el("option", { value: choice }, choice)))
      : el("input", { id, "data-slot": name, placeholder: slot.example || slot.default || "", maxlength: "1000" });
    if (slot.required && !slot.choices.length) field.required = true;
    if (slot.default) field.value = slot.default;
    field.addEventListener("input", quoteSoon);
    const label = el("label", { for: id, title: slot.description }, name.replaceAll("_", " "));
    if (!slot.required) label.append(" ", el("span", { class: "optional" }, "optional"));
    return el("div", { class: "slot" }, label, field);
  }));
  quoteSoon();
}

function filledSlots() {
  return Object.fromEntries([...$("slots").querySelectorAll("[data-slot]")].filter((field) => field.value.trim()).map((field) => [field.dataset.slot, field.value.trim()]));
}

// Whether there is a prompt to quote: a template's required slots, or text.
function hasPrompt() {
  if (!$("template").value) return Boolean($("prompt").value.trim()) || direct.hasPrompts();
  return [...$("slots").querySelectorAll("[required]")].every((field) => field.value.trim());
}

function showError(error) {
  const fields = { promptText: "prompt", model: "variant", ratio: "ratio", duration: "duration", seed: "seed", promptImage: "image" };
  for (const id of Object.values(fields)) $(id).removeAttribute("aria-invalid");
  $("form-error").hidden = !error;
  if (!error) return;
  const said = [];
  for (const issue of error.issues ?? []) {
    const id = fields[issue.path?.[0]];
    if (id) $(id).setAttribute("aria-invalid", "true");
    said.push(`${issue.path?.join(".") || "request"}: ${issue.message}`);
  }
  $("form-error").textContent = said.join(". ") || error.message;
}

async function pickImage() {
  const [file] = $("image").files;
  state.image = null;
  showError(null);
  if (file) {
    try {
      const image = await inline(file, "image");
      if ($("image").files[0] !== file) return; // another one, or none, meanwhile
      state.image = image;
    } catch (error) { $("image").value = ""; showError(error); }
  }
  $("image-preview").hidden = $("image-clear").hidden = !state.image;
  if (state.image) $("image-preview").src = state.image;
  else $("image-preview").removeAttribute("src");
  direct.setFrame(state.image);
  fillShapes();
  quoteSoon();
}

async function submit(event) {
  event?.preventDefault();
  if ($("submit").disabled || !$("compose").reportValidity()) return;
  $("submit").disabled = true;
  try {
    const { id, samples } = await api("POST", `/v1/${mode()}`, createBody(), { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) });
    showError(null);
    say("Accepted.");
    for (const one of samples ?? [{ id }]) await refresh(one.id);
    quoteSoon();
    loadPools();
  } catch (error) {
    showError(error);
  } finally {
    $("submit").disabled = false;
  }
}

// --- The quote, before anything is sent ----------------------------------------------------------------------------

let quoteTimer = 0, quoting = null;

function quoteSoon() {
  clearTimeout(quoteTimer);
  quoteTimer = setTimeout(quote, 250);
  const length = $("prompt").value.length;
  $("prompt-count").textContent = length ? `${length} of 1000` : "";
}

async function quote() {
  quoting?.abort();
  if (!state.open) return;
  if (!hasPrompt()) {
    $("quote-body").hidden = true;
    $("quote-empty").hidden = false;
    $("quote").dataset.refused = "false";
    return;
  }
  const mine = (quoting = new AbortController());
  $("quote").setAttribute("aria-busy", "true");
  try {
    const said = await api("POST", "/v1/estimates", createBody(false), {}, mine.signal);
    showError(null);
    showQuote(said);
  } catch (error) {
    if (mine.signal.aborted) return;
    $("quote-body").hidden = true;
    $("quote-empty").hidden = false;
    showError(error);
  } finally {
    if (quoting === mine) $("quote").setAttribute("aria-busy", "false");
  }
}

// What would be shown to the model that would be chosen.
async function showGuide() {
  $("guide-show").disabled = true;
  try {
    const { guide, variant } = await api("POST", "/v1/guides", { ...createBody(), ...(hasPrompt() ? {} : { promptText: "…" }) });
    showError(null);
    direct.showGuide(guide, variant);
  } catch (error) {
    showError(error);
  } finally {
    $("guide-show").disabled = false;
  }
}

function showQuote(said) {
  $("quote-empty").hidden = true;
  $("quote-body").hidden = false;
  $("quote").dataset.refused = String(!said.routed);
  $("quote-usd").textContent = said.routed ? usd(said.estimatedCost.usd) : "–";
  $("quote-credits").textContent = said.routed ? `${said.estimatedCost.credits} credit${said.estimatedCost.credits === 1 ? "" : "s"} · ${seconds(said.gpuSeconds)} of work` : "";
  $("quote-eta").textContent = said.routed ? `in ${seconds(said.seconds)}` : "not now";
  $("quote-p90").textContent = said.routed ? `9 of 10 within ${seconds(said.secondsP90)}` : "";
  $("quote-sentence").replaceChildren(...(said.routed ? [el("strong", {}, said.variant), `: ${said.words}${said.measured ? "" : " (its times are estimated, not measured)"}`] : [said.words]));
  $("quote-prompt").hidden = !$("template").value || !said.promptText;
  $("quote-prompt").textContent = said.promptText || "";
  const findings = said.findings ?? [];
  $("quote-findings").hidden = !findings.length;
  $("quote-findings").replaceChildren(...findings.map((one) => el("li", {}, el("strong", {}, one.message), `: ${one.suggestion}`)));
  $("quote-steps").replaceChildren(...said.explanation.map((line) => el("li", {}, line)));
  $("quote-alternatives").hidden = !said.alternatives.length;
  $("quote-alternatives").tBodies[0].replaceChildren(...said.alternatives.map((other) => el("tr", { class: other.chosen ? "taken" : "" },
    el("td", {}, other.variant + (other.chosen ? " ✓" : "")), el("td", {}, usd(other.usd)), el("td", {}, other.seconds == null ? "–" : seconds(other.seconds)))));
}

// --- My clips ------------------------------------------------------------------------------------------------------

function say(text) { $("spoken").textContent = text; }

async function loadTasks(older = false) {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if ($("filter").value) query.set("status", $("filter").value);
  if (older && state.cursor) query.set("cursor", state.cursor);
  const { tasks, nextCursor } = await api("GET", `/v1/tasks?${query}`);
  if (!older) { state.tasks.clear(); $("tasks").replaceChildren(); }
  for (const task of tasks) show(task, false);
  state.cursor = nextCursor;
  $("more").hidden = !nextCursor;
  $("tasks-empty").hidden = state.tasks.size > 0;
}

async function refresh(id) {
  try {
    show(await api("GET", `/v1/tasks/${encodeURIComponent(id)}`), true);
  } catch (error) {
    if (error.status === 404) drop(id);
  }
}

function drop(id) {
  state.tasks.get(id)?.node.remove();
  state.tasks.delete(id);
  $("tasks-empty").hidden = state.tasks.size > 0;
}

function show(task, fresh) {
  let entry = state.tasks.get(task.id);
  const wanted = $("filter").value;
  if (!entry) {
    if (wanted && !wanted.split(",").includes(task.status)) return;
    const node = $("task-template").content.firstElementChild.cloneNode(true);
    node.dataset.id = task.id;
    entry = { node, task: null };
    state.tasks.set(task.id, entry);
    if (fresh) $("tasks").prepend(node); else $("tasks").append(node);
    $("tasks-empty").hidden = true;
  }
  const before = entry.task;
  if (before && !LIVE.has(before.status) && LIVE.has(task.status)) return; // an old message, overtaken
  entry.task = task;
  draw(entry, before);
  if (before && before.status !== task.status && !LIVE.has(task.status)) {
    say(`${task.promptText || "Clip"}: ${WORD[task.status].toLowerCase()}`);
    loadPools();
    if (task.status === "FAILED") loadFailures();
  }
}

const WORD = { PENDING: "Waiting", THROTTLED: "Held back", RUNNING: "Rendering", SUCCEEDED: "Done", FAILED: "Failed", CANCELLED: "Cancelled" };
const TONE = { RUNNING: "warn", SUCCEEDED: "good", FAILED: "bad" };
const STAGE = { loading: "loading the model", rendering: "denoising", encoding: "encoding" };

function draw(entry, before) {
  const { node, task } = entry, part = (name) => node.querySelector(name);
  const live = LIVE.has(task.status);
  node.dataset.status = task.status;
  const badge = part(".badge");
  badge.textContent = WORD[task.status] ?? task.status;
  badge.dataset.tone = TONE[task.status] ?? "";
  part(".when").textContent = clock(task.createdAt);
  part(".prompt").textContent = task.promptText || "(no prompt)";
  const bar = part("progress");
  bar.hidden = !live;
  bar.value = task.status === "RUNNING" ? task.progress ?? 0 : 0;
  bar.setAttribute("aria-label", `Progress: ${percent(bar.value)}`);
  const bits = [task.variant || task.model];
  const made = task.rendered;
  if (made) bits.push(`${made.width} × ${made.height}`, `${Number(made.durationSeconds.toFixed(1))} s`);
  if (task.seed != null) bits.push(`seed ${task.seed}`);
  const cost = task.cost ?? task.estimatedCost;
  if (cost) bits.push(task.cost ? (cost.usd ? `billed ${usd(cost.usd)}` : "nothing billed") : cost.usd ? `quoted ${usd(cost.usd)}` : "free");
  if (task.fallbackReason) bits.push(`instead of ${task.offeredVariant ?? "the first choice"}: ${task.fallbackReason}`);
  part(".detail").textContent = bits.filter(Boolean).join(" · ");
  tick(entry);
  if (!before || before.status !== task.status) actions(entry, live);
  if (task.status === "SUCCEEDED" && task.output?.length) play(part(".screen"), task);
}

function play(screen, task) {
  if (screen.querySelector("video")) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const video = el("video", { src: task.output[0], controls: "", loop: "", playsinline: "", preload: "metadata", "aria-label": `Clip: ${task.promptText || task.id}` });
  video.muted = true;
  video.autoplay = !still;
  video.addEventListener("error", () => screen.replaceChildren(el("span", { class: "hint" }, "cannot be played here")), { once: true });
  screen.replaceChildren(video);
}

function actions({ node, task }, live) {
  const row = node.querySelector(".actions"), focused = row.contains(document.activeElement);
  row.replaceChildren();
  const button = (text, act) => {
    const made = el("button", { type: "button", class: "quiet", "aria-label": `${text}: ${(task.promptText || task.id).slice(0, 60)}` }, text);
    made.addEventListener("click", async () => {
      made.disabled = true;
      try { await act(); } catch (error) { notice(error.message); made.disabled = false; }
    });
    row.append(made);
  };
  if (live) button("Cancel", async () => {
    await api("DELETE", `/v1/tasks/${encodeURIComponent(task.id)}`);
    say("Cancelled.");
    show({ ...task, status: "CANCELLED" }, false);
    loadPools();
  });
  if (task.status === "SUCCEEDED" && task.output?.length) row.append(el("a", { href: task.output[0], download: `${task.id}.mp4`, rel: "noreferrer" }, "Download"));
  button("Use again", async () => {
    $("prompt").value = task.promptText || "";
    if (task.seed != null) $("seed").value = task.seed;
    $("prompt").focus();
    quoteSoon();
    node.querySelector(".actions button:last-of-type").disabled = false;
  });
  if (!live && task.status !== "CANCELLED") button("Delete", async () => {
    await api("DELETE", `/v1/tasks/${encodeURIComponent(task.id)}`);
    drop(task.id);
  });
  if (focused) row.querySelector("button")?.focus();
}

function tick({ node, task }) {
  const line = node.querySelector(".state"), now = Date.now() + state.skew_ms;
  const left = (instant) => (instant ? (Date.parse(instant) - now) / 1000 : null);
  const eta = left(task.eta), bound = left(task.etaP90);
  const done = eta == null ? "" : eta > 0.5 ? `, done in ${seconds(eta)}` : ", about now";
  const within = bound != null && bound > 0.5 && eta > 0.5 ? ` (9 of 10 within ${seconds(bound)})` : "";
  let text = "";
  if (task.status === "RUNNING") text = `${STAGE[task.stage] ?? "rendering"} ${percent(task.progress ?? 0)}${done}${within}`;
  else if (task.status === "PENDING") text = `${task.queuePosition ? `${task.queuePosition} ahead` : "next in line"}${done}${within}`;
  else if (task.status === "THROTTLED") text = "your key has reached its limit of unfinished clips; this one waits";
  else if (task.status === "FAILED") text = [task.failure, task.failureCode && `(${task.failureCode})`].filter(Boolean).join(" ");
  else if (task.status === "SUCCEEDED" && task.seconds != null) text = `took ${seconds(task.seconds)}`;
  if (line.textContent !== text) line.textContent = text;
}

// One stream carries every task of this key; while it is down the list is asked for again and again.
async function listen() {
  const mine = (state.stream = new AbortController());
  for (let wait_s = 1; !mine.signal.aborted; ) {
    try {
      await events("/v1/events", mine.signal, (name, data) => {
        wait_s = 1;
        if (name === "deleted") { if (state.tasks.get(data.id)?.task.status !== "CANCELLED") drop(data.id); }
        else if (data?.id) show(data, true);
      });
    } catch { /* asked again below */ }
    if (mine.signal.aborted) return;
    try {
      for (const entry of [...state.tasks.values()]) if (LIVE.has(entry.task.status)) await refresh(entry.task.id);
    } catch { /* the next round will tell */ }
    await new Promise((done) => setTimeout(done, wait_s * 1000));
    wait_s = Math.min(wait_s * 2, 15);
  }
}

// --- Pools, queue, failures ----------------------------------------------------------------------------------------

async function loadPools() {
  const report = await api("GET", "/v1/pools");
  state.skew_ms = Date.parse(report.now) - Date.now();
  const { queue, pools } = report;
  $("counts").replaceChildren(...[["waiting", queue.pending], ["held back", queue.throttled], ["rendering", queue.running], ["given up", queue.dead]].map(
    ([word, count]) => el("div", {}, el("dt", {}, word), el("dd", {}, String(count)))));
  $("pools").replaceChildren(...pools.map((pool) => el("tr", {},
    el("td", {}, pool.name, ...(pool.healthy || !pool.lastFailure ? [] : [el("div", { class: "hint" }, pool.lastFailure)])),
    el("td", {}, el("span", { class: "badge", "data-tone": pool.healthy ? (pool.replicas ? "good" : "") : "bad" }, pool.healthy ? (pool.busy ? "busy" : pool.replicas ? "ready" : pool.starting ? "starting" : "asleep") : "down")),
    el("td", { class: "hide-small" }, pool.starting ? `${pool.replicas} + ${pool.starting} starting` : String(pool.replicas)),
    el("td", {}, String(pool.queued)),
    el("td", {}, pool.startsInSeconds == null ? "–" : pool.startsInSeconds < 0.5 ? "at once" : seconds(pool.startsInSeconds)))));
  $("pools-age").textContent = report.stale ? "The dispatcher has not reported lately: tasks are accepted and kept, and start when it is back." : report.draining ? "Draining: what runs is finished, nothing new is begun." : "";
  const up = pools.filter((pool) => pool.healthy && pool.replicas).length;
  const waiting = queue.pending + queue.throttled;
  pulse(report.stale ? "bad" : report.draining ? "warn" : "good",
    report.stale ? "Dispatcher silent" : report.draining ? "Draining" : `${up} of ${pools.length} pools up, ${waiting ? `${waiting} waiting` : "nothing waits"}`);
}

async function loadFailures() {
  const { tasks } = await api("GET", "/v1/tasks?status=FAILED&limit=5");
  $("failures-empty").hidden = tasks.length > 0;
  $("failures").replaceChildren(...tasks.map((task) => el("li", {},
    el("div", {}, task.failure || task.failureCode || "failed"),
    el("div", { class: "hint" }, `${clock(task.createdAt)} · ${(task.promptText || task.id).slice(0, 120)}`))));
}

// --- Wiring --------------------------------------------------------------------------------------------------------

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  $("theme").textContent = THEMES[theme][0];
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[theme][1]}`);
  $("theme").title = `Colours: ${THEMES[theme][1]}`;
}
let theme = localStorage.getItem("rushes-theme") ?? "";
if (!(theme in THEMES)) theme = "";
paint(theme);
$("theme").addEventListener("click", () => {
  const order = Object.keys(THEMES);
  theme = order[(order.indexOf(theme) + 1) % order.length];
  localStorage.setItem("rushes-theme", theme);
  paint(theme);
});

$("key").value = fetchKey();
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); storeKey($("key").value); connect(); });
$("key").addEventListener("change", () => { storeKey($("key").value); connect(); });
for (const id of ["prompt", "seed"]) $(id).addEventListener("input", quoteSoon);
for (const id of ["ratio", "duration"]) $(id).addEventListener("change", () => { direct.setShape($("ratio").value, Number($("duration").value)); quoteSoon(); });
$("variant").addEventListener("change", () => { fillShapes(); quoteSoon(); });
$("template").addEventListener("change", pickTemplate);
$("image").addEventListener("change", pickImage);
$("image-clear").addEventListener("click", () => { $("image").value = ""; pickImage(); $("image").focus(); });
direct.setUp(directed, showError);
$("guide-show").addEventListener("click", showGuide);
$("compose").addEventListener("submit", submit);
$("compose").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); });
$("filter").addEventListener("change", () => loadTasks().catch((error) => notice(error.message)));
$("more").addEventListener("click", () => loadTasks(true).catch((error) => notice(error.message)));

setInterval(() => { for (const entry of state.tasks.values()) if (LIVE.has(entry.task.status)) tick(entry); }, 500);
setInterval(() => { if (state.open && !document.hidden) loadPools().catch(() => pulse("bad", "No answer")); }, 3000);
setInterval(() => { if (state.open && !document.hidden && !$("quote-body").hidden) quote(); }, 10000);
connect();
