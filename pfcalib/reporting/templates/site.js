// The switch between light and dark, the search, folded code: no library, no request but to files of the site.
"use strict";
const rootStyle = document.documentElement.style;
const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
if (kept) rootStyle.colorScheme = kept;

document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector("[data-root]").dataset.root;
  const dark = () => (rootStyle.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.getElementById("theme").addEventListener("click", () => {
    rootStyle.colorScheme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", rootStyle.colorScheme); } catch { /* private window */ }
  });

  // what is wider than the page scrolls by itself, with the keyboard too
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
  if (innerWidth < 992) document.querySelector(".contents")?.removeAttribute("open");

  const fold = document.querySelector(".fold");
  fold?.addEventListener("click", () => {
    const open = fold.getAttribute("aria-pressed") !== "true";
    for (const code of document.querySelectorAll("details.code")) code.open = open;
    fold.setAttribute("aria-pressed", String(open));
    fold.textContent = open ? "Fold all code" : "Open all code";
  });

  // what an address names may lie in something folded
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let around = target.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  const query = document.getElementById("query"), hits = document.getElementById("hits"), found = document.getElementById("found");
  const load = () => new Promise((done) => {
    if (window.pfcalibSearch) return done();
    const script = Object.assign(document.createElement("script"), { src: `${root}static/search.js`, onload: done });
    document.head.append(script);
  });
  const KINDS = ["study", "section", "figure", "guide", "function", "metric"];
  const search = async () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    hits.hidden = !words.length;
    if (!words.length) return;
    await load();
    const rank = ([kind, title, , text]) => {
      const name = title.toLowerCase(), all = `${name} ${text.toLowerCase()}`;
      if (!words.every((word) => all.includes(word))) return -1;
      return words.filter((word) => name.includes(word)).length * 10 + (name === words.join(" ") ? 50 : 0) - KINDS.indexOf(kind);
    };
    const ranked = window.pfcalibSearch.map((entry) => [rank(entry), entry]).filter(([r]) => r > -1).sort((a, b) => b[0] - a[0]);
    hits.replaceChildren(...ranked.slice(0, 30).map(([, [kind, title, page, text]]) => {
      const item = document.createElement("li"), link = document.createElement("a"), more = document.createElement("span");
      link.href = root + page;
      link.textContent = title;
      more.textContent = `${kind}${text ? ": " + text : ""}`;
      link.append(more);
      item.append(link);
      return item;
    }));
    found.textContent = `${ranked.length} found`;
    if (!ranked.length) hits.replaceChildren(Object.assign(document.createElement("li"), { textContent: "Nothing found" }));
  };
  query.addEventListener("input", search);
  query.addEventListener("focus", load);
  hits.addEventListener("click", () => { hits.hidden = true; });
  document.addEventListener("keydown", (event) => {
    const links = [...hits.querySelectorAll("a")], at = links.indexOf(document.activeElement);
    if (event.key === "Escape") { hits.hidden = true; query.blur(); }
    if (event.key === "/" && document.activeElement === document.body) { event.preventDefault(); query.focus(); }
    if (hits.hidden || !links.length || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    (links[next] ?? query).focus();
  });
  document.addEventListener("click", (event) => { if (!event.target.closest(".search")) hits.hidden = true; });
});
