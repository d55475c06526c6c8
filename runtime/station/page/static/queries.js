// Who is looked for: add, remove, and the threshold with those just under it.
import { ask, failed, say, sure } from "./page.js";
import { openThreshold } from "./threshold.js";

const V1 = "/api/v1";
const form = document.getElementById("add");

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { text, reason, hours, view, promise } = form.elements;
  const query = { text: text.value, reason: reason.value, view: view.value, hours: hours.value ? Number(hours.value) : null };
  const [kind, rate] = promise.value.split(" ");
  if (kind) query[kind] = Number(rate);
  const button = form.querySelector("button"), problem = form.querySelector(".problem");
  problem.textContent = "";
  button.disabled = true;
  try {
    await ask("POST", `${V1}/queries`, query);
    location.reload();
  } catch (error) {
    problem.textContent = error.message;
    button.disabled = false;
  }
});

async function remove(card) {
  const text = card.querySelector("h2").textContent;
  if (!(await sure(`Look no longer for “${text}”? Its hits stay.`, "Remove"))) return;
  try {
    await ask("DELETE", `${V1}/queries/${card.dataset.id}`);
    card.remove();
    say("Removed. Devices in reach know it already.");
    document.querySelector("#queries button, #add button")?.focus();
  } catch (error) {
    failed(error);
  }
}

document.getElementById("queries").addEventListener("click", (event) => {
  const button = event.target.closest("button"), card = event.target.closest("article");
  if (!button || !card) return;
  if ("remove" in button.dataset) remove(card);
  if ("threshold" in button.dataset) {
    const part = card.querySelector(".threshold");
    part.hidden = !part.hidden;
    button.setAttribute("aria-expanded", !part.hidden);
    if (!part.hidden) openThreshold(card.dataset, part);
  }
});
