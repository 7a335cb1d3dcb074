/*
 * What choria writes on stderr, for a person: without the alarm about TLS, which is off only between it and the relay, and with the lines
 * of its log as text. It must never hold back a line that says anything else, nor a byte of one that is not finished.
 */
import { Transform } from "node:stream";
import { printable } from "../../base/printable.js";

/** The two lines: one at every start, one for each connection. */
export const ALARMS = ["Disabling TLS via environment override", "Disabling TLS due to configuration override"] as const;

const MOST = 64 * 1024;

/** A line as it is to be shown; null for none. */
function shownLine(line: string): string | null {
  if (/^(time=|\x1b\[33mWARN|WARN|\{"component":)/.test(line) && ALARMS.some((alarm) => line.includes(alarm))) return null;
  if (!line.startsWith('{"component":')) return line;
  try {
    const { level, msg, connection } = JSON.parse(line) as Readonly<Record<string, unknown>>;
    if (typeof level !== "string" || typeof msg !== "string") return line;
    return printable(`choria: ${level}: ${msg}${typeof connection === "string" ? ` (${connection})` : ""}`, 2_000);
  } catch {
    return line;
  }
}

/** Line by line, as they come; what has no end is passed on when it is long, or at the end. */
export function createLogLines(): Transform {
  let pending = Buffer.alloc(0);
  const show = (line: Buffer, end: string): string | Buffer => {
    const text = line.toString("utf8");
    const shown = shownLine(text);
    if (shown === null) return "";
    return shown === text ? Buffer.concat([line, Buffer.from(end)]) : `${shown}${end}`;
  };
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      pending = Buffer.concat([pending, chunk]);
      for (let newline = pending.indexOf(10); newline >= 0; newline = pending.indexOf(10)) {
        this.push(show(pending.subarray(0, newline), "\n"));
        pending = pending.subarray(newline + 1);
      }
      if (pending.length > MOST) {
        this.push(pending);
        pending = Buffer.alloc(0);
      }
      done();
    },
    flush(done) {
      this.push(show(pending, ""));
      done();
    },
  });
}
