// Single keys for those who keep their hands on the keyboard; whoever dictates or types elsewhere can turn them off.
import { open } from "./forms.js";
import { h } from "./dom.js";

const STOPS = ".incident > a, .past > a, .entity summary, .processes, .post a";
const KEPT = "babelwatch-single-keys";

const LIST = [
  ["j", "the next incident or name"],
  ["k", "the one before"],
  ["/", "find a watched name"],
  ["o", "the overview"],
  ["w", "the watchlist"],
  ["?", "this help"],
];
const ALWAYS = [["Tab", "from one control to the next"], ["Enter", "open what is focused"], ["Esc", "close a dialog"]];

const rows = (list) => list.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)));
const on = () => localStorage.getItem(KEPT) !== "off";

function move(by) {
  const stops = [...document.querySelectorAll(STOPS)].filter((stop) => stop.matches("a, summary") && stop.checkVisibility());
  const at = stops.indexOf(document.activeElement);
  const next = stops[at < 0 ? (by > 0 ? 0 : stops.length - 1) : Math.min(stops.length - 1, Math.max(0, at + by))];
  if (next) next.focus();
}

function explain() {
  const single = h("input", { type: "checkbox", name: "single", checked: on() });
  single.addEventListener("change", () => localStorage.setItem(KEPT, single.checked ? "on" : "off"));
  open("Keyboard", [
    h("dl", { class: "keys" }, rows(ALWAYS), rows(LIST)),
    h("label", { class: "choice" }, single, "Single keys work")], "Close");
}

const DO = {
  j: () => move(1), k: () => move(-1), o: () => { location.hash = "#/"; }, w: () => { location.hash = "#/watchlist"; }, "?": explain,
  "/": () => { const find = document.getElementById("find"); if (find) find.focus(); },
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !on() || !Object.hasOwn(DO, event.key)) return;
  event.preventDefault();
  DO[event.key]();
});

export const keys = { explain };
