/*
 * The page's script, last part: the list, which makes only the rows that are seen, the filters and the keys.
 * It sets text and never markup. Text between back quotes is JavaScript for a browser.
 */
export const VIEW_SCRIPT = String.raw`
const ROW = 24;
const filter = { text: "", kind: "", connection: 0, slower: 0, failed: false, range: null };
let shown = [];
let shownSet = new Set();
let picked = -1;
let sideShows = "summary";

const list = $("list");
const space = $("space");
const rows = [];

function rowAt(slot) {
  while (rows.length <= slot) {
    const row = element("div", "row");
    row.setAttribute("role", "option");
    for (const cls of ["t", "c", "name", "args", "rv", "ms"]) row.append(element("span", cls));
    row.addEventListener("click", () => pick(Number(row.dataset.index)));
    space.append(row);
    rows.push(row);
  }
  return rows[slot];
}

function drawList() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 8);
  for (let slot = 0; slot < Math.max(last - first, rows.length); slot++) {
    const row = rowAt(slot);
    row.hidden = slot >= last - first;
    if (row.hidden) continue;
    const index = shown[first + slot];
    const record = records[index];
    const line = lines[index];
    row.dataset.index = String(index);
    row.id = "r" + index;
    row.style.top = (first + slot) * ROW + "px";
    row.style.setProperty("--mark", line.cls === "" ? "var(--edge)" : "var(--c-" + line.cls + ")");
    row.className = "row" + (line.bad ? " bad" : "") + (index === picked ? " picked" : "") + (record.kind === "call" ? "" : " plain");
    row.setAttribute("aria-selected", String(index === picked));
    row.setAttribute("aria-posinset", String(first + slot + 1));
    row.setAttribute("aria-setsize", String(shown.length));
    const [t, c, name, args, rv, ms] = row.children;
    t.textContent = record.t.toFixed(3);
    c.textContent = "c" + record.c;
    name.textContent = line.name;
    args.textContent = line.text.slice(0, 400);
    rv.textContent = line.result;
    ms.textContent = record.kind === "call" ? duration(record.ms) : "";
    if (record.kind === "call" && record.ms > 0) {
      const bar = element("i");
      bar.style.width = Math.max(1, Math.sqrt(record.ms / longest) * 100) + "%";
      ms.append(bar);
    }
  }
  list.setAttribute("aria-activedescendant", picked >= 0 ? "r" + picked : "");
}

let listWaits = false;
function drawListSoon() {
  if (listWaits) return;
  listWaits = true;
  requestAnimationFrame(() => {
    listWaits = false;
    drawList();
  });
}
list.addEventListener("scroll", drawListSoon);

function apply() {
  filter.text = $("search").value;
  filter.kind = $("kind").value;
  filter.connection = Number($("connection").value);
  filter.slower = Number($("slower").value) || 0;
  filter.failed = $("failed").checked;
  shown = select(filter);
  shownSet = new Set(shown);
  space.style.height = shown.length * ROW + "px";
  $("count").textContent = shown.length.toLocaleString("en") + " of " + records.length.toLocaleString("en");
  $("range").hidden = filter.range === null;
  if (filter.range) $("range").textContent = filter.range.map((t) => duration(Math.max(0, t))).join(" to ") + "  \u00d7";
  const place = shown.indexOf(picked);
  if (place >= 0) reveal(place);
  else list.scrollTop = 0;
  drawList();
  timeline.draw();
}

function reveal(place) {
  const top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

function pick(index) {
  picked = index;
  sideShows = index < 0 ? "summary" : "detail";
  const place = shown.indexOf(index);
  if (place >= 0) reveal(place);
  drawList();
  drawSide();
  timeline.draw();
}

function move(by) {
  if (shown.length === 0) return;
  const place = shown.indexOf(picked);
  const start = place >= 0 ? place : by > 0 ? -1 : shown.length;
  pick(shown[Math.max(0, Math.min(shown.length - 1, start + by))]);
}

function moveToFailure(by) {
  const start = shown.indexOf(picked);
  for (let place = start + by; place >= 0 && place < shown.length; place += by) if (lines[shown[place]].bad) return pick(shown[place]);
}

function drawHead() {
  const { header, summary, complete } = trace;
  const about = $("about");
  about.textContent = fields(header.of) + "   " + header.started + "   " + header.by;
  about.title = about.textContent;
  if (header.data) about.append(element("span", "flag", "   with data"));
  if (!complete) about.append(element("span", "flag", "   cut off: it has no end"));
  const totals = $("totals");
  const total = (value, name, bad) => {
    const box = element("div", bad ? "bad" : "");
    box.append(element("b", "", value), element("span", "", name));
    totals.append(box);
    return box;
  };
  const count = (value) => value.toLocaleString("en");
  total(count(summary.connections), "connections");
  total(count(summary.calls), "calls");
  total(count(summary.failed), "failed", summary.failed > 0);
  if (summary.unanswered > 0) total(count(summary.unanswered), "without an answer", true);
  total(count(summary.trips), "round trips");
  if (summary.broken > 0) total(count(summary.broken), "times the protocol was broken", true);
  if (summary.lost > 0) total(count(summary.lost), "gaps in the trace", true);
  const server = total(duration(summary.serverMs), "server");
  const share = element("span", "share");
  const bar = element("i");
  bar.style.width = (summary.connectionMs > 0 ? (100 * summary.serverMs) / summary.connectionMs : 0) + "%";
  share.append(bar);
  share.title = "the server's share of the time connected";
  server.append(share);
  total(duration(summary.clientMs), "client and its way here");
}

function option(select, value, text) {
  const made = element("option", "", text);
  made.value = value;
  select.append(made);
}

option($("kind"), "", "all kinds");
for (const cls of [...new Set(lines.map((line) => line.cls))].filter((cls) => cls !== "" && cls !== "other").sort()) option($("kind"), cls, cls);
option($("kind"), "other", "no calls");
option($("connection"), "0", "all connections");
for (const c of [...new Set(records.map((record) => record.c))].sort((a, b) => a - b).slice(0, 2000)) option($("connection"), String(c), "c" + c);

const timeline = createTimeline($("timeline"), $("tip"), {
  visible: () => shownSet,
  picked: () => picked,
  range: () => filter.range,
  pick(index) {
    pick(index);
    list.focus();
  },
  choose(range) {
    filter.range = range;
    apply();
  },
});

function clear() {
  for (const id of ["search", "slower"]) $(id).value = "";
  $("kind").value = "";
  $("connection").value = "0";
  $("failed").checked = false;
  filter.range = null;
  apply();
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  timeline.draw();
}

for (const id of ["search", "slower"]) $(id).addEventListener("input", apply);
for (const id of ["kind", "connection", "failed"]) $(id).addEventListener("change", apply);
$("clear").addEventListener("click", clear);
$("range").addEventListener("click", () => {
  filter.range = null;
  apply();
});
$("theme").addEventListener("click", theme);
$("help").addEventListener("click", () => $("keys").showModal());
$("keys-close").addEventListener("click", () => $("keys").close());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
new ResizeObserver(() => {
  const place = shown.indexOf(picked);
  if (place >= 0) reveal(place);
  drawListSoon();
}).observe(list);

const page = () => Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  PageDown: () => move(page()),
  PageUp: () => move(-page()),
  Home: () => move(-records.length),
  End: () => move(records.length),
  n: () => moveToFailure(1),
  p: () => moveToFailure(-1),
  "/": () => $("search").focus(),
  f() {
    $("failed").checked = !$("failed").checked;
    apply();
  },
  c() {
    if (picked < 0 && $("connection").value === "0") return;
    $("connection").value = $("connection").value === "0" ? String(records[picked].c) : "0";
    apply();
  },
  s() {
    sideShows = sideShows === "summary" && picked >= 0 ? "detail" : "summary";
    drawSide();
  },
  "+": () => timeline.zoom(0.5, records[picked] ? records[picked].t : lastTime / 2),
  "-": () => timeline.zoom(2, records[picked] ? records[picked].t : lastTime / 2),
  0: () => timeline.zoom(0, 0),
  t: theme,
  "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const typing = event.target instanceof HTMLElement && event.target.matches("input:not([type=checkbox]), select");
  if (event.key === "Escape") {
    clear();
    list.focus();
    event.preventDefault();
    return;
  }
  if (typing && !(event.target.id === "search" && ["Enter", "ArrowDown"].includes(event.key))) return;
  if (typing) {
    list.focus();
    if (picked < 0 || !shownSet.has(picked)) move(1);
    event.preventDefault();
    return;
  }
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (act === null) return;
  event.preventDefault();
  act();
});

drawHead();
drawSide();
apply();
document.documentElement.dataset.ready = "1";
`;
