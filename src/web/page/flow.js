// The picture of the wiring: what is read, the lanes, and what they write. It is drawn anew only when the wiring changes.
import { make, say, svg } from "/app/chart.js";
import { word } from "/app/words.js";

const WIDTH = 190;
const HEIGHT = 46;
const ACROSS = 56;
const DOWN = 14;
const LETTERS = 22;
const DEAD = "DEAD LETTERS";

let drawn = "";
let lines = new Map();

export function showFlow(lanes, points, into) {
  const wiring = JSON.stringify([document.documentElement.dir, lanes.map((lane) => [lane.name, lane.source, lane.source_kind, lane.lookups, lane.sink, lane.topic])]);
  if (wiring !== drawn) {
    drawn = wiring;
    draw(lanes, into);
  }
  for (const lane of lanes) {
    const flows = lane.state === "running" && (points[lane.name]?.in ?? 0) > 0;
    for (const element of lines.get(lane.name) ?? []) element.setAttribute("class", `${element.dataset.kind} ${lane.state}${flows ? " flows" : ""}`);
  }
}

// What another lane writes and this one reads is one place.
const sourceKey = (lane) => `${lane.source_kind === "KAFKA" ? "topic" : "table"} ${lane.source}`;
const sinkKey = (lane) => (lane.topic ? `topic ${lane.topic}` : `sink ${lane.sink}`);

function places(lanes) {
  const nodes = new Map();
  const edges = [];
  const node = (key, more) => nodes.set(key, { key, column: 0, ...more, ...nodes.get(key) });
  for (const lane of lanes) {
    if (!lane.source) continue;
    node(sourceKey(lane), { name: lane.source, kind: lane.source_kind });
    if (lane.sink_kind === DEAD) {
      node(sinkKey(lane), { name: lane.sink, kind: DEAD, end: true });
      edges.push({ from: sourceKey(lane), to: sinkKey(lane), lane: lane.name, dead: true });
      continue;
    }
    const asks = lane.lookups.length ? word("asks", { names: lane.lookups.join(", ") }) : "";
    node(`lane ${lane.name}`, { name: lane.name, kind: asks, lane: lane.name });
    node(sinkKey(lane), { name: lane.topic ?? lane.sink, kind: lane.sink_kind, end: true });
    edges.push({ from: sourceKey(lane), to: `lane ${lane.name}`, lane: lane.name });
    edges.push({ from: `lane ${lane.name}`, to: sinkKey(lane), lane: lane.name });
  }
  // A place is one column behind whatever leads to it. A circle is refused by falaj, so this ends.
  for (let round = 0; round < nodes.size; round++) {
    for (const { from, to, dead } of edges) {
      const at = nodes.get(from).column + (dead ? 2 : 1);
      nodes.get(to).column = Math.max(nodes.get(to).column, at);
    }
  }
  return { nodes: [...nodes.values()], edges };
}

function draw(lanes, into) {
  const { nodes, edges } = places(lanes);
  // Until the lanes have said what they connect there is nothing to draw.
  if (nodes.length === 0) {
    into.replaceChildren();
    return;
  }
  const columns = [];
  // Dead letters lie lowest, so that what leads to them passes below the lanes.
  const lowest = [...nodes].sort((a, b) => (a.kind === DEAD) - (b.kind === DEAD));
  for (const node of lowest) (columns[node.column] ??= []).push(node);
  const tallest = Math.max(0, ...columns.map((column) => column?.length ?? 0)) * (HEIGHT + DOWN) - DOWN;
  const width = columns.length * (WIDTH + ACROSS) - ACROSS;
  const mirrored = document.documentElement.dir === "rtl";
  columns.forEach((column, x) => column.forEach((node, y) => {
    const left = x * (WIDTH + ACROSS);
    node.x = mirrored ? width - left - WIDTH : left;
    node.y = (tallest - column.length * (HEIGHT + DOWN) + DOWN) / 2 + y * (HEIGHT + DOWN);
  }));
  const at = new Map(nodes.map((node) => [node.key, node]));
  lines = new Map();
  const keep = (lane, kind, element) => {
    element.dataset.kind = kind;
    lines.set(lane, [...(lines.get(lane) ?? []), element]);
    return element;
  };
  const paths = edges.map(({ from, to, lane, dead }) => keep(lane, dead ? "edge dead" : "edge", edge(at.get(from), at.get(to), mirrored)));
  const boxes = nodes.map((node) => (node.lane ? keep(node.lane, "box step", box(node)) : box(node)));
  const said = lanes.filter((lane) => lane.sink_kind !== DEAD).map((lane) => word("spoken", { source: lane.source, lane: lane.name, sink: lane.sink }));
  const picture = svg("svg", { viewBox: `-1 -1 ${width + 2} ${tallest + 2}`, width: width + 2, height: tallest + 2 }, ...paths, ...boxes);
  const list = make("ul", "hidden", ...said.map((text) => make("li", "", text)));
  picture.setAttribute("aria-hidden", "true");
  into.replaceChildren(picture, list);
}

function edge(from, to, mirrored) {
  const [start, end] = mirrored ? [from.x, to.x + WIDTH] : [from.x + WIDTH, to.x];
  // It bends before the next column, and passes below whatever stands there.
  const across = mirrored ? -ACROSS : ACROSS;
  const [y1, y2] = [from.y + HEIGHT / 2, to.y + HEIGHT / 2];
  const bent = `C${start + across / 2} ${y1} ${start + across / 2} ${y2} ${start + across} ${y2}`;
  return svg("path", { d: `M${start} ${y1}${bent}H${end}`, class: "edge" });
}

function box(node) {
  const short = node.name.length > LETTERS ? `${node.name.slice(0, LETTERS - 1)}…` : node.name;
  const line = (text, y, kind) => {
    const element = svg("text", { x: node.x + WIDTH / 2, y: node.y + y, class: kind });
    say(element, text);
    return element;
  };
  const title = svg("title");
  say(title, node.name);
  const rect = svg("rect", { x: node.x, y: node.y, width: WIDTH, height: HEIGHT, rx: 8 });
  const lower = node.kind === DEAD ? word("deadLetters") : node.kind;
  return svg("g", { class: "box" }, title, rect, line(short, lower ? 20 : 28, "name"), line(lower.slice(0, LETTERS + 6), 36, "kind"));
}
