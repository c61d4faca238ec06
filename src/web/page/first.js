// Before anything is drawn: the language and the colours that were chosen last.
"use strict";
(() => {
  const kept = (name) => { try { return localStorage.getItem(`falaj.${name}`); } catch { return null; } };
  const root = document.documentElement;
  const asked = new URLSearchParams(location.search).get("lang") ?? kept("lang") ?? navigator.language ?? "en";
  root.lang = asked.startsWith("ar") ? "ar" : "en";
  root.dir = root.lang === "ar" ? "rtl" : "ltr";
  const theme = kept("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
})();
