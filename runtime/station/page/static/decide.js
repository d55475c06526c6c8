// A person's decisions about hits, with undo.
import { ask, failed, onKey, say } from "./page.js";

const done = []; // {id, before, after}, the last one last
const WORDS = { confirmed: "Confirmed.", rejected: "Rejected.", unreviewed: "To review again." };

// `current` gives {id, review} of the hit that is looked at, or null; `shown` is told what a hit is now.
export function decisions(current, shown) {
  // Shown at once; what does not reach the station is taken back. Gives whether it did.
  async function put(id, before, after) {
    shown(id, after);
    try {
      await ask("POST", `/api/v1/hits/${id}/review`, { review: after }, { timeout_s: 10 });
      document.dispatchEvent(new CustomEvent("decided", { detail: id }));
      return true;
    } catch (error) {
      shown(id, before);
      if (error.status === 0) error.message = "Not saved: the station is out of reach. Decide again when it is back.";
      failed(error);
      return false;
    }
  }

  async function decide(review) {
    const hit = current();
    if (!hit || hit.review === review) return;
    const decision = { id: hit.id, before: hit.review, after: review };
    if (!(await put(decision.id, decision.before, decision.after))) return;
    done.push(decision);
    say(WORDS[review], { button: ["Undo (U)", undo] });
  }

  async function undo() {
    const last = done.pop();
    if (!last) return say("Nothing to undo.");
    if (await put(last.id, last.after, last.before)) say(`Undone. ${WORDS[last.before]}`);
    else done.push(last);
  }

  onKey(["c"], () => decide("confirmed"));
  onKey(["r"], () => decide("rejected"));
  onKey(["u"], undo);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-decide]");
    if (button) decide(button.dataset.decide);
  });
}

// A hit that is shown large: its mark and buttons say `review` before the station's own words come.
export function mark(root, review) {
  const names = { unreviewed: "to review", confirmed: "confirmed", rejected: "rejected" };
  root.dataset.review = review;
  const sign = root.querySelector(".mark");
  sign.className = `mark ${review}`;
  sign.textContent = names[review];
  for (const button of root.querySelectorAll("[data-decide]")) button.disabled = button.dataset.decide === review;
}
