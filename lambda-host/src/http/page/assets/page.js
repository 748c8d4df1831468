"use strict";
// The operator's page. Text from the host reaches the document only as text, never as HTML.
const view = document.getElementById("view");
let timer = 0, turn = 0, key = "";

function make(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((it) => it !== null && it !== undefined).map((it) => it instanceof Node ? it : String(it)));
  return node;
}
const ms = (it) => it === null || it === undefined ? "" : it < 10 ? `${it.toFixed(2)} ms` : it < 1000 ? `${it.toFixed(0)} ms` : age(it);
function age(it) {
  const s = it / 1000;
  return s < 60 ? `${s.toFixed(1)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86400 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} d`;
}
const count = (it) => it.toLocaleString("en");
const mb = (it) => it === null || it === undefined ? "" : it < 10737418240 ? `${count(Math.ceil(it / 1048576))} MB` : `${(it / 1073741824).toFixed(1)} GB`;
const clock = (it) => new Date(it).toLocaleTimeString("en", { hourCycle: "h23" });
const link = (to, text) => make("a", { href: to }, text);
const number = (it) => make("td", { class: "number" }, it);
const wide = (it) => make("td", { class: "number wide" }, it);
function table(heads, rows) {
  const head = make("tr", {}, ...heads.map(([text, style]) => make("th", { scope: "col", class: style || "" }, text)));
  return make("div", { class: "card" }, rows.length === 0 ? make("span", { class: "soft" }, "None.")
    : make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}
function legend(names) {
  return make("p", {}, ...names.map((name) => make("span", { class: "key" }, make("i", { class: name }), name)));
}
async function ask(path, options = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(`/_faas/api/${path}`, { ...options, headers });
  if (response.status === 401) {
    key = await keyGiven(Boolean(key));
    return ask(path, options);
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error || response.statusText);
  return value;
}
let waitingForKey = null;
// Asks for the operator's key once, however many requests need it. It is kept in memory alone, until the page is left.
function keyGiven(wrong) {
  waitingForKey ||= new Promise((given) => {
    const place = document.getElementById("key");
    const input = make("input", { type: "password", autocomplete: "off", "aria-label": "Operator's key", placeholder: "Operator's key" });
    const take = (event) => { event.preventDefault(); waitingForKey = null; place.replaceChildren(); given(input.value.trim()); };
    place.replaceChildren(make("form", { class: "card", on: { submit: take } },
      make("span", { class: wrong ? "bad" : "" }, wrong ? "This is not the operator's key." : "This needs the operator's key."),
      input, make("button", {}, "Use")));
    input.focus();
  });
  return waitingForKey;
}
function trouble(error) {
  const place = document.getElementById("trouble");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}
function bar(it, longest) {
  const node = make("div", { class: "bar", role: "img", "aria-label": it.phases.map((p) => `${p.name} ${ms(p.to_ms - p.from_ms)}`).join(", ") });
  for (const phase of it.phases) {
    const part = make("i", { class: phase.name, title: `${phase.name} ${ms(phase.to_ms - phase.from_ms)}` });
    part.style.left = `${100 * phase.from_ms / longest}%`;
    part.style.width = `${100 * (phase.to_ms - phase.from_ms) / longest}%`;
    node.append(part);
  }
  return node;
}
const end = (it) => it.phases.reduce((last, phase) => Math.max(last, phase.to_ms), 0.001);
function more(next, hash) {
  return next === null || next === undefined ? "" : make("p", {}, link(hash, "More"));
}
function search(name, value, to) {
  const input = make("input", { type: "search", "aria-label": name, placeholder: name, value: value || "" });
  const go = (event) => { event.preventDefault(); location.hash = to(input.value); };
  return make("form", { on: { submit: go } }, input, make("button", {}, "Search"));
}
async function figures() {
  const it = await ask("overview");
  const all = (name) => it.rates.intervals.reduce((sum, one) => sum + one[name], 0);
  const figure = (value, name, bad) => make("div", { class: "figure" }, make("b", { class: bad && value > 0 ? "bad" : "" }, count(value)), make("span", {}, name));
  document.getElementById("place").textContent = `${it.region}, account ${it.account}, up ${age(it.up_ms)}`;
  document.getElementById("figures").replaceChildren(
    figure(it.functions, "functions"), figure(it.sandboxes, "sandboxes"), figure(it.running, `running, of ${count(it.concurrency_max)} at most`),
    figure(it.waiting, "waiting for a sandbox"), figure(it.events.waiting, it.events.waiting ? `events queued, oldest ${age(it.events.oldest_ms)}` : "events queued"),
    figure(all("throttles"), "throttles in 5 min", true), figure(all("errors"), "errors in 5 min", true));
  rates(it.rates, all);
  return it;
}
// A bar for each interval: what ended in it, and below in red what failed or was throttled.
function rates(it, all) {
  const most = Math.max(...it.intervals.map((one) => one.invocations + one.throttles), 1);
  const bars = it.intervals.map((one) => {
    const total = one.invocations + one.throttles, bad = one.errors + one.throttles;
    const bar = make("i", { title: `${one.invocations} invocations, ${one.errors} errors, ${one.throttles} throttles, ${one.cold_starts} cold starts in ${it.seconds} s` });
    bar.style.height = `${100 * total / most}%`;
    if (bad > 0) { const part = make("b", {}); part.style.height = `${100 * bad / total}%`; bar.append(part); }
    return bar;
  });
  const words = `Last 5 minutes: invocations ${count(all("invocations"))}, cold starts ${count(all("cold_starts"))}; in ${it.seconds} s at most ${count(most)}`;
  document.getElementById("rates").replaceChildren(make("span", { class: "soft" }, words), make("div", { class: "chart", role: "img", "aria-label": words }, ...bars));
}
async function functions(query) {
  const path = new URLSearchParams(query).toString();
  const it = await ask(`functions?count=50&${path}`);
  const rows = it.functions.map((one) => make("tr", {},
    make("td", {}, link(`#functions/${encodeURIComponent(one.name)}`, one.name), one.state === "failed" ? make("span", { class: "bad" }, " failed") : ""),
    make("td", { class: "wide" }, one.runtime), wide(mb(one.memory_mb * 1048576)), wide(one.versions), make("td", { class: "wide" }, one.aliases.join(", ")),
    number(count(one.counts.invocations)), number(count(one.counts.errors)), wide(count(one.counts.throttles)), wide(count(one.counts.cold_starts)),
    wide(one.counts.duration_p50_ms === null ? "" : `≤ ${ms(one.counts.duration_p50_ms)}`),
    number(Object.entries(one.sandboxes || {}).map(([state, number]) => `${count(number)} ${state}`).join(", "))));
  const heads = [["Function"], ["Runtime", "wide"], ["Memory", "number wide"], ["Versions", "number wide"], ["Aliases", "wide"],
    ["Invocations", "number"], ["Errors", "number"], ["Throttles", "number wide"], ["Cold", "number wide"], ["Median", "number wide"], ["Sandboxes", "number"]];
  return [search("Function name", query.query, (text) => `#functions?query=${encodeURIComponent(text)}`), table(heads, rows),
    more(it.next, `#functions?query=${encodeURIComponent(query.query || "")}&after=${encodeURIComponent(it.next || "")}`)];
}
async function one(name) {
  const path = encodeURIComponent(name);
  const [it, runs, log] = await Promise.all([ask(`functions/${path}`), ask(`invocations?count=20&function=${path}`), ask(`logs/${path}?count=200`)]);
  const fact = (label, value) => make("tr", {}, make("th", { scope: "row" }, label), make("td", {}, value));
  const facts = make("div", { class: "card" }, make("h2", {}, it.name), make("table", {}, make("tbody", {},
    it.description ? fact("Description", it.description) : null, fact("ARN", it.arn), fact("State", it.reason ? `${it.state}: ${it.reason}` : it.state), fact("Runtime", `${it.runtime}, ${it.handler}`),
    fact("Memory, timeout", `${it.memory_mb} MB, ${age(it.timeout_ms)}`),
    fact("Versions", it.versions.map((one) => one.version).join(", ") || "only $LATEST"),
    fact("Aliases", it.aliases.map((one) => `${one.name} → ${one.version}`).join(", ") || "none"))));
  const log_lines = make("pre", { class: "log", id: "log", tabindex: "0", "aria-label": "Log" }, log.lines.map((line) => `${clock(line.at_ms)}  ${line.text}`).join("\n") || "No lines.");
  return [facts, tryIt(name), timeline(runs), make("div", { class: "card" }, make("h2", {}, "Log"), log_lines)];
}
let tried = null;
// The form stays the same node while its function is shown, so that a new drawing takes away neither text nor answer.
function tryIt(name) {
  if (tried && tried.name === name) return tried.node;
  const path = encodeURIComponent(name);
  const event = make("textarea", { rows: "3", "aria-label": "Event", spellcheck: "false" }, "{}");
  const result = make("pre", { class: "log", role: "status" });
  const act = (options, path_of, told) => async () => {
    try { told(await ask(path_of, options())); trouble(null); } catch (error) { trouble(error); }
  };
  const invoke = act(() => ({ method: "POST", body: event.value }), `functions/${path}/invoke`, (answer) => { result.textContent = `${answer.function_error ? "error" : "answer"} in ${ms(answer.duration_ms)}\n${answer.payload}`; });
  const remove = act(() => ({ method: "DELETE" }), `functions/${path}`, () => { location.hash = "#functions"; });
  const sure = make("span", {});
  const question = () => sure.replaceChildren(`Delete ${name} with all its versions? `,
    make("button", { class: "bad", on: { click: remove } }, "Yes, delete"), " ", make("button", { on: { click: () => sure.replaceChildren() } }, "No"));
  const node = make("div", { class: "card" }, make("h2", {}, "Try it"), event,
    make("p", {}, make("button", { on: { click: invoke } }, "Invoke"), " ", make("button", { on: { click: question } }, "Delete"), " ", sure), result);
  tried = { name, node };
  return node;
}
function timeline(it) {
  const longest = Math.max(...it.invocations.map(end), 0.001);
  const rows = it.invocations.map((one) => make("tr", {},
    make("td", { class: "time" }, link(`#invocations/${one.number}`, clock(one.arrived_ms))), make("td", {}, link(`#functions/${encodeURIComponent(one.function)}`, one.resource)),
    make("td", { class: ["error", "throttled", "refused"].includes(one.outcome) ? "bad" : "" }, one.outcome),
    make("td", { class: "wide" }, one.cold ? `cold: ${one.cold}` : ""), number(ms(one.total_ms)), make("td", {}, bar(one, longest))));
  return make("div", {}, legend(["queue", "start", "init", "run", "freeze"]),
    table([["Time"], ["Function"], ["Outcome"], ["Start", "wide"], ["Total", "number"], ["Phases"]], rows));
}
async function invocations(query) {
  const it = await ask(`invocations?count=50&${new URLSearchParams(query)}`);
  return [timeline(it), more(it.next, `#invocations?before=${it.next}`)];
}
async function invocation(id) {
  const it = await ask(`invocations/${encodeURIComponent(id)}`);
  const phases = it.phases.map((one) => make("tr", {}, make("td", {}, one.name), number(ms(one.from_ms)), number(ms(one.to_ms - one.from_ms))));
  const looked = (it.considered || []).map((one) => make("tr", {}, make("td", {}, `worker ${one.worker}`),
    make("td", {}, one.refused ? `refused: ${one.refused}` : `score ${Number(one.score).toFixed(3)}`),
    make("td", {}, (one.terms || []).map(([name, part]) => `${name} ${part.toFixed(3)}`).join(", "))));
  return [make("div", { class: "card" }, make("h2", {}, it.resource), make("p", { class: "soft" }, `${it.request_id} · ${it.outcome} · ${ms(it.total_ms)}`),
    it.words ? make("p", { class: "bad" }, it.words) : null, bar(it, end(it)), legend(["queue", "start", "init", "run", "freeze"]),
    make("h2", {}, "Where it ran, and why"), ...it.why.map((text) => make("p", {}, text)),
    it.trace_id ? make("p", { class: "soft" }, it.trace_id) : null),
    table([["Phase"], ["From", "number"], ["Took", "number"]], phases), looked.length ? table([["Considered"], ["Verdict"], ["Terms"]], looked) : ""];
}
async function sandboxes(query, overview) {
  const it = await ask(`sandboxes?count=1000&${new URLSearchParams(query)}`);
  const states = ["idle", "busy", "starting", "stopping"];
  const workers = overview.workers.map((worker) => make("div", { class: "card" },
    make("h2", {}, `Worker ${worker.worker}`), make("p", { class: "soft" }, `${mb(worker.reserved_bytes)} of ${mb(worker.memory_bytes)} reserved · age ${age(worker.age_ms)} · `
      + states.map((state) => `${count(worker.sandboxes[state])} ${state}`).join(", ")),
    make("div", { class: "squares", "aria-hidden": "true" }, ...it.sandboxes.filter((one) => one.worker === worker.worker)
      .map((one) => make("i", { class: one.state, title: `${one.function}, ${one.state}` })))));
  const rows = it.sandboxes.slice(0, 100).map((one) => make("tr", {}, make("td", {}, link(`#functions/${encodeURIComponent(one.function)}`, one.function)), make("td", {}, one.version),
    make("td", {}, one.state), number(age(one.age_ms)), wide(one.invocations), number(one.memory_peak_bytes === null ? `${one.memory_mb} MB` : `${mb(one.memory_peak_bytes)} of ${one.memory_mb} MB`), wide(ms(one.init_ms)), make("td", { class: "wide" }, one.cause)));
  return [legend(states), ...workers, table([["Function"], ["Version"], ["State"], ["Age", "number"], ["Invocations", "number wide"], ["Memory", "number"], ["Init", "number wide"], ["Cause", "wide"]], rows),
    rows.length < it.sandboxes.length ? make("p", { class: "soft" }, `The first ${rows.length} of ${count(it.total)} are listed.`) : ""];
}
// Puts new parts in the view. The focus and the place in the log stay; nothing is drawn under a person who types.
function draw(parts) {
  const active = document.activeElement, same = view.dataset.hash === location.hash;
  const inside = view.contains(active);
  if (same && inside && ["INPUT", "TEXTAREA"].includes(active.tagName)) return;
  const log = document.getElementById("log");
  const up = log && log.scrollTop + log.clientHeight < log.scrollHeight - 4 ? log.scrollTop : null;
  const href = inside ? active.getAttribute("href") : null;
  view.replaceChildren(...parts);
  view.dataset.hash = location.hash;
  const lines = document.getElementById("log");
  if (lines) lines.scrollTop = same && up !== null ? up : lines.scrollHeight;
  if (!same) { window.scrollTo(0, 0); if (inside) view.focus({ preventScroll: true }); }
  else if (inside) (active.isConnected ? active : [...view.querySelectorAll("a")].find((it) => it.getAttribute("href") === href) || view).focus({ preventScroll: true });
}
async function show() {
  const mine = ++turn;
  clearTimeout(timer);
  const [path, text] = (location.hash.slice(1) || "functions").split("?");
  const [first, second] = path.split("/");
  const query = Object.fromEntries(new URLSearchParams(text || ""));
  for (const each of document.querySelectorAll("nav a")) {
    if (each.hash === `#${first}`) each.setAttribute("aria-current", "page"); else each.removeAttribute("aria-current");
  }
  try {
    const overview = await figures();
    const parts = first === "sandboxes" ? await sandboxes(query, overview)
      : first === "invocations" ? await (second ? invocation(second) : invocations(query))
      : second ? await one(decodeURIComponent(second)) : await functions(query);
    if (mine !== turn) return;
    draw(parts.filter((it) => it !== null));
    trouble(null);
  } catch (error) { if (mine === turn) trouble(error); }
  if (mine === turn) timer = setTimeout(show, 2000);
}
window.addEventListener("hashchange", show);
show();
