// Every word of the page, in English and Arabic.

const EN = {
  skip: "Skip to the figures", connecting: "connecting …", token: "Token", look: "Look", refused: "That is not the token.",
  boards: "Leaderboards", noBoards: "No leaderboard yet.", flow: "From source to sink", lanes: "Lanes", noLanes: "No lane yet.",
  about: "{version} · up {time} · times in UTC",
  gone: "falaj does not answer. It was last seen at {time}. This page goes on asking.",
  neverSeen: "falaj does not answer. This page goes on asking.",
  full: "Too many pages are open. This page goes on asking.",
  auto: "Colours: automatic", light: "Colours: light", dark: "Colours: dark",
  rateIn: "records/s in", rateOut: "rows/s out", lag: "records waiting", p99: "latency p99", letters: "dead letters", memory: "memory",
  memoryOf: "memory, of {limit}",
  starting: "starting", running: "running", done: "done", stopped: "stopped",
  news: "Lane {name}: {state}", waitsFor: "Waits: {why}", lastTrouble: "Last trouble, {ago} ago: {text}",
  quantiles: "event to sink, p50 · p95 · p99", behind: "watermark behind", lateDead: "late · dead", state: "state",
  sparkIn: "records/s", sparkLag: "waiting", sparkP99: "p99", phases: "An epoch, in the middle",
  plan: "plan", stage: "stage", intent: "intent", apply: "apply", commit: "commit",
  details: "Partitions and counts", partition: "partition", waiting: "waiting", secondsBehind: "behind",
  records: "records", used: "used", filtered: "filtered", late: "late", dead: "dead", skipped: "skipped", lost: "lost offsets",
  emitted: "rows written", refusedRows: "refused by the sink", leftOut: "left out", retries: "retries", epoch: "epoch",
  watermark: "watermark", committed: "last commit", panes: "panes", snapshot: "snapshot", append: "log to sink, p50 · p95 · p99",
  asks: "asks {names}", ago: "{time} ago",
  lookups: "Lookups", table: "table", rows: "rows", size: "memory", age: "age", version: "version", misses: "misses", unanswered: "unanswered",
  captures: "Captures", slot: "slot", changes: "changes", walBehind: "WAL behind", walKept: "WAL kept", spooled: "waiting to be read",
  copied: "rows copied", copying: "{rows} of some {of}, {left} left",
  deadLetters: "Dead letters", topic: "of", count: "letters", doing: "state",
  backfills: "Backfills", lane: "lane", step: "step", left: "records left", reached: "event time reached", timeLeft: "time left",
  memoryTitle: "Memory", holder: "held by", held: "bytes",
  spoken: "{source} to {lane} to {sink}", us: "µs", ms: "ms", s: "s", min: "min", h: "h", d: "d",
};

const AR = {
  skip: "إلى الأرقام", connecting: "جارٍ الاتصال …", token: "رمز الدخول", look: "عرض", refused: "ليس هذا رمز الدخول.",
  boards: "لوحات الصدارة", noBoards: "لا توجد لوحة صدارة بعد.", flow: "من المنبع إلى المصبّ", lanes: "المسارات", noLanes: "لا يوجد مسار بعد.",
  about: "{version} · يعمل منذ {time} · الأوقات بالتوقيت العالمي",
  gone: "لا يجيب falaj. شوهد آخر مرة عند {time}. تواصل هذه الصفحة السؤال.",
  neverSeen: "لا يجيب falaj. تواصل هذه الصفحة السؤال.",
  full: "الصفحات المفتوحة كثيرة. تواصل هذه الصفحة السؤال.",
  auto: "الألوان: تلقائية", light: "الألوان: فاتحة", dark: "الألوان: داكنة",
  rateIn: "سجلّات داخلة/ث", rateOut: "صفوف خارجة/ث", lag: "سجلّات منتظرة", p99: "زمن الوصول p99", letters: "رسائل ميتة", memory: "الذاكرة",
  memoryOf: "الذاكرة، من {limit}",
  starting: "يبدأ", running: "يعمل", done: "انتهى", stopped: "توقّف",
  news: "المسار {name}: {state}", waitsFor: "ينتظر: {why}", lastTrouble: "آخر عائق، قبل {ago}: {text}",
  quantiles: "من الحدث إلى المصبّ، p50 · p95 · p99", behind: "تأخّر العلامة المائية", lateDead: "متأخّرة · ميتة", state: "الحالة المخزّنة",
  sparkIn: "سجلّات/ث", sparkLag: "منتظرة", sparkP99: "p99", phases: "الدفعة في المتوسط",
  plan: "تنفيذ", stage: "تجهيز", intent: "نيّة", apply: "تطبيق", commit: "تثبيت",
  details: "الأقسام والأعداد", partition: "القسم", waiting: "منتظرة", secondsBehind: "التأخّر",
  records: "سجلّات", used: "مستعملة", filtered: "مستبعدة", late: "متأخّرة", dead: "ميتة", skipped: "متخطّاة", lost: "مواضع مفقودة",
  emitted: "صفوف مكتوبة", refusedRows: "رفضها المصبّ", leftOut: "متروكة", retries: "إعادات", epoch: "الدفعة",
  watermark: "العلامة المائية", committed: "آخر تثبيت", panes: "شرائح", snapshot: "لقطة", append: "من السجلّ إلى المصبّ، p50 · p95 · p99",
  asks: "يسأل {names}", ago: "قبل {time}",
  lookups: "الجداول المرجعية", table: "الجدول", rows: "صفوف", size: "الذاكرة", age: "العمر", version: "الإصدار", misses: "غير موجودة", unanswered: "بلا جواب",
  captures: "التقاط التغييرات", slot: "المنفذ", changes: "تغييرات", walBehind: "تأخّر WAL", walKept: "WAL المحفوظ", spooled: "تنتظر القراءة",
  copied: "صفوف منسوخة", copying: "{rows} من نحو {of}، بقي {left}",
  deadLetters: "الرسائل الميتة", topic: "من", count: "رسائل", doing: "الوضع",
  backfills: "إعادة قراءة التاريخ", lane: "المسار", step: "الخطوة", left: "سجلّات باقية", reached: "وقت الحدث المبلوغ", timeLeft: "الوقت الباقي",
  memoryTitle: "الذاكرة", holder: "يشغلها", held: "بايتات",
  spoken: "من {source} إلى {lane} إلى {sink}", us: "µs", ms: "م.ث", s: "ث", min: "د", h: "س", d: "يوم",
};

export const language = () => document.documentElement.lang;

/// The word for `name`, with `{…}` filled in.
export function word(name, filled = {}) {
  const text = (language() === "ar" ? AR : EN)[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, key) => filled[key] ?? "");
}

/// Says the words of the page itself in the language that is chosen.
export function speak() {
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
}

/// Both languages, for the test that none lacks a word.
export const ALL = { EN, AR };
