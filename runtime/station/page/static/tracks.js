// A person whom a device stored: the picture, which may have to be asked for, and what is known.
import { ask, failed, localise } from "./page.js";

const AGAIN_S = 5, TRIES = 60;

export function made(name, text, facts = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  return Object.assign(element, facts);
}

export function when(time_s) {
  const time = made("time", "");
  time.dateTime = new Date(1000 * time_s).toISOString();
  time.title = time.dateTime.replace("T", " ").replace(/\..*/, " UTC");
  return time;
}

// `lines` are said first, under the picture.
export function trackCard(track, lines) {
  const card = document.createElement("li"), thumb = made("div", "", { className: "thumb" }), facts = made("div", "", { className: "facts" });
  facts.append(...lines.map((line, at) => made("span", line, { className: at ? "where" : "query" })));
  facts.append(when(track.best.time_s), made("span", `${track.device} · ${track.camera}`, { className: "where" }));
  if (track.place) facts.append(made("span", `${track.place[0].toFixed(5)}, ${track.place[1].toFixed(5)} ± ${track.place[2].toFixed(0)} m`, { className: "where" }));
  const buttons = made("p", "", { className: "buttons" });
  buttons.append(made("a", "More like this", { className: "button", href: `/search?like=${track.track_id}` }));
  card.append(thumb, facts, buttons);
  localise(card);
  picture(track, thumb);
  return card;
}

function picture(track, thumb) {
  if (track.picture === "here") return show(track, thumb);
  if (track.picture === "gone") return thumb.replaceChildren(made("p", "the device keeps this picture no longer", { className: "none" }));
  if (track.picture === "asked") return wait(track, thumb);
  const button = made("button", "Ask for the picture", { type: "button" });
  button.addEventListener("click", () => wait(track, thumb));
  thumb.replaceChildren(button);
}

const address = (track) => `/api/v1/tracks/${track.track_id}/picture`;

function show(track, thumb) {
  thumb.replaceChildren(Object.assign(document.createElement("img"), { src: address(track), alt: "Picture of this person", loading: "lazy" }));
}

// The device sends it when it is in reach; asked about until then, as long as the page shows it.
async function wait(track, thumb) {
  thumb.replaceChildren(made("p", `asked for; ${track.device} sends it when it is in reach`, { className: "none" }));
  for (let tries = 0; tries < TRIES && (tries === 0 || thumb.isConnected); tries++) {
    try {
      const answer = await ask("GET", address(track));
      if (typeof answer === "string") return show(track, thumb);
    } catch (error) {
      if (error.status === 410) return picture({ ...track, picture: "gone" }, thumb);
      if (error.status) return failed(error);
    }
    await new Promise((go) => setTimeout(go, 1000 * AGAIN_S));
  }
}
