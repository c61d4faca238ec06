// Lookups, captures, dead letters, backfills and memory: a table each, there only while it has rows.
import { make, say } from "/app/chart.js";
import { NONE, ago, bytes, count, duration, time } from "/app/format.js";
import { DEAD } from "/app/lanes.js";
import { word } from "/app/words.js";

const sections = new Map();

export function showTables({ lanes, lookups, captures, backfills, memory }, now, into) {
  show("lookups", into, ["table", "rows", "size", "age", "version", "misses", "unanswered"], lookups.map((of) => ({
    cells: [of.name, count(of.rows), bytes(of.bytes), ago(of.loaded_ms, now), count(of.version), count(of.misses), count(of.unanswered)],
    trouble: of.trouble,
  })));
  show("captures", into, ["slot", "changes", "walBehind", "walKept", "spooled", "copied"], captures.map((of) => ({
    cells: [of.slot, count(of.changes), bytes(of.lag_bytes), bytes(of.retained_bytes), bytes(of.waiting_bytes), of.copies.map(copied).join("; ") || NONE],
    trouble: of.trouble,
  })));
  show("deadLetters", into, ["topic", "count", "doing", "lag"], lanes.filter((lane) => lane.sink_kind === DEAD).map((lane) => ({
    cells: [lane.source, count(lane.dead + lane.late), word(lane.state), count(lane.lag)],
    state: lane.state,
    trouble: lane.error ?? lane.waits_for,
  })));
  show("backfills", into, ["lane", "step", "left", "reached", "timeLeft"], backfills.map((of) => ({
    cells: [of.lane, of.step, count(of.left), of.event_time_ns === null ? NONE : time(of.event_time_ns / 1e6), of.seconds_left === null ? NONE : duration(of.seconds_left * 1000)],
  })));
  show("memoryTitle", into, ["holder", "held"], memory.holders.filter((of) => of.bytes > 0).map((of) => ({ cells: [of.name, bytes(of.bytes)] })));
}

const copied = ({ rows, rows_estimate: of, done, seconds_left: left }) =>
  done ? count(rows) : word("copying", { rows: count(rows), of: count(of), left: duration(left * 1000) });

function show(title, into, heads, rows) {
  const section = sections.get(title) ?? begin(title, into, heads);
  section.element.hidden = rows.length === 0;
  say(section.title, word(title));
  heads.forEach((head, i) => say(section.heads[i], word(head)));
  const wanted = rows.flatMap(({ cells, trouble, state }) => {
    const line = { cells, kind: state ?? "" };
    return trouble ? [line, { cells: [trouble], kind: "more" }] : [line];
  });
  while (section.body.rows.length > wanted.length) section.body.deleteRow(-1);
  wanted.forEach((line, i) => fill(section.body.rows[i] ?? section.body.insertRow(), line, heads));
}

function fill(row, { cells, kind }, heads) {
  row.className = kind;
  while (row.cells.length > cells.length) row.deleteCell(-1);
  cells.forEach((text, i) => {
    const cell = row.cells[i] ?? row.insertCell();
    cell.colSpan = kind === "more" ? heads.length : 1;
    cell.dataset.label = kind === "more" ? "" : word(heads[i]);
    if (i === 0) say(cell.firstElementChild ?? cell.appendChild(make("bdi")), text);
    else say(cell, text);
  });
}

function begin(name, into, heads) {
  const title = make("h2");
  title.id = `${name}-title`;
  const cells = heads.map(() => make("th"));
  cells.forEach((cell) => { cell.scope = "col"; });
  const body = make("tbody");
  const table = make("table", "", make("thead", "", make("tr", "", ...cells)), body);
  const scrolls = make("div", "card scrolls", table);
  const element = make("section", "", title, scrolls);
  element.setAttribute("aria-labelledby", title.id);
  [scrolls.tabIndex, scrolls.role] = [0, "group"];
  scrolls.setAttribute("aria-labelledby", title.id);
  into.append(element);
  const section = { element, title, heads: cells, body };
  sections.set(name, section);
  return section;
}
