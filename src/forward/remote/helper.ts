/*
 * Drives the helper shell on the bastion: one session channel, one-line commands, answers between random markers.
 * It must never trust what comes back: an answer is at most 8 KiB, each value is checked against its key's pattern, and
 * whatever a login shell prints besides is dropped.
 */
import { randomBytes } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { ExecChannel, Transport } from "../transport.js";
import { bootstrapCommand, helperMarker, helperScript, SCRIPT_END } from "./helper-script.js";

const MAX_ANSWER_BYTES = 8 * 1024;
const MAX_NOISE_BYTES = 256 * 1024;
const TIMEOUT_MS = 15_000;
/** The slowest link that data is sent over, in bytes a millisecond. */
const SLOWEST_LINK = 2;

/** Values of one answer by key; a key may come more than once. */
export type Answer = ReadonlyMap<string, readonly string[]>;

export interface Helper {
  /** Whether it has a terminal. That there is a session at all keeps sshd from delaying small packets (ADR 9). */
  readonly pty: boolean;
  /** Printable: what the login shell said before our own text ran; empty for a quiet one. */
  readonly said: string;
  /** Sends a command and waits for its answer. @throws TokenfwdError E_REMOTE_SHELL, also when the helper has gone */
  request(verb: string, ...args: readonly string[]): Promise<Answer>;
  /** As request, with text behind the command that the helper reads as data. The time allowed grows with its length. */
  send(text: string, verb: string, ...args: readonly string[]): Promise<Answer>;
  /** Resolves when the channel has closed. */
  readonly gone: Promise<void>;
  /** Closes the channel; what the helper made goes with it unless it was released. */
  close(): void;
}

const PATH = /^\/[^\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\uFFFD]{0,1023}$/u;
const ANY_PATH = /^$|^\/[^\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\uFFFD]{0,1023}$/u;
const WORD = /^[a-z][a-z-]{0,30}$/;
const PATTERNS: Readonly<Record<string, RegExp>> = {
  uid: /^\d{1,10}$/,
  rt: ANY_PATH,
  rtkind: /^(XDG_RUNTIME_DIR|run|tmp|none)$/,
  skipped: /^(XDG_RUNTIME_DIR|run|tmp) [a-z]{1,20}$/,
  os: /^[A-Za-z0-9_./-]{1,40}$/,
  pid: /^\d{1,10}$/,
  tool: /^(perl|python3|socat|nc)$/,
  p11kit: /^[0-9][0-9A-Za-z.+~:-]{0,40}$/,
  client: PATH,
  shell: /^\/[A-Za-z0-9._/+-]{1,200}$/,
  address: /^[ -~]{1,200}$/,
  startfile: PATH,
  unit: /^(active|inactive|unknown)$/,
  ownholder: /^\d{1,10} [ -~]{1,60}$/,
  holder: /^\d{1,10} [ -~]{1,60}$/,
  base: WORD,
  dir: WORD,
  owner: /^$|^[A-Za-z0-9-]{1,64}$/,
  alive: /^(yes|no)$/,
  sock: WORD,
  claim: /^ok$/,
  adopt: /^ok$/,
  fail: WORD,
  wk: WORD,
  ours: /^yes$/,
  dangling: /^yes$/,
  link: /^ok$/,
  ping: /^(answers|silent|refused|unknown)$/,
  node: PATH,
  nodever: /^v\d{1,4}\.[0-9A-Za-z.+-]{1,40}$/,
  found: /^(unknown|v\d{1,12}\.[0-9A-Za-z.+-]{1,40}) \/[^\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\uFFFD]{0,1023}$/u,
  sum: /^[0-9a-f]{0,64}$/,
  run: /^\d{1,3}$/,
  said: /^[ -~]{0,200}$/,
  home: ANY_PATH,
  cwd: ANY_PATH,
  user: /^[^\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\uFFFD]{0,100}$/u,
  program: PATH,
  present: /^\d{1,2}$/,
  unreadable: /^\d{1,2}$/,
  size: /^\d{1,12}$/,
  hex: /^([0-9a-f]{2}){0,3500}$/,
  keep: /^ok$/,
  drop: /^ok$/,
  release: /^ok$/,
  clean: /^ok$/,
};

/** The lines of an answer as values. Exported for tests. @throws TokenfwdError E_REMOTE_SHELL for an unknown key or a value out of its pattern */
export function parseAnswer(lines: readonly string[]): Answer {
  const answer = new Map<string, string[]>();
  for (const line of lines) {
    if (line === "") continue;
    const equals = line.indexOf("=");
    const key = line.slice(0, Math.max(equals, 0));
    const value = line.slice(equals + 1);
    const pattern = Object.hasOwn(PATTERNS, key) ? PATTERNS[key] : undefined;
    if (pattern === undefined || !pattern.test(value)) throw shellError(`it answered ${printable(line, 80)}`);
    answer.set(key, [...(answer.get(key) ?? []), value]);
  }
  return answer;
}

function shellError(what: string, reason: string = "shell-answers-otherwise"): TokenfwdError {
  return new TokenfwdError("E_REMOTE_SHELL", `the bastion's shell did not answer as a POSIX shell does: ${what}`, {
    hint: "try: ssh DEST 'exec /bin/sh -c \"echo ok\"'; a ForceCommand, a nologin shell or a login script that exits prevents it",
    reason,
  });
}

/** Starts a helper, with a terminal when asked for. A refused session or terminal is answered as null with its kind. */
export async function startHelper(
  transport: Transport,
  pty: boolean,
): Promise<Helper | { readonly refused: string; readonly reason: string }> {
  const nonce = randomBytes(16).toString("hex");
  const outcome = await transport.exec(bootstrapCommand(nonce), pty ? { pty: { cols: 80, rows: 24, term: "dumb" } } : {});
  if (!outcome.ok) return outcome;
  const helper = driveHelper(outcome.value, nonce, pty);
  try {
    await helper.started;
  } catch (error) {
    helper.close();
    throw error;
  }
  return helper;
}

interface Waiting {
  readonly seq: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: TokenfwdError) => void;
}

function driveHelper(channel: ExecChannel, nonce: string, pty: boolean): Helper & { readonly started: Promise<void> } {
  const marker = helperMarker(nonce);
  let pending = "";
  let noise = "";
  let noiseBytes = 0;
  let greeted = false;
  let lines: string[] | null = null;
  let answerBytes = 0;
  let sequence = 0;
  let waiting: Waiting | null = null;
  let dead: TokenfwdError | null = null;
  let onStart: () => void = () => {};
  let onStartFailed: (error: TokenfwdError) => void = () => {};
  const started = new Promise<void>((resolve, reject) => {
    onStart = resolve;
    onStartFailed = reject;
  });
  const fail = (error: TokenfwdError) => {
    if (dead !== null) return;
    dead = error;
    onStartFailed(error);
    waiting?.reject(error);
    waiting = null;
    channel.close();
  };
  const arm = (timeoutMs = TIMEOUT_MS) => {
    const timer = setTimeout(() => fail(shellError(`nothing came in ${Math.round(timeoutMs / 1000)} s`, "shell-silent")), timeoutMs);
    return () => clearTimeout(timer);
  };
  const disarmStart = arm();
  started.then(disarmStart, disarmStart);

  const takeLine = (line: string) => {
    if (!greeted) {
      // A login shell may have printed something on the same line.
      if (line.endsWith(marker)) {
        greeted = true;
        noise = noise.slice(0, Math.max(0, noise.lastIndexOf(marker)));
        channel.stream.write(`${helperScript(nonce)}${SCRIPT_END}\n`);
        onStart();
      }
      return;
    }
    if (waiting === null) return;
    if (lines === null) {
      if (line.endsWith(`${marker} ${waiting.seq} begin`)) {
        lines = [];
        answerBytes = 0;
      }
      return;
    }
    if (line === `${marker} ${waiting.seq} end`) {
      const { resolve, reject } = waiting;
      const given = lines;
      waiting = null;
      lines = null;
      try {
        resolve(parseAnswer(given));
      } catch (error) {
        reject(TokenfwdError.from(error));
      }
      return;
    }
    answerBytes += line.length + 1;
    if (answerBytes > MAX_ANSWER_BYTES) fail(shellError("an answer is longer than 8 KiB"));
    else lines.push(line);
  };

  channel.stream.setEncoding("utf8");
  channel.stream.on("data", (text: string) => {
    if (dead !== null) return;
    noiseBytes += text.length;
    if (!greeted) noise = (noise + text).slice(-300);
    if (noiseBytes > MAX_NOISE_BYTES) return fail(shellError("it prints without end", "shell-prints-without-end"));
    pending += text;
    if (pending.length > MAX_ANSWER_BYTES && !pending.includes("\n")) pending = pending.slice(-1024);
    for (let newline = pending.indexOf("\n"); newline !== -1; newline = pending.indexOf("\n")) {
      const line = pending.slice(0, newline).replace(/\r+$/, "");
      pending = pending.slice(newline + 1);
      takeLine(line);
    }
  });
  channel.stderr.on("data", (chunk: Buffer) => {
    if (!greeted) noise = (noise + chunk.toString("utf8")).slice(-300);
  });
  channel.stream.on("error", () => {});
  channel.stderr.on("error", () => {});
  const gone = channel.exit.then(() => {
    const said = printable(noise.trim());
    if (greeted) fail(shellError("it ended"));
    else fail(shellError(said === "" ? "it ended" : `it said ${said}`, "command-not-run"));
  });

  let queue: Promise<unknown> = Promise.resolve();
  const ask = (verb: string, args: readonly string[], data: string) =>
    new Promise<Answer>((resolve, reject) => {
      if (dead !== null) return reject(dead);
      noiseBytes = 0;
      sequence += 1;
      const disarm = arm(TIMEOUT_MS + data.length / SLOWEST_LINK);
      waiting = {
        seq: sequence,
        resolve: (answer) => {
          disarm();
          resolve(answer);
        },
        reject: (error) => {
          disarm();
          reject(error);
        },
      };
      channel.stream.write(`${[sequence, verb, ...args].join(" ")}\n${data}`);
    });
  const enqueue = (verb: string, args: readonly string[], data: string) => {
    const answer = queue.then(() => ask(verb, args, data));
    queue = answer.catch(() => {});
    return answer;
  };
  return {
    pty,
    get said() {
      return printable(noise.trim());
    },
    started,
    gone,
    request: (verb, ...args) => enqueue(verb, args, ""),
    send: (text, verb, ...args) => enqueue(verb, args, text),
    close: () => channel.close(),
  };
}
