// The first screen: what is out of the ordinary, what is watched, in which languages, and how the daemon does.
import { count, h, language, percent, plural, rate, span, when, words } from "./dom.js";
import { spark } from "./charts.js";

export const severityOf = (incident) => (incident.state === "resolved" ? "resolved" : incident.severity);
const STATES = { firing: "open", escalated: "open", resolved: "over" };
export const stateOf = (incident) => STATES[incident.state] || incident.state;

export const signed = (mean) => `${mean < 0 ? "−" : "+"}${Math.abs(mean).toFixed(2)}`;

export function figure(incident) {
  if (incident.unit === "share") return [percent(incident.observed), `negative, usually ${percent(incident.expected)}`];
  if (incident.unit === "topic") return [percent(incident.observed), `about ${incident.topic || "one topic"}, usually ${percent(incident.expected)}`];
  if (incident.unit === "mean") return [signed(incident.observed), `mood, usually ${signed(incident.expected)}`];
  const times = incident.expected > 0 ? `${rate(incident.observed / incident.expected)}×` : count(incident.observed);
  return [times, incident.signal === "volume" ? "the usual posts" : "the usual negative posts"];
}

export const chips = (incident) => [
  incident.acknowledged_by && h("span", { class: "chip" }, "seen by ", words("bdi", {}, incident.acknowledged_by)),
  incident.false_alarm_by && h("span", { class: "chip" }, "false alarm, says ", words("bdi", {}, incident.false_alarm_by)),
];

/** Whose incident it is: one name, those with one story, or the number of many. */
export function title(incident, names) {
  if (incident.kind === "common") return `${plural(incident.entities.length, "name")} at once`;
  if (incident.entities.length < 2) return incident.entity_name;
  const shown = incident.entities.slice(0, 3).map((entity) => names.get(entity) || entity);
  return `${shown.join(", ")}${incident.entities.length > 3 ? ` and ${count(incident.entities.length - 3)} more` : ""}`;
}

function incidentCard(incident, atMs, names) {
  const [large, small] = figure(incident);
  return h("li", { class: `incident ${severityOf(incident)}`, "data-key": incident.id },
    h("a", { href: `#/incident/${encodeURIComponent(incident.id)}` },
      h("span", { class: "severity" }, incident.severity),
      words("strong", { class: "entity" }, title(incident, names)),
      h("span", { class: "figure" }, h("b", {}, large), " ", small),
      h("span", { class: "facts" }, "for ", span(atMs - incident.onset_ms), ", since ", when(incident.onset_ms, atMs), " · ", plural(incident.documents, "post"),
        " · ", incident.languages.map(language).join(", ") || "all languages")),
    h("p", { class: "chips" }, chips(incident)));
}

function pastRow(incident, atMs, names) {
  const [large, small] = figure(incident);
  return h("li", { class: `past ${severityOf(incident)}`, "data-key": incident.id },
    h("a", { href: `#/incident/${encodeURIComponent(incident.id)}` },
      h("span", { class: "at" }, when(incident.onset_ms, atMs)),
      words("span", { class: "entity" }, title(incident, names)),
      h("span", { class: "figure" }, large, " ", small),
      h("span", { class: "facts" }, incident.merged_into ? "part of a wider one" : ["lasted ", span((incident.ended_ms || atMs) - incident.onset_ms)])),
    incident.false_alarm_by && h("span", { class: "chip" }, "false alarm"));
}

export function incidents(status, names) {
  const open = status.incidents.filter((incident) => incident.state !== "resolved");
  const past = status.incidents.filter((incident) => incident.state === "resolved");
  return [
    h("section", { class: "now", "aria-labelledby": "now-title" },
      h("h2", { id: "now-title" }, "Out of the ordinary"),
      open.length
        ? h("ul", { class: "cards" }, open.map((incident) => incidentCard(incident, status.at_ms, names)))
        : h("div", { class: "calm" }, status.at_ms ? "Nothing is out of the ordinary." : ["Nothing has been read yet.",
          h("p", { class: "quiet" }, "Once documents that name what is watched are on the documents topic, each name shows its share and volume within minutes. An alert needs to know what is usual first.")])),
    past.length > 0 && h("section", { class: "before", "aria-labelledby": "before-title" },
      h("h2", { id: "before-title" }, "Before"),
      h("ul", { class: "rows" }, past.slice(0, 12).map((incident) => pastRow(incident, status.at_ms, names)))),
  ];
}

// How far a share is from what is usual, as a class: colour is never the only sign, the numbers stand beside it.
const heat = (now) => {
  if (now.share === null || now.documents < 5) return "few";
  const over = (now.low ?? 0) - (now.expected ?? now.share);
  return over > 0.2 ? "hot" : over > 0.05 ? "warm" : "normal";
};

/** Whether a name is meant by what someone looks for: in its name, its id or its labels. */
export function meant(entity, sought) {
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const words = fold(sought).split(/\s+/).filter(Boolean);
  const text = fold([entity.name, entity.id, ...Object.values(entity.labels)].join(" "));
  return words.every((word) => text.includes(word));
}

const reading = (now) => [
  h("b", {}, percent(now.share)),
  h("small", {}, now.expected === null ? " " : `usually ${percent(now.expected)}`),
];

function entityRow(entity, status, detail) {
  const open = entity.incidents.length > 0;
  const muted = entity.muted_until_ms > Date.now();
  const lines = detail ? detail.languages : [];
  return h("li", { class: `entity${open ? " open" : ""}`, "data-key": entity.id },
    h("details", { "data-entity": entity.id, "data-key": `details ${entity.id}` },
      h("summary", {},
        h("span", { class: "title" },
          h("span", { class: "named" },
            open && h("span", { class: "dot", title: "an incident is open" }, h("span", { class: "hidden" }, "open incident:")),
            words("strong", {}, entity.name)),
          muted && h("span", { class: "chip" }, "muted until ", when(entity.muted_until_ms, Date.now()))),
        spark(entity.spark, entity.now, status.spark_s),
        h("span", { class: `reading ${heat(entity.now)}` }, reading(entity.now)),
        h("span", { class: "volume-now" }, h("b", {}, count(entity.now.documents)), h("small", {}, "posts/h"))),
      h("div", { class: "inner" },
        lines.length
          ? h("ul", { class: "languages" }, lines.map((line) => h("li", { "data-key": line.now.lang },
            h("span", { class: "title" }, language(line.now.lang)), spark(line.spark, line.now, status.spark_s),
            h("span", { class: `reading ${heat(line.now)}` }, reading(line.now)),
            h("span", { class: "volume-now" }, h("b", {}, count(line.now.documents)), h("small", {}, "posts/h")))))
          : h("p", { class: "quiet" }, detail ? "Nothing was said of it in the last hours." : "…"),
        h("p", { class: "act operator" },
          muted
            ? h("button", { type: "button", "data-act": "unmute", "data-entity": entity.id }, "End the mute")
            : h("button", { type: "button", "data-act": "mute", "data-entity": entity.id }, "Mute …")))));
}

const FIND_FROM = 9; // names that the eye takes in without help

export function watched(status, entities, details, sought) {
  const shown = entities.filter((entity) => meant(entity, sought));
  // What is in alarm comes first; the rest stays where the watchlist has it, so that an eye that knows the place finds it.
  const ordered = [...shown.filter((entity) => entity.incidents.length), ...shown.filter((entity) => !entity.incidents.length)];
  return h("section", { class: "watched", "aria-labelledby": "watched-title" },
    h("h2", { id: "watched-title" }, "Watched", h("small", {}, "negative share, last hour and six hours")),
    entities.length >= FIND_FROM && h("p", { class: "find", "data-key": "find" },
      h("input", { id: "find", type: "search", "aria-label": "Find a name", placeholder: `Find among ${plural(entities.length, "name")}`, autocomplete: "off", dir: "auto" })),
    ordered.length
      ? h("ul", { class: "entities" }, ordered.map((entity) => entityRow(entity, status, details.get(entity.id))))
      : h("p", { class: "calm small" }, sought ? "No watched name is like that." : "Nothing is watched."),
    h("p", { class: "act operator" }, h("a", { href: "#/watchlist" }, "Change the watchlist")));
}

const MOST_LANGUAGES = 24, MOST_ROWS = 40;

export function byLanguage(entities) {
  const volume = new Map();
  for (const entity of entities) for (const now of entity.languages) volume.set(now.lang, (volume.get(now.lang) || 0) + now.documents);
  const shown = [...volume].filter(([, documents]) => documents > 0).sort((a, b) => b[1] - a[1]).slice(0, MOST_LANGUAGES).map(([lang]) => lang);
  if (!shown.length) return null;
  const loud = entities.filter((entity) => entity.now.documents > 0).sort((a, b) => b.now.documents - a.now.documents).slice(0, MOST_ROWS);
  const rows = entities.filter((entity) => loud.includes(entity)), more = entities.filter((entity) => entity.now.documents > 0).length - rows.length;
  const cell = (now, entity) => {
    if (!now || now.documents === 0) return h("td", { class: "none" }, h("span", { class: "hidden" }, "no posts"));
    const title = `${entity.name}, ${language(now.lang)}: ${percent(now.share)} negative of ${plural(now.documents, "post")}${now.expected === null ? "" : `, usually ${percent(now.expected)}`}`;
    return h("td", { class: heat(now), title }, h("b", {}, percent(now.share)), h("small", {}, count(now.documents)));
  };
  return h("section", { class: "by-language", "aria-labelledby": "language-title" },
    h("h2", { id: "language-title" }, "By language", h("small", {}, "negative share and posts of the last hour; tinted where it is above the usual",
      more > 0 && `; the ${count(rows.length)} names with the most posts`)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "language-title" },
      h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Entity")), shown.map((lang) => h("th", { scope: "col", title: language(lang) }, h("abbr", { title: language(lang) }, lang))))),
        h("tbody", {}, rows.map((entity) => h("tr", { "data-key": entity.id },
          h("th", { scope: "row" }, words("bdi", {}, entity.name)),
          shown.map((lang) => cell(entity.languages.find((now) => now.lang === lang), entity))))))));
}

const AMOUNTS = [
  ["lag", (pulse) => Object.values(pulse.lag || {}).reduce((sum, n) => sum + n, 0), count],
  ["docs/s", (pulse) => pulse.documents_per_s || 0, rate],
  ["queue", (pulse) => pulse.queue || 0, count],
  ["model", (pulse) => pulse.model_s || 0, (s) => (s ? `${rate(s * 1000)} ms` : "–")],
  ["restore", (pulse) => pulse.restore_s || 0, (s) => (s ? `${rate(s)} s` : "–")],
  ["refused", (pulse) => pulse.refused || 0, count],
  ["up", (pulse) => pulse.up_s || 0, (s) => (s < 7200 ? span(s * 1000) : s < 172_800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} days`)],
];

export function pipeline(status) {
  const { processes, problems } = status.pipeline;
  const state = ({ pulse, alive, silent_s: silent }) => (!alive ? `silent for ${span(silent * 1000)}` : pulse.ready ? "works" : pulse.waiting || "starting");
  return h("section", { class: "pipeline", "aria-labelledby": "pipeline-title" },
    h("h2", { id: "pipeline-title" }, "Pipeline"),
    problems.length ? h("ul", { class: "problems" }, problems.map((problem) => h("li", {}, words("bdi", {}, problem))))
      : h("p", { class: "calm small" }, processes.length ? "All processes are well." : "No process has told of itself yet."),
    processes.length > 0 && h("ul", { class: "processes" }, processes.map((process) => h("li", { class: process.alive && process.pulse.ready ? "" : "unwell", "data-key": process.pulse.instance },
      h("p", { class: "title" }, h("span", {}, h("strong", {}, process.pulse.role), " ", h("span", { class: "state" }, state(process))),
        words("small", { title: `version ${process.pulse.version}, model ${process.pulse.bundle}` }, process.pulse.instance)),
      h("dl", {}, AMOUNTS.map(([name, of, shown]) => h("div", {}, h("dt", {}, name), h("dd", {}, shown(of(process.pulse))))))))));
}

const DONE = { acknowledge: "is looking into", mute: "muted", unmute: "ended the mute of", false_alarm: "called a false alarm:", watchlist: "changed the watchlist:", erase: "erased posts" };

export function actionLine(action, names) {
  const what = action.kind === "watchlist" ? (action.changes || []).join(", ") : names.get(action.entity) || action.entity || "";
  return [words("strong", {}, action.who), ` ${DONE[action.kind] || action.kind} `,
    action.incident ? h("a", { href: `#/incident/${encodeURIComponent(action.incident)}`, dir: "auto" }, what) : words("bdi", {}, what),
    action.kind === "mute" && [" until ", when(action.until_ms, Date.now())],
    action.note && [": ", words("q", {}, action.note)]];
}

export function activity(status, names) {
  if (!status.actions.length) return null;
  return h("section", { class: "activity", "aria-labelledby": "activity-title" },
    h("h2", { id: "activity-title" }, "What people did"),
    h("ul", { class: "rows" }, status.actions.slice(0, 10).map((action) => h("li", { "data-key": action.id }, h("span", { class: "at" }, when(action.at_ms, Date.now())), h("span", { class: "line" }, actionLine(action, names))))));
}
