// The page: it follows the server's events and shows them. Text from outside goes into the page as text only.
import { showBoards } from "/app/boards.js";
import { say } from "/app/chart.js";
import { bytes, count, duration, latency, rate } from "/app/format.js";
import { showFlow } from "/app/flow.js";
import { DEAD, pairs, showLanes } from "/app/lanes.js";
import { follow } from "/app/stream.js";
import { showTables } from "/app/tables.js";
import { language, speak, word } from "/app/words.js";

const POINTS_MAX = 300;
const byId = (id) => document.getElementById(id);
const root = document.documentElement;
const history = new Map();
const states = new Map();
let newest = 0;
let answer = null;
let seenAt = null;

function keep(name, value) {
  try { localStorage.setItem(`falaj.${name}`, value); } catch { /* It is forgotten with the page. */ }
}

function receive(name, data) {
  seenAt = new Date();
  if (name === "history") {
    history.clear();
    for (const [lane, points] of Object.entries(data.lanes)) history.set(lane, points);
    newest = data.newest;
    return;
  }
  answer = data;
  if (data.point > newest) {
    newest = data.point;
    for (const [lane, point] of Object.entries(data.points)) {
      const points = history.get(lane) ?? [];
      history.set(lane, [...points.slice(1 - POINTS_MAX), point]);
    }
  }
  setGone(false);
  show();
}

function show() {
  if (!answer) return;
  const { status, boards, points, now_ms: now } = answer;
  const lanes = status.lanes.filter((lane) => lane.sink_kind !== DEAD);
  say(byId("about"), word("about", { version: answer.version, time: duration(answer.uptime_ms) }));
  showSums(status, lanes, points);
  showBoards(boards, byId("boards"), now);
  byId("flow").parentElement.hidden = !lanes.some((lane) => lane.source);
  showFlow(status.lanes, points, byId("flow"));
  showLanes(lanes, history, POINTS_MAX, now, byId("lanes"));
  showTables(status, now, byId("tables"));
  byId("no-boards").hidden = Object.keys(boards).length > 0;
  byId("no-lanes").hidden = lanes.length > 0;
  tell(status.lanes);
}

// A table that several lanes read is read once.
function showSums({ lanes: all, memory }, lanes, points) {
  const sum = (of) => lanes.reduce((total, lane) => total + of(lane), 0);
  const read = new Map();
  for (const lane of lanes) read.set(lane.source, Math.max(read.get(lane.source) ?? 0, points[lane.name]?.in ?? 0));
  const slowest = Math.max(0, ...lanes.map((lane) => points[lane.name]?.p99_ms ?? 0));
  const dead = all.filter((lane) => lane.sink_kind === DEAD).reduce((total, lane) => total + lane.dead, 0) + sum((lane) => lane.late + lane.refused);
  const limit = memory.limit_bytes === null ? "" : bytes(memory.limit_bytes);
  pairs(byId("sums"), [
    [word("rateIn"), rate([...read.values()].reduce((total, one) => total + one, 0))],
    [word("rateOut"), rate(sum((lane) => points[lane.name]?.out ?? 0))],
    [word("lag"), count(Math.max(0, ...lanes.map((lane) => lane.lag)))],
    [word("p99"), latency(Math.round(slowest * 1000))],
    [word("letters"), count(dead), dead > 0 ? "bad" : ""],
    [limit ? word("memoryOf", { limit }) : word("memory"), bytes(memory.used_bytes)],
  ]);
}

// Who hears the page hears when a lane changes.
function tell(lanes) {
  for (const { name, state, error } of lanes) {
    if (states.has(name) && states.get(name) !== state) {
      say(byId("news"), `${word("news", { name, state: word(state) })} ${error ?? ""}`);
    }
    states.set(name, state);
  }
}

function setGone(gone, status = 0) {
  byId("main").classList.toggle("stale", gone);
  byId("gone").hidden = !gone;
  if (!gone) return;
  const time = seenAt?.toISOString().slice(11, 19);
  say(byId("gone"), status === 503 ? word("full") : time ? word("gone", { time }) : word("neverSeen"));
}

function askToken(refused) {
  const form = byId("login");
  form.hidden = false;
  byId("refused").hidden = !refused;
  byId("token").focus();
  return new Promise((given) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      given(byId("token").value);
    };
  });
}

function showChoices() {
  const theme = root.dataset.theme ?? "auto";
  say(byId("theme"), word(theme));
  const other = language() === "ar" ? "en" : "ar";
  say(byId("language"), other === "ar" ? "العربية" : "English");
  byId("language").lang = other;
}

byId("theme").onclick = () => {
  const next = { auto: "light", light: "dark", dark: "auto" }[root.dataset.theme ?? "auto"];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  keep("theme", next);
  showChoices();
};

byId("language").onclick = () => {
  root.lang = language() === "ar" ? "en" : "ar";
  root.dir = language() === "ar" ? "rtl" : "ltr";
  keep("lang", root.lang);
  speak();
  showChoices();
  show();
};

speak();
showChoices();
follow({ event: receive, gone: (status) => setGone(true, status), token: askToken });
