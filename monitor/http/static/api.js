// Talking to the daemon: requests, sessions, and the stream of events.

const BASE = "api/v1";

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function ask(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(`${BASE}${path}`, {
      method, headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin",
    });
  } catch {
    throw new Refused(0, "The connection is gone.");
  }
  if (answer.status === 204) return null;
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.error || `the daemon said ${answer.status}`);
  return found;
}

const SILENT_MS = 35_000; // the daemon speaks every ten seconds, whatever happens

/** Follow the status; calls back with each message, and with whether the stream is up. */
export function follow({ onStatus, onState, onSignedOut }) {
  let source = null, watchdog = 0, again = 0;
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => { onState("silent"); open(); }, SILENT_MS);
  };
  async function broken() {
    onState("lost");
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    clearTimeout(again);
    try {
      await ask("GET", "/session");
    } catch (error) {
      if (error.status === 401 || error.status === 403) { close(); onSignedOut(error); return; }
    }
    again = setTimeout(open, 3000);
  }
  function close() {
    clearTimeout(watchdog);
    clearTimeout(again);
    if (source) source.close();
  }
  function open() {
    close();
    source = new EventSource(`${BASE}/events`);
    source.addEventListener("status", (event) => { alive(); onState("live"); onStatus(JSON.parse(event.data)); });
    source.onerror = broken;
    alive();
  }
  // A phone that slept wakes with a dead connection that looks alive.
  document.addEventListener("visibilitychange", () => { if (!document.hidden && source && source.readyState === EventSource.CLOSED) open(); });
  open();
  return close;
}
