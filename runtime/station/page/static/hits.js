// The live list of hits. What the operator looks at never moves: while she works, new hits wait behind a button.
import { ask, failed, localise, onKey, say } from "./page.js";
import { decisions, mark } from "./decide.js";

const $ = (id) => document.getElementById(id);
const rows = $("rows"), scroll = $("scroll"), pane = $("pane"), filters = $("filters"), fresh = $("fresh"), more = $("more");
const WAIT_S = 25; // of one question for news

let number = Number(rows.dataset.number);
let after = rows.dataset.after;
let waiting = []; // new hits that are not shown yet, the oldest first
let stale = false; // so much is new that the list has to be fetched again
let chosen = null; // id of the hit in the pane
let asking = new AbortController(); // the question for news; ended when the filter changes

// ---- filter

// What is filtered is what is exported.
function aim() {
  const told = new FormData(filters);
  for (const link of document.querySelectorAll("#export a")) {
    const query = new URLSearchParams({ format: link.dataset.format });
    for (const [name, value] of told) if (value && value !== "all") query.set(name, value);
    link.href = `/api/v1/export/hits?${query}`;
  }
}

function asked() {
  const told = new FormData(filters), query = new URLSearchParams();
  for (const [name, value] of told) if (value && !(name === "review" && value === "unreviewed")) query.set(name, value);
  return query;
}

async function load() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking, query = asked();
  aim();
  history.replaceState(null, "", query.size ? `/hits?${query}` : "/hits");
  scroll.setAttribute("aria-busy", "true");
  try {
    const answer = await ask("GET", `/hits/rows?${query}`, undefined, { signal });
    rows.innerHTML = answer.rows;
    after = answer.after ?? "";
    number = answer.number;
    waiting = [];
    stale = false;
    counts(answer.counts);
    scroll.scrollTop = 0;
    settle();
  } catch (error) {
    failed(error);
  } finally {
    if (signal === asking.signal) scroll.removeAttribute("aria-busy");
  }
  listen(signal);
}

function counts(by_review) {
  let all = 0;
  for (const name of ["unreviewed", "confirmed", "rejected"]) {
    const count = by_review[name] || 0;
    all += count;
    document.querySelector(`[data-count=${name}]`).textContent = count.toLocaleString("en");
  }
  document.querySelector("[data-count=all]").textContent = all.toLocaleString("en");
}

// After the list changed.
function settle() {
  localise(rows);
  more.hidden = !after;
  $("empty").hidden = rows.children.length > 0;
  const count = waiting.length;
  fresh.hidden = !count && !stale;
  fresh.textContent = stale ? "New hits. Show them (N)" : `${count} new ${count === 1 ? "hit" : "hits"}. Show ${count === 1 ? "it" : "them"} (N)`;
  document.title = `${count || stale ? `(${stale ? "many" : count}) ` : ""}Hits · tagclip`;
  const row = chosen && rows.querySelector(`[data-id="${chosen}"] .row`);
  if (row) row.setAttribute("aria-current", "true");
  stop(row);
}

// The list is one stop of Tab, however long it grows; the arrows go through it.
let entry = null;
function stop(row) {
  for (const link of rows.querySelectorAll(".row:not([tabindex])")) link.tabIndex = -1;
  const next = row || (rows.contains(entry) ? entry : rows.querySelector(".row"));
  if (entry && entry !== next) entry.tabIndex = -1;
  if (next) next.tabIndex = 0;
  entry = next;
}

// ---- news

const busy = () => chosen !== null || scroll.scrollTop > 4 || scroll.matches(":hover") || scroll.contains(document.activeElement);

async function listen(signal) {
  let pause_s = 1;
  while (!signal.aborted) {
    if (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
    try {
      const query = asked();
      query.set("number", number);
      query.set("wait_s", WAIT_S);
      const answer = await ask("GET", `/hits/live?${query}`, undefined, { signal, timeout_s: WAIT_S + 10 });
      if (signal.aborted) return;
      number = answer.number;
      pause_s = 1;
      if (pane.querySelector("[data-failed]")) show(chosen);
      if (answer.stale && !busy()) return load();
      if (answer.stale) { stale = true; settle(); }
      else if (answer.hits.length) {
        counts(answer.counts);
        take(answer.hits);
      }
      await sleep(0.2); // many that come at once are shown at once
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400) failed(error);
      await sleep(pause_s);
      pause_s = Math.min(2 * pause_s, 10);
    }
  }
}

const sleep = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

function take(hits) {
  const newest = Number(rows.firstElementChild?.dataset.received ?? 0);
  const hold = busy();
  for (const hit of hits) {
    const old = rows.querySelector(`[data-id="${hit.id}"]`);
    waiting = waiting.filter((other) => other.id !== hit.id);
    if (old) {
      replace(old, hit.row);
      if (hit.id === chosen) show(hit.id, true);
    } else if (hit.fits && hit.received_s >= newest) waiting.push(hit);
  }
  if (hold) settle();
  else flush();
}

// In place: a hit that no longer fits the filter stays until the list is fetched again.
function replace(old, html) {
  const focused = old.contains(document.activeElement);
  old.outerHTML = html;
  if (focused) rows.querySelector(`[data-id="${old.dataset.id}"] .row`)?.focus();
  settle();
}

function flush() {
  for (const hit of waiting) rows.insertAdjacentHTML("afterbegin", hit.row);
  waiting = [];
  settle();
}

function showFresh() {
  if (stale) return load();
  flush();
  scroll.scrollTop = 0;
}

// ---- older ones

let loading = false;
new IntersectionObserver(async (seen) => {
  if (!seen.some((each) => each.isIntersecting) || loading || !after) return;
  loading = true;
  const { signal } = asking, query = asked();
  query.set("after", after);
  try {
    const answer = await ask("GET", `/hits/rows?${query}`, undefined, { signal });
    rows.insertAdjacentHTML("beforeend", answer.rows);
    after = answer.after ?? "";
    settle();
  } catch (error) {
    failed(error);
  }
  loading = false;
}, { root: scroll, rootMargin: "600px" }).observe(more);

// ---- the pane

const narrow = matchMedia("(max-width: 820px)");
let showing = new AbortController();

async function show(id, again = false) {
  showing.abort();
  showing = new AbortController();
  chosen = id;
  for (const row of rows.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
  settle();
  if (!again) pane.setAttribute("aria-busy", "true");
  try {
    const html = await ask("GET", `/hits/${id}/pane`, undefined, { signal: showing.signal });
    pane.innerHTML = html;
    localise(pane);
    if (!again) pane.scrollTop = 0;
    pane.removeAttribute("aria-busy");
  } catch (error) {
    if (error.name === "AbortError") return;
    pane.removeAttribute("aria-busy");
    if (!again) {
      pane.innerHTML = '<p class="empty" data-failed><b>This hit cannot be shown now.</b> <span></span></p>';
      pane.querySelector("span").textContent = error.message;
    }
  }
}

function step(by) {
  const all = [...rows.children];
  const at = all.findIndex((row) => row.dataset.id === chosen);
  const next = all[at < 0 ? 0 : at + by];
  if (!next) return by > 0 && after ? scroll.scrollTo(0, scroll.scrollHeight) : undefined;
  next.querySelector(".row").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  show(next.dataset.id);
}

rows.addEventListener("click", (event) => {
  const row = event.target.closest("li");
  if (!row || narrow.matches || event.ctrlKey || event.metaKey || event.shiftKey || event.detail === 0) return;
  event.preventDefault();
  show(row.dataset.id);
});
filters.addEventListener("change", load);
filters.addEventListener("submit", (event) => event.preventDefault());
fresh.addEventListener("click", showFresh);
onKey(["n"], showFresh);
onKey(["j", "ArrowDown"], () => step(1));
onKey(["k", "ArrowUp"], () => step(-1));
onKey(["Escape"], () => {
  if (chosen === null) return false;
  chosen = null;
  document.activeElement.blur();
  pane.innerHTML = '<p class="empty"><b>Choose a hit.</b> <kbd>J</kbd> and <kbd>K</kbd> go through them.</p>';
  for (const row of rows.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
});

if (document.querySelector("[data-may-decide]")) {
  decisions(
    () => {
      const hit = pane.querySelector(".hit");
      if (!hit) say("Choose a hit first: J goes to the next.");
      return hit && hit.dataset.id === chosen ? hit.dataset : null;
    },
    (id, review) => {
      const row = rows.querySelector(`[data-id="${id}"]`), hit = pane.querySelector(`.hit[data-id="${id}"]`);
      if (row) mark(row, review);
      if (hit) mark(hit, review);
    },
  );
}

settle();
listen(asking.signal);
