/*
 * Keeps one token host process alive: hands it calls, notices a crash or a hang, kills, restarts, and
 * answers for what was lost. It must never replay a call that may have reached the module, and never send a handle of
 * an earlier epoch to a new process, where the same number may mean another object.
 */
import { createAlarm } from "../../base/alarm.js";
import { TokenfwdError } from "../../base/errors.js";
import type { Emitter } from "../../base/events.js";
import { type Log, silentLog } from "../../base/log.js";
import { createWithdrawals } from "../../base/withdrawals.js";
import { type CallClass, type CallName, callByName } from "../../cryptoki/calls.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import type { CallArgs, CallContext, CallResult } from "../../cryptoki/types.js";
import { createCallLine, type LineCall } from "./call-line.js";
import { type HostChild, startHostChild } from "./child.js";
import { createFaultCounter, DEADLINES_MS, LOAD_DEADLINE_MS, TOUCH_NOTICE_MS } from "./deadlines.js";
import { createHold } from "./hold.js";
import type { HostEvents, KeepGuard, PairAnswer } from "./host.js";
import type { FromHost, HostStep, ToHost } from "./messages.js";
import type { PinLender, PoolPlace } from "./pool-place.js";
import { restoreTerminal } from "./terminal.js";
import { createTouchWatch } from "./touch-watch.js";

export interface SupervisorOptions {
  readonly start: Extract<ToHost, { kind: "start" }>;
  /** The module in messages. */
  readonly shownPath: string;
  readonly pinDescriptor: number | null;
  readonly deadlinesMs: Partial<Record<CallClass, number>>;
  readonly loadTimeoutMs?: number;
  readonly touchNoticeMs?: number;
  /** See TokenHostOptions. */
  readonly holdMs: number | null;
  /** Null: there is one host alone. */
  readonly pool: PoolPlace | null;
  readonly log: Log;
  readonly events: Emitter<HostEvents>;
}

type Reply = Extract<FromHost, { kind: "unlocked" | "answer" }>;

export interface Supervisor extends PinLender {
  /** Resolves when the module is loaded for the first time; rejects with what went wrong, and nothing is left. */
  readonly ready: Promise<void>;
  call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>>;
  /** See TokenHost.pair. */
  pair(first: HostStep, then: HostStep, ctx: CallContext, again?: boolean): Promise<PairAnswer>;
  /** A request beside the calls; null when it was aborted or the process died under it. */
  request(make: (id: number) => ToHost, signal?: AbortSignal): Promise<Reply | null>;
  readonly epoch: number;
  readonly pid: number | undefined;
  /** Ends the process, as a fault with this reason; it is started again as after any other. */
  restart(reason: string): void;
  /** See TokenHost. */
  keep(guard: KeepGuard): void;
  close(): Promise<void>;
}

export function createSupervisor(options: SupervisorOptions): Supervisor {
  const { shownPath, events, log, loadTimeoutMs = LOAD_DEADLINE_MS } = options;
  const deadlines = { ...DEADLINES_MS, ...options.deadlinesMs };
  const touch = createTouchWatch(events, options.touchNoticeMs ?? TOUCH_NOTICE_MS);
  const lender = options.pool?.first ?? null;
  const requests = new Map<number, (reply: Reply | null) => void>();
  /** Requests that wait for the process to be ready. */
  const waiting = new Set<(ready: boolean) => void>();
  let state: "starting" | "ready" | "backoff" | "resting" | "closed" = "starting";
  let child: HostChild | null = null;
  let epoch = 0;
  let loads = 0;
  let nextId = 1;
  const faults = createFaultCounter();
  const watchdog = createAlarm();
  let again: NodeJS.Timeout | undefined;
  let openPrompt: Extract<FromHost, { kind: "prompt" }> | null = null;
  let killReason: string | null = null;
  let loadFailure: TokenfwdError | null = null;
  let settleReady: { resolve(): void; reject(error: TokenfwdError): void } | null = null;
  const ready = new Promise<void>((resolve, reject) => {
    settleReady = { resolve, reject };
  });

  function watch(ms: number, doing: string): void {
    watchdog.set(ms, () => {
      killReason = `hung for ${ms / 1000} s in ${doing}`;
      child?.kill();
    });
  }
  const watchCall = (call: LineCall) => watch(deadlines[call.class], call.name);

  const line = createCallLine({
    epoch: () => epoch,
    isReady: () => state === "ready",
    send: (message, how) => child?.send(message, how),
    onHead(call) {
      if (call === null) return watchdog.clear();
      watchCall(call);
      touch.begin(call.class, call.args, call.client);
    },
    onAnswer: (call, result) => touch.end(call.name, call.args, result),
  });
  const guards: KeepGuard[] = [];
  const hold = createHold({
    ms: options.holdMs,
    isIdle: (quietMs) => state === "ready" && line.head === null && requests.size === 0 && !guards.some((guard) => guard(quietMs)),
    release() {
      // What comes from now on reaches the host after this, and handles of before are void from now on.
      epoch += 1;
      touch.reset();
      log.info("the token is released: nobody has used it for a while");
      void request((id) => ({ kind: "release", id }));
    },
  });
  const withdrawals = createWithdrawals<LineCall>((call) => line.withdraw(call));

  function onMessage(message: FromHost): void {
    switch (message.kind) {
      case "ready":
        if (state === "closed") return;
        watchdog.clear();
        state = "ready";
        if (loads > 1) {
          epoch += 1;
          touch.reset();
          events.emit("epoch", { epoch });
        }
        settleReady?.resolve();
        settleReady = null;
        for (const resume of [...waiting]) resume(true);
        line.pump();
        return;
      case "failed":
        loadFailure = new TokenfwdError(message.code, message.message, {
          ...(message.hint === null ? {} : { hint: message.hint }),
          ...(message.reason === undefined ? {} : { reason: message.reason }),
        });
        return;
      case "result":
        line.answered(message);
        return;
      case "unlocked":
      case "answer":
        requests.get(message.id)?.(message);
        return;
      case "busy":
        watch(deadlines[message.class], "a call of the host's own");
        return;
      case "idle":
        watchdog.clear();
        if (line.head !== null) watchCall(line.head);
        return;
      case "prompt":
        openPrompt = message.prompt.state === "open" ? message : null;
        events.emit("prompt", message.prompt);
        return;
      case "event":
        hold.used();
        events.emit(message.name, { slot: message.slot });
        return;
    }
  }

  function answerQueue(rv: number): void {
    line.answerQueue(rv);
    for (const resume of [...waiting]) resume(false);
  }

  function onExit(how: string): void {
    watchdog.clear();
    const hung = killReason !== null;
    const reason = killReason ?? how;
    child = null;
    killReason = null;
    touch.end(null, {}, { rv: CKR.CKR_DEVICE_REMOVED });
    if (openPrompt !== null) {
      // It died with the terminal in its hands.
      if (openPrompt.terminal !== null) restoreTerminal(openPrompt.terminal);
      events.emit("prompt", { ...openPrompt.prompt, state: "closed" });
      openPrompt = null;
    }
    const lost = line.lost(state === "closed" ? CKR.CKR_CRYPTOKI_NOT_INITIALIZED : CKR.CKR_DEVICE_REMOVED);
    for (const settle of [...requests.values()]) settle(null);
    if (state === "closed") {
      answerQueue(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      return;
    }
    if (settleReady !== null) {
      state = "closed";
      const fault = new TokenfwdError("E_MODULE_FAULT", `${shownPath} ${reason} while it was loaded`, {
        hint: "try the module with pkcs11-tool --module PATH -L; update it or check that its service runs",
        reason: hung ? "hangs" : "crashes",
      });
      settleReady.reject(loadFailure ?? fault);
      settleReady = null;
      answerQueue(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      return;
    }
    const text = loadFailure?.message ?? `the module's process ${reason}`;
    loadFailure = null;
    log.warn("the token host died", { reason: text, call: lost });
    const { resting, waitMs } = faults.note();
    if (resting) rest(waitMs);
    else {
      state = "backoff";
      again = setTimeout(launch, waitMs);
    }
    events.emit("fault", { reason: text });
  }

  function launch(): void {
    state = "starting";
    if (lender === null) start();
    else
      void lender.loaded().then((isLoaded) => {
        if (state === "closed") return;
        if (isLoaded) start();
        else rest(faults.note().waitMs);
      });
  }

  function rest(waitMs: number): void {
    state = "resting";
    again = setTimeout(launch, waitMs);
    answerQueue(CKR.CKR_DEVICE_REMOVED);
  }

  function start(): void {
    loads += 1;
    const started = startHostChild({
      pinDescriptor: options.pinDescriptor,
      pinLink: options.pool === null ? null : lender === null ? "lends" : "borrows",
      log,
      onMessage: (message) => {
        onMessage(message);
        // A process whose module did not load is of no more use.
        if (message.kind === "failed") started.kill();
      },
      onExit,
    });
    child = started;
    if (started.lenderEnd !== null) lender?.lendTo(started.lenderEnd);
    watch(loadTimeoutMs, "loading");
    started.send(options.start);
  }

  /** Answers once the call has come back, or could not go. */
  function enter(first: HostStep | null, then: HostStep, ctx: CallContext, again = false): Promise<PairAnswer> {
    const answer = (rv: number) => Promise.resolve({ result: { rv }, begun: first === null, ahead: false });
    if (state === "closed") return answer(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
    if (state === "resting") return answer(CKR.CKR_DEVICE_REMOVED);
    if (ctx.signal.aborted) return answer(CKR.CKR_FUNCTION_CANCELED);
    hold.used();
    return new Promise((resolve) => {
      const { name, args } = then;
      const entered: LineCall = {
        id: nextId++,
        name,
        args,
        first,
        again,
        class: callByName(name).class,
        client: ctx.client,
        epoch,
        finish(result, begun, ahead) {
          leave();
          if (log !== silentLog) log.debug("module call", { call: begun || first === null ? name : first.name, rv: rvName(result.rv) });
          resolve({ result, begun, ahead });
        },
      };
      const leave = withdrawals.watch(ctx.signal, entered);
      line.add(entered);
    });
  }

  async function call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>> {
    return (await enter(null, { name, args }, ctx)).result as CallResult<N>;
  }

  /** False when it comes to nothing, or nobody waits any more. */
  function isStarted(signal?: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const resume = (value: boolean) => {
        waiting.delete(resume);
        signal?.removeEventListener("abort", abort);
        resolve(value);
      };
      const abort = () => resume(false);
      signal?.addEventListener("abort", abort, { once: true });
      waiting.add(resume);
    });
  }

  async function request(make: (id: number) => ToHost, signal?: AbortSignal): Promise<Reply | null> {
    const sentIn = epoch;
    if ((state === "starting" || state === "backoff") && !(await isStarted(signal))) return null;
    const id = nextId++;
    const message = make(id);
    if (state !== "ready" || signal?.aborted) return null;
    if (message.kind !== "release") hold.used();
    if (message.kind === "unlock" && sentIn !== epoch) return null;
    return new Promise((resolve) => {
      // Nobody waits for the host to notice: it may be blocked in a call.
      const cancel = () => {
        child?.send({ kind: "cancel", id });
        requests.get(id)?.(null);
      };
      requests.set(id, (reply) => {
        requests.delete(id);
        signal?.removeEventListener("abort", cancel);
        resolve(reply);
      });
      signal?.addEventListener("abort", cancel, { once: true });
      child?.send(message);
    });
  }

  launch();
  return {
    ready,
    call,
    pair: enter,
    request,
    get epoch() {
      return epoch;
    },
    get pid() {
      return child?.pid;
    },
    loaded: async () => state === "ready" || ((state === "starting" || state === "backoff") && (await isStarted())),
    lendTo(lenderEnd) {
      if (child === null) lenderEnd.destroy();
      else child.lendTo(lenderEnd);
    },
    restart(reason) {
      if (child === null) return;
      killReason = reason;
      child.kill();
    },
    keep: (guard) => void guards.push(guard),
    async close() {
      if (state === "closed") return;
      state = "closed";
      hold.close();
      clearTimeout(again);
      watchdog.clear();
      answerQueue(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      await child?.close();
    },
  };
}
