// Making and patching the document. Every string goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "line", "circle"]);

/** An element: h("a", { class: "x", href: "#/" }, "text", child, ...); null and false children are left out. */
export function h(tag, attributes, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [property, to] of Object.entries(value)) node.style.setProperty(property, to);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** Someone else's words: isolated from our sentence, in the direction of their script. */
export const words = (tag, attributes, text) => h(tag, { dir: "auto", ...attributes }, text);

const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur", "ps", "sd", "ug", "yi", "dv", "ckb", "ku", "azb"]);

/** The direction of a text whose language is known: its first letter may well be of a foreign name. */
export const direction = (lang) => (RIGHT_TO_LEFT.has(lang) ? "rtl" : "auto");

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key : undefined);

/** Make `from` like `to` with the fewest changes, so that focus, selection and opened details stay where they are. */
export function patch(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || keyOf(from) !== keyOf(to)) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== 1) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name } of [...from.attributes]) {
    // What a person opened stays open; the policy forbids style attributes, and CSSOM sets them below.
    if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS") && name !== "style") from.removeAttribute(name);
  }
  for (const { name, value } of [...to.attributes]) {
    if (name !== "style" && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  if (from.style.cssText !== to.style.cssText) from.style.cssText = to.style.cssText;
  patchChildren(from, [...to.childNodes]);
}

/** Make the children of `parent` like `wanted`; those with a data-key are moved rather than rewritten. */
export function patchChildren(parent, wanted) {
  const keyed = new Map([...parent.children].filter((child) => keyOf(child)).map((child) => [keyOf(child), child]));
  let place = parent.firstChild;
  for (const to of wanted) {
    const known = keyed.get(keyOf(to));
    if (known && known.nodeName === to.nodeName) {
      if (known !== place) parent.insertBefore(known, place);
      else place = place.nextSibling;
      patch(known, to);
    } else if (place && !keyOf(place) && !keyOf(to)) {
      const next = place.nextSibling;
      patch(place, to);
      place = next;
    } else {
      parent.insertBefore(to, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// --- numbers, times, languages ----------------------------------------------------------------------------------

const locale = navigator.language || "en";
const percents = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
const counts = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const rates = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
const clocks = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const names = new Intl.DisplayNames([locale, "en"], { type: "language", fallback: "code" });

export const percent = (share) => (share === null || share === undefined ? "–" : percents.format(share));
export const count = (number) => counts.format(number);
export const rate = (number) => rates.format(number);

export function language(code) {
  if (code === "*") return "all languages";
  if (code === "und") return "unknown";
  try {
    return names.of(code) || code;
  } catch {
    return code;
  }
}

/** A point in time in the reader's zone, with UTC on hover. */
export function when(ms, nowMs) {
  const date = new Date(ms);
  const near = Math.abs(nowMs - ms) < 18 * 3600_000 && new Date(nowMs).getDate() === date.getDate();
  const utc = `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
  return h("time", { datetime: date.toISOString(), title: utc }, (near ? clocks : days).format(date));
}

export function span(ms) {
  const minutes = Math.max(0, Math.round(ms / 60_000));
  if (minutes < 1) return "less than a minute";
  if (minutes < 120) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${Math.round(minutes / 1440)} days`;
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
