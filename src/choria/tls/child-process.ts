/*
 * Starts and ends the process that makes one handshake. Between it and us stands a shell that does what a process which waits
 * inside the engine cannot: it ends it when our end of a pipe closes, so also when we are killed. No core is ever dumped of it,
 * for one could hold a PIN; and it has no terminal, where the engine would ask for one.
 */
import { spawn } from "node:child_process";
import type { Duplex, Readable, Writable } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import type { EnginePlaces } from "./engine.js";
import { createLineSplitter, type HandshakeReport } from "./messages.js";

/**
 * Descriptors of the program: 3 ciphertext, 4 order and reports, 5 the PIN, for which it needs a real pipe: the engine opens it
 * by name. The shell keeps none of them, or their ends would not be seen.
 */
const SCRIPT = `ulimit -c 0
exec 9<&0
if [ "$0" = pin ]; then cat <&5 3<&- 4<&- 9<&- | "$@" 5<&0 0</dev/null 9<&- &
else "$@" </dev/null 5<&- 9<&- & fi
program=$!
exec 3<&- 4<&- 5<&- 2>/dev/null
read -r ended <&9
kill -9 $program 2>/dev/null
wait $program`;

const MAX_REPORT_BYTES = 256 * 1024;
const MAX_STDERR_BYTES = 4000;
/** From the end of its reports to the end of the process, which is under way by then. */
const EXIT_MS = 3_000;

export interface HandshakeProcessOptions {
  /** Script and arguments for this Node that lead to `runHandshakeChild`. */
  readonly program: readonly string[];
  readonly engine: EnginePlaces;
  /** Value of P11_KIT_SERVER_ADDRESS: where the token is. */
  readonly address: string;
  readonly pin: Buffer | null;
  readonly log: Log;
}

export interface HandshakeProcess {
  /** The broker's ciphertext as the process reads and writes it. */
  readonly cipher: Duplex;
  send(message: object): void;
  /** The next report; null when the process says nothing more. Called one at a time. */
  next(): Promise<HandshakeReport | null>;
  /** Kills it, if it still runs, and resolves to the signal that had ended it before, as far as one had. */
  end(): Promise<NodeJS.Signals | null>;
}

/** Variables that would make the process another one, or have it trust another broker. */
const UNWANTED = ["NODE_OPTIONS", "NODE_TLS_REJECT_UNAUTHORIZED", "NODE_EXTRA_CA_CERTS", "SSLKEYLOGFILE"];

function environment({ engine, address }: HandshakeProcessOptions): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env };
  for (const name of UNWANTED) delete env[name];
  env["OPENSSL_ENGINES"] = engine.enginesDirectory;
  env["PKCS11_MODULE_PATH"] = engine.modulePath;
  env["P11_KIT_SERVER_ADDRESS"] = address;
  return env;
}

/** Starts it. The caller ends it. */
export function startHandshakeProcess(options: HandshakeProcessOptions): HandshakeProcess {
  const { pin, program, log } = options;
  const words = [pin === null ? "no-pin" : "pin", process.execPath, ...program];
  const child = spawn("/bin/sh", ["-c", SCRIPT, ...words], {
    env: environment(options),
    stdio: ["pipe", "ignore", "pipe", "pipe", "pipe", "pipe"],
    // A session of its own has no terminal.
    detached: true,
  });
  const [watch, , errors, cipher, control, pinPipe] = child.stdio as unknown as [Writable, null, Readable, Duplex, Duplex, Writable];
  for (const stream of [watch, errors, cipher, control, pinPipe]) stream.on("error", () => {}); // its end is told by `control`
  if (pin !== null) pinPipe.write(pin);
  pinPipe.end();

  const reports: HandshakeReport[] = [];
  let isSilent = false;
  let wake = (): void => {};
  const split = createLineSplitter(MAX_REPORT_BYTES);
  const silence = (): void => {
    isSilent = true;
    watch.end();
    wake();
  };
  control.on("data", (chunk: Buffer) => {
    reports.push(...split(chunk).map((line) => JSON.parse(line) as HandshakeReport));
    wake();
  });
  control.on("end", silence);
  control.on("close", silence);

  let said = "";
  errors.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString("latin1")).slice(0, MAX_STDERR_BYTES);
  });
  const gone = new Promise<NodeJS.Signals | null>((resolve) => {
    child.once("error", (error) => {
      log.warn("the handshake process did not start", { error });
      silence();
      resolve(null);
    });
    child.once("close", (code) => {
      if (said !== "") log.debug("the handshake process wrote", { text: printable(Buffer.from(said, "latin1"), 2000) });
      silence();
      resolve(code === 139 ? "SIGSEGV" : code === 137 ? "SIGKILL" : code !== null && code > 128 ? "SIGABRT" : null);
    });
  });

  return {
    cipher,
    send: (message) => void control.write(`${JSON.stringify(message)}\n`),
    async next() {
      while (reports.length === 0 && !isSilent) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return reports.shift() ?? null;
    },
    async end() {
      watch.end();
      cipher.destroy();
      const late = setTimeout(() => child.kill("SIGKILL"), EXIT_MS);
      const signal = await gone;
      clearTimeout(late);
      control.destroy();
      return signal;
    },
  };
}

/** The error of a process that ended without a word. */
export function silentEnd(signal: NodeJS.Signals | null): TokenfwdError {
  if (signal === "SIGSEGV") {
    return new TokenfwdError("E_REFUSED", "the log-in to the token was refused, which is what OpenSSL's engine dies of", {
      hint: "the workstation says why: a PIN that was wrong or not given, a no, or a token that is locked",
    });
  }
  return new TokenfwdError("E_CHORIA_ENGINE", "OpenSSL's PKCS#11 engine ended the process that makes the TLS handshake", {
    hint: "run it again with TOKENFWD_LOG set, which keeps what the engine said",
  });
}
