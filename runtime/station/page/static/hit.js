// One hit on its own page.
import { ask, failed, localise } from "./page.js";
import { decisions, mark } from "./decide.js";

const pane = document.getElementById("pane");
const hit = () => pane.querySelector(".hit");

async function refresh() {
  try {
    pane.innerHTML = await ask("GET", `/hits/${hit().dataset.id}/pane`);
    localise(pane);
  } catch (error) {
    failed(error);
  }
}

if (pane.querySelector("[data-decide]")) {
  decisions(
    () => hit().dataset,
    (id, review) => { mark(hit(), review); },
  );
  document.addEventListener("decided", refresh);
}
