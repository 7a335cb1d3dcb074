/*
 * Questions through pinentry, GnuPG's dialog program, over its Assuan pipe: for a workstation whose program has no
 * terminal. One process per question. It must never show text that has not passed base/printable, and never turn the
 * PIN into a string: it is decoded from the pipe's bytes.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { type SecretBytes, secretBytes, wipeable } from "../../base/secret.js";
import type { Asker } from "./asker.js";

/** libgpg-error numbers without their source byte: cancelled, fully cancelled, time-out, not confirmed. */
const CANCELLED = new Set([99, 198, 62]);
const NOT_CONFIRMED = 114;

type Reply = { readonly ok: true; readonly data: SecretBytes } | { readonly ok: false; readonly error: number };

/**
 * The pinentry to use: the named one, else `pinentry` on PATH when there is a display or a terminal for it.
 * null where there is none.
 */
export function findPinentry(named: string | null, env: NodeJS.ProcessEnv): string | null {
  const program = named ?? "pinentry";
  if (named === null) {
    // A pinentry that has nowhere to appear fails at once; then nobody can be asked.
    const place = env["DISPLAY"] ?? env["WAYLAND_DISPLAY"] ?? env["GPG_TTY"];
    if (process.platform !== "darwin" && !place) return null;
  }
  const candidates = isAbsolute(program) ? [program] : (env["PATH"] ?? "").split(delimiter).map((dir) => join(dir, program));
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here: the next directory of PATH.
    }
  }
  return null;
}

/** Assuan takes one line per command; percent signs and line ends are escaped. */
function escaped(text: string): string {
  return text.replace(/[%\r\n]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}

/** Decodes the percent escapes of a data line in place of a string; wipes what it was given. */
function decoded(line: Buffer): Buffer {
  const bytes = wipeable(line.length);
  let length = 0;
  for (let at = 0; at < line.length; at += 1) {
    const hex = line[at] === 0x25 ? Number.parseInt(line.toString("latin1", at + 1, at + 3), 16) : Number.NaN;
    bytes[length] = Number.isNaN(hex) ? (line[at] ?? 0) : hex;
    if (!Number.isNaN(hex)) at += 2;
    length += 1;
  }
  const value = Buffer.from(bytes.subarray(0, length));
  bytes.fill(0);
  line.fill(0);
  return value;
}

/** Runs one conversation; the reply is that of the last command, or the first error. */
function converse(program: string, env: NodeJS.ProcessEnv, commands: readonly string[], signal: AbortSignal): Promise<Reply> {
  return new Promise((resolve) => {
    const child = spawn(program, [], { env, stdio: ["pipe", "pipe", "ignore"] });
    const parts: Buffer[] = [];
    let pending = Buffer.alloc(0);
    // The greeting of pinentry is an OK of its own.
    let next = -1;

    const finish = (reply: Reply) => {
      signal.removeEventListener("abort", onAbort);
      for (const part of parts) part.fill(0);
      pending.fill(0);
      child.stdin.end("BYE\n");
      child.kill();
      resolve(reply);
    };
    const onAbort = () => finish({ ok: false, error: 99 });
    const onLine = (line: Buffer): boolean => {
      const word = line.toString("latin1", 0, 4);
      if (word.startsWith("D ")) parts.push(decoded(line.subarray(2)));
      else if (word.startsWith("OK")) {
        next += 1;
        const command = commands[next];
        if (command === undefined) {
          finish({ ok: true, data: secretBytes(Buffer.concat(parts)) });
          return false;
        }
        child.stdin.write(`${command}\n`);
      } else if (word === "ERR ") {
        const failed = Number.parseInt(line.toString("latin1", 4), 10) & 0xffff;
        // An option that this pinentry does not know is no reason not to ask.
        if (!commands[next]?.startsWith("OPTION ")) {
          finish({ ok: false, error: failed });
          return false;
        }
        next += 1;
        child.stdin.write(`${commands[next]}\n`);
      }
      return true;
    };

    signal.addEventListener("abort", onAbort, { once: true });
    child.on("error", () => finish({ ok: false, error: 0 }));
    child.on("close", () => finish({ ok: false, error: 0 }));
    child.stdin.on("error", () => {});
    child.stdout.on("data", (chunk: Buffer) => {
      const joined = Buffer.concat([pending, chunk]);
      pending.fill(0);
      chunk.fill(0);
      pending = joined;
      for (let end = pending.indexOf(0x0a); end >= 0; end = pending.indexOf(0x0a)) {
        const line = pending.subarray(0, end);
        pending = pending.subarray(end + 1);
        if (!onLine(line)) return;
      }
    });
    if (signal.aborted) onAbort();
  });
}

/** An Asker that runs this program for each question. */
export function createPinentry(program: string, env: NodeJS.ProcessEnv): Asker {
  const options = env["GPG_TTY"] ? [`OPTION ttyname=${escaped(env["GPG_TTY"])}`] : [];
  const opening = (description: string) => [...options, "SETTITLE tokenfwd", `SETDESC ${escaped(description)}`];
  return {
    terminalState: null,
    async pin({ token, who, notices }, signal) {
      const error = notices.length > 0 ? [`SETERROR ${escaped(notices.join("; "))}`] : [];
      const commands = [...opening(`${who} asks for the PIN of the token "${token}"`), "SETPROMPT PIN:", ...error, "GETPIN"];
      const reply = await converse(program, env, commands, signal);
      if (reply.ok) return { kind: "given", pin: reply.data };
      return { kind: CANCELLED.has(reply.error) ? "cancelled" : "unavailable" };
    },
    async confirm(question, signal) {
      const reply = await converse(program, env, [...opening(question), "SETOK Yes", "SETCANCEL No", "CONFIRM"], signal);
      if (reply.ok) return "yes";
      if (reply.error === NOT_CONFIRMED) return "no";
      if (CANCELLED.has(reply.error)) return signal.aborted ? "cancelled" : "no";
      return "unavailable";
    },
  };
}
