// The threshold of a query: what it costs in false alarms, and who is just over and just under it.
import { ask, failed, say } from "./page.js";
import { made, trackCard } from "./tracks.js";

const STEPS = 10; // of the slider, from one rate to ten times as much
const LOW = -2, HIGH = 2; // powers of ten
const SHOWN = 12; // on either side
const rate_of = (step) => Number((10 ** (step / STEPS)).toPrecision(2));

function told(rate, per) {
  if (per === "1000") return `${rate} of 1,000 people`;
  return rate >= 1 ? `${rate} an hour` : `1 in ${Number((1 / rate).toPrecision(2))} hours`;
}

// `facts` are those of the query's card; `part` is what is filled.
export async function openThreshold(facts, part) {
  part.replaceChildren(made("p", "Looking who comes near …", { className: "hint" }));
  let found;
  try {
    found = await ask("GET", `/api/v1/queries/${facts.id}/candidates?top=200`);
  } catch (error) {
    return part.replaceChildren(made("p", error.message, { className: "notice" }));
  }
  const may = "maySearch" in document.getElementById("queries").dataset;
  const { rate, per } = found.promise;
  const slider = Object.assign(document.createElement("input"), { type: "range", min: LOW * STEPS, max: HIGH * STEPS, step: 1 });
  slider.value = Math.round(Math.log10(rate) * STEPS);
  slider.id = `slider-${facts.id}`;
  const label = made("label", "", { htmlFor: slider.id }), sum = made("p", "", { className: "hint" });
  const over = made("ol", "", { className: "grid" }), under = made("ol", "", { className: "grid" });
  const over_title = made("h3", ""), under_title = made("h3", "");
  part.replaceChildren(label, slider, sum);
  if (may) {
    const take = made("button", "Take this threshold", { type: "button", className: "main" });
    take.addEventListener("click", () => put(facts, rate_of(Number(slider.value)), per, take));
    part.append(take);
  }
  part.append(under_title, under, over_title, over);
  // At which rate each of them becomes a hit.
  const people = found.candidates.map((one) => ({ ...one, cost: per === "hour" ? one.false_alarms_per_hour : 1000 * one.p_value }));
  people.sort((a, b) => a.cost - b.cost);
  const cards = new Map();
  const card = (one) => {
    if (!cards.has(one.track_id)) cards.set(one.track_id, trackCard(one, [one.cost > 10 ** HIGH ? "far under it" : `a hit from ${told(Number(Math.max(one.cost, 1e-4).toPrecision(2)), per)}`, `score ${one.score.toFixed(3)}`]));
    return cards.get(one.track_id);
  };

  function show() {
    const now = Number(slider.value) === Math.round(Math.log10(rate) * STEPS) ? rate : rate_of(Number(slider.value));
    const line = people.filter((one) => one.cost <= now).length, cameras = found.cameras.length;
    label.textContent = `False alarms allowed: ${told(now, per)}${per === "hour" ? " at each camera" : ""}`;
    slider.setAttribute("aria-valuetext", told(now, per));
    const passed = found.cameras.reduce((all, camera) => all + camera.people_per_hour, 0);
    const hourly = per === "hour" ? found.cameras.reduce((all, camera) => all + Math.min(now, camera.people_per_hour), 0) : (passed * now) / 1000;
    sum.textContent = cameras
      ? `Expected over ${cameras} ${cameras === 1 ? "camera" : "cameras"}: ${told(Number(hourly.toPrecision(2)) || 1e-4, "hour")}. Compared with ${found.compared.toLocaleString("en")} people seen${found.left_out ? `; ${found.left_out.toLocaleString("en")} were seen with another encoder and cannot be compared` : ""}.`
      : "No camera has told whom it saw yet, so nobody can be compared.";
    over_title.textContent = line ? `Hits at this threshold: ${line === people.length && line >= 200 ? "200 or more" : line}${line > SHOWN ? `, the last ${SHOWN}` : ""}` : "";
    under_title.textContent = people.length > line ? "Just under it" : "";
    under.replaceChildren(...people.slice(line, line + SHOWN).map((one) => { const it = card(one); it.classList.add("under"); return it; }));
    over.replaceChildren(...people.slice(Math.max(0, line - SHOWN), line).reverse().map((one) => { const it = card(one); it.classList.remove("under"); return it; }));
  }

  slider.addEventListener("input", show);
  show();
}

async function put(facts, rate, per, button) {
  button.disabled = true;
  try {
    await ask("PATCH", `/api/v1/queries/${facts.id}`, { [per === "hour" ? "alarms_per_hour" : "alarms_per_1000"]: rate });
    const card = button.closest("article");
    card.querySelector("[data-promise]").textContent = `false alarms: at most ${told(rate, per)}${per === "hour" ? " at each camera" : ""}`;
    say("Taken. Devices in reach have it already.");
  } catch (error) {
    failed(error);
  }
  button.disabled = false;
}
