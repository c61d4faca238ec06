// Figures for people. Digits are the same in both languages.
import { language, word } from "/app/words.js";

const formats = new Map();

function format(digits) {
  const key = `${language()}${digits}`;
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat(language() === "ar" ? "ar-u-nu-latn" : "en", { maximumFractionDigits: digits }));
  }
  return formats.get(key);
}

export const NONE = "–";
export const count = (number) => format(0).format(number);
export const score = (number) => format(1).format(number);
export const rate = (number) => (number > 0 && number < 10 ? format(1) : format(0)).format(number);

export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ${word("ms")}`;
  if (s < 10) return `${format(1).format(s)} ${word("s")}`;
  if (s < 60) return `${Math.floor(s)} ${word("s")}`;
  if (s < 3600) return `${Math.floor(s / 60)} ${word("min")} ${Math.floor(s % 60)} ${word("s")}`;
  if (s < 172800) return `${Math.floor(s / 3600)} ${word("h")} ${Math.floor((s % 3600) / 60)} ${word("min")}`;
  return `${Math.floor(s / 86400)} ${word("d")}`;
}

// Latin units would change places with their number in Arabic text.
const isolated = (text) => (language() === "ar" ? `\u2066${text}\u2069` : text);

// What took longer than an hour is not told apart.
const LONGEST_US = 3_590_000_000;

export function latency(us) {
  if (!us) return NONE;
  if (us >= LONGEST_US) return `> 1 ${word("h")}`;
  if (us < 1000) return isolated(`${us} ${word("us")}`);
  return us < 10000 ? `${format(1).format(us / 1000)} ${word("ms")}` : duration(us / 1000);
}

export function bytes(n) {
  const [unit, name] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([unit]) => n >= unit) ?? [1, "B"];
  return isolated(`${format(unit > 1024 ? 1 : 0).format(n / unit)} ${name}`);
}

export const time = (ms) => (ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) : NONE);
export const ago = (then, now) => (then ? word("ago", { time: duration(now - then) }) : NONE);
