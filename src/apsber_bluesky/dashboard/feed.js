// The key, and what the server says. The key is kept for this tab alone.

const KEPT = "apsber-dashboard-key";
const SILENCE_MS = 10_000;
const PAUSES_MS = [300, 600, 1200, 2500, 5000];

let key = sessionStorage.getItem(KEPT) ?? "";

export function takeKey(text) {
  const found = /(?:#key=|^)([A-Za-z0-9_-]{16,200})$/.exec(text.trim());
  if (!found) return false;
  key = found[1];
  sessionStorage.setItem(KEPT, key);
  return true;
}

// The link's key must not stay in the address bar, where a camera or a shared screen shows it.
if (location.hash.startsWith("#key=")) {
  takeKey(location.hash);
  history.replaceState(null, "", "/#/");
}

export const hasKey = () => key !== "";

function forget() {
  key = "";
  sessionStorage.removeItem(KEPT);
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${key}` };
  const answer = await fetch(path, { headers, cache: "no-store", credentials: "omit", ...options });
  if (answer.status === 401) forget();
  return answer;
}

export async function json(path, options) {
  const answer = await ask(path, options);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `status ${answer.status}`);
  return value;
}

export async function picture(path, options) {
  const answer = await ask(path, options);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return URL.createObjectURL(await answer.blob());
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Listens for ever. Each connection begins with the whole state, so nothing is missed by one that
// was lost. `tell` gets the sections that changed; `link` gets "open", "lost" or "refused".
export async function listen(tell, link) {
  for (let tries = 0; ; tries += 1) {
    const control = new AbortController();
    let watchdog = setTimeout(() => control.abort(), SILENCE_MS);
    try {
      const answer = await ask("/api/events", { signal: control.signal });
      if (answer.status === 401) { clearTimeout(watchdog); link("refused"); return; }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => control.abort(), SILENCE_MS);
        const events = (text + value).split("\n\n");
        text = events.pop();
        if (tries || events.length) { tries = 0; link("open"); }
        for (const event of events) {
          if (event.startsWith("data: ")) tell(JSON.parse(event.slice(6)));
        }
      }
    } catch {
      // Said below: whatever it was, it is tried again.
    }
    clearTimeout(watchdog);
    link("lost");
    await pause(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
  }
}
