// The status page: draws what /api/v1/events sends. Every string goes in as text, never as markup.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);
const clock = (ms) => (ms ? `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC` : "");

const GROUPS = 48; // points of a sparkline: what is legible at 400 px

function spark(points) {
  const picture = svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (points.length < 2) return picture;
  const first = points[0][0], span = Math.max(1, points.at(-1)[0] - first + 1);
  const cells = Array.from({ length: GROUPS }, () => [0, 0]);
  for (const [at, documents, negatives] of points) {
    const cell = cells[Math.min(GROUPS - 1, Math.floor(((at - first) / span) * GROUPS))];
    cell[0] += documents;
    cell[1] += negatives;
  }
  const most = Math.max(...cells.map((cell) => cell[0]), 1), width = 100 / GROUPS;
  cells.forEach(([documents], place) => {
    const height = (documents / most) * 30;
    picture.append(svg("rect", { class: "volume", x: place * width, y: 30 - height, width, height }));
  });
  const line = cells.map(([documents, negatives], place) => (documents ? `${(place + 0.5) * width},${30 - (negatives / documents) * 30}` : null));
  picture.append(svg("polyline", { class: "share", points: line.filter(Boolean).join(" ") }));
  return picture;
}

function row(lang, series, alarm) {
  const recent = series.points.slice(-60);
  const documents = recent.reduce((sum, point) => sum + point[1], 0);
  const negatives = recent.reduce((sum, point) => sum + point[2], 0);
  const share = documents ? negatives / documents : null;
  const node = make("div", { class: `row${lang === "*" ? " all" : ""}${alarm ? " alarm" : ""}` });
  node.append(make("span", {}, lang === "*" ? "all" : lang), spark(series.points),
    make("span", { class: "value", title: "negative share (expected), posts in the last hour of buckets" },
      `${percent(share)} (${percent(series.expected)}) · ${documents}`));
  return node;
}

function entity(item, opened) {
  const card = make("article", { class: `entity${item.open.length ? " firing" : ""}` });
  const { "*": all, ...languages } = item.series;
  const details = make("details", { "data-key": `entity ${item.id}` }, make("summary", {}, `${Object.keys(languages).length} languages`));
  if (opened.has(`entity ${item.id}`)) details.open = true;
  for (const [lang, series] of Object.entries(languages)) details.append(row(lang, series, false));
  card.append(make("h3", { dir: "auto" }, item.name), row("*", all, item.open.length > 0), details);
  return card;
}

function incident(item, opened) {
  const resolved = item.state === "resolved";
  const card = make("article", { class: `${resolved ? "resolved" : "firing"} ${item.severity}`, id: item.incident });
  card.append(
    make("div", { class: "state" }, `${item.state} · ${item.severity} · since ${clock(item.onset_ms)}${resolved ? ` · over ${clock(item.ended_ms)}` : ""}`),
    make("h3", { dir: "auto" }, item.summary));
  const shares = (name, list) => (list && list.length ? `${name}: ${list.map((s) => `${s.name} ${percent(s.share)}`).join(", ")}` : "");
  const facts = [shares("Languages", item.evidence.languages), shares("Sources", item.evidence.sources), shares("Topics", item.evidence.topics)];
  for (const fact of facts.filter(Boolean)) card.append(make("p", { class: "facts", dir: "auto" }, fact));
  if (item.evidence.terms) card.append(make("p", { class: "terms" }, ...item.evidence.terms.map((term) => make("span", { dir: "auto" }, term))));
  const key = `incident ${item.incident}`;
  const details = make("details", { "data-key": key }, make("summary", {}, `${(item.evidence.posts || []).length} posts, ${item.steps.length} steps`));
  if (opened.has(key)) details.open = true;
  const posts = make("ul", { class: "posts" });
  for (const post of item.evidence.posts || []) {
    const meta = make("div", { class: "meta" }, `${post.lang} · ${clock(post.published_ms)}${post.copies > 1 ? ` · ×${post.copies}` : ""} · ${post.source || ""} `);
    if (/^https?:\/\//.test(post.url || "")) meta.append(make("a", { href: post.url, rel: "noopener noreferrer", target: "_blank" }, "open"));
    posts.append(make("li", {}, make("div", { dir: "auto", lang: post.lang }, post.text), meta));
  }
  const steps = make("ul", { class: "posts" });
  for (const step of item.steps) steps.append(make("li", { class: "meta" }, `${clock(step.at_ms)} · ${step.state} · ${step.severity}`));
  details.append(posts, steps);
  card.append(details);
  return card;
}

function draw(status) {
  const opened = new Set([...document.querySelectorAll("details[open]")].map((node) => node.dataset.key));
  const focused = document.activeElement?.closest("details")?.dataset.key;
  const flow = status.pipeline;
  document.getElementById("pipeline").textContent =
    Object.entries(flow).map(([name, value]) => `${name} ${value}`).join(" · ") || "running";
  const incidents = document.getElementById("incidents");
  if (status.incidents.length) incidents.replaceChildren(...status.incidents.map((item) => incident(item, opened)));
  document.getElementById("entities").replaceChildren(...status.entities.map((item) => entity(item, opened)));
  if (focused) document.querySelector(`details[data-key="${CSS.escape(focused)}"] summary`)?.focus();
  const open = status.incidents.filter((item) => item.state !== "resolved").length;
  document.title = open ? `(${open}) Babelwatch` : "Babelwatch";
}

const source = new EventSource("api/v1/events");
source.onmessage = (event) => draw(JSON.parse(event.data));
source.onerror = () => { document.getElementById("pipeline").textContent = "connection lost, trying again …"; };
