// A map that needs nobody: Web Mercator on a canvas, the user's tiles if there are any, else a grid in metres.
import { ask, failed, localise, onKey } from "./page.js";

const box = document.getElementById("map"), canvas = box.querySelector("canvas"), draw = canvas.getContext("2d");
const list = document.getElementById("places"), told = document.getElementById("told"), filters = document.getElementById("filters");
const EARTH_M = 2 * Math.PI * 6378137; // round the equator
const TILE_PX = 256, MAX_LISTED = 200;

const tiled = "minZoom" in box.dataset && { low: Number(box.dataset.minZoom), high: Number(box.dataset.maxZoom) };
let hits = [], people = []; // people: [x, y] of every track
let chosen = new URLSearchParams(location.search).get("hit");
const at = { x: 0.5, y: 0.5, zoom: 3 }; // the middle, 0..1 of the world, from its north-west; pixels of the world: 256 * 2^zoom

// ---- where things are

const x_of = (longitude) => longitude / 360 + 0.5;
const y_of = (latitude) => {
  const s = Math.sin((Math.max(-85.05, Math.min(85.05, latitude)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + s) / (1 - s)) / (4 * Math.PI);
};
const latitude_of = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
const world_px = () => TILE_PX * 2 ** at.zoom;
const metre_px = (y = at.y) => world_px() / (EARTH_M * Math.cos((latitude_of(y) * Math.PI) / 180));
const size = () => [canvas.clientWidth, canvas.clientHeight];
function to_px(x, y) {
  const [width, height] = size();
  return [(x - at.x) * world_px() + width / 2, (y - at.y) * world_px() + height / 2];
}

function showAll() {
  const points = hits.length ? hits.map((hit) => [hit.x, hit.y]) : [...people];
  if (!points.length && tiled) {
    const [west, south, east, north] = box.dataset.corners.split(" ").map(Number);
    points.push([west, 1 - north], [east, 1 - south]);
  }
  if (!points.length) return;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const [width, height] = size();
  at.x = (x0 + x1) / 2;
  at.y = (y0 + y1) / 2;
  at.zoom = Math.min(Math.log2(Math.min((0.8 * width) / Math.max(x1 - x0, 1e-9), (0.8 * height) / Math.max(y1 - y0, 1e-9)) / TILE_PX), 19);
  paint();
}

// ---- drawing

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["text", "dim", "edge", "soft", "card", "blue", "yes", "no"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
}

let asked = false;
function paint() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paintNow(); });
}

function paintNow() {
  const [width, height] = size(), ratio = devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  draw.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw.fillStyle = colours.soft;
  draw.fillRect(0, 0, width, height);
  if (tiled) paintTiles(width, height);
  paintGrid(width, height);
  paintPeople(width, height);
  for (let i = hits.length - 1; i >= 0; i--) paintHit(hits[i], width, height);
  const one = hits.find((hit) => hit.id === chosen);
  if (one) paintHit(one, width, height, true);
  paintScale(width, height);
}

const nice = (least) => {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].find((step) => step * power >= least) * power;
};
const metres = (value) => (value >= 1000 ? `${(value / 1000).toLocaleString("en")} km` : `${value.toLocaleString("en")} m`);

function paintGrid(width, height) {
  const step_px = nice(90 / metre_px()) * metre_px();
  draw.strokeStyle = colours.edge;
  draw.globalAlpha = tiled ? 0.35 : 1;
  draw.lineWidth = 1;
  draw.beginPath();
  const first = (origin, span) => ((span / 2 - origin * world_px()) % step_px + step_px) % step_px;
  for (let x = first(at.x, width); x < width; x += step_px) { draw.moveTo(x, 0); draw.lineTo(x, height); }
  for (let y = first(at.y, height); y < height; y += step_px) { draw.moveTo(0, y); draw.lineTo(width, y); }
  draw.stroke();
  draw.globalAlpha = 1;
}

function paintPeople(width, height) {
  if (!document.getElementById("people").checked) return;
  draw.fillStyle = colours.dim;
  for (const [x, y] of people) {
    const [left, top] = to_px(x, y);
    if (left > 0 && top > 0 && left < width && top < height) draw.fillRect(left - 2, top - 2, 4, 4);
  }
}

function paintHit(hit, width, height, large = false) {
  const [x, y] = to_px(hit.x, hit.y);
  const error_px = hit.error_m * metre_px(hit.y);
  if (x < -error_px - 20 || y < -error_px - 20 || x > width + error_px + 20 || y > height + error_px + 20) return;
  const colour = { unreviewed: colours.blue, confirmed: colours.yes, rejected: colours.dim }[hit.review];
  draw.strokeStyle = draw.fillStyle = colour;
  if (error_px > 8) {
    draw.globalAlpha = large ? 1 : 0.45;
    draw.lineWidth = large ? 2 : 1;
    draw.beginPath();
    draw.arc(x, y, error_px, 0, 7);
    draw.stroke();
    if (large) { draw.globalAlpha = 0.12; draw.fill(); }
    draw.globalAlpha = 1;
  }
  draw.beginPath();
  draw.arc(x, y, large ? 11 : 7, 0, 7);
  draw.fillStyle = hit.review === "confirmed" ? colour : colours.card;
  draw.fill();
  draw.lineWidth = large ? 4 : 2.5;
  draw.stroke();
}

function paintScale(width, height) {
  const length = nice(70 / metre_px()), px = length * metre_px();
  const text = metres(length);
  draw.font = "600 14px system-ui, sans-serif";
  draw.fillStyle = colours.card;
  draw.fillRect(12, height - 50, Math.max(px, draw.measureText(text).width) + 24, 38);
  draw.fillStyle = draw.strokeStyle = colours.text;
  draw.textAlign = "left";
  draw.fillText(text, 24, height - 30);
  draw.lineWidth = 3;
  draw.beginPath();
  draw.moveTo(24, height - 26); draw.lineTo(24, height - 20); draw.lineTo(24 + px, height - 20); draw.lineTo(24 + px, height - 26);
  draw.stroke();
  draw.fillStyle = colours.card;
  draw.fillRect(12, 12, 40, 52);
  draw.fillStyle = colours.text;
  draw.beginPath();
  draw.moveTo(32, 17); draw.lineTo(40, 38); draw.lineTo(32, 33); draw.lineTo(24, 38);
  draw.fill();
  draw.textAlign = "center";
  draw.fillText("N", 32, 57);
  if (tiled && box.dataset.credit) {
    draw.textAlign = "right";
    draw.font = "12px system-ui, sans-serif";
    draw.fillText(box.dataset.credit, width - 8, height - 8);
  }
}

const cache = new Map(); // "zoom/column/row" -> Image; false: there is none
function paintTiles(width, height) {
  const zoom = Math.max(tiled.low, Math.min(tiled.high, Math.round(at.zoom)));
  const count = 2 ** zoom, px = world_px() / count;
  const [left, top] = to_px(0, 0);
  if (px < 32) return; // hundreds of tiles would be asked for
  for (let column = Math.max(0, Math.floor(-left / px)); column < count && left + column * px < width; column++) {
    for (let row = Math.max(0, Math.floor(-top / px)); row < count && top + row * px < height; row++) {
      const image = tile(`${zoom}/${column}/${row}`);
      if (image?.complete && image.naturalWidth) draw.drawImage(image, left + column * px, top + row * px, px + 0.5, px + 0.5);
    }
  }
}

function tile(name) {
  if (!cache.has(name)) {
    if (cache.size > 500) cache.delete(cache.keys().next().value);
    const image = new Image();
    image.addEventListener("load", paint);
    image.src = `/map/tiles/${name}`;
    cache.set(name, image);
  }
  return cache.get(name);
}

// ---- the list, which is the map for whoever cannot see it

function listed(hit) {
  const row = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.dataset.id = hit.id;
  const time = document.createElement("time");
  time.dateTime = new Date(1000 * hit.best_s).toISOString();
  time.title = time.dateTime.replace("T", " ").replace(/\..*/, " UTC");
  const [title, where] = [document.createElement("b"), document.createElement("span")];
  title.textContent = hit.query;
  where.textContent = `${hit.latitude_deg.toFixed(5)}, ${hit.longitude_deg.toFixed(5)} ± ${hit.error_m.toFixed(0)} m`;
  button.append(title, document.createElement("br"), time, document.createElement("br"), where);
  row.append(button);
  localise(row);
  return row;
}

function fill() {
  list.replaceChildren(...hits.slice(0, MAX_LISTED).map(listed));
  choose(chosen, false);
}

function choose(id, move = true) {
  chosen = id;
  const hit = hits.find((each) => each.id === id);
  for (const old of list.querySelectorAll(".open")) old.remove();
  if (hit && !list.querySelector(`[data-id="${id}"]`)) list.prepend(listed(hit)); // an old one, beyond those listed
  for (const button of list.querySelectorAll("button")) {
    const is = button.dataset.id === id;
    button.setAttribute("aria-pressed", is);
    if (is) {
      const link = document.createElement("a");
      link.className = "button open";
      link.href = `/hits/${id}`;
      link.textContent = "Open the hit";
      button.after(link);
      if (move) button.scrollIntoView({ block: "nearest" });
    }
  }
  if (hit && move) { at.x = hit.x; at.y = hit.y; at.zoom = Math.max(at.zoom, 15); }
  paint();
}

async function load(first = false) {
  try {
    const answer = await ask("GET", `/map/places?${new URLSearchParams([...new FormData(filters)].filter(([, value]) => value))}`);
    hits = answer.hits.map((hit) => ({ ...hit, x: x_of(hit.longitude_deg), y: y_of(hit.latitude_deg) }));
    people = answer.people.map(([latitude, longitude]) => [x_of(longitude), y_of(latitude)]);
    told.textContent = hits.length
      ? `${answer.more ? "The newest " : ""}${hits.length.toLocaleString("en")} ${hits.length === 1 ? "hit" : "hits"} with a place${hits.length > MAX_LISTED ? `; the newest ${MAX_LISTED} listed` : ""}.`
      : "No hit here has a place. Cameras whose position and direction are known give one.";
    fill();
    if (first) { showAll(); if (chosen) choose(chosen); }
    paint();
  } catch (error) {
    told.textContent = error.message;
    failed(error);
  }
}

// ---- moving

function zoom(by, x = null, y = null) {
  const [width, height] = size();
  const [dx, dy] = [(x ?? width / 2) - width / 2, (y ?? height / 2) - height / 2];
  at.x += dx / world_px(); at.y += dy / world_px();
  at.zoom = Math.max(1, Math.min(22, at.zoom + by));
  at.x -= dx / world_px(); at.y -= dy / world_px();
  paint();
}

const fingers = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
  moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  const now = [event.offsetX, event.offsetY];
  moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (other) zoom(Math.log2(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1]))), ...other);
  else { at.x -= (now[0] - before[0]) / world_px(); at.y -= (now[1] - before[1]) / world_px(); paint(); }
  fingers.set(event.pointerId, now);
});
canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
canvas.addEventListener("pointerup", (event) => {
  fingers.delete(event.pointerId);
  if (moved > 6) return;
  chooseNear(event.offsetX, event.offsetY, 24);
});

// Gives whether there was one.
function chooseNear(left, top, least) {
  let best = null;
  for (const hit of hits) {
    const [x, y] = to_px(hit.x, hit.y), far = Math.hypot(x - left, y - top);
    if (far < least) [best, least] = [hit, far];
  }
  if (!best) return false;
  const place = [at.x, at.y, at.zoom];
  choose(best.id);
  [at.x, at.y, at.zoom] = place; // what was chosen stays where it is
  return true;
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(-event.deltaY / 300, event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (way) { at.x += (way[0] * 80) / world_px(); at.y += (way[1] * 80) / world_px(); paint(); }
  else if (event.key === "+" || event.key === "=") zoom(1);
  else if (event.key === "-") zoom(-1);
  else if (event.key === "Enter") { if (chooseNear(...size().map((px) => px / 2), Infinity)) list.querySelector(".open").focus(); }
  else return;
  event.preventDefault();
});
document.querySelector(".tools").addEventListener("click", (event) => {
  const by = event.target.closest("[data-zoom]")?.dataset.zoom;
  if (by === "0") showAll();
  else if (by) zoom(Number(by));
});
list.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(button.dataset.id);
});
filters.addEventListener("change", () => load());
onKey(["0"], showAll);
addEventListener("resize", paint);
document.addEventListener("themechange", () => { readColours(); paint(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); paint(); });
readColours();
load(true);
