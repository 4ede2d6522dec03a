"use strict";
// What the server says, once a second; nothing is kept but the key, and that for this tab.
const ROWS = 100;
const EVERY = 1000;
const element = (id) => document.getElementById(id);
const state = { first: 0, halt: null, rows: [], made: [], told: new Set() };

function key() {
  return sessionStorage.getItem("key") || "";
}

function headers(more) {
  return key() ? { Authorization: "Bearer " + key(), ...more } : { ...more };
}

// The answer to a request; an error is an error that says what the server said.
async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers) });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  const error = new Error(body?.error?.message || answer.status + " " + answer.statusText);
  error.status = answer.status;
  throw error;
}

function trouble(text) {
  put(element("trouble"), text);
}

function fail(what, error, when = new Date()) {
  const item = document.createElement("li");
  item.textContent = when.toLocaleTimeString() + " " + what + ": " + error.message;
  const list = element("errors");
  list.prepend(item);
  while (list.children.length > 50) list.lastChild.remove();
}

// Only what has changed is touched.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; count >= 1024 && place < units.length - 1; place++) count /= 1024;
  return count.toFixed(place && count < 100 ? 1 : 0) + " " + units[place];
}

function duration(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  if (parts[0]) return parts[0] + " h " + parts[1] + " min";
  return parts[1] ? parts[1] + " min " + parts[2] + " s" : parts[2] + " s";
}

function facts(list) {
  const box = element("facts");
  while (box.children.length < list.length) {
    const pair = document.createElement("div");
    pair.append(document.createElement("dt"), document.createElement("dd"));
    box.append(pair);
  }
  list.forEach(([name, value], i) => {
    put(box.children[i].children[0], name);
    put(box.children[i].children[1], value);
  });
}

// Rows of a table: texts, and what its button does.
function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, i) => {
    const line = body.rows[i] || body.insertRow();
    while (line.cells.length < row.cells.length + 1) line.insertCell();
    row.cells.forEach((cell, at) => {
      const place = line.cells[at];
      if (typeof cell === "string") return put(place, cell);
      if (place.dataset.shown === cell.id) return;
      place.dataset.shown = cell.id;
      place.replaceChildren(...cell.nodes());
    });
    const last = line.cells[row.cells.length];
    if (last.dataset.shown === String(row.action?.id)) return;
    last.dataset.shown = String(row.action?.id);
    last.replaceChildren();
    if (row.action) last.append(button("⨯", row.action.title, row.action.run));
  });
}

function button(text, title, run) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.title = title;
  made.setAttribute("aria-label", title);
  made.addEventListener("click", run);
  return made;
}

// Rows of the last sweeps that were seen, as little bars.
function bars(sweep, knee) {
  if (sweep && state.rows.at(-1)?.[0] !== sweep.number) state.rows.push([sweep.number, sweep.rows]);
  state.rows = state.rows.slice(-16);
  const most = Math.max(knee, ...state.rows.map((seen) => seen[1]));
  return state.rows.map((seen) => "▁▂▃▄▅▆▇█"[Math.round((7 * seen[1]) / most)]).join("");
}

// Tokens a second over the last dozen seconds.
function pace(tokens) {
  const now = performance.now();
  state.made = state.made.filter((seen) => now - seen[0] < 12000 && seen[1] <= tokens);
  state.made.push([now, tokens]);
  const [then, before] = state.made[0];
  return now > then ? ((1000 * (tokens - before)) / (now - then)).toFixed(1) + "/s" : "–";
}

async function status() {
  const now = await (await ask("/v1/aerostat/status")).json();
  const sweep = now.sweep;
  put(element("model"), now.model);
  document.title = now.model + " · Aerostat";
  put(element("sweep"), sweep ? "sweep " + sweep.number.toLocaleString() + " · " + sweep.phase : "no sweep yet");
  element("tiles").value = sweep && sweep.tiles ? sweep.tile / sweep.tiles : 0;
  facts([
    ["rows", sweep ? sweep.rows + " (knee " + now.plan.rows_at_knee + ") " + bars(sweep, now.plan.rows_at_knee) : "0"],
    ["tokens", pace(now.tokens)],
    ["with tokens", String(now.running)],
    ["waiting", String(now.waiting)],
    ["tokens made", now.tokens.toLocaleString()],
    ["read", bytes(now.read_bytes)],
    ["sweep takes", now.sweep_seconds ? now.sweep_seconds.toPrecision(2) + " s" : "–"],
    ["disk", now.disk_bytes_per_second ? bytes(now.disk_bytes_per_second) + "/s" : "–"],
    ["memory", (now.memory_bytes ? bytes(now.memory_bytes) + " of " : "") + bytes(now.plan.budget_bytes)],
    ["KV cache", Math.round(now.cache_used * 100) + " % of " + bytes(now.plan.kv_bytes)],
    ["context", now.context.toLocaleString()],
  ]);
  element("batches-section").hidden = !now.data;
  return now;
}

// The page of requests that is shown; the server has the others.
async function requests() {
  const wish = element("filter").value;
  const query = "?limit=" + ROWS + "&offset=" + state.first + (wish ? "&class=" + wish : "");
  const list = await (await ask("/v1/aerostat/requests" + query)).json();
  if (!list.data.length && state.first) {
    state.first = Math.max(0, Math.ceil(list.total / ROWS) - 1) * ROWS;
    return requests();
  }
  const part = list.data;
  const range = state.first + 1 + "–" + (state.first + part.length) + " of " + list.total.toLocaleString();
  put(element("range"), list.total ? range : "none");
  element("back").disabled = state.first === 0;
  element("on").disabled = state.first + ROWS >= list.total;
  fill(element("requests"), part.map((request) => ({
    cells: [
      request.id,
      request.class,
      request.position === null ? request.state : "waiting, " + request.position + " before",
      request.tokens + "/" + request.tokens_max,
      duration(request.seconds),
      request.eta_seconds === null ? "" : duration(request.eta_seconds),
    ],
    action: { id: request.id, title: "cancel " + request.id, run: () => cancel("/v1/aerostat/requests/" + encodeURIComponent(request.id), "DELETE") },
  })));
}

async function batches() {
  const list = await (await ask("/v1/batches?limit=100")).json();
  fill(element("batches"), list.data.map((batch) => {
    const counts = batch.request_counts;
    const open = ["validating", "in_progress"].includes(batch.status);
    const files = [["results", batch.output_file_id], ["errors", batch.error_file_id]].filter((file) => file[1]);
    return {
      cells: [
        batch.id,
        batch.status + (batch.aerostat?.paused ? ": " + batch.aerostat.paused : ""),
        done(counts) + " " + counts.completed.toLocaleString() + "/" + counts.total.toLocaleString() +
          (batch.aerostat?.eta_seconds ? ", " + duration(batch.aerostat.eta_seconds) + " left" : ""),
        String(counts.failed),
        { id: files.join(), nodes: () => files.map(([name, id]) => button(name, "download " + name, () => save(id, batch.id + "." + name + ".jsonl"))) },
      ],
      action: open ? { id: batch.id, title: "cancel " + batch.id, run: () => cancel("/v1/batches/" + batch.id + "/cancel", "POST") } : null,
    };
  }));
  for (const batch of list.data.slice(0, 10).reverse()) await faults(batch);
}

// What part of a batch is done, as a bar.
function done(counts) {
  const full = counts.total ? Math.floor((6 * (counts.completed + counts.failed)) / counts.total) : 0;
  return "▓".repeat(full) + "░".repeat(6 - full);
}

// The first errors of a batch, once: those of its file as a whole, and those of its lines.
async function faults(batch) {
  if (state.told.has(batch.id) || !(batch.errors || batch.error_file_id)) return;
  state.told.add(batch.id);
  const when = new Date(1000 * (batch.failed_at || batch.completed_at || batch.cancelled_at || batch.created_at));
  const found = (batch.errors?.data || []).map((fault) => [fault.line ? "line " + fault.line : "", fault]);
  if (batch.error_file_id) {
    const options = { headers: { Range: "bytes=0-16383" } };
    const lines = (await (await ask("/v1/files/" + batch.error_file_id + "/content", options)).text()).split("\n");
    for (const line of lines.slice(0, -1).map((text) => JSON.parse(text))) {
      const fault = line.error || line.response?.body?.error || {};
      found.push([fault.line ? "line " + fault.line : line.custom_id ?? "", fault]);
    }
  }
  for (const [where, fault] of found.slice(0, 20).reverse()) {
    fail(batch.id.slice(0, 10) + "… " + where, { message: (fault.code ?? "") + " " + (fault.message ?? "") }, when);
  }
}

async function cancel(path, method) {
  try {
    await ask(path, { method });
  } catch (error) {
    fail("cancel", error);
  }
}

async function save(id, name) {
  try {
    const blob = await (await ask("/v1/files/" + id + "/content")).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    fail("download", error);
  }
}

// A batch is for one endpoint: that of its first line.
async function start(file) {
  try {
    const first = (await file.slice(0, 1 << 20).text()).split("\n").find((line) => line.trim());
    const endpoint = JSON.parse(first || "null")?.url || "/v1/chat/completions";
    const form = new FormData();
    form.append("purpose", "batch");
    form.append("file", file);
    const made = await (await ask("/v1/files", { method: "POST", body: form })).json();
    const body = JSON.stringify({ input_file_id: made.id, endpoint, completion_window: "24h" });
    await ask("/v1/batches", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    await batches();
  } catch (error) {
    fail(file.name, error);
  }
}

async function tryIt(event) {
  event.preventDefault();
  const answer = element("answer");
  answer.textContent = "";
  state.halt = new AbortController();
  element("send").disabled = true;
  element("halt").disabled = false;
  try {
    const body = JSON.stringify({
      messages: [{ role: "user", content: element("prompt").value }],
      max_tokens: Number(element("tokens").value),
      stream: true,
    });
    const options = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal: state.halt.signal };
    const reader = (await ask("/v1/chat/completions", options)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        const delta = chunk.choices[0]?.delta || {};
        answer.append(delta.reasoning_content || "", delta.content || "");
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") fail("try", error);
  } finally {
    element("send").disabled = false;
    element("halt").disabled = true;
  }
}

function askKey() {
  const given = prompt("Key of this server", key());
  if (given !== null) sessionStorage.setItem("key", given.trim());
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

async function look() {
  try {
    if (!document.hidden) {
      const now = await status();
      await requests();
      if (now.data) await batches();
      trouble("");
    }
  } catch (error) {
    trouble(error.status === 401 ? "This server wants a key: press “key”." : error.message);
  }
  setTimeout(look, EVERY);
}

async function turn(first) {
  state.first = Math.max(0, first);
  await requests().catch((error) => fail("requests", error));
}

element("theme").addEventListener("click", theme);
element("key").addEventListener("click", askKey);
element("filter").addEventListener("change", () => turn(0));
element("back").addEventListener("click", () => turn(state.first - ROWS));
element("on").addEventListener("click", () => turn(state.first + ROWS));
element("try").addEventListener("submit", tryIt);
element("halt").addEventListener("click", () => state.halt?.abort());
element("file").addEventListener("change", (event) => {
  for (const file of event.target.files) start(file);
  event.target.value = "";
});
const drop = element("drop");
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") element("file").click();
});
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  for (const file of event.dataTransfer.files) start(file);
});
look();
