// Users and enrolments.
import { ask, failed, say, sure } from "./page.js";

const V1 = "/api/v1";
const secret = document.getElementById("secret");

function tell(name, text) {
  secret.querySelector("span").textContent = name;
  secret.querySelector("input").value = text;
  secret.hidden = false;
  secret.querySelector("input").focus();
  secret.querySelector("input").select();
  secret.scrollIntoView({ block: "nearest" });
}

function onSubmit(id, work) {
  const form = document.getElementById(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = form.querySelector(".problem");
    problem.textContent = "";
    try {
      await work(form.elements);
    } catch (error) {
      problem.textContent = error.message;
    }
  });
}

onSubmit("add-user", async ({ name, role }) => {
  const made = await ask("POST", `${V1}/users`, { name: name.value, role: role.value });
  tell(made.name, made.one_time_password);
});

onSubmit("enrol", async ({ device, minutes }) => {
  const made = await ask("POST", `${V1}/enrolments`, { device: device.value, minutes: Number(minutes.value) });
  tell(made.device, `tagclip enrol ${made.enrolment} --device ${made.device} --folder link`);
});

secret?.querySelector("[data-copy]").addEventListener("click", async () => {
  const text = secret.querySelector("input");
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    say("Copied.");
  } catch {
    say("This browser does not let the page copy; the line is marked, press Ctrl and C.", { bad: true });
  }
});

async function change(path, method, body) {
  try {
    return await ask(method, path, body);
  } catch (error) {
    failed(error);
    return null;
  }
}

// Arrows go through roles one by one, so that a role is taken by a button, never on the way to another.
document.addEventListener("change", (event) => {
  const select = event.target.closest("[data-role]");
  if (select) select.parentElement.querySelector("[data-take-role]").hidden = select.value === select.dataset.role;
});

async function takeRole(user, button) {
  const select = button.parentElement.querySelector("select");
  if (!(await change(`${V1}/users/${user}`, "PATCH", { role: select.value }))) return;
  select.dataset.role = select.value;
  button.hidden = true;
  select.focus();
  say(`${user} is now: ${select.value}. Open sessions have ended.`);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const user = button.closest("tr")?.dataset.user;
  if ("takeRole" in button.dataset) takeRole(user, button);
  else if ("reset" in button.dataset && await sure(`Make a new one-time password for ${user}? The old password ends at once.`, "Make it")) {
    const made = await change(`${V1}/users/${user}`, "PATCH", { reset_password: true });
    if (made) tell(user, made.one_time_password);
  } else if (button.dataset.disable) {
    const out = button.dataset.disable === "true";
    if (out && !(await sure(`Shut ${user} out? Open sessions end at once.`, "Shut out"))) return;
    if (await change(`${V1}/users/${user}`, "PATCH", { disabled: out })) location.reload();
  } else if (button.dataset.dismiss) {
    const name = button.dataset.dismiss;
    if (await sure(`End the token of ${name}? It can hand in nothing more until it is enrolled again; its hits stay.`, "End it")
      && await change(`${V1}/devices/${name}`, "DELETE")) location.reload();
  }
});
