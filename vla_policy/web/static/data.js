// The page of a dataset: a table of its episodes, a player, and changes that are made when they are saved.

import { Edits } from "./edits.js";
import { $, make, say, takeToken } from "./page.js";
import { Player } from "./player.js";

const token = takeToken();
const edits = new Edits();
let dataset = null;
let tasks = {};
let warnings = [];
let chosen = null;
let rows = new Map();
let busy = false; // while a change is made

async function get(path, signal) {
  const response = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal });
  if (!response.ok) throw new Error((await response.json().catch(() => null))?.error ?? response.statusText);
  return response;
}

async function post(name, body) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const response = await fetch(`/api/${name}`, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer.text;
}

const player = new Player(get);
const thumbnails = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    thumbnails.unobserve(target);
    get(`/api/episodes/${target.dataset.index}/thumbnail`)
      .then((response) => response.blob())
      .then((blob) => {
        target.src = URL.createObjectURL(blob);
        target.onload = () => URL.revokeObjectURL(target.src);
      })
      .catch(() => (target.alt = "none"));
  }
});

async function load() {
  dataset = await (await get("/api/dataset")).json();
  edits.clear();
  tasks = {};
  document.title = $("name").textContent = dataset.name;
  const frames = dataset.episodes.reduce((sum, episode) => sum + episode.length, 0);
  const seconds = (frames / dataset.fps).toFixed(0);
  const count = dataset.episodes.length;
  $("about").textContent = `${count} episode${count === 1 ? "" : "s"}, ${frames} frames, ${seconds} s at ${dataset.fps} Hz`;
  $("tools").hidden = !dataset.editable;
  rows = new Map(dataset.episodes.map((episode) => [episode.index, makeRow(episode)]));
  $("episodes").replaceChildren(...[...rows.values()].map(({ row }) => row));
  show();
  if (dataset.episodes.length) open(dataset.episodes[0]);
  tasks = await (await get("/api/tasks")).json();
  show();
  loadWarnings().catch((error) => say(error.message, 12)); // which may take long
}

async function loadWarnings() {
  warnings = [];
  for (const mine = dataset; mine === dataset; await new Promise((resume) => setTimeout(resume, 1000))) {
    const found = (await (await get("/api/warnings")).json()).warnings;
    if (!found) continue;
    warnings = found;
    return show();
  }
}

function makeRow(episode) {
  const mark = make("input", { type: "checkbox", ariaLabel: `mark episode ${episode.index}` });
  const picture = make("img", { className: "thumbnail", alt: "" });
  picture.dataset.index = episode.index;
  if (dataset.cameras.length) thumbnails.observe(picture);
  const [task, result] = [make("td"), make("td")];
  const number = (text) => make("td", { className: "number", textContent: text });
  const row = make("tr", {}, make("td", {}, mark), make("td", {}, picture), number(episode.index),
    number(episode.length), number((episode.length / dataset.fps).toFixed(1)), result, task);
  mark.addEventListener("click", (event) => event.stopPropagation());
  mark.addEventListener("change", () => {
    edits.change(({ marked }) => (mark.checked ? marked.add(episode.index) : marked.delete(episode.index)));
    show();
  });
  row.addEventListener("click", () => open(episode));
  return { row, mark, task, result, episode };
}

function open(episode) {
  chosen = episode.index;
  show();
  player.open(episode, dataset.cameras, dataset.fps).catch((error) => error.name !== "AbortError" && say(error.message, 8));
}

const of = (index) => warnings.filter((warning) => warning.episode === index);

function lines(found) {
  return found.map((warning) => make("p", { className: "cause", textContent: warning.text }));
}

function show() {
  const { marked, deleted, tasks: told } = edits.now;
  for (const [index, { row, mark, task, result, episode }] of rows) {
    mark.checked = marked.has(index);
    row.classList.toggle("deleted", deleted.has(index));
    row.classList.toggle("chosen", index === chosen);
    const found = of(index).length;
    const notes = found ? [make("span", { className: "warning", textContent: ` ${found} warning${found > 1 ? "s" : ""}` })] : [];
    task.replaceChildren(told.get(index) ?? tasks[index] ?? "", ...notes);
    task.classList.toggle("accent", told.has(index));
    result.textContent = episode.result || "–";
    result.className = { success: "good", failure: "bad" }[episode.result] ?? "faint";
  }
  const some = marked.size > 0;
  const changed = edits.changed;
  $("marked").textContent = some ? `${marked.size} marked` : "mark episodes to change them";
  $("delete").textContent = some && [...marked].every((index) => deleted.has(index)) ? "Keep" : "Delete";
  $("delete").disabled = $("retask").disabled = busy || !some;
  $("split").disabled = busy || !some || changed > 0;
  $("merge").disabled = busy || changed > 0 || !dataset?.neighbours.length;
  $("split").title = $("merge").title = changed ? "save or undo the changes first" : "";
  $("all").checked = some && marked.size === rows.size;
  $("undo").disabled = busy || !edits.before.length;
  $("save").disabled = busy || !changed;
  $("changes").textContent = changed ? `${changed} change${changed > 1 ? "s" : ""} not saved` : "";
  $("found").replaceChildren(...lines(of(chosen)));
  $("general").hidden = !of(null).length;
  $("warnings").replaceChildren(...lines(of(null)));
}

/** Ask for a line of text, and for another dataset if `others` are given; null if cancelled. */
function ask(question, text = "", others = null) {
  $("question").textContent = question;
  $("answer").value = text;
  $("choice").hidden = !others;
  $("other").replaceChildren(...(others ?? []).map((name) => make("option", { textContent: name })));
  $("dialog").returnValue = ""; // Escape would leave the last one's
  $("dialog").showModal();
  return new Promise((resolve) => {
    $("dialog").onclose = () => {
      const answer = $("answer").value.trim();
      resolve($("dialog").returnValue === "ok" && answer ? { answer, other: $("other").value } : null);
    };
  });
}

async function attempt(work) {
  if (busy) return;
  busy = true;
  show();
  try {
    const text = await work();
    if (text) say(text, 8);
  } catch (error) {
    say(error.message, 12);
  }
  busy = false;
  show();
}

$("all").addEventListener("change", () => {
  edits.change((now) => (now.marked = new Set($("all").checked ? rows.keys() : [])));
  show();
});
$("delete").addEventListener("click", () => {
  const keep = $("delete").textContent === "Keep";
  edits.change(({ marked, deleted }) => marked.forEach((index) => (keep ? deleted.delete(index) : deleted.add(index))));
  show();
});
$("retask").addEventListener("click", async () => {
  const { marked } = edits.now;
  const first = Math.min(...marked);
  const found = await ask(`The sentence of ${marked.size} episodes`, edits.now.tasks.get(first) ?? tasks[first] ?? "");
  if (found) edits.change((now) => now.marked.forEach((index) => now.tasks.set(index, found.answer)));
  show();
});
$("split").addEventListener("click", async () => {
  const episodes = [...edits.now.marked].sort((a, b) => a - b);
  const found = await ask(`Name of a new dataset with these ${episodes.length} episodes`, `${dataset.name}_part`);
  if (found) await attempt(() => post("split", { revision: dataset.revision, name: found.answer, episodes }));
});
$("merge").addEventListener("click", async () => {
  const found = await ask("Join with another dataset, and name the new one", `${dataset.name}_merged`, dataset.neighbours);
  if (found) await attempt(() => post("merge", { other: found.other, name: found.answer }));
});
$("undo").addEventListener("click", () => {
  edits.undo();
  show();
});
$("save").addEventListener("click", () =>
  attempt(async () => {
    say("saving", 600);
    const text = await post("save", { revision: dataset.revision, ...edits.asJson() });
    edits.clear(); // its numbers mean other episodes from now on
    await load();
    return text;
  }),
);
addEventListener("beforeunload", (event) => edits.changed && event.preventDefault());
load().catch((error) => say(error.message, 600));
