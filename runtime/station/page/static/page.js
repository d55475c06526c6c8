// What all pages share: asking the station, saying that it cannot be reached, times, keys, light and dark.

const $ = (id) => document.getElementById(id);

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status; // 0: the station cannot be reached
  }
}

let lost = null; // since when the station is out of reach

function reached(yes) {
  const banner = $("offline"), link = $("link");
  if (yes && lost) {
    lost = null;
    banner.hidden = true;
  } else if (!yes && !lost) {
    lost = new Date();
    banner.textContent = `The station is out of reach since ${clock(lost)}. What you see may be old, and decisions are not saved. It is tried again by itself.`;
    banner.hidden = false;
  }
  if (link) {
    link.textContent = yes ? "connected" : "out of reach";
    link.classList.toggle("bad", !yes);
  }
}

// Ask the station; gives what it answers, or throws a Problem whose text can be shown.
export async function ask(method, path, body, { signal, timeout_s = 30 } = {}) {
  const headers = {};
  if (method !== "GET") {
    headers["X-CSRF-Token"] = localStorage.getItem("csrf") || "";
    headers["Content-Type"] = "application/json";
  }
  const signals = [AbortSignal.timeout(timeout_s * 1000), ...(signal ? [signal] : [])];
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, cache: "no-store", redirect: "error", signal: AbortSignal.any(signals),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal && signal.aborted) throw error;
    reached(false);
    throw new Problem(0, "The station is out of reach.");
  }
  reached(true);
  const isJson = (answer.headers.get("content-type") || "").startsWith("application/json");
  const value = answer.status === 204 ? null : isJson ? await answer.json() : await answer.text();
  if (answer.ok) return value;
  if (answer.status === 401 && !location.pathname.startsWith("/login")) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (answer.status === 403 && /csrf/.test(value?.error || "")) {
    throw new Problem(403, "This browser forgot its log-in. Log out, and in again.");
  }
  throw new Problem(answer.status, value?.error ? value.error[0].toUpperCase() + value.error.slice(1) + "." : "The station failed.");
}

// A line at the bottom that goes by itself; `button` is [text, what to do].
export function say(text, { bad = false, button = null } = {}) {
  const line = document.createElement("p");
  line.className = bad ? "toast bad" : "toast";
  line.append(text);
  if (button) {
    const press = document.createElement("button");
    press.type = "button";
    press.textContent = button[0];
    press.addEventListener("click", () => { line.remove(); button[1](); });
    line.append(" ", press);
  }
  const all = $("toasts");
  while (all.children.length > 1) all.firstChild.remove();
  all.append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 8000);
  return line;
}

export function failed(error) {
  if (error.name !== "AbortError") say(error.message, { bad: true });
}

// Ask before something that cannot be undone; gives whether the person agreed.
export function sure(text, yes) {
  const dialog = document.createElement("dialog");
  dialog.innerHTML = '<form method="dialog"><p></p><p class="buttons"><button value="yes" class="danger"></button><button value="no">Leave it</button></p></form>';
  dialog.setAttribute("aria-label", text);
  dialog.querySelector("p").textContent = text;
  dialog.querySelector("[value=yes]").textContent = yes;
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("[value=no]").focus();
  return new Promise((go) => dialog.addEventListener("close", () => {
    dialog.remove();
    go(dialog.returnValue === "yes");
  }));
}

// ---- times: the station says UTC, a person wants her own; UTC stays in the title.

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

function clock(at) {
  return time.format(at);
}

export function localise(root = document) {
  const now = new Date();
  for (const each of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(each.dateTime);
    const day = at.toDateString() === now.toDateString() ? "" : `${(at.getFullYear() === now.getFullYear() ? date : year).format(at)}, `;
    each.textContent = day + clock(at);
    each.dataset.local = "";
  }
}

// ---- keys

const keys = new Map();

export function onKey(names, act) {
  for (const name of names) keys.set(name, act);
}

export const keysOn = () => localStorage.getItem("keys") !== "off";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const on = event.target;
  const typing = on.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable], dialog[open]");
  if (typing) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (name.length === 1 && name !== "?" && !keysOn()) return;
  if (name.startsWith("Arrow") && on.closest?.("[type=radio], [data-own-arrows]")) return;
  const act = keys.get(name);
  if (act && act(event) !== false) event.preventDefault();
});

// What opens below a word at the top closes with Escape, and when the focus leaves it.
const openMenu = () => document.querySelector("details.me[open]");
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && openMenu();
  if (!menu) return;
  event.preventDefault();
  menu.open = false;
  menu.querySelector("summary").focus();
}, { capture: true });
document.addEventListener("focusin", (event) => {
  const menu = openMenu();
  if (menu && !menu.contains(event.target)) menu.open = false;
});

// ---- the frame of the page

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  document.dispatchEvent(new Event("themechange"));
}

function otherTheme() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}

async function logout() {
  try {
    await ask("POST", "/api/v1/logout");
  } catch (error) {
    if (error.status !== 401) return failed(error);
  }
  localStorage.removeItem("csrf");
  location.assign("/login");
}

// A hit that nobody may keep, deleted by an admin wherever it is shown large.
document.addEventListener("click", async (event) => {
  const hit = event.target.closest("[data-delete]")?.closest(".hit");
  if (!hit || !(await sure("Delete this hit and its picture for good? The log keeps that it was deleted.", "Delete it"))) return;
  try {
    await ask("DELETE", `/api/v1/hits/${hit.dataset.id}`);
    location.assign("/hits");
  } catch (error) {
    failed(error);
  }
});

localise();
// In a narrow window. Not by scrollIntoView: the first Tab would go on from there, and pass over what skips to the content.
const here = document.querySelector(".top nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - here.parentElement.clientWidth / 2;
if ($("theme")) {
  $("theme").addEventListener("click", otherTheme);
  $("logout").addEventListener("click", logout);
  const show = () => { $("keys-on").checked = keysOn(); $("keys").showModal(); };
  $("help").addEventListener("click", show);
  $("keys-on").addEventListener("change", (event) => localStorage.setItem("keys", event.target.checked ? "on" : "off"));
  onKey(["?"], show);
  onKey(["t"], otherTheme);
}
