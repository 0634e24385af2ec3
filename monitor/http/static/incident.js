// One incident on a page of its own: what, since when, where, who says so, what was done.
import { count, direction, h, language, percent, plural, rate, span, when, words } from "./dom.js";
import { bar, course } from "./charts.js";
import { actionLine, chips, figure, severityOf, signed, stateOf, title } from "./overview.js";

const SAFE = /^https?:\/\//i;

function post(item, atMs) {
  return h("li", { class: "post", "data-key": item.document_id },
    h("blockquote", { dir: direction(item.lang), lang: item.lang === "und" ? null : item.lang }, item.text),
    h("p", { class: "meta" }, language(item.lang), " · ", when(item.published_ms, atMs),
      item.source && [" · ", words("bdi", {}, item.source)],
      item.copies > 1 && [" · ", h("span", { class: "copies" }, `${count(item.copies)} posts much like it`)],
      SAFE.test(item.url || "") && [" · ", h("a", { href: item.url, rel: "noopener noreferrer", target: "_blank" }, "open the source")]));
}

const shares = (title, list, name = (item) => item.name) => list && list.length > 0 && h("section", { class: "shares" },
  h("h3", {}, title), h("ul", {}, list.map((item) => bar(name(item), item.share, count(item.count)))));

const TOLD = { firing: "Raised", escalated: "Grew", resolved: "Back to normal" };

function timeline(detail, names, atMs) {
  const { incident } = detail;
  const events = [
    { at: incident.onset_ms, order: 0, node: h("span", {}, h("b", {}, "Began"), " (estimated)"), kind: "began" },
    ...detail.steps.map((step) => ({ at: step.at_ms, order: 1, kind: step.state === "resolved" ? "resolved" : step.severity,
      node: h("span", {}, h("b", {}, TOLD[step.state] || step.state), step.state === "resolved" ? "" : `, ${step.severity}, in ${step.languages.map(language).join(", ") || "all languages"}`) })),
  ].sort((a, b) => a.at - b.at || a.order - b.order);
  const done = detail.actions.map((action) => h("li", { class: "did", "data-key": action.id }, h("span", { class: "at" }, when(action.at_ms, Date.now())), h("span", { class: "line" }, actionLine(action, names))));
  return h("section", { class: "timeline", "aria-labelledby": "timeline-title" },
    h("h3", { id: "timeline-title" }, "Time line"),
    h("ol", {}, events.map((event) => h("li", { class: event.kind }, h("span", { class: "at" }, when(event.at, atMs)), event.node))),
    done.length > 0 && [h("h3", {}, "What people did"), h("ul", { class: "rows" }, done)]);
}

export function incidentPage(detail, status, names) {
  const { incident, evidence } = detail;
  const atMs = status.at_ms;
  const [large, small] = figure(incident);
  const over = incident.state === "resolved";
  // An incident of several names is silent while all of them are muted.
  const own = incident.entities.length ? incident.entities : [incident.entity];
  const until = own.map((entity) => status.entities.get(entity)?.muted_until_ms ?? 0).filter((ms) => ms > Date.now());
  const muted = until.length === own.length;
  const told = { share: percent, topic: percent, mean: signed }[evidence.unit] || rate;
  const interval = `${told(evidence.low)} to ${told(evidence.high)}${evidence.unit === "documents/h" ? " an hour" : ""}`;
  const facts = [
    [over ? "lasted" : "for", span((over ? incident.ended_ms : atMs) - incident.onset_ms)],
    ["95 % interval", interval],
    ["posts", count(evidence.documents)],
    [evidence.topic ? `of them about ${evidence.topic}` : "of them negative", count(evidence.negatives)],
    typeof evidence.one_event === "number" && ["one event", percent(evidence.one_event)],
    ["voices", evidence.authors ? `${count(evidence.authors)}+` : "–"],
    ["reposts", count(evidence.reposts || 0)],
    ["reach", count(evidence.reach || 0)],
  ].filter(Boolean);
  const posts = evidence.posts || [];
  return h("article", { class: `detail ${severityOf(incident)}`, "data-key": `incident ${incident.id}` },
    h("p", { class: "back" }, h("a", { href: "#/" }, "← Overview")),
    h("header", { class: "top" },
      h("p", { class: "severity" }, over ? "over" : `${incident.severity} · ${stateOf(incident)}`, " · ", when(incident.onset_ms, atMs)),
      words("h2", { tabindex: -1, id: "incident-title" }, title(incident, names)),
      incident.kind === "common" && h("p", { class: "quiet" }, "So many names rarely turn at once by themselves: look at the sources and at the classifier first."),
      incident.entities.length > 3 && words("p", { class: "quiet" }, incident.entities.map((entity) => names.get(entity) || entity).join(", ")),
      incident.merged_into && h("p", {}, "It turned out to be part of a ", h("a", { href: `#/incident/${encodeURIComponent(incident.merged_into)}` }, "wider incident"), ", told there from then on."),
      h("p", { class: "figure" }, h("b", {}, large), " ", small),
      h("p", { class: "chips" }, chips(incident), until.length > 0 && h("span", { class: "chip" },
        muted ? ["muted until ", when(Math.min(...until), Date.now())] : `${count(until.length)} of ${plural(own.length, "name")} muted, so it is told`))),
    h("p", { class: "act operator bar" },
      !incident.acknowledged_by && !over && h("button", { type: "button", class: "primary", "data-act": "acknowledge", "data-incident": incident.id }, "I am looking into it"),
      muted
        ? h("button", { type: "button", "data-act": "unmute", "data-entity": own.join(" ") }, "End the mute")
        : h("button", { type: "button", "data-act": "mute", "data-entity": own.join(" ") }, "Mute …"),
      !incident.false_alarm_by && h("button", { type: "button", "data-act": "false_alarm", "data-incident": incident.id }, "False alarm …")),
    course(detail.course, incident, atMs),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("div", { class: "columns" },
      h("div", {},
        evidence.terms && evidence.terms.length > 0 && h("section", { class: "terms" }, h("h3", {}, "What sets it apart"),
          h("ul", {}, evidence.terms.map((term) => h("li", {}, words("bdi", {}, term))))),
        h("section", { class: "posts", id: "posts" }, h("h3", {}, "Posts", h("small", {}, "chosen to cover what is said; personal data is masked")),
          posts.length ? h("ul", {}, posts.map((item) => post(item, atMs))) : h("p", { class: "quiet" }, "No posts are kept."),
          evidence.first_post && [h("h3", {}, "The first"), h("ul", {}, post({ ...evidence.first_post, document_id: `first ${evidence.first_post.document_id}` }, atMs))])),
      h("div", { class: "side" },
        timeline(detail, names, atMs),
        shares("Names", evidence.entities, (item) => names.get(item.name) || item.name),
        shares("Languages of the rise", evidence.languages, (item) => language(item.name)),
        shares("Sources", evidence.sources),
        shares("Topics", evidence.topics),
        Object.keys(detail.labels).length > 0 && h("section", { class: "labels" }, h("h3", {}, "Labels"),
          h("ul", {}, Object.entries(detail.labels).map(([name, value]) => h("li", {}, words("bdi", {}, `${name}: ${value}`))))))),
    h("p", { class: "quiet" }, plural(detail.steps.length, "alert"), " · ", h("code", {}, incident.id)));
}
