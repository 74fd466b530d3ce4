// The cards at the side, which the overview and the page of a run have in common.

import { fill, make, verdict } from "/dom.js";
import { bytes, moment, number, seconds, unit, words } from "/format.js";

const STAGE_WORDS = { running: "\u25CF Running", done: "\u2713 Done", failed: "\u2715 Failed", cancelled: "\u2013 Cancelled" };
const STAGE_KINDS = { done: "pass", failed: "fail", running: "none", cancelled: "warn" };

function table(heads, rows, kind = "") {
  const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", text, class: kind ?? "" })));
  return make("table", { class: kind }, make("thead", {}, head), make("tbody", {}, ...rows));
}

// A line below a row, across all columns.
const below = (text, columns) => (text
  ? [make("tr", { class: "sub" }, make("td", { colspan: columns }, make("span", { class: "note", text })))] : []);

const cell = (text, kind = "") => make("td", { text, class: kind });

const WORST = ["fail", "warn", "pass"];

// The worst first. Beside a scan that runs there is room for the notes of those alone.
function quality({ value, isBrief }) {
  const rank = (one) => WORST.indexOf(one.verdict);
  const metrics = (value?.metrics ?? []).toSorted((one, other) => rank(one) - rank(other));
  if (!metrics.length) return [make("p", { class: "muted", text: "Judged when the scan has ended." })];
  const rows = metrics.flatMap((one) => [
    make("tr", { title: one.source || "" }, cell(words(one.name)),
      cell(`${number(one.value)}${unit(one.unit)}`, "num"), make("td", {}, verdict(one.verdict))),
    ...below(isBrief && one.verdict === "pass" ? "" : one.note, 3)]);
  return [table([["Number"], ["Value", "num"], ["Verdict"]], rows)];
}

function frames(streams) {
  if (!streams.length) return [make("p", { class: "muted", text: "No frames yet." })];
  const rows = streams.flatMap((one) => {
    const lost = one.missing + one.incomplete;
    const told = [one.lost ? `missing: ${one.lost}` : "", one.refused ? `${number(one.refused)} refused` : ""];
    return [
      make("tr", {}, cell(words(one.name === "primary" ? "projections" : one.name)),
        ...[one.planned, one.received, one.written, one.used].map((n) => cell(number(n), "num")),
        cell(lost ? `\u2715 ${number(lost)}` : "0", lost ? "num bad" : "num")),
      ...below(told.filter(Boolean).join("; "), 6)];
  });
  return [table([["Frames"], ["Expected", "num"], ["Received", "num"], ["Written", "num"], ["Used", "num"], ["Missing", "num"]], rows, "books")];
}

function stages(list) {
  if (!list.length) return [make("p", { class: "muted", text: "Nothing has begun yet." })];
  const rows = list.map((one) => {
    const what = make("td", {}, words(one.name));
    if (one.state === "running" && one.total) {
      what.append(make("progress", { max: one.total, value: one.done, "aria-label": `Progress of ${one.name}` }));
    }
    const count = one.state === "running" && one.total ? `${number(one.done)} / ${number(one.total)}` : seconds(one.seconds);
    const state = make("span", { class: "verdict", kind: STAGE_KINDS[one.state] ?? "none", text: STAGE_WORDS[one.state] ?? one.state });
    return make("tr", {}, what, cell(count, "num"), make("td", {}, state));
  });
  return [table([["Stage"], ["Time", "num"], ["State"]], rows)];
}

function archive(receipt) {
  if (!receipt) return [make("p", { class: "muted", text: "No verified second copy yet." })];
  return [
    make("p", {}, make("span", { class: "verdict", kind: "pass", text: "\u2713 Copied and verified" })),
    make("p", { class: "small", text: `${number(receipt.num_files)} files, ${bytes(receipt.total_bytes)}, ${moment(Date.parse(receipt.finished) / 1000)}` }),
    make("p", { class: "small muted" }, make("code", { text: receipt.target })),
  ];
}

const warnings = (texts) => [make("ul", { class: "warnings" }, ...texts.map((text) => make("li", { text })))];

function health(session) {
  if (!session) return [make("p", { class: "muted", text: "No session runs. Runs on disk are shown." })];
  const now = session.health;
  if (!now) return [make("p", {}, make("span", { class: "verdict", kind: "fail", text: "\u2715 The receiver does not answer" }))];
  const full = now.spool_free_s === null ? "" : `, full in ${seconds(now.spool_free_s)}`;
  const lines = [
    ["Receiver", now.armed ? `armed for ${now.stream}` : "idle"],
    ["Rate", `${number(now.frame_rate_hz)} Hz, ${number(now.data_rate_mb_s)} MB/s`],
    ["Ring to be taken", `${Math.round(100 * now.ring_fill)} %`],
    ["Wait for the disk", `${number(now.backlog_frames)} frames`],
    ["Disk free", `${number(now.spool_free_gb)} GB${full}`],
  ];
  return [make("table", {}, make("tbody", {}, ...lines.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row", text: name }), cell(value, "num")))))];
}

export class Cards {
  constructor(side, withHealth) {
    const names = { warnings: "Warnings", quality: "Quality", frames: "Frame books", stages: "Stages", health: "Health", archive: "Archive" };
    if (!withHealth) delete names.health;
    this.isBrief = withHealth;
    this.bodies = {};
    for (const [name, title] of Object.entries(names)) {
      const id = `${side.id}-${name}`;
      const body = make("div", { id: `${id}-body` });
      const card = make("section", { class: "card", "aria-labelledby": id }, make("h2", { id, text: title }), body);
      if (name === "warnings") { card.hidden = true; body.setAttribute("role", "alert"); }
      this.bodies[name] = body;
      side.append(card);
    }
  }

  show(run, session) {
    const all = [...(session?.warnings ?? []), ...(run?.warnings ?? [])];
    this.bodies.warnings.parentElement.hidden = all.length === 0;
    fill(this.bodies.warnings, all, warnings);
    fill(this.bodies.quality, { value: run?.quality ?? {}, isBrief: this.isBrief }, quality);
    fill(this.bodies.frames, run?.streams ?? [], frames);
    fill(this.bodies.stages, run?.stages ?? [], stages);
    fill(this.bodies.archive, run?.archive ?? null, archive);
    if (this.bodies.health) fill(this.bodies.health, session ?? null, health);
  }
}
