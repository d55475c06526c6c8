// Logging in, and choosing a password.
import { ask } from "./page.js";

const V1 = "/api/v1";
const problem = document.getElementById("problem");

async function enter(name, password) {
  const answer = await ask("POST", `${V1}/login`, { name, password });
  localStorage.setItem("csrf", answer.csrf);
  if (answer.must_change_password) return location.assign("/password");
  const next = new URL(new URLSearchParams(location.search).get("next") || "/hits", location.origin);
  location.assign(next.origin === location.origin ? next.pathname + next.search : "/hits");
}

function onSubmit(id, work) {
  const form = document.getElementById(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    problem.textContent = "";
    button.disabled = true;
    try {
      await work(form);
    } catch (error) {
      problem.textContent = error.message;
    }
    button.disabled = false;
  });
}

onSubmit("login", async (form) => {
  try {
    await enter(form.elements.name.value, form.elements.password.value);
  } catch (error) {
    if (error.status === 403) error.message = "Wrong name or password.";
    throw error;
  }
});

onSubmit("change", async (form) => {
  const { old, new: chosen, again } = form.elements;
  if (chosen.value !== again.value) throw new Error("The new password and the one below it differ.");
  await ask("POST", `${V1}/password`, { old: old.value, new: chosen.value });
  await enter(form.dataset.name, chosen.value);
});
