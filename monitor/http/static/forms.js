// What people do: sign in, act on an incident or an entity, change the watchlist.
import { ask, Refused } from "./api.js";
import { h, patchChildren, when, words } from "./dom.js";

const dialog = document.getElementById("dialog");
const toast = document.getElementById("toast");
let hiding = 0;

export function tell(text, bad = false) {
  toast.className = bad ? "bad" : "";
  toast.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => { toast.textContent = ""; }, 6000);
}

/** Ask in a dialog; calls `done` with the form's values, and stays open with the reason when that fails. Without `done` it only tells. */
export function open(title, fields, verb, done) {
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, title), fields, problem,
    h("p", { class: "act" }, h("button", { type: "submit", class: "primary" }, verb), done && h("button", { type: "button", "data-act": "cancel" }, "Cancel")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    try {
      const data = new FormData(form);
      if (done) await done(Object.fromEntries(data), data);
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

dialog.addEventListener("click", (event) => { if (event.target.closest("[data-act=cancel]") || event.target === dialog) dialog.close(); });

const note = () => h("label", {}, "Note ", h("input", { name: "note", maxlength: 500, autocomplete: "off", dir: "auto", placeholder: "for the others, may be empty" }));

const MUTES = [["1 hour", 3600], ["4 hours", 14400], ["12 hours", 43200], ["1 day", 86400], ["7 days", 604800]];

export function act(kind, { entities, incident }, names) {
  const send = async (body, said) => { await ask("POST", "/actions", { kind, ...body }); tell(said); };
  const forAll = async (chosen, body, said) => {
    for (const entity of chosen) await ask("POST", "/actions", { kind, entity, ...body });
    tell(said);
  };
  const nameOf = (entity) => words("bdi", {}, names.get(entity) || entity);
  if (kind === "acknowledge") return send({ incident }, "Noted: you are looking into it.").catch((error) => tell(error.message, true));
  if (kind === "unmute") return forAll(entities, {}, "The mute has ended.").catch((error) => tell(error.message, true));
  if (kind === "mute") {
    const several = entities.length > 1;
    return open(several ? `Mute ${entities.length} names` : ["Mute ", nameOf(entities[0])], [
      h("p", { class: "quiet" }, several
        ? "An incident of several names is silent while all of them are muted. It is still shown here."
        : "Nobody is told of it for a time; its incidents are still shown here, and told if they are of other names too."),
      several && h("fieldset", { class: "names" }, h("legend", {}, "Names"), entities.map((entity) =>
        h("label", { class: "choice" }, h("input", { type: "checkbox", name: "entity", value: entity, checked: true }), nameOf(entity)))),
      h("fieldset", {}, h("legend", {}, "For"), MUTES.map(([label, seconds], place) => h("label", { class: "choice" }, h("input", { type: "radio", name: "for_s", value: seconds, checked: place === 1 }), label))),
      note()], "Mute", (values, data) => {
        const chosen = several ? data.getAll("entity") : entities;
        if (!chosen.length) throw new Refused(0, "Choose a name at least.");
        return forAll(chosen, { for_s: Number(values.for_s), note: values.note }, "Muted.");
      });
  }
  return open("Call it a false alarm", [h("p", { class: "quiet" }, "It goes to the review topic, where the detector's makers learn from it."), note()],
    "False alarm", (values) => send({ incident, note: values.note }, "Noted as a false alarm."));
}

// --- signing in ---------------------------------------------------------------------------------------------------

export function signIn(main, reason, done) {
  const problem = h("p", { class: "problem", role: "alert" }, reason);
  const form = h("form", { class: "sign-in" },
    h("h2", {}, "Sign in"),
    h("label", {}, "Token ", h("input", { name: "token", type: "password", required: true, autocomplete: "current-password", maxlength: 200, placeholder: "bw_…" })),
    problem, h("p", { class: "act" }, h("button", { type: "submit", class: "primary" }, "Sign in")),
    h("p", { class: "quiet" }, "A token comes from whoever runs this Babelwatch: ", h("code", {}, "babelwatch token NAME"), "."));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("POST", "/session", { token: form.elements.token.value.trim() });
      done();
    } catch (error) {
      problem.textContent = error.message;
      form.elements.token.select();
    }
  });
  main.replaceChildren(form);
  form.elements.token.focus();
}

// --- the watchlist ------------------------------------------------------------------------------------------------

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const pairs = (text, what) => Object.fromEntries(lines(text).map((line) => {
  const cut = line.indexOf(":");
  if (cut < 1) throw new Refused(0, `${what}: write each line as “key: value”`);
  return [line.slice(0, cut).trim(), line.slice(cut + 1).trim()];
}));
const area = (name, label, hint, value) => h("label", {}, label, " ", h("small", {}, hint), h("textarea", { name, rows: Math.min(8, Math.max(2, value.split("\n").length)), dir: "auto", spellcheck: "false" }, value));

function editEntity(entity, version, done) {
  const fresh = !entity.id;
  const shown = (list) => (list || []).join("\n");
  open(fresh ? "Watch another name" : ["Change ", words("bdi", {}, entity.name)], [
    h("label", {}, "Id ", h("input", { name: "id", required: true, pattern: "[a-z0-9][a-z0-9\\-]{0,62}", value: entity.id || "", readonly: !fresh, autocomplete: "off" })),
    h("label", {}, "Name ", h("input", { name: "name", required: true, maxlength: 200, value: entity.name || "", dir: "auto", autocomplete: "off" })),
    area("aliases", "Aliases", "a line per language, “*” for any: ar: اسم, اسم آخر", Object.entries(entity.aliases || { "*": [] }).map(([lang, names]) => `${lang}: ${names.join(", ")}`).join("\n")),
    area("exclude", "Not these", "phrases that hold an alias and mean something else, one a line", shown(entity.exclude)),
    area("context", "Only beside", "words of which one has to be there too, one a line", shown(entity.context)),
    area("labels", "Labels", "for routing: owner: desk", Object.entries(entity.labels || {}).map(([name, value]) => `${name}: ${value}`).join("\n"))],
  "Save", async (values) => {
    const aliases = Object.fromEntries(Object.entries(pairs(values.aliases, "Aliases")).map(([lang, names]) => [lang, names.split(",").map((name) => name.trim()).filter(Boolean)]));
    const id = values.id.trim();
    await ask("PUT", `/watchlist/${encodeURIComponent(id)}`, { id, name: values.name.trim(), aliases, exclude: lines(values.exclude), context: lines(values.context), labels: pairs(values.labels, "Labels") }, { "If-Match": `"${version}"` });
    tell("The watchlist has changed.");
    done();
  });
}

export async function watchlistPage(main, canAct) {
  let list;
  const again = () => watchlistPage(main, canAct);
  try {
    list = await ask("GET", "/watchlist");
  } catch (error) {
    patchChildren(main, [h("p", { class: "problem" }, error.message)]);
    return;
  }
  const may = canAct && list.writable;
  const edits = new Map(list.edits.filter((edit) => !edit.overtaken).map((edit) => [edit.entity, edit]));
  const byWhom = (edit) => [words("bdi", {}, edit.who), ", ", when(edit.at_ms, Date.now())];
  const back = (edit, label) => may && h("button", { type: "button", "data-back": edit.entity }, label);
  const aside = (title, found, label) => found.length > 0 && [h("h3", {}, title), h("ul", { class: "rows entries" }, found.map((edit) =>
    h("li", { "data-key": `${title} ${edit.entity}` }, h("div", {}, h("code", {}, edit.entity), " ", h("small", {}, byWhom(edit))), h("p", { class: "act" }, back(edit, label)))))];
  const page = h("article", { class: "watchlist" },
    h("p", { class: "back" }, h("a", { href: "#/" }, "← Overview")),
    h("h2", { tabindex: -1, id: "watchlist-title" }, "Watchlist"),
    h("p", { class: "quiet" },
      !list.writable ? "The file cannot be written from here: change it where it is kept."
        : list.in_file ? "A change is made in the watchlist file."
          : "A change is kept in Kafka and reaches every process; the watchlist file stays as it is. Where an entry of the file is changed later, the file has the last word.",
      " Version ", h("code", {}, list.version), ", ", h("a", { href: "api/v1/watchlist.toml", download: "watchlist.toml" }, "as a file"), "."),
    may && h("p", { class: "act" }, h("button", { type: "button", class: "primary", "data-edit": "" }, "Watch another name")),
    h("ul", { class: "rows entries" }, list.entities.map((entity) => h("li", { "data-key": entity.id },
      h("div", {}, words("strong", {}, entity.name), " ", h("code", {}, entity.id),
        edits.has(entity.id) && [" ", h("span", { class: "chip" }, "changed here by ", byWhom(edits.get(entity.id)))],
        h("p", { class: "names" }, [...new Set(Object.values(entity.aliases).flat())].map((name) => words("bdi", { class: "chip" }, name)))),
      may && h("p", { class: "act" },
        edits.has(entity.id) && back(edits.get(entity.id), "Undo"),
        h("button", { type: "button", "data-edit": entity.id }, "Change"),
        h("button", { type: "button", "data-drop": entity.id }, "Remove"))))),
    aside("Removed here", list.edits.filter((edit) => edit.removed && !edit.overtaken), "Watch again"),
    aside("Changed here, and in the file since: the file holds", list.edits.filter((edit) => edit.overtaken), "Forget it"));
  page.addEventListener("click", async (event) => {
    const undo = event.target.closest("[data-back]");
    if (undo) {
      await ask("DELETE", `/watchlist/${encodeURIComponent(undo.dataset.back)}/edit`, undefined, { "If-Match": `"${list.version}"` })
        .then(() => tell("It is as the file has it."), (error) => tell(error.message, true));
      again();
    }
    const edit = event.target.closest("[data-edit]"), drop = event.target.closest("[data-drop]");
    if (edit) editEntity(list.entities.find((entity) => entity.id === edit.dataset.edit) || {}, list.version, again);
    if (drop) {
      const entity = list.entities.find((item) => item.id === drop.dataset.drop);
      open(["Watch ", words("bdi", {}, entity.name), " no longer"], h("p", {}, "Its baselines and open incidents are forgotten."), "Remove", async () => {
        await ask("DELETE", `/watchlist/${encodeURIComponent(entity.id)}`, undefined, { "If-Match": `"${list.version}"` });
        tell("Removed from the watchlist.");
        again();
      });
    }
  });
  main.replaceChildren(page);
}
