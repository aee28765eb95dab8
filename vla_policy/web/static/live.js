// The live page: what the robot sees and does, and the buttons of whoever leads.

import { Connection } from "./connection.js";
import { Hand } from "./hand.js";
import { $, colour, make, paper, say, takeToken } from "./page.js";

const LOOKS = { idle: "faint", armed: "accent", running: "good", holding: "warn", fault: "bad" };
const CURVE = 300; // scores of the monitor
let token = takeToken();
let about = null;
let status = null;
let views = [];
let rows = [];
let hand = null;
let scores = [];
let scored = null;

const leads = () => status?.leader === "you";
const connection = new Connection("/live", token, {
  onMessage: (message) => HANDLERS[message.type]?.(message),
  onPicture: drawPicture,
  onChange: (open, reason) => {
    if (open) return;
    hand?.release();
    status = null;
    show();
    if (reason) say(`sent away: ${reason}`);
  },
});
const HANDLERS = {
  about: (message) => build(message),
  status: (message) => {
    status = message;
    if (status.stopped) connection.stopped();
    show();
  },
  refused: (message) => say(message.text, 8),
  done: (message) => message.text && say(message.text),
};

function build(message) {
  if (JSON.stringify(message) === JSON.stringify(about)) return;
  about = message;
  document.title = $("name").textContent = about.name;
  views = about.cameras.map((camera) => {
    const [below, over] = [make("canvas"), make("canvas", { className: "over" })];
    const notice = make("div", { className: "notice", hidden: true });
    const frame = make("div", { className: "picture" }, below, over, notice);
    frame.style.aspectRatio = `${camera.shape[1]} / ${camera.shape[0]}`;
    [below.width, below.height] = [camera.shape[1], camera.shape[0]];
    const note = make("span");
    const figure = make("figure", {}, frame, make("figcaption", {}, make("span", { textContent: camera.name }), note));
    return { ...camera, below, over, frame, notice, note, figure, frames: [], point: null };
  });
  $("cameras").replaceChildren(...views.map((view) => view.figure));
  buildChannels();
  buildHand();
  $("reset").hidden = !about.simulated;
  show();
}

function buildChannels() {
  const names = [...new Set([...about.state, ...about.action].map((channel) => channel.name))];
  const head = ["", "", "state", "command"].map((text) => make("span", { className: "head number", textContent: text }));
  rows = names.map((name) => {
    const of = (channels) => channels.findIndex((channel) => channel.name === name);
    const [state, action] = [of(about.state), of(about.action)];
    const unit = (about.state[state] ?? about.action[action]).unit;
    const marks = [make("i"), make("i", { className: "command" })];
    const cells = [
      make("span", { textContent: unit && unit !== "1" ? `${name} [${unit}]` : name }),
      action < 0 ? make("span") : make("div", { className: "range" }, ...marks),
      make("span", { className: "number" }),
      make("span", { className: "number accent" }),
    ];
    return { state, action, marks, cells };
  });
  $("channels").replaceChildren(...head, ...rows.flatMap((row) => row.cells));
}

function buildHand() {
  hand?.release();
  hand = new Hand(connection, about.action.length, () => leads() && !status.stopped);
  for (const view of views.filter((each) => each.points)) {
    hand.overPicture(view.over, (point) => {
      view.point = point;
      drawOver(view);
    });
  }
  const free = about.action.map((channel, k) => k).filter((k) => !about.pointed.includes(about.action[k].name));
  const sticks = [];
  for (let k = 0; k < free.length; k += 2) {
    const [up, left] = [free[k], free[k + 1] ?? null];
    const pad = make("div", { className: "pad" });
    hand.overStick(pad, up, left);
    const name = (channel) => about.action[channel].name;
    const label = left === null ? `${name(up)} ↑` : `${name(up)} ↑  ${name(left)} ←`;
    sticks.push(make("div", { className: "stick" }, pad, make("div", { textContent: label })));
  }
  $("sticks").replaceChildren(...sticks);
  const ways = [];
  if (about.pointed.length) ways.push("hold the mouse or a finger on the picture where the arm should go");
  if (sticks.length) ways.push("hold a stick");
  ways.push("hold w s, a d or r f, each pair for one channel");
  $("how").textContent = `${ways.join("; or ")}. When you let go the arm holds; e enables it again, the space bar is the stop.`;
}

async function drawPicture(camera, blob) {
  const view = views[camera];
  try {
    const picture = await createImageBitmap(blob);
    if (view) {
      [view.below.width, view.below.height] = [picture.width, picture.height];
      view.below.getContext("2d").drawImage(picture, 0, 0);
      const now = performance.now();
      view.frames = [...view.frames.filter((t) => t > now - 2000), now];
    }
    picture.close();
  } finally {
    connection.send("seen", { camera });
  }
}

function drawOver(view) {
  const { context, width, height } = paper(view.over);
  const at = ([u, v]) => [u * width, v * height];
  const way = view.points && status?.chunk ? status.chunk.way : [];
  const due = status?.chunk?.due ?? 0;
  for (let k = 1; k < way.length; k++) {
    if (way[k - 1][0] === null || way[k][0] === null) continue;
    context.strokeStyle = k <= due ? "rgb(255 255 255 / 45%)" : "#ffb020";
    context.lineWidth = k <= due ? 2 : 3;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(...at(way[k - 1]));
    context.lineTo(...at(way[k]));
    context.stroke();
  }
  const here = way[Math.max(0, Math.min(way.length - 1, Math.round(due)))];
  if (here && here[0] !== null) ring(context, at(here), 6, "#ffb020");
  if (view.point) ring(context, at([view.point.u, view.point.v]), 14, "#ff4d4d");
}

function ring(context, [x, y], radius, stroke) {
  context.strokeStyle = stroke;
  context.lineWidth = 3;
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.stroke();
}

function show() {
  const gate = status ? status.gate || "no gate" : "not connected";
  $("gate").textContent = gate;
  $("gate").className = `chip ${LOOKS[gate] ?? (status ? "faint" : "bad")}`;
  $("stop").classList.toggle("pressed", Boolean(status?.stopped) || connection.stopping);
  $("stop").textContent = connection.stopping ? "STOP is on its way" : status?.stopped ? "STOPPED" : "STOP";
  $("dry").hidden = !status?.dry_run;
  $("leader").textContent = { you: "you lead", somebody: "somebody else leads" }[status?.leader] ?? "";
  const cause = !status ? "no connection" : status.stopped ? "the stop of this page is pressed" : status.reason;
  $("cause").textContent = cause || { idle: "nothing is sent to the arm", armed: "waiting for an action" }[gate] || "";
  $("cause").className = `cause ${status && cause ? (gate === "fault" || status.stopped ? "bad" : "warn") : "faint small"}`;
  showButtons(gate);
  if (!about || !status) return;
  $("now").textContent = status.task || "none";
  $("recorder").textContent = status.recorder || "no recorder is running";
  $("coverage").hidden = status.coverage === null;
  $("coverage").textContent = `the block covers ${(100 * (status.coverage ?? 0)).toFixed(0)} % of the goal`;
  views.forEach((view, k) => {
    view.frame.classList.toggle("silent", status.silent[k]);
    view.notice.hidden = !status.silent[k];
    view.notice.textContent = "no picture";
    view.frame.classList.toggle("led", view.points && leads());
    view.note.textContent = `${(view.frames.filter((t) => t > performance.now() - 2000).length / 2).toFixed(0)} pictures/s`;
    drawOver(view);
  });
  showChannels();
  showSurprise(status.surprise);
  $("latencies").replaceChildren(
    ...status.latency.map(({ node, name, p50, p95, p99 }) =>
      make("tr", {}, make("td", { textContent: `${node.replaceAll("_", " ")}: ${name}` }),
        ...[p50, p95, p99].map((text) => make("td", { className: "number", textContent: text && Number(text).toFixed(1) })))),
  );
}

function showButtons(gate) {
  const mine = leads();
  const recording = status?.recorder?.startsWith("recording") ?? false;
  $("lead").textContent = mine ? "Give control back" : "Take control";
  $("lead").classList.toggle("primary", !mine);
  $("lead").disabled = !status || !about?.control;
  $("lead").title = about && !about.control ? "started without control:=true" : "";
  $("enable").disabled = !mine || status.stopped || ["armed", "running"].includes(gate);
  $("disable").disabled = !mine || gate === "idle";
  $("clear").hidden = !status?.stopped;
  $("clear").disabled = !status;
  $("reset").disabled = !mine;
  $("task").disabled = $("tell").disabled = !mine;
  $("start").disabled = !mine || recording || !status.recorder;
  for (const id of ["success", "failure", "discard"]) $(id).disabled = !mine || !recording;
  $("hand").hidden = !mine;
}

function showChannels() {
  const text = (value) => (value === undefined || value === null ? "–" : value.toFixed(4));
  for (const { state, action, marks, cells } of rows) {
    const values = [status.state?.[state], status.command?.[action]];
    cells[2].textContent = text(values[0]);
    cells[3].textContent = text(values[1]);
    values.forEach((value, k) => {
      const part = (value - about.low[action]) / (about.high[action] - about.low[action]);
      marks[k].hidden = !(part >= -0.05 && part <= 1.05);
      marks[k].style.left = `${100 * part}%`;
    });
  }
}

function showSurprise(surprise) {
  $("surprise").hidden = !surprise;
  if (!surprise) return;
  const fresh = scored === null ? surprise.scores.length : Math.min(surprise.n - scored, surprise.scores.length);
  if (fresh < 0) scores = [];
  else if (fresh > 0) scores = [...scores, ...surprise.scores.slice(-fresh)].slice(-CURVE);
  scored = surprise.n;
  const threshold = Number(surprise.threshold);
  const last = scores.at(-1);
  $("score").textContent = typeof last === "number" ? `${last.toPrecision(3)}, alarm above ${threshold.toPrecision(3)}` : "";
  const { context, width, height } = paper($("curve"));
  const known = scores.filter((score) => score !== null);
  const top = 1.15 * Math.max(threshold || 0, ...known, 1e-9);
  const bottom = Math.min(0, ...known);
  const y = (score) => height - ((score - bottom) / (top - bottom)) * height;
  context.lineWidth = 2;
  context.strokeStyle = colour("accent");
  context.beginPath();
  scores.forEach((score, k) => {
    const x = width - ((scores.length - 1 - k) / (CURVE - 1)) * width;
    if (score === null) return;
    if (k === 0 || scores[k - 1] === null) context.moveTo(x, y(score));
    else context.lineTo(x, y(score));
  });
  context.stroke();
  if (!(threshold > bottom)) return;
  context.strokeStyle = colour("bad");
  context.setLineDash([6, 5]);
  context.beginPath();
  context.moveTo(0, y(threshold));
  context.lineTo(width, y(threshold));
  context.stroke();
  context.setLineDash([]);
}

function stop() {
  hand?.release();
  connection.stop();
  show();
}

function withToken(type) {
  if (!token) {
    token = prompt("The token, which the terminal shows") ?? "";
    sessionStorage.setItem("token", token);
  }
  connection.send(type, { token });
}

$("stop").addEventListener("pointerdown", stop); // at once, not when the finger is lifted
$("stop").addEventListener("click", (event) => event.detail === 0 && stop()); // by the keyboard
addEventListener("keydown", (event) => {
  if (event.target.matches?.("input")) return;
  if (event.key === " ") {
    event.preventDefault();
    stop();
  } else if (event.key === "e" && !event.ctrlKey && !event.metaKey) {
    $("enable").click(); // does nothing while it is disabled
  }
});
$("lead").addEventListener("click", () => (leads() ? connection.send("leave") : withToken("lead")));
$("enable").addEventListener("click", () => connection.send("enable", { value: true }));
$("disable").addEventListener("click", () => connection.send("enable", { value: false }));
$("clear").addEventListener("click", () => withToken("clear"));
$("reset").addEventListener("click", () => connection.send("reset"));
$("start").addEventListener("click", () => connection.send("start"));
$("success").addEventListener("click", () => connection.send("end", { value: true }));
$("failure").addEventListener("click", () => connection.send("end", { value: false }));
$("discard").addEventListener("click", () => connection.send("discard"));
$("instruct").addEventListener("submit", (event) => {
  event.preventDefault();
  connection.send("instruct", { value: $("task").value.trim() });
});
