// The pictures: spark lines and the course of an incident, as SVG made element by element.
import { h, percent, span } from "./dom.js";

const WIDTH = 240, HEIGHT = 40;

const runs = (values) => {
  // Stretches without a gap: a line must not be drawn through hours of which nothing is known.
  const found = [];
  let run = [];
  values.forEach((value, place) => {
    if (value === null) { if (run.length) found.push(run); run = []; } else run.push([place, value]);
  });
  if (run.length) found.push(run);
  return found;
};

const PATIENCE = 12; // steps after which an old share says nothing of now

/** Quiet series have a document here and there: a share is taken over as many of the last steps as hold enough. */
function smooth(documents, share, least) {
  return share.map((_, place) => {
    let all = 0, negative = 0;
    for (let back = place; back >= 0 && place - back < PATIENCE && all < least; back -= 1) {
      all += documents[back];
      negative += documents[back] * (share[back] ?? 0);
    }
    return all ? negative / all : null;
  });
}

/** Volume as soft bars, the negative share as a line over them, what is usual as a dashed one. */
export function spark({ documents, share }, now, stepS) {
  const step = WIDTH / documents.length, most = Math.max(4, ...documents);
  const y = (value) => HEIGHT - 2 - value * (HEIGHT - 4);
  const bars = documents.map((n, place) => (n ? `M${(place * step).toFixed(1)} ${HEIGHT}v-${((n / most) * HEIGHT * 0.55).toFixed(1)}h${(step * 0.8).toFixed(1)}V${HEIGHT}z` : "")).join("");
  const lines = runs(smooth(documents, share, 8)).map((run) => run.map(([place, value], i) => `${i ? "L" : "M"}${((place + 0.5) * step).toFixed(1)} ${y(value).toFixed(1)}`).join("") + (run.length === 1 ? "h0.1" : "")).join("");
  const label = now.share === null
    ? "no posts in the last hour"
    : `negative share ${percent(now.share)} in the last hour${now.expected === null ? "" : `, usually ${percent(now.expected)}`}; the line shows ${span(documents.length * stepS * 1000)}`;
  return h("svg", { class: documents.some((n) => n) ? "spark" : "spark blank", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("path", { class: "volume", d: bars }),
    now.expected !== null && h("path", { class: "usual", d: `M0 ${y(now.expected).toFixed(1)}H${WIDTH}` }),
    h("path", { class: "share", d: lines }));
}

const GROUPS = 48;

/** How an incident came: share over time against what was usual, volume beneath, the onset marked. */
export function course(series, incident, nowMs) {
  const end = incident.ended_ms ? Math.min(nowMs, incident.ended_ms + (incident.ended_ms - incident.onset_ms) * 0.4) : nowMs;
  const points = series.points.filter((point) => point.bucket_ms < end);
  if (points.length < 2) return h("p", { class: "quiet" }, "The hours of this incident are no longer kept in detail.");
  const first = points[0].bucket_ms, width = Math.max(end - first, 1);
  const cells = Array.from({ length: GROUPS }, () => [0, 0]);
  for (const point of points) {
    const cell = cells[Math.min(GROUPS - 1, Math.floor(((point.bucket_ms - first) / width) * GROUPS))];
    cell[0] += point.documents;
    cell[1] += point.negatives;
  }
  const documents = cells.map((cell) => cell[0]);
  const share = smooth(documents, cells.map(([all, bad]) => (all ? Math.min(1, Math.max(0, bad / all)) : null)), 6);
  const top = Math.min(1, Math.max(0.4, ...share.filter((value) => value !== null), incident.unit === "share" ? incident.observed : 0) * 1.12);
  const W = 600, H = 160, V = 34, most = Math.max(4, ...documents), step = W / GROUPS;
  const y = (value) => H - (value / top) * (H - 6);
  const onset = Math.max(0, ((incident.onset_ms - first) / width) * W);
  const over = incident.ended_ms ? Math.min(W, ((incident.ended_ms - first) / width) * W) : W;
  const stretches = runs(share);
  const usual = incident.unit === "share" ? incident.expected : null;
  const path = stretches.map((run) => run.map(([place, value], i) => `${i ? "L" : "M"}${((place + 0.5) * step).toFixed(1)} ${y(value).toFixed(1)}`).join("")).join("");
  const bars = documents.map((n, place) => (n ? `M${(place * step + 1).toFixed(1)} ${H + V}v-${((n / most) * (V - 4)).toFixed(1)}h${(step - 2).toFixed(1)}V${H + V}z` : "")).join("");
  const picture = h("svg", { viewBox: `0 0 ${W} ${H + V}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Negative share from ${new Date(first).toLocaleString()} on${usual === null ? "" : `, usually ${percent(usual)}`}` },
  h("rect", { class: "during", x: onset, y: 0, width: Math.max(1, over - onset), height: H + V }),
  usual !== null && h("path", { class: "usual", d: `M0 ${y(usual).toFixed(1)}H${W}` }),
  h("path", { class: "volume", d: bars }),
  h("path", { class: "share", d: path }),
  h("path", { class: "onset", d: `M${onset.toFixed(1)} 0V${H + V}` }));
  const scale = [top, usual].filter((value) => value !== null).map((value, place) =>
    h("span", { class: "tick", style: { top: `${(y(value) / (H + V)) * 100}%` } }, place ? `usually ${percent(value)}` : `${percent(value)} negative`));
  const clock = (ms) => new Date(ms).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  const at = Math.min(82, Math.max(12, (onset / W) * 100));
  return h("figure", { class: "course" },
    h("div", { class: "picture" }, picture, scale),
    h("figcaption", {}, h("span", {}, clock(first)), h("span", { class: "onset-label", style: { left: `${at}%` } }, `began ${clock(incident.onset_ms)}`), h("span", {}, clock(end))));
}

/** A bar with a name and a part of the whole. */
export const bar = (name, part, detail) => h("li", {}, h("span", { dir: "auto", class: "name" }, name),
  h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill", style: { width: `${Math.max(1.5, part * 100).toFixed(1)}%` } })),
  h("span", { class: "part" }, percent(part), detail && h("small", {}, ` ${detail}`)));
