// Puts the parts together: the link to the server, the state, and which page is shown.

import { $, mark, say } from "/dom.js";
import { hasKey, listen, takeKey } from "/feed.js";
import { Overview } from "/overview.js";
import { RunPage } from "/run.js";

const state = { site: null, session: null, scan: null, runs: null, slices: null };
const overview = new Overview();
const page = new RunPage();
let isOpen = false;

function route() {
  // Other fragments, as that of the skip link, are places on the page.
  if (location.hash && !location.hash.startsWith("#/")) return;
  const [, kind, uid] = location.hash.split("/");
  const isRun = kind === "run" && Boolean(uid);
  $("gate").hidden = isOpen || hasKey();
  $("overview").hidden = isRun || !hasKey();
  $("page").hidden = !isRun || !hasKey();
  if (!isOpen) return;
  if (isRun && uid !== page.uid) { scrollTo(0, 0); page.open(uid); }
  if (!isRun) { page.uid = ""; overview.show(state); }
}

function tell(sections) {
  Object.assign(state, sections);
  if ("site" in sections) {
    say($("instrument"), state.site.instrument || state.site.beamline);
    say($("beamline"), state.site.beamline);
  }
  if ("session" in sections) {
    const { session } = state;
    say($("session-is"), session ? "Session" : "No session");
    say($("session-name"), session ? `: ${session.profile}` : "");
    mark($("session"), session ? (session.health ? "good" : "bad") : "idle");
  }
  if ("runs" in sections) overview.refresh();
  if (page.uid && ("runs" in sections || state.scan?.uid === page.uid)) page.refresh();
  if (!page.uid) overview.show(state);
}

function link(how) {
  isOpen = how === "open";
  say($("link"), { open: "Connected", lost: "Reconnecting", refused: "No key" }[how]);
  mark($("link"), { open: "good", lost: "wait", refused: "bad" }[how]);
  if (how === "refused") say($("gate-why"), "The key was refused. Open the link that apsber dashboard prints.");
  route();
}

function begin() {
  if (!hasKey()) { link("refused"); say($("gate-why"), "Open the link that apsber dashboard prints, or paste it here."); return; }
  route();
  listen(tell, link);
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (takeKey($("gate-key").value)) { $("gate-key").value = ""; begin(); } else say($("gate-why"), "That is no key.");
});
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) location.reload();
  else route();
});
begin();
