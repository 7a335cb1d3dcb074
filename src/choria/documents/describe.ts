/*
 * A request in one line for a person: what is done, where, and by whom. It must never leave out anything that widens what is
 * done, and what it cuts short it counts.
 */
import { printable } from "../../base/printable.js";
import { MAX_SKEW_SECONDS } from "../limits.js";
import { type ChoriaRequest, parseBody, type RequestFilter } from "./request.js";

/** With these two no line is longer than what every place that shows it has room for: nothing is pushed off its end. */
const MAX_ITEMS = 4;
const MAX_ITEM_LENGTH = 50;
const MAX_LINE_LENGTH = 2_000;
/** Beyond this a request is good for longer than any stock client asks for. */
const USUAL_TTL_SECONDS = 300;

/**
 * `rpcutil#ping in mcollective, filter: fact os.family==Debian, by choria=ptittle`. Printable. With `nowMs`, since 1970, a request
 * that is not of this minute is said to be none: servers take one within its ttl of its time, whoever is connected then.
 */
export function describeRequest({ message, envelope }: ChoriaRequest, nowMs?: number): string {
  const { agent, collective, callerid, ttl, time, filter } = envelope;
  const body = parseBody(agent, message);
  const action = body.kind === "rpc" ? `${agent}#${body.action}` : agent;
  const long = ttl > USUAL_TTL_SECONDS ? `, good for ${ttl} s` : "";
  const isOfNow = nowMs === undefined || Math.abs(time - nowMs / 1000) <= MAX_SKEW_SECONDS + 1;
  const dated = isOfNow ? "" : `, dated ${new Date(time * 1000).toISOString().replace(".000Z", "Z")}`;
  return printable(`${action} in ${collective}, filter: ${describeFilter(filter, agent)}, by ${callerid}${long}${dated}`, MAX_LINE_LENGTH);
}

function describeFilter({ fact, cf_class, agent, identity, compound }: RequestFilter, asked: string): string {
  // A direct request names its own agent here.
  const agents = agent.filter((name) => name !== asked);
  const parts = [
    listed("identity", identity),
    listed(
      "fact",
      fact.map((each) => `${each.fact}${each.operator}${each.value}`),
    ),
    listed("class", cf_class),
    listed("agent", agents),
    listed(
      "compound",
      compound.map((terms) => terms.map(({ expr }) => expr).join(" and ")),
    ),
  ].filter((part) => part !== null);
  return parts.length === 0 ? "none" : parts.join("; ");
}

/** What could be taken for a part of our own sentence stands in quotes. */
function item(text: string): string {
  const whole = printable(text, text.length);
  const shown = whole.length > MAX_ITEM_LENGTH ? `${whole.slice(0, MAX_ITEM_LENGTH)}...` : whole;
  return /^[^\s",;]+$/.test(shown) ? shown : `"${shown.replaceAll('"', '\\"')}"`;
}

function listed(what: string, items: readonly string[]): string | null {
  if (items.length === 0) return null;
  const shown = items.slice(0, MAX_ITEMS).map(item);
  const more = items.length > MAX_ITEMS ? ` and ${items.length - MAX_ITEMS} more` : "";
  return `${what} ${shown.join(", ")}${more}`;
}
