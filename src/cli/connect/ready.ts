/*
 * What a connect says when it is ready: the pinned fields of the event, and the lines that tell a person what to do next
 * (design 11). It must never promise more than was verified.
 */
import type { TokenSummary } from "../../agent/inspect.js";
import { shellWord } from "../../base/printable.js";
import type { ForwardReady } from "../../forward/types.js";
import type { ChoriaServing } from "./choria.js";
import type { ConnectOptions } from "./connect.js";

type Options = Pick<ConnectOptions, "destination" | "profile" | "pinSource" | "command" | "allowRawRsa" | "stock">;
type Tokens = readonly Pick<TokenSummary, "uri" | "label" | "serial">[];

/**
 * The event `ready`, exactly the pinned fields; `tools` is the directory that has our program, or null, and `choria` who choria's caller
 * is, with the directory of its wrapper, or null.
 */
export function readyEvent(
  options: Options,
  key: string | null,
  tokens: Tokens,
  ready: ForwardReady,
  choria: ChoriaServing | null = null,
): Record<string, unknown> {
  const { user, host, port, hostKey, pty, verified, remoteSocket, address, wellKnown, tools, rttMs } = ready;
  return {
    destination: options.destination,
    user,
    host,
    port,
    hostKey,
    transport: options.stock ? "stock" : "ssh2",
    pty,
    verified,
    remoteSocket,
    address,
    wellKnown,
    tokens: tokens.map(({ uri, label, serial }) => ({ uri, label, serial })),
    key,
    policy: options.stock ? null : options.profile,
    rttMs,
    tools: tools?.directory ?? null,
    choria: choria === null ? null : { caller: choria.caller, brokers: choria.brokers, directory: choria.directory },
  };
}

const PROFILES = {
  read: "look at public objects, and nothing else",
  sign: "look, log in and sign; nothing on the token can be changed",
  full: "do everything, which includes making, changing and deleting keys and changing PINs",
} as const;

/** The lines for a person. With a CMD one line is enough: the rest is what CMD shows. */
export function readyLines(
  options: Options,
  key: string | null,
  tokens: Tokens,
  ready: ForwardReady,
  choria: ChoriaServing | null = null,
): readonly string[] {
  const where = `${ready.user}@${ready.host}`;
  const names = tokens.map((token) => `"${token.label}"${token.serial === "" ? "" : ` (serial ${token.serial})`}`).join(", ");
  const which = key === "all" ? "every key" : (key ?? "no key");
  const verified = ready.verified === "rpc" ? "" : `; not verified: ${ready.verifiedWhy ?? "no way to open the socket from there"}`;
  const crossing = options.stock || options.pinSource.kind === "client";
  if (options.command !== null) {
    const what = options.command === "shell" ? "shell" : "command";
    const pin = crossing ? "; a PIN that is typed there crosses the connection" : "";
    return [
      ...(ready.tools === null ? [] : [`tools: the ${what} finds tokenfwd, run by ${ready.tools.node} ${ready.tools.nodeVersion}`]),
      ...choriaLines(choria),
      `ready: ${which} of ${names} on ${where} until the ${what} ends, ${options.stock ? "no policy" : `policy ${options.profile}`}${pin}${verified}`,
    ];
  }
  return [
    `ready: the token ${names} answers on ${where}${verified}`,
    `key: ${which}`,
    options.stock
      ? "served by stock p11-kit server: no policy applies, programs there may do everything, and no line here says what they do"
      : `programs there may ${PROFILES[options.profile]}${options.allowRawRsa ? "; raw RSA is allowed, which is decryption by another name" : ""}`,
    ...(options.profile === "read"
      ? []
      : [
          crossing
            ? "a PIN that is typed there crosses the connection and is used as it is"
            : "if a program there asks for a PIN, give it anything: the PIN is asked for here",
        ]),
    ...(ready.wellKnown === "ours"
      ? ["programs that load p11-kit-client.so there find it by themselves"]
      : [`in a shell there, type first: export P11_KIT_SERVER_ADDRESS='${ready.address}'`]),
    ...(ready.tools === null
      ? []
      : [
          `tools: tokenfwd is there, run by ${ready.tools.node} ${ready.tools.nodeVersion}; in a shell there, type first: export PATH=${shellWord(ready.tools.directory)}:"$PATH" TOKENFWD_SOCKET=${shellWord(ready.remoteSocket)}`,
        ]),
    ...choriaLines(choria),
    ...(choria === null ? [] : [`in a shell there, type first: export PATH=${shellWord(choria.directory)}:"$PATH"`]),
    `until this command ends (Ctrl-C), ${ready.user === "root" ? "root" : `${ready.user} and root`} on ${ready.host} can use it as you can`,
  ];
}

/** What --choria means, for who would otherwise read in choria's log that TLS is off. */
function choriaLines(choria: ChoriaServing | null): readonly string[] {
  if (choria === null) return [];
  const patient = choria.discoveryTimeout === null ? "" : `; answers are waited for ${choria.discoveryTimeout} s, because the token was`;
  return [`choria there is ${choria.caller}: this workstation signs, and makes TLS to ${choria.brokers} with the token's key${patient}`];
}
