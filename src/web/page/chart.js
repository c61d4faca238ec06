// A line over the last minutes. Beside it stands what it is and its last value, so the picture itself is not read out.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 30;

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/// Text that is written only when it changes, so that what a reader has selected stays.
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export class Spark {
  constructor(label) {
    this.label = make("span", "label");
    this.value = make("strong");
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    this.element = make("div", "spark", make("div", "says", this.label, this.value), svg("svg", box, this.area, this.line));
    this.name = label;
  }

  show(label, values, value, points) {
    say(this.label, label);
    say(this.value, value);
    const most = Math.max(...values, 1e-9);
    const at = (i) => (WIDTH * (points - values.length + i)) / Math.max(1, points - 1);
    const line = values.map((v, i) => `${at(i).toFixed(1)} ${(HEIGHT - 2 - ((HEIGHT - 4) * v) / most).toFixed(1)}`).join("L");
    this.line.setAttribute("d", values.length > 1 ? `M${line}` : "");
    this.area.setAttribute("d", values.length > 1 ? `M${at(0).toFixed(1)} ${HEIGHT}L${line}L${WIDTH} ${HEIGHT}Z` : "");
  }
}
