"use strict";
// Live numbers: asks /status.json once a second and listens to /events. Changes nothing.
// Fills the same tables as the document that came; a column that changes there changes here.
const at = (id) => document.getElementById(id);
const SECONDS = 120;
const SOON = 14;
const plots = { handshakes: [], bytes: [] };
let before = null;

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  if (bytes < 10 && unit) return `${(Math.floor(bytes * 10) / 10).toFixed(1)} ${units[unit]}`;
  return `${Math.floor(bytes)} ${units[unit]}`;
}

function time(seconds) {
  const [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

const short = (fingerprint) => fingerprint.slice(0, 23);

function code(text) {
  const element = document.createElement("code");
  element.textContent = text;
  return element;
}

function copier(text, label, what) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.copy = text;
  button.dataset.what = what;
  button.textContent = label;
  return button;
}

// A table's rows: cells of [content, class, title]. Rows that stay as they are keep their elements, and so
// what is selected or focused in them.
function fill(id, list, cells) {
  const body = at(id);
  at(`${id}-none`).hidden = list.length > 0;
  at(`${id}-table`).hidden = list.length === 0;
  list.forEach((item, number) => {
    const row = document.createElement("tr");
    for (const [content, kind, title] of cells(item)) {
      const cell = row.insertCell();
      cell.append(content);
      if (kind) cell.className = kind;
      if (title) cell.title = title;
    }
    const there = body.rows[number];
    if (!there) body.append(row);
    else if (!there.contains(document.activeElement) && there.innerHTML !== row.innerHTML) there.replaceWith(row);
  });
  while (body.rows.length > list.length) body.lastElementChild.remove();
}

const connection = (c) => [
  [c.name || short(c.peer || "–"), "", c.peer || "–"],
  [code(c.alpn)],
  [c.profile],
  [c.remote],
  [c.rtt_ms == null ? "–" : `${c.rtt_ms.toFixed(1)} ms`, "n"],
  [size(c.bytes_sent), "n"],
  [size(c.bytes_received), "n"],
];

const refusal = (r) => [
  [code(r.fingerprint), "wrap"],
  [code(r.alpn)],
  [r.remote],
  [r.reason, "wrap"],
  [copier(r.allow, "Copy command", "command")],
];

const minute = (at) => at.slice(0, 16).replace("T", " ");

const certificate = (c) => [
  [c.names.join(", "), "wrap"],
  [c.source + (c.fallback ? " (self-signed until then)" : "") + (c.condition && c.condition !== "whole" ? " (" + c.condition + ")" : ""), "", c.issuer || "–"],
  [(c.not_after || "–").split("T")[0], "", c.not_after || "–"],
  [c.days_left == null ? "–" : String(c.days_left), c.days_left != null && c.days_left < SOON ? "n soon" : "n"],
  [(c.next_action || "–") + (c.next_at ? ` ${minute(c.next_at)}` : ""), "", c.next_at || "–"],
  [c.last_error || "–", "wrap"],
];

function plot(name, value) {
  const values = plots[name];
  values.push(value);
  if (values.length > SECONDS) values.shift();
  const top = Math.max(1, ...values);
  const start = SECONDS - values.length;
  const points = values.map((v, i) => `${start + i},${31 - (v / top) * 30}`);
  at(`${name}-plot`).firstElementChild.setAttribute("points", points.join(" "));
}

function show(status, now) {
  at("count").textContent = status.live.length;
  at("total").textContent = status.counters.handshakes;
  at("uptime").textContent = time(status.uptime_s);
  fill("connections", status.live, connection);
  fill("refusals", status.refused, refusal);
  fill("certificates", status.certificates, certificate);
  const totals = new Map(status.live.map((c) => [c.id, c.bytes_sent + c.bytes_received]));
  // A program that was started again counts from zero.
  if (before && before.pid === status.pid) {
    const seconds = (now - before.now) / 1000;
    const handshakes = (status.counters.handshakes - before.handshakes) / seconds;
    let moved = 0;
    for (const [id, bytes] of totals) moved += bytes - (before.totals.get(id) || 0);
    const rate = Math.max(0, moved) / seconds;
    at("handshakes").textContent = handshakes.toFixed(1);
    at("bytes").textContent = size(rate);
    plot("handshakes", handshakes);
    plot("bytes", rate);
  }
  before = { now, pid: status.pid, handshakes: status.counters.handshakes, totals };
}

function running(yes) {
  const text = yes ? "running" : "no answer";
  // Written only when it changes: it is read aloud.
  if (at("state").textContent !== text) at("state").textContent = text;
  at("dot").classList.toggle("off", !yes);
}

async function look() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store" });
    show(await answer.json(), performance.now());
    running(true);
  } catch {
    running(false);
  }
  setTimeout(look, 1000);
}

function event(message) {
  const { event: what, ...rest } = JSON.parse(message.data);
  const item = document.createElement("li");
  const clock = document.createElement("time");
  clock.textContent = new Date().toLocaleTimeString();
  const name = document.createElement("b");
  name.textContent = what;
  const said = Object.entries(rest).filter(([, value]) => value !== null).map(([key, value]) => {
    const fingerprint = typeof value === "string" && value.startsWith("sha256:");
    return `${key} ${fingerprint ? short(value) : value}`;
  });
  item.append(clock, name, said.join(" · "));
  at("events-none").hidden = true;
  at("events").prepend(item);
  while (at("events").children.length > 100) at("events").lastChild.remove();
}

async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Some browsers give plain pages no clipboard, on this machine or not.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.dataset.label ||= button.textContent;
  button.textContent = "Copied";
  at("said").textContent = `${button.dataset.what} copied`;
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => {
    button.textContent = button.dataset.label;
    at("said").textContent = "";
    delete button.dataset.timer;
    delete button.dataset.label;
  }, 1500);
}

document.addEventListener("click", (click) => {
  const button = click.target.closest("button[data-copy]");
  if (button) copy(button);
});
document.documentElement.classList.add("scripted");
at("events-none").hidden = false;
new EventSource("/events").onmessage = event;
look();
