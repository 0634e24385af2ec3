// The status page: keeps what the daemon says, and draws the part that is asked for by the address.
import { ask, follow } from "./api.js";
import { count, h, patchChildren, plural, rate, when, words } from "./dom.js";
import { act, signIn, tell, watchlistPage } from "./forms.js";
import { keys } from "./keys.js";
import { incidentPage } from "./incident.js";
import { activity, byLanguage, incidents, meant, pipeline, watched } from "./overview.js";

const main = document.getElementById("main");
const headline = document.getElementById("headline");
const state = {
  status: null, // the newest message, with `entities` as a map
  session: null,
  stream: "connecting",
  details: new Map(), // of entities that are opened: their languages
  incident: null, // the one that is shown, with its posts
  shownRevision: "",
  sought: "", // what the person looks for among the watched names
};

const route = () => {
  const [, page, name] = decodeURI(location.hash || "#/").split("/");
  return page === "incident" && name ? { page, name: decodeURIComponent(name) } : { page: page === "watchlist" ? page : "overview" };
};
const names = () => new Map([...(state.status ? state.status.entities : [])].map(([id, entity]) => [id, entity.name]));
const list = () => state.status.order.map((id) => state.status.entities.get(id)).filter(Boolean);

// --- drawing --------------------------------------------------------------------------------------------------------

function drawHeader() {
  const { status } = state;
  const pulse = document.getElementById("pulse");
  if (!status) return;
  const open = status.incidents.filter((incident) => incident.state !== "resolved");
  const problems = status.pipeline.problems.length;
  const said = open.length ? plural(open.length, "open incident") : status.at_ms ? "All quiet" : "Nothing read yet";
  const text = problems ? `${said}, ${plural(problems, "problem")} in the pipeline` : said;
  if (headline.textContent !== text) headline.textContent = text;
  headline.className = open.length ? (open.some((i) => i.severity === "critical") ? "critical" : "warning") : problems ? "unwell" : status.at_ms ? "quiet-now" : "nothing-yet";
  document.title = open.length ? `(${open.length}) Babelwatch` : "Babelwatch";
  const lag = Object.values(status.pipeline.lag).reduce((sum, n) => sum + n, 0);
  const streams = { live: "live", lost: "connection lost, trying again", silent: "no word from the daemon", connecting: "connecting" };
  patchChildren(pulse, [
    h("span", { class: `stream ${state.stream}` }, streams[state.stream]),
    status.at_ms > 0 && h("span", { class: "wide" }, "as of ", when(status.at_ms, Date.now())),
    h("span", { class: "wide" }, `${rate(status.pipeline.documents_per_s)} documents/s`),
    lag > 0 && h("span", { class: "wide" }, `${count(lag)} behind`),
  ].filter(Boolean));
  document.body.classList.toggle("stale", state.stream !== "live");
}

function drawWho() {
  const { session } = state;
  document.body.classList.toggle("may-act", Boolean(session && session.role === "operator"));
  patchChildren(document.getElementById("who"), session && session.how !== "open"
    ? [words("bdi", {}, session.name), session.how === "session" && h("button", { type: "button", class: "plain", "data-act": "sign-out" }, "Sign out")].filter(Boolean)
    : []);
}

function draw() {
  drawHeader();
  const { status } = state;
  const { page, name } = route();
  if (!status || page === "watchlist") return;
  if (page === "incident") {
    if (state.incident && state.incident.incident.id === name) patchChildren(main, [incidentPage(state.incident, status, names())]);
    return;
  }
  const entities = list(), { sought } = state;
  patchChildren(main, [h("div", { class: "overview", "data-key": "overview" },
    h("div", { class: "first" }, incidents(status, names()).filter(Boolean)),
    h("div", { class: "second" }, watched(status, entities, state.details, sought)),
    h("div", { class: "third" }, byLanguage(entities.filter((entity) => meant(entity, sought)))),
    h("div", { class: "fourth" }, pipeline(status), activity(status, names())))]);
}

async function loadIncident() {
  const { page, name } = route();
  if (page !== "incident") return;
  const brief = state.status && state.status.incidents.find((incident) => incident.id === name);
  const revision = `${name} ${brief ? brief.revision : ""} ${state.status ? state.status.at_ms : ""}`;
  if (revision === state.shownRevision && state.incident) return;
  state.shownRevision = revision;
  try {
    const detail = await ask("GET", `/incidents/${encodeURIComponent(name)}`);
    if (route().name !== name) return;
    state.incident = detail;
    draw();
  } catch (error) {
    if (error.status === 404) patchChildren(main, [h("p", { class: "back" }, h("a", { href: "#/" }, "← Overview")), h("p", { class: "quiet" }, "This incident is no longer kept.")]);
  }
}

async function loadDetails() {
  await Promise.all([...document.querySelectorAll("details[open][data-entity]")].map(async ({ dataset: { entity } }) => {
    state.details.set(entity, await ask("GET", `/entities/${encodeURIComponent(entity)}`).catch(() => null));
  }));
}

// --- what comes in ---------------------------------------------------------------------------------------------------

async function onStatus(message) {
  const entities = new Map();
  for (const id of message.order) if (state.status && state.status.entities.has(id)) entities.set(id, state.status.entities.get(id));
  for (const entity of message.entities) entities.set(entity.id, entity);
  const older = state.status;
  state.status = { ...message, entities };
  if (!older || older.at_ms !== message.at_ms) await loadDetails();
  draw();
  loadIncident();
}

function start() {
  follow({
    onStatus,
    onState: (stream) => { if (state.stream !== stream) { state.stream = stream; drawHeader(); } },
    onSignedOut: (error) => { state.session = null; state.status = null; drawWho(); signIn(main, error.status === 401 ? "" : error.message, begin); },
  });
}

async function begin() {
  try {
    state.session = await ask("GET", "/session");
  } catch (error) {
    if (error.status === 0 || error.status >= 500) { main.replaceChildren(h("p", { class: "problem" }, error.message)); setTimeout(begin, 3000); return; }
    signIn(main, error.status === 401 ? "" : error.message, begin);
    return;
  }
  drawWho();
  main.replaceChildren(h("p", { class: "quiet loading" }, "Reading …"));
  start();
  go();
}

function go() {
  const { page } = route();
  state.shownRevision = "";
  if (page === "watchlist") watchlistPage(main, state.session && state.session.role === "operator");
  else if (page === "incident") { state.incident = null; loadIncident(); }
  else draw();
}

// --- what people do ---------------------------------------------------------------------------------------------------

window.addEventListener("hashchange", () => {
  if (!state.session) return;
  go();
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
});

document.addEventListener("toggle", async (event) => {
  const { entity } = event.target.dataset || {};
  if (!entity || !event.target.open) return;
  await loadDetails();
  draw();
}, true);

document.addEventListener("input", (event) => {
  if (event.target.id !== "find") return;
  state.sought = event.target.value;
  draw();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  const { act: kind, incident } = button.dataset;
  if (kind === "sign-out") {
    await ask("DELETE", "/session").catch((error) => tell(error.message, true));
    location.reload();
  } else if (kind === "keys") {
    keys.explain();
  } else if (kind !== "cancel") {
    act(kind, { entities: (button.dataset.entity || "").split(" "), incident }, names());
  }
});

begin();
