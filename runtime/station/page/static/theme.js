// Before anything is painted, or a dark page would flash in white. Loaded by itself, for no script may stand in a page.
const chosen = localStorage.getItem("theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
