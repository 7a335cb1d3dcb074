/*
 * The two lines of NATS that a relay reads and changes: INFO of the broker and CONNECT of the client, each a verb and a JSON
 * object. Bytes in, bytes out. It must never pass on a login, nor tell a client of brokers that it could go to by itself.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/** What an INFO says; only what is looked at here has a type. */
export type NatsInfo = Readonly<Record<string, unknown>> & { readonly tls_required?: unknown };

/** A line that is not what it should be. */
export class NatsError extends Error {}
NatsError.prototype.name = "NatsError";

/** The most that is read of a CONNECT: names, a login, perhaps a JWT. */
export const MAX_CONNECT_BYTES = 16 * 1024;
/** And of an INFO, which may list a cluster. */
export const MAX_INFO_BYTES = 64 * 1024;

function objectAfter(verb: string, line: Buffer): Record<string, unknown> {
  const text = line.toString("utf8");
  const [, given, json] = /^([A-Za-z]+)[ \t]+(.*)$/s.exec(text) ?? [];
  if (given?.toUpperCase() !== verb || json === undefined) throw new NatsError(`not an ${verb} line`);
  let value: unknown;
  try {
    value = JSON.parse(json);
    // It will be written anew, which nesting without end prevents: once kept, such an INFO would be every client's end.
    JSON.stringify(value);
  } catch {
    throw new NatsError(`${verb} holds no JSON that can be passed on`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new NatsError(`${verb} holds no JSON object`);
  return value as Record<string, unknown>;
}

/** Reads an INFO line. Throws NatsError. */
export function parseInfo(line: Buffer): NatsInfo {
  return objectAfter("INFO", line);
}

/** Of TLS, which ends at the relay; of the cluster's other addresses; and of that one connection of the relay's own. */
const NOT_FOR_CLIENTS = [
  "tls_required",
  "tls_available",
  "tls_verify",
  "connect_urls",
  "ws_connect_urls",
  "nonce",
  "client_id",
  "client_ip",
] as const;

/** What a relay says for itself as long as it has seen no broker. */
const OWN_INFO: NatsInfo = {
  server_id: "tokenfwd",
  server_name: "tokenfwd",
  version: "2.10.0",
  proto: 1,
  headers: true,
  max_payload: 1_048_576,
};

/** The INFO line that a client gets first: the broker's own as it was last seen, without what is not for clients. */
export function infoForClient(seen: NatsInfo | null): Buffer {
  const info: Record<string, unknown> = { ...(seen ?? OWN_INFO) };
  for (const name of NOT_FOR_CLIENTS) delete info[name];
  return Buffer.from(`INFO ${JSON.stringify(info)}\r\n`);
}

/** A client's CONNECT, apart: its login, and the line that the broker gets. */
export interface Connect {
  readonly user: string;
  readonly password: string;
  /** Without the login; with CR LF. */
  readonly line: Buffer;
}

/** Reads a CONNECT line. Throws NatsError. */
export function parseConnect(line: Buffer): Connect {
  const { user = "", pass = "", ...rest } = objectAfter("CONNECT", line);
  if (typeof user !== "string" || typeof pass !== "string") throw new NatsError("the login of CONNECT is no text");
  return { user, password: pass, line: Buffer.from(`CONNECT ${JSON.stringify(rest)}\r\n`) };
}

/** Who may use the relay. */
export interface RelayLogin {
  readonly user: string;
  readonly password: Buffer;
}

/** Whether it is this login, in a time that does not tell how much of it was right. */
export function loginCheck({ user, password }: RelayLogin): (given: Pick<Connect, "user" | "password">) => boolean {
  const key = randomBytes(32);
  const digest = (bytes: string | Buffer): Buffer => createHmac("sha256", key).update(bytes).digest();
  const wanted = [digest(user), digest(password)];
  return (given) => {
    const found = [digest(given.user), digest(given.password)];
    const right = wanted.map((each, index) => timingSafeEqual(each, found[index] ?? key));
    return right.every(Boolean);
  };
}

/** An error line as a server sends it before it hangs up. `text` is printable; quotes in it would end it. */
export function errorLine(text: string): Buffer {
  return Buffer.from(`-ERR '${text.replaceAll("'", "`")}'\r\n`);
}
