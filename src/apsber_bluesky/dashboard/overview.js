// The first page: the scan of now, its slices, and the list of runs.

import { Cards } from "/cards.js";
import { $, facts, fill, judged, make, mark, say, verdict } from "/dom.js";
import { json } from "/feed.js";
import { moment, number, seconds, words } from "/format.js";
import { Image } from "/images.js";

export const STATES = {
  acquiring: ["run", "\u25CF Scanning"], processing: ["run", "\u25CF Processing"],
  complete: ["pass", "\u2713 Complete"], incomplete: ["warn", "\u25B2 Incomplete"],
  aborted: ["warn", "\u25A0 Aborted"], failed: ["fail", "\u2715 Failed"],
};

export function showState(element, state, isLost = false) {
  const [kind, text] = isLost ? ["warn", "\u25A0 Interrupted"] : STATES[state] ?? ["warn", `? ${words(state)}`];
  mark(element, kind);
  say(element, text);
}

const isOver = (run) => !["acquiring", "processing"].includes(run.state);
export const scanLine = (run) => [run.scan_id ? `Scan ${run.scan_id}` : "", run.plan_name, run.proposal].filter(Boolean).join(" \u00B7 ");

// What the scan does now: words, and how much of it is done.
function activity(run) {
  if (isOver(run)) return { text: run.reason || "", done: 1, total: 1 };
  if (run.is_over) return { text: "The session ended before the run did.", done: 0, total: 0 };
  const stage = run.stages.findLast((one) => one.state === "running");
  const primary = run.streams.find((one) => one.name === "primary");
  if (run.stream && run.stream !== "primary") {
    const own = run.streams.find((one) => one.name === run.stream);
    return { text: `Taking ${run.stream}: ${number(own?.received ?? 0)} of ${number(own?.planned ?? 0)}`, done: primary?.received ?? 0, total: primary?.planned ?? 0 };
  }
  const taken = primary?.written ?? 0;
  if (primary && run.state === "acquiring" && taken < primary.planned) {
    return { text: `${number(taken)} of ${number(primary.planned)} projections`, done: taken, total: primary.planned };
  }
  if (stage) return { text: `${words(stage.name)}${stage.total ? `: ${number(stage.done)} of ${number(stage.total)}` : ""}`, done: stage.total ? stage.done : 0, total: stage.total ?? 0 };
  return { text: "Finishing", done: 0, total: 0 };
}

export class Overview {
  constructor() {
    this.cards = new Cards($("now-side"), true);
    this.images = Object.fromEntries(["xy", "xz", "yz"].map((name) => [name, new Image($(`live-${name}`))]));
    this.found = null;
    this.volume = { uid: "", shape: null };
    this.told = "";
    $("search").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.search(), 200);
    });
    $("more").addEventListener("click", () => this.more());
  }

  show(state) {
    this.state = state;
    this.showScan();
    this.showSlices();
    this.cards.show(state.scan, state.session);
    this.showRuns();
  }

  showScan() {
    const run = this.state.scan;
    if (!run && this.state.runs) {
      say($("sample"), "No runs yet");
      say($("activity"), "The first scan will appear here by itself.");
    }
    if (!run) return;
    showState($("state"), run.state, run.is_over && !isOver(run));
    say($("scan-line"), scanLine(run));
    say($("sample"), run.sample || "Unnamed sample");
    const now = activity(run);
    say($("activity"), now.text);
    const part = now.total ? Math.min(now.done / now.total, 1) : 0;
    const over = isOver(run);
    $("progress").value = part;
    $("progress").hidden = over || run.is_over;
    fill($("percent"), over ? [run.quality.verdict ?? null] : [Math.floor(100 * part), now.total], () => (over
      ? judged(run.quality.verdict)
      : now.total ? [`${Math.floor(100 * part)}\u202F%`] : []));
    this.showFacts(run);
    this.announce(run);
  }

  showFacts(run) {
    const primary = run.streams.find((one) => one.name === "primary");
    const lost = run.streams.reduce((sum, one) => sum + one.missing + one.incomplete, 0);
    const isFlowing = primary && run.rate_hz && run.stream === "primary";
    const left = isFlowing ? (primary.planned - primary.written) / run.rate_hz : null;
    const worked = run.stages.reduce((sum, one) => sum + (one.seconds ?? 0), 0);
    facts($("hero-facts"), [
      ["Projections", primary ? `${number(primary.written)} / ${number(primary.planned)}` : "\u2013"],
      ["Missing frames", number(lost)],
      ...(isOver(run)
        ? [["Processing", seconds(worked || null)], ["Second copy", run.archive ? "\u2713 verified" : "\u2013"]]
        : [["Rate", run.rate_hz ? `${number(run.rate_hz)} Hz` : "\u2013"], ["Left", seconds(left)]]),
      ["Began", moment(run.start_time_s)],
    ]);
  }

  // Once per change of state, not with every frame.
  announce(run) {
    const text = `${run.sample ?? "Run"}: ${run.state}${isOver(run) && run.quality.verdict ? `, quality ${run.quality.verdict}` : ""}`;
    if (text === this.told) return;
    this.told = text;
    say($("told"), text);
    document.title = `${words(run.state)} \u00B7 ${run.sample ?? "Beamline"}`;
  }

  showSlices() {
    const { scan: run, slices } = this.state;
    const finished = run && isOver(run) && run.products.includes("volume");
    if (slices && !finished && run && slices.run_uid === run.uid) this.showLive(slices);
    else if (run && run.products.includes("volume")) this.showVolume(run);
    else this.showNone();
  }

  showLive(slices) {
    for (const [plane, image] of Object.entries(this.images)) {
      const version = slices.versions[plane];
      const name = version ? `live ${slices.run_uid} ${version}` : "";
      image.show(name, `/api/live/${plane}?v=${version}`, `Live slice ${plane.toUpperCase()} from ${slices.used} projections`);
      say($(`cap-${plane}`), plane === "xy" ? "live, across the axis" : "live, along the axis");
    }
    const dropped = slices.dropped ? `, ${number(slices.dropped)} left out to keep pace` : "";
    say($("slices-line"), `Live: ${number(slices.used)} of ${number(slices.total)} projections${dropped}; centre from ${slices.centre_from ?? "the profile"}`);
  }

  async showVolume(run) {
    if (this.volume.uid !== run.uid) {
      this.volume = { uid: run.uid, shape: null };
      try {
        const volume = (await json(`/api/runs/${run.uid}`)).volumes.volume;
        this.volume = { uid: run.uid, shape: volume?.shape ?? null };
      } catch {
        this.volume = { uid: "", shape: null };
      }
      this.showSlices();
      return;
    }
    const { shape } = this.volume;
    if (!shape) return;
    ["z", "y", "x"].forEach((axis, place) => {
      const plane = { z: "xy", y: "xz", x: "yz" }[axis];
      const middle = Math.floor(shape[place] / 2);
      this.images[plane].show(`volume ${run.uid} ${axis}`, `/api/runs/${run.uid}/slice?axis=${axis}&position=${middle}`, `Slice ${plane.toUpperCase()} of the finished volume, ${axis} = ${middle}`);
      say($(`cap-${plane}`), `${axis} = ${middle}`);
    });
    say($("slices-line"), `Finished volume, ${shape.map((n) => number(n)).join(" \u00D7 ")} voxels`);
  }

  showNone() {
    for (const [plane, image] of Object.entries(this.images)) {
      image.show("");
      say($(`cap-${plane}`), plane === "xy" ? "across the axis" : "along the axis");
    }
    say($("slices-line"), "\u00A0");
  }

  async search(first = 0) {
    const text = $("search").value.trim();
    if (!text && first === 0) { this.found = null; this.showRuns(); return; }
    try {
      const found = await json(`/api/runs?q=${encodeURIComponent(text)}&first=${first}`);
      if ($("search").value.trim() !== text) return;
      this.found = { text, total: found.total, runs: [...(first ? this.listed() : []), ...found.runs] };
      this.showRuns();
    } catch (error) {
      say($("runs-line"), `The search failed: ${error.message}`);
    }
  }

  listed() {
    return this.found ? this.found.runs : this.state.runs.newest;
  }

  more() {
    return this.search(this.listed().length);
  }

  // Runs have changed: what was found may be otherwise now.
  refresh() {
    if (this.found?.text) this.search();
    else this.found = null;
  }

  showRuns() {
    if (!this.state.runs) return;
    const runs = this.listed();
    const total = this.found ? this.found.total : this.state.runs.total;
    const { scan } = this.state;
    const live = scan && !scan.is_over ? scan : null;
    fill($("runs"), [runs, live?.uid, live && taken(live)], () => runs.map((run) => row(run, live?.uid === run.uid ? taken(live) : run.frames)));
    $("more").hidden = runs.length >= total;
    const none = this.found?.text ? "No run matches." : "No runs yet.";
    say($("runs-line"), total ? `${number(runs.length)} of ${number(total)} ${total === 1 ? "run" : "runs"}` : none);
  }
}

// Frames of a scan that goes on: the ledger, which the list is made of, is behind.
function taken(scan) {
  const sum = (name) => scan.streams.reduce((total, one) => total + one[name], 0);
  return { written: sum("written"), expected: sum("planned"), num_missing: sum("missing"), num_incomplete: sum("incomplete") };
}

function row(run, frames) {
  const state = make("span", { class: "chip" });
  showState(state, run.state);
  const { num_missing: missing = 0, num_incomplete: partial = 0 } = frames;
  const lost = missing + partial;
  return make("tr", { title: run.reason || run.uid },
    make("td", { text: run.scan_id ?? "" }),
    make("td", {}, make("a", { href: `#/run/${run.uid}`, text: run.sample || run.uid.slice(0, 8) })),
    make("td", {}, state),
    make("td", {}, verdict(run.verdict)),
    make("td", { class: lost ? "num bad" : "num", text: `${number(frames.written ?? 0)} / ${number(frames.expected ?? 0)}` }),
    make("td", { text: moment(run.start_time_s) }));
}
