// Looks again every few seconds; nothing is replaced while something in it has the focus.
import { ask, localise } from "./page.js";

const fleet = document.getElementById("fleet");

setInterval(async () => {
  if (document.hidden || fleet.contains(document.activeElement)) return;
  try {
    const html = await ask("GET", "/fleet/rows", undefined, { timeout_s: 4 });
    const left = fleet.querySelector(".scroll-x")?.scrollLeft ?? 0;
    fleet.innerHTML = html;
    localise(fleet);
    const table = fleet.querySelector(".scroll-x");
    if (table) table.scrollLeft = left;
  } catch {
    // The line at the top says it.
  }
}, 5000);
