/*
 * The page's script, third part: what stands beside the list, which is one record with all that there is of it, or the summary. It sets
 * text and never markup. Text between back quotes is JavaScript for a browser.
 */
export const DETAIL_SCRIPT = `
const $ = (id) => document.getElementById(id);

function element(tag, cls, text) {
  const made = document.createElement(tag);
  if (cls) made.className = cls;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

/** A value with all that there is of it. */
function valueOf(value) {
  if (value === null || value === undefined) return element("span", "quiet", "NULL");
  if (Array.isArray(value)) {
    if (value.every((one) => !isObject(one))) return element("span", "", value.length === 0 ? "none" : value.join(", "));
    const box = element("dl", "fields");
    value.forEach((one, index) => {
      const typed = isObject(one) && typeof one.type === "string";
      box.append(element("dt", "", typed ? one.type : String(index + 1)));
      const dd = element("dd");
      if (typed && "value" in one) dd.append(valueOf(one.value));
      else if (typed) dd.append(element("span", "quiet", short(one).slice(one.type.length + 1) || "no value"));
      else dd.append(valueOf(one));
      box.append(dd);
    });
    return box;
  }
  if (!isObject(value)) return element("span", "", String(value));
  if (value.pin === true) return element("span", "secret", "given, and never written down");
  if (typeof value.bytes === "number" && keysOf(value) !== "type,bytes") {
    const box = element("span", "", value.bytes + " bytes");
    if (typeof value.hex === "string") box.append(element("code", "hex", value.hex));
    return box;
  }
  if (keysOf(value) === "length") return element("span", "quiet", "the length alone: " + value.length);
  if (keysOf(value) === "type") return element("span", "", value.type);
  return fieldList(value);
}

function fieldList(value) {
  const box = element("dl", "fields");
  for (const [name, one] of Object.entries(value)) {
    box.append(element("dt", "", name));
    const dd = element("dd");
    dd.append(valueOf(one));
    box.append(dd);
  }
  return box;
}

function drawSide() {
  const side = $("side");
  side.replaceChildren();
  if (sideShows === "detail" && records[picked]) drawDetail(side, records[picked], lines[picked]);
  else drawSummary(side);
  side.scrollTop = 0;
}

function section(side, title, value) {
  if (!value || Object.keys(value).length === 0) return;
  side.append(element("h3", "", title), fieldList(value));
}

function drawDetail(side, record, line) {
  side.append(element("h2", "", line.name));
  const started = new Date(Date.parse(trace.header.started) + record.t);
  const when = isNaN(started) ? "" : "  " + started.toISOString().replace("T", " ");
  side.append(element("div", "sub", "connection " + record.c + (record.n ? ", request " + record.n : "") + ", at " + record.t.toFixed(3) + " ms" + when));
  if (record.kind !== "call") {
    const { kind, t, c, ...rest } = record;
    section(side, record.kind, rest);
    return;
  }
  const result = element("div");
  result.append(element("span", "result " + (record.ok ? "good" : "bad"), line.result));
  if (record.ms !== null) result.append(element("span", "", duration(record.ms)));
  side.append(result);
  if (record.note) side.append(element("p", "bad-text", record.note));
  section(side, "error", record.error);
  section(side, "arguments", record.args);
  section(side, "answer", record.outs);
  section(side, "on the wire", {
    class: record.class === null ? "not known" : record.class,
    sent: bytes(record.sent),
    received: record.ms === null ? "nothing" : bytes(record.received),
  });
}

function drawSummary(side) {
  const { summary } = trace;
  side.append(element("h2", "", "Calls by kind"));
  side.append(element("div", "sub", "most time first; choose one to see its calls"));
  const table = element("table");
  const head = element("tr");
  for (const name of ["call", "count", "failed", "total", "median", "p95", "max"]) head.append(element("th", "", name));
  table.append(head);
  for (const one of summary.byCall) {
    const row = element("tr");
    const cell = element("td");
    const button = element("button", "", one.call);
    button.type = "button";
    button.addEventListener("click", () => {
      $("search").value = one.call;
      apply();
      list.focus();
    });
    cell.append(button);
    row.append(cell, element("td", "", one.count), element("td", one.failed > 0 ? "bad-text" : "", one.failed));
    for (const name of ["totalMs", "medianMs", "p95Ms", "maxMs"]) row.append(element("td", "", duration(one[name])));
    table.append(row);
  }
  side.append(table);
}
`;
