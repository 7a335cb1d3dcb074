/*
 * The token host: a process that holds one PKCS#11 module and the PIN, and speaks to the agent over descriptor 3.
 * Module calls are synchronous and one at a time, so while the module waits (a touch) this process waits; it is killed
 * from outside when it waits too long. It must never write a PIN anywhere, never act on anything but its pipe and the
 * person, and never outlive its agent: it ends when the pipe does, or when the call it is blocked in returns.
 */
import { Socket } from "node:net";
import { TokenfwdError } from "../../base/errors.js";
import { keepHeapSmall } from "../../base/heap.js";
import { wipeable } from "../../base/secret.js";
import { createSpinWait } from "../../base/spin-wait.js";
import { callByName } from "../../cryptoki/calls.js";
import { CKF } from "../../cryptoki/constants.js";
import { CKR } from "../../cryptoki/rv.js";
import { createDriver, type TokenDriver } from "../driver/pkcs11js.js";
import type { Asker } from "./asker.js";
import { createFrameDecoder, decodeBody, encodeFrame } from "./frames.js";
import type { FromHost, ToHost } from "./messages.js";
import { checkPinFile } from "./pin-file.js";
import { createPinBorrower, lendOver } from "./pin-link.js";
import { createPinentry, findPinentry } from "./pinentry.js";
import { createPipeEnd } from "./pipe-end.js";
import { createPresence, type Presence } from "./presence.js";
import { createSteps, type Steps } from "./steps.js";
import { openTerminal } from "./terminal.js";
import { createUnlocker, type Unlocker } from "./unlocker.js";

const PIPE_FD = 3;
const PIN_FD = 4;
/** Of a host that borrows: the pipe to the one that lends. */
const LINK_FD = 5;
/** How often a token that is in use is looked for when nobody calls: its PIN goes when it goes. */
const PRESENCE_INTERVAL_MS = 3000;
/** And one that was pulled. */
const MISSING_INTERVAL_MS = 1000;
/** In this time the next call comes of somebody who signs again and again, on this machine or through a forward to it. */
const NEXT_CALL_MS = 1.5;

interface Arrived {
  readonly message: Extract<ToHost, { kind: "call" }>;
  /** What the message's buffers are views of: wiped when it is done with, for it may hold a PIN. */
  readonly body: Buffer;
}

interface Running {
  readonly driver: TokenDriver;
  readonly unlocker: Unlocker;
  readonly presence: Presence;
  readonly steps: Steps;
}

keepHeapSmall();
process.title = "tokenfwd token host";
// The agent decides when this process ends: Ctrl-C and a closed terminal reach it as well, and it closes the pipe.
for (const signal of ["SIGINT", "SIGHUP", "SIGQUIT"] as const) process.on(signal, () => {});
process.on("SIGTERM", () => end());

const pipe = createPipeEnd({ fd: PIPE_FD, onBytes: (bytes) => takeIn(decoder.push(bytes)), onEnd: end });
const decoder = createFrameDecoder();
const cancels = new Map<number, AbortController>();
/** Calls that the module has not begun, in order. */
const inbox: Arrived[] = [];
const nextCall = createSpinWait(NEXT_CALL_MS);
/** A call has its turn, or its answer is leaving. */
let isBusy = false;
let running: Running | null = null;
let ending = false;

function send(message: FromHost, written?: () => void): void {
  if (!ending) pipe.write(encodeFrame(message), written);
}

/** Ends the questions (which puts the terminal back), wipes the PINs, releases the module. */
function end(): void {
  if (ending) return;
  ending = true;
  for (const cancel of cancels.values()) cancel.abort();
  running?.unlocker.dispose();
  for (const { body } of inbox.splice(0)) body.fill(0);
  // The questions end in the microtasks that the aborts have queued.
  setImmediate(() => {
    running?.driver.finalize();
    process.exit(0);
  });
}

/** A call of our own: the agent is told first, so that it can tell a slow token from a hung one. */
function guarded(driver: TokenDriver): TokenDriver {
  return {
    ...driver,
    call(name, args) {
      send({ kind: "busy", class: callByName(name).class });
      try {
        return driver.call(name, args);
      } finally {
        send({ kind: "idle" });
      }
    },
  };
}

function start({ modulePath, pinSource, pinentry, lends }: Extract<ToHost, { kind: "start" }>): void {
  try {
    if (pinSource.kind === "file") checkPinFile(pinSource.path);
    const driver = createDriver(modulePath, () => running?.presence.recheck());
    const askers = (): Asker[] => {
      const terminal = openTerminal();
      if (terminal !== null) return [terminal];
      const program = findPinentry(pinentry, process.env);
      return program === null ? [] : [createPinentry(program, process.env)];
    };
    const own = guarded(driver);
    const unlocker = createUnlocker({
      driver: own,
      source: pinSource,
      lends,
      borrower: pinSource.kind === "first-host" ? createPinBorrower(new Socket({ fd: LINK_FD, readable: true, writable: true })) : null,
      descriptor: PIN_FD,
      askers,
      notify: (prompt, terminal) => send({ kind: "prompt", prompt, terminal }),
    });
    const presence = createPresence({
      look: (slot) => driver.call("C_GetTokenInfo", { slot }),
      tell(name, slot) {
        if (name === "token-gone") unlocker.wipe(slot);
        send({ kind: "event", name, slot });
      },
    });
    running = { driver, unlocker, presence, steps: createSteps(driver, presence) };
    if (lends) process.on("message", (_message, link) => link instanceof Socket && lendOver(link, unlocker.lend));
    let lookedMs = Date.now();
    setInterval(() => {
      // A token that was released is left alone, for another program may have it.
      const { isSwapped } = presence;
      const isWatched = !driver.isReleased && (unlocker.holdsPin || presence.isInUse || isSwapped);
      if (!presence.isMissing && !(isWatched && Date.now() - lookedMs >= PRESENCE_INTERVAL_MS)) return;
      lookedMs = Date.now();
      const args = { tokenPresent: 1, room: 4096 };
      presence.observe("C_GetSlotList", args, own.call("C_GetSlotList", args));
      if (isSwapped) presence.recheck();
    }, MISSING_INTERVAL_MS).unref();
    send({ kind: "ready" });
  } catch (error) {
    sendFailure(TokenfwdError.from(error));
  }
}

function sendFailure({ code, message, hint, reason }: TokenfwdError): void {
  send({ kind: "failed", code, message, hint: hint ?? null, ...(reason === undefined ? {} : { reason }) });
}

/** Really logs out, through a session of its own where that is possible. */
function lock({ driver, unlocker }: Running, slot: bigint): void {
  unlocker.wipe(slot);
  const opened = driver.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION });
  if (opened.rv !== CKR.CKR_OK || opened.session === undefined) return;
  driver.call("C_Logout", { session: opened.session });
  driver.call("C_CloseSession", { session: opened.session });
  send({ kind: "event", name: "locked", slot });
}

/** Another program may have the token: the agent has seen to it that nothing is under way. */
function release({ driver, presence, steps }: Running): void {
  send({ kind: "busy", class: "session" });
  driver.release();
  steps.released();
  presence.released();
  send({ kind: "idle" });
}

async function asking<T>(id: number, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const cancel = new AbortController();
  cancels.set(id, cancel);
  try {
    return await run(cancel.signal);
  } finally {
    cancels.delete(id);
  }
}

/** Makes the call, which has its turn. The next waits until the answer has left this process. */
function carryOut({ steps }: Running, { message, body }: Arrived): void {
  isBusy = true;
  try {
    send(steps.make(message, inbox.length === 0), () => {
      if (steps.goAhead()) nextCall.begin();
      isBusy = false;
      takeTurns();
    });
  } catch (error) {
    endOnBug(error);
  }
  body.fill(0);
}

/**
 * Each call has a turn of the event loop to itself, so that a `withdraw` that came while the module was busy is read before the
 * next call begins; and the next waits until the answer to the last has left this process, so that the agent can tell what
 * the module may have seen when it dies.
 */
function takeTurns(): void {
  if (isBusy || inbox.length === 0) return;
  isBusy = true;
  setImmediate(() => {
    const arrived = inbox.shift();
    isBusy = false;
    if (arrived === undefined || running === null || ending) takeTurns();
    else carryOut(running, arrived);
  });
}

function withdraw(id: number): void {
  const at = inbox.findIndex(({ message }) => message.id === id);
  if (at < 0) return;
  for (const { message, body } of inbox.splice(at, 1)) {
    body.fill(0);
    send({ kind: "result", id, result: { rv: CKR.CKR_FUNCTION_CANCELED }, begun: message.first === undefined });
  }
}

async function handle(message: Exclude<ToHost, { kind: "call" }>, host: Running): Promise<void> {
  switch (message.kind) {
    case "unlock": {
      const { id, request } = message;
      send({ kind: "unlocked", id, result: await asking(id, (signal) => host.unlocker.unlock(request, signal)) });
      return;
    }
    case "confirm": {
      const { id, question, timeoutMs } = message;
      send({ kind: "answer", id, yes: await asking(id, (signal) => host.unlocker.confirm(question, timeoutMs, signal)) });
      return;
    }
    case "can-ask":
      send({ kind: "answer", id: message.id, yes: host.unlocker.canAsk() });
      return;
    case "lock":
      lock(host, message.slot);
      send({ kind: "answer", id: message.id, yes: true });
      return;
    case "release":
      release(host);
      send({ kind: "answer", id: message.id, yes: true });
      return;
    case "withdraw":
      withdraw(message.id);
      return;
    case "cancel":
      cancels.get(message.id)?.abort();
      return;
    case "start":
    case "close":
      return;
  }
}

/**
 * Messages that came together. A call that comes alone, with nothing before it, is made at once: nothing that is here could take it
 * back. One that must wait needs memory of its own, for the next read overwrites what the pipe gave.
 */
function takeIn(bodies: readonly Buffer[]): void {
  nextCall.end();
  const [only] = bodies;
  if (bodies.length === 1 && only !== undefined && inbox.length === 0 && !isBusy) receive(only, carryOut);
  else for (const body of bodies) receive(ownCopy(body), putInLine);
}

function ownCopy(body: Buffer): Buffer {
  const copy = wipeable(body.length);
  body.copy(copy);
  return copy;
}

function putInLine(_host: Running, arrived: Arrived): void {
  inbox.push(arrived);
  takeTurns();
}

function receive(body: Buffer, takeCall: (host: Running, arrived: Arrived) => void): void {
  const message = decodeBody<ToHost>(body);
  if (message.kind === "start") start(message);
  else if (message.kind === "close") end();
  else if (running !== null) {
    if (message.kind === "call") takeCall(running, { message, body });
    else handle(message, running).catch(endOnBug);
  }
}

/** A bug in here must look like a crash, and so must a module that does not open again: the agent answers the call and starts a fresh process. */
function endOnBug(error: unknown): void {
  if (error instanceof TokenfwdError) {
    // Not a bug: the module cannot be opened again, and the agent ends this process when it hears why.
    sendFailure(error);
    return;
  }
  process.stderr.write(`token host: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(70);
}
