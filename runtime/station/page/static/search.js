// Search of everything stored, by a description or by how somebody looked.
import { ask } from "./page.js";
import { trackCard } from "./tracks.js";

const form = document.getElementById("search"), list = document.getElementById("results"), told = document.getElementById("told");
const like_line = document.getElementById("like-line");
let like = new URLSearchParams(location.search).get("like");
let asking = new AbortController();

// A time of the form, which is local, as the API wants it.
const utc = (local) => `${new Date(local).toISOString().slice(0, 16)}Z`;

async function search() {
  asking.abort();
  asking = new AbortController();
  const { elements } = form, query = new URLSearchParams({ top: 100 });
  if (like) query.set("like", like);
  else if (elements.text.value.trim()) query.set("text", elements.text.value.trim());
  else return;
  for (const name of ["device", "view", "near"]) if (elements[name].value.trim()) query.set(name, elements[name].value.trim());
  for (const name of ["after", "before"]) if (elements[name].value) query.set(name, utc(elements[name].value));
  told.textContent = "Searching …";
  list.setAttribute("aria-busy", "true");
  try {
    const found = await ask("GET", `/api/v1/search?${query}`, undefined, { signal: asking.signal });
    list.replaceChildren(...found.results.map((one) => trackCard(one, [`${one.rank}. score ${one.score.toFixed(3)}`])));
    const left = found.left_out ? ` ${found.left_out.toLocaleString("en")} were seen with another encoder and cannot be compared.` : "";
    told.textContent = found.results.length
      ? `The best ${found.results.length} of ${found.compared.toLocaleString("en")} people, the best first. Being first does not make it the right one.${left}`
      : `Nobody stored fits these filters.${left}`;
  } catch (error) {
    if (error.name === "AbortError") return;
    list.replaceChildren();
    told.textContent = error.message;
  }
  list.removeAttribute("aria-busy");
}

function showLike() {
  like_line.hidden = !like;
  form.elements.text.required = !like;
  form.elements.text.disabled = Boolean(like);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
form.addEventListener("change", (event) => {
  if (event.target.name !== "text" && list.children.length) search();
});
document.getElementById("no-like").addEventListener("click", () => {
  like = null;
  history.replaceState(null, "", "/search");
  list.replaceChildren();
  told.textContent = "";
  showLike();
  form.elements.text.focus();
});
showLike();
if (like) search();
