// Asks /api/v1/status twice a second and shows it. Text from outside goes into the page as text only.
"use strict";

const POLL_MS = 500;
const ANSWER_MS = 3000;
const RATE_OVER_MS = 3000;
const ROW_REM = 1.75;
const ROWS_MAX = 20;

const byId = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const score = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const boards = new Map();
const samples = new Map();
let seenAt = null;
let uptime = 0;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function latency(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

function bytes(n) {
  return n < 1 << 20 ? `${count.format(n / 1024)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`;
}

function time(ms) {
  return ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) : "–";
}

// Records per second over the last seconds, by the clock of the process.
function rate(lane, now) {
  const list = samples.get(lane.name) ?? [];
  samples.set(lane.name, list);
  list.push([now, lane.records]);
  while (list.length > 2 && now - list[0][0] > RATE_OVER_MS) list.shift();
  const [then, before] = list[0];
  return now > then ? ((lane.records - before) * 1000) / (now - then) : 0;
}

// Rows are kept by member, so that one that rises is seen to rise.
function showBoard(name, members) {
  let board = boards.get(name);
  if (!board) {
    board = { card: make("article", "board"), list: make("ol", "rows"), rows: new Map() };
    board.card.append(make("h3", "", name), board.list);
    byId("boards").append(board.card);
    boards.set(name, board);
  }
  const shown = members.slice(0, ROWS_MAX);
  const most = Math.max(...shown.map(([, value]) => value), 0);
  const left = new Set(board.rows.keys());
  shown.forEach(([member, value], place) => {
    left.delete(member);
    const row = board.rows.get(member) ?? newRow(board, member, place);
    row.item.style.transform = `translateY(${place * ROW_REM}rem)`;
    row.bar.style.width = `${most > 0 ? Math.max(0, (100 * value) / most) : 0}%`;
    row.place.textContent = place + 1;
    row.score.textContent = score.format(value);
  });
  for (const member of left) {
    board.rows.get(member).item.remove();
    board.rows.delete(member);
  }
  board.list.style.height = `${shown.length * ROW_REM}rem`;
}

function newRow(board, member, place) {
  const row = { item: make("li", "row"), bar: make("div", "bar"), place: make("span", "place"), score: make("span", "score") };
  const text = make("div", "text");
  const name = make("span", "member", member);
  name.dir = "auto";
  text.append(row.place, name, row.score);
  row.item.append(row.bar, text);
  row.item.style.transform = `translateY(${place * ROW_REM}rem)`;
  board.list.append(row.item);
  board.rows.set(member, row);
  return row;
}

function line(cells) {
  const tr = make("tr");
  for (const [label, text, className] of cells) {
    const td = make("td", className, text);
    td.dataset.label = label;
    tr.append(td);
  }
  return tr;
}

function laneLines(lane, now) {
  const lines = [line([
    ["lane", lane.name],
    ["state", lane.state, lane.state],
    ["records/s", count.format(rate(lane, now))],
    ["lag", count.format(lane.lag)],
    ["latency p50", latency(lane.latency_p50_us)],
    ["p99", latency(lane.latency_p99_us)],
    ["epoch", count.format(lane.epoch)],
    ["watermark", lane.watermark_ns === null ? "–" : time(lane.watermark_ns / 1e6), "watermark"],
    ["emitted", count.format(lane.emitted)],
    ["late", count.format(lane.late)],
    ["dead", count.format(lane.dead)],
  ])];
  const trouble = lane.error ?? (lane.waits_for && `waits for ${lane.waits_for}`);
  if (trouble) {
    const td = make("td", lane.error ? "trouble error" : "trouble", trouble);
    td.colSpan = 11;
    const tr = make("tr", "more");
    tr.append(td);
    lines.push(tr);
  }
  return lines;
}

function lookupLine(lookup) {
  return line([
    ["table", lookup.name],
    ["rows", count.format(lookup.rows)],
    ["memory", bytes(lookup.bytes)],
    ["loaded", time(lookup.loaded_ms)],
    ["version", count.format(lookup.version)],
    ["misses", count.format(lookup.misses)],
  ]);
}

function captureLines(capture) {
  const copied = ({ rows, rows_estimate: of, done, seconds_left: left }) =>
    done ? `${count.format(rows)}` : `${count.format(rows)} of some ${count.format(of)}, ${duration(left * 1000)} left`;
  const lines = [line([
    ["slot", capture.slot],
    ["changes", count.format(capture.changes)],
    ["WAL behind", bytes(capture.lag_bytes)],
    ["WAL kept", bytes(capture.retained_bytes)],
    ["waiting", bytes(capture.waiting_bytes)],
    ["rows copied", capture.copies.map(copied).join("; ") || "–"],
  ])];
  if (capture.trouble) {
    const td = make("td", "trouble", capture.trouble);
    td.colSpan = 6;
    const tr = make("tr", "more");
    tr.append(td);
    lines.push(tr);
  }
  return lines;
}

function show(answer) {
  // Another process answers: what was counted before means nothing to it.
  if (answer.uptime_ms < uptime) samples.clear();
  uptime = answer.uptime_ms;
  byId("about").textContent = `${answer.version} · up ${duration(uptime)} · times in UTC`;
  for (const [name, members] of Object.entries(answer.boards)) showBoard(name, members);
  for (const [name, board] of boards) {
    if (!(name in answer.boards)) {
      board.card.remove();
      boards.delete(name);
    }
  }
  const { lanes, lookups, captures } = answer.status;
  byId("lanes").replaceChildren(...lanes.flatMap((lane) => laneLines(lane, uptime)));
  byId("lookups").replaceChildren(...lookups.map(lookupLine));
  byId("captures").replaceChildren(...captures.flatMap(captureLines));
  byId("captures-section").hidden = captures.length === 0;
  byId("no-boards").hidden = boards.size > 0;
  byId("no-lanes").hidden = lanes.length > 0;
  byId("no-lookups").hidden = lookups.length > 0;
}

function setGone(gone) {
  const note = byId("gone");
  byId("main").classList.toggle("stale", gone);
  if (gone) {
    const seen = seenAt ? `It was last seen at ${seenAt.toISOString().slice(11, 19)}.` : "It has not been seen yet.";
    const text = `falaj does not answer. ${seen} This page goes on asking.`;
    if (note.textContent !== text) note.textContent = text;
  }
  note.hidden = !gone;
}

async function poll() {
  try {
    const response = await fetch("/api/v1/status", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const answer = await response.json();
    seenAt = new Date();
    setGone(false);
    show(answer);
  } catch (error) {
    console.debug(error);
    setGone(true);
  }
  setTimeout(poll, POLL_MS);
}

poll();
