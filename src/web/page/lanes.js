// A card for each lane. Cards are kept, so that what is opened or selected stays.
import { Spark, make, say } from "/app/chart.js";
import { NONE, ago, bytes, count, duration, latency, rate, time } from "/app/format.js";
import { word } from "/app/words.js";

export const DEAD = "DEAD LETTERS";
const PHASES = ["plan", "stage", "intent", "apply", "commit"];
const cards = new Map();

export function showLanes(lanes, history, points, now, into) {
  for (const lane of lanes) {
    if (!cards.has(lane.name)) {
      cards.set(lane.name, new Card(lane.name));
      into.append(cards.get(lane.name).element);
    }
    cards.get(lane.name).show(lane, history.get(lane.name) ?? [], points, now);
  }
  for (const [name, card] of cards) {
    if (lanes.some((lane) => lane.name === name)) continue;
    card.element.remove();
    cards.delete(name);
  }
}

// A list of pairs whose labels follow the language.
function pairs(element, rows) {
  while (element.children.length > rows.length) element.lastElementChild.remove();
  rows.forEach(([label, value, kind], i) => {
    const pair = element.children[i] ?? element.appendChild(make("div", "", make("dt"), make("dd")));
    say(pair.firstElementChild, label);
    say(pair.lastElementChild, value);
    pair.lastElementChild.className = kind ?? "";
  });
}

export { pairs };

class Card {
  constructor(name) {
    this.state = make("span", "state");
    this.way = make("p", "way");
    this.trouble = make("p", "trouble");
    this.trouble.dir = "auto";
    this.figures = make("dl", "figures");
    this.sparks = [new Spark(), new Spark(), new Spark()];
    this.phaseTitle = make("span", "label");
    this.phaseBar = make("div", "phase-bar");
    this.phaseText = make("span", "phase-text");
    this.summary = make("summary");
    this.counts = make("dl", "figures");
    this.partitions = make("dl", "figures");
    const title = make("h3", "", make("bdi", "", name));
    title.id = `lane-${name}`;
    this.element = make(
      "article", "card lane", make("header", "", title, this.state), this.way, this.trouble, this.figures,
      make("div", "sparks", ...this.sparks.map((spark) => spark.element)),
      make("div", "phases", this.phaseTitle, this.phaseBar, this.phaseText),
      make("details", "", this.summary, this.counts, this.partitions),
    );
    this.element.setAttribute("aria-labelledby", title.id);
    for (const phase of PHASES) this.phaseBar.append(make("i", phase));
  }

  show(lane, history, points, now) {
    this.element.className = `card lane ${lane.state}`;
    say(this.state, word(lane.state));
    say(this.way, `${lane.source} → ${lane.sink}`);
    this.way.dir = "ltr";
    this.showTrouble(lane, now);
    this.showFigures(lane, now);
    this.showSparks(history, points);
    this.showPhases(lane.phases);
    this.showDetails(lane, now);
  }

  showTrouble(lane, now) {
    const last = lane.last_trouble;
    const recent = last && now - last.at_ms < 3600e3 ? word("lastTrouble", { ago: duration(now - last.at_ms), text: last.text }) : "";
    const text = lane.error ?? (lane.waits_for ? word("waitsFor", { why: lane.waits_for }) : recent);
    say(this.trouble, text);
    this.trouble.className = `trouble ${lane.error ? "error" : lane.waits_for ? "waits" : "over"}`;
    this.trouble.hidden = text === "";
  }

  showFigures(lane, now) {
    const behind = lane.watermark_ns === null ? NONE : duration(now - lane.watermark_ns / 1e6);
    const three = [lane.event_latency_p50_us, lane.event_latency_p95_us, lane.event_latency_p99_us];
    pairs(this.figures, [
      [word("quantiles"), three.map(latency).join(" · "), "wide"],
      [word("behind"), behind],
      [word("lateDead"), `${count(lane.late)} · ${count(lane.dead + lane.refused)}`, lane.dead + lane.refused > 0 ? "bad" : ""],
      [word("state"), bytes(lane.state_bytes)],
    ]);
  }

  showSparks(history, points) {
    const newest = history.at(-1) ?? { in: 0, lag: 0, p99_ms: 0 };
    const [records, lag, p99] = this.sparks;
    records.show(word("sparkIn"), history.map((point) => point.in), rate(newest.in), points);
    lag.show(word("sparkLag"), history.map((point) => point.lag), count(newest.lag), points);
    p99.show(word("sparkP99"), history.map((point) => point.p99_ms), latency(Math.round(newest.p99_ms * 1000)), points);
  }

  showPhases(phases) {
    const of = (phase) => phases[phase]?.p50_us ?? 0;
    const all = PHASES.reduce((sum, phase) => sum + of(phase), 0);
    say(this.phaseTitle, `${word("phases")}: ${latency(all)}`);
    PHASES.forEach((phase, i) => { this.phaseBar.children[i].style.flexGrow = all > 0 ? of(phase) : 0; });
    say(this.phaseText, PHASES.map((phase) => `${word(phase)} ${latency(of(phase))}`).join(" · "));
  }

  showDetails(lane, now) {
    say(this.summary, word("details"));
    const at = (ns) => (ns === null ? NONE : time(ns / 1e6));
    pairs(this.counts, [
      ["records", "used", "filtered", "late", "dead", "skipped", "lost", "emitted"].map((name) => [word(name), count(lane[name])]),
      [[word("refusedRows"), count(lane.refused)], [word("leftOut"), count(lane.left_out)], [word("retries"), count(lane.retries)]],
      [[word("epoch"), count(lane.epoch)], [word("panes"), count(lane.panes)], [word("watermark"), at(lane.watermark_ns)]],
      [[word("committed"), ago(lane.committed_ms, now)], [word("snapshot"), ago(lane.snapshot_at_ms, now)]],
      [[word("append"), [lane.latency_p50_us, lane.latency_p95_us, lane.latency_p99_us].map(latency).join(" · ")]],
    ].flat());
    pairs(this.partitions, lane.partitions.map(({ partition, records, taken_to_ms: taken }) => {
      const behind = records === 0 ? duration(0) : taken === null ? NONE : duration(now - taken);
      return [`${word("partition")} ${partition}`, `${count(records)} ${word("waiting")} · ${behind}`];
    }));
  }
}
