/*
 * The page's script, first part: what the records say in a line, and which of them a filter lets through. It knows no element of the
 * page. Text between back quotes is JavaScript for a browser.
 */
export const MODEL_SCRIPT = String.raw`
const trace = JSON.parse(document.getElementById("trace").textContent);
const records = trace.records.slice().sort((a, b) => a.t - b.t);

const isObject = (value) => typeof value === "object" && value !== null;
const keysOf = (value) => Object.keys(value).join();

/** A value in little room. */
function short(value) {
  if (value === null || value === undefined) return "NULL";
  if (Array.isArray(value)) return "[" + value.map(short).join(", ") + "]";
  if (!isObject(value)) return String(value);
  if (value.pin === true) return "(PIN not shown)";
  if (typeof value.bytes === "number") return value.bytes + " bytes";
  if (keysOf(value) === "length") return "length " + value.length;
  if (typeof value.type === "string") {
    if ("value" in value) return value.type + "=" + short(value.value);
    if ("room" in value) return value.type + "/" + (value.room === null ? "length" : value.room);
    if ("length" in value) return value.type + ":length " + value.length;
    if (value.unavailable === true) return value.type + ":unavailable";
    if (keysOf(value) === "type") return value.type;
  }
  return "{" + fields(value) + "}";
}

function fields(value) {
  return Object.entries(value || {}).map(([name, one]) => name + "=" + short(one)).join(", ");
}

function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms >= 10000) return (ms / 1000).toFixed(1) + " s";
  return (ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(3)) + " ms";
}

function bytes(count) {
  if (count === null || count === undefined) return "not told";
  return count < 10000 ? count + " B" : count < 1e7 ? (count / 1024).toFixed(1) + " KiB" : (count / 1048576).toFixed(1) + " MiB";
}

/** What a row shows: name, text, result, whether it is a failure, and its class. */
function lineOf(record) {
  switch (record.kind) {
    case "call": {
      const outs = fields(record.outs);
      const given = fields(record.args) + (outs === "" ? "" : "  ->  " + outs);
      const result = record.error ? String(record.error.code) : record.rv || (record.ok ? "ok" : "no answer");
      return { name: record.call, text: (record.note ? record.note + "  " : "") + given, result, bad: !record.ok, cls: record.class || "other" };
    }
    case "open":
      return { name: "open", text: fields(record.origin), result: "", bad: false, cls: "" };
    case "protocol": {
      const version = record.version === null || record.version === undefined ? "no answer" : "version " + record.version;
      const offered = record.offered === undefined ? "" : ", offered " + [].concat(record.offered).join(", ");
      const dialect = record.dialect ? ", " + record.dialect + " mechanisms" : "";
      const unknown = record.protocol === "unknown";
      return { name: "protocol", text: unknown ? "none that is known" : record.protocol + " " + version + offered + dialect, result: "", bad: unknown, cls: "" };
    }
    case "client":
      return { name: "client", text: "calls itself \"" + record.name + "\"", result: "", bad: false, cls: "" };
    case "event":
      return { name: "event " + record.event, text: fields(record.fields), result: "", bad: false, cls: "" };
    case "cancel":
      return { name: "cancel", text: record.n === null ? "of a request that is over" : "of #" + record.n, result: "", bad: false, cls: "" };
    case "note":
      return { name: record.level, text: (record.from ? record.from + ": " : "") + record.text, result: "", bad: record.level !== "info", cls: "" };
    case "close":
      return {
        name: "close",
        text: (record.by ? "by the " + record.by : "the trace ended") + " after " + duration(record.ms) + ": " + record.calls + " calls, " + record.trips + " round trips, server " + duration(record.serverMs),
        result: "", bad: false, cls: "",
      };
    default:
      return { name: String(record.kind), text: "", result: "", bad: false, cls: "" };
  }
}

const lines = records.map(lineOf);
const haystacks = new Array(records.length);

/** Everything that a text filter looks in. */
function haystackOf(index) {
  if (haystacks[index] === undefined) {
    const line = lines[index];
    haystacks[index] = ("c" + records[index].c + " #" + records[index].n + " " + line.name + " " + line.cls + " " + line.result + " " + line.text).toLowerCase();
  }
  return haystacks[index];
}

const longest = records.reduce((most, record) => Math.max(most, record.kind === "call" ? record.ms || 0 : 0), 0);
const lastTime = records.reduce((last, record) => Math.max(last, record.t + (record.kind === "call" ? record.ms || 0 : 0)), 0);

/** The indexes of the records that pass. */
function select(filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-");
  const wanted = words.filter((word) => word[0] !== "-");
  const unwanted = words.filter((word) => word[0] === "-").map((word) => word.slice(1));
  const chosen = [];
  for (let index = 0; index < records.length; index++) {
    const record = records[index];
    const line = lines[index];
    if (filter.connection !== 0 && record.c !== filter.connection) continue;
    if (filter.failed && !line.bad) continue;
    if (filter.kind !== "" && (filter.kind === "other" ? record.kind === "call" : line.cls !== filter.kind)) continue;
    if (filter.slower > 0 && !(record.kind === "call" && record.ms >= filter.slower)) continue;
    if (filter.range && (record.t > filter.range[1] || record.t + (record.kind === "call" ? record.ms || 0 : 0) < filter.range[0])) continue;
    if (words.length > 0) {
      const text = haystackOf(index);
      if (!wanted.every((word) => text.includes(word)) || unwanted.some((word) => text.includes(word))) continue;
    }
    chosen.push(index);
  }
  return chosen;
}
`;
