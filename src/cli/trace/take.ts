/*
 * `--trace FILE` of connect and agent run, and what `tokenfwd trace` has in common with them: begins a trace, says when it fails, and
 * what it holds at the end. It must never make a command fail, or end, because a trace could not be written on.
 */
import { printable } from "../../base/printable.js";
import type { Origin } from "../../cryptoki/types.js";
import type { TraceSummary } from "../../trace/summary.js";
import { plural, summaryLines } from "../../trace/text.js";
import { startTracing, type Tracing } from "../../trace/tracing.js";
import type { ShownFields, StreamTap } from "../../wire/trace/records.js";
import type { Lifetime } from "../lifetime.js";
import { usage } from "../options.js";
import type { Ui } from "../ui.js";

export interface TakeOptions {
  /** Null: lines of text go to `onText`. */
  readonly path: string | null;
  readonly data: boolean;
  readonly of: ShownFields;
  onText?(text: string): void;
}

/** Begins a trace that ends with the lifetime; to be called before anything that is traced is deferred. Throws E_USAGE. */
export function takeTrace(options: TakeOptions, lifetime: Pick<Lifetime, "defer">, ui: Ui): Tracing {
  const { path } = options;
  if (path === "") throw usage("the trace's file has no name", "name a file that is not there yet");
  const tracing = startTracing({ ...options, onFailure: (why) => ui.warning(`the trace is not whole: ${why}`) });
  if (options.data) ui.warning("--data: what is signed and encrypted is in the trace, PINs are not");
  lifetime.defer(async () => {
    const summary = await tracing.close();
    for (const line of endLines(path, summary)) ui.line(line);
  });
  return tracing;
}

function endLines(path: string | null, summary: TraceSummary | null): readonly string[] {
  if (summary === null) return path === null ? [] : [`the trace in ${printable(path)} has no end: its decoder failed`];
  if (path === null) return summaryLines(summary).filter((line) => line !== "");
  const { calls, connections, lost, records } = summary;
  if (records === 0) return ["nothing came to be traced, and no trace was kept"];
  const gaps = lost > 0 ? `, with ${plural(lost, "gap")}` : "";
  return [`traced ${plural(calls, "call")} on ${plural(connections, "connection")}${gaps}: tokenfwd trace show ${printable(path)}`];
}

/** The tap of the agent: which client, and where its stream comes from. */
export function agentTap(tracing: Tracing): (about: { readonly client: string; readonly origin: Origin }) => StreamTap {
  return ({ client, origin }) => tracing.tap({ client, ...originFields(origin) });
}

function originFields({ kind, destination, user, host, port }: Omit<Origin, "connectId">): ShownFields {
  const shown = (text: string | null): string | null => (text === null ? null : printable(text));
  if (kind === "local") return { kind };
  return { kind, destination: shown(destination), user: shown(user), host: shown(host), port };
}
