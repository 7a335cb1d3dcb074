/*
 * Keeps one token host process alive: hands it one call at a time, notices a crash or a hang, kills, restarts, and
 * answers for what was lost. It must never replay a call that may have reached the module, and never send a handle of
 * an earlier epoch to a new process, where the same number may mean another object.
 */
import { TokenfwdError } from "../../base/errors.js";
import type { Emitter } from "../../base/events.js";
import type { Log } from "../../base/log.js";
import { type CallClass, type CallName, callByName } from "../../cryptoki/calls.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import type { CallArgs, CallContext, CallResult } from "../../cryptoki/types.js";
import { type HostChild, startHostChild } from "./child.js";
import { createFaultCounter, DEADLINES_MS, LOAD_DEADLINE_MS, TOUCH_NOTICE_MS } from "./deadlines.js";
import type { HostEvents } from "./host.js";
import type { FromHost, ToHost } from "./messages.js";
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
  readonly log: Log;
  readonly events: Emitter<HostEvents>;
}

type Reply = Extract<FromHost, { kind: "unlocked" | "answer" }>;

export interface Supervisor {
  /** Resolves when the module is loaded for the first time; rejects with what went wrong, and nothing is left. */
  readonly ready: Promise<void>;
  call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>>;
  /** A request beside the calls; null when it was aborted or the process died under it. */
  request(make: (id: number) => ToHost, signal?: AbortSignal): Promise<Reply | null>;
  readonly epoch: number;
  readonly pid: number | undefined;
  close(): Promise<void>;
}

interface QueuedCall {
  readonly id: number;
  readonly name: CallName;
  readonly args: object;
  readonly class: CallClass;
  readonly epoch: number;
  finish(result: CallResult): void;
}

export function createSupervisor(options: SupervisorOptions): Supervisor {
  const { start, shownPath, events, log, loadTimeoutMs = LOAD_DEADLINE_MS } = options;
  const deadlines = { ...DEADLINES_MS, ...options.deadlinesMs };
  const touch = createTouchWatch(events, options.touchNoticeMs ?? TOUCH_NOTICE_MS);
  const queue: QueuedCall[] = [];
  const requests = new Map<number, (reply: Reply | null) => void>();
  /** Requests that wait for the process to be ready. */
  const waiting = new Set<(ready: boolean) => void>();
  let state: "starting" | "ready" | "backoff" | "resting" | "closed" = "starting";
  let child: HostChild | null = null;
  let running: QueuedCall | null = null;
  let epoch = 0;
  let loads = 0;
  let nextId = 1;
  const faults = createFaultCounter();
  let watchdog: NodeJS.Timeout | undefined;
  let restart: NodeJS.Timeout | undefined;
  let openPrompt: Extract<FromHost, { kind: "prompt" }> | null = null;
  let killReason: string | null = null;
  let loadFailure: TokenfwdError | null = null;
  let settleReady: { resolve(): void; reject(error: TokenfwdError): void } | null = null;
  const ready = new Promise<void>((resolve, reject) => {
    settleReady = { resolve, reject };
  });

  function watch(ms: number, doing: string): void {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => {
      killReason = `hung for ${ms / 1000} s in ${doing}`;
      child?.kill();
    }, ms);
  }
  const watchCall = (call: QueuedCall) => watch(deadlines[call.class], call.name);

  function pump(): void {
    while (state === "ready" && running === null) {
      const call = queue.shift();
      if (call === undefined) return;
      // Handles of a process that is gone name nothing, or worse, something else.
      if (call.epoch !== epoch && "session" in call.args) {
        call.finish({ rv: CKR.CKR_SESSION_HANDLE_INVALID });
        continue;
      }
      running = call;
      watchCall(call);
      touch.begin(call.class, call.args);
      const { id, name, args } = call;
      child?.send({ kind: "call", id, name, args }, call.class === "login" || call.class === "mutation");
    }
  }

  function onMessage(message: FromHost): void {
    switch (message.kind) {
      case "ready":
        clearTimeout(watchdog);
        state = "ready";
        if (loads > 1) {
          epoch += 1;
          touch.reset();
          events.emit("epoch", { epoch });
        }
        settleReady?.resolve();
        settleReady = null;
        for (const resume of [...waiting]) resume(true);
        pump();
        return;
      case "failed":
        loadFailure = new TokenfwdError(message.code, message.message, message.hint === null ? {} : { hint: message.hint });
        return;
      case "result": {
        const call = running;
        if (call === null || call.id !== message.id) return;
        clearTimeout(watchdog);
        running = null;
        touch.end(call.name, call.args, message.result);
        call.finish(message.result);
        pump();
        return;
      }
      case "unlocked":
      case "answer":
        requests.get(message.id)?.(message);
        return;
      case "busy":
        watch(deadlines[message.class], "a call of the host's own");
        return;
      case "idle":
        clearTimeout(watchdog);
        if (running !== null) watchCall(running);
        return;
      case "prompt":
        openPrompt = message.prompt.state === "open" ? message : null;
        events.emit("prompt", message.prompt);
        return;
      case "event":
        events.emit(message.name, { slot: message.slot });
        return;
    }
  }

  function answerQueue(rv: number): void {
    for (const call of queue.splice(0)) call.finish({ rv });
    for (const resume of [...waiting]) resume(false);
  }

  function onExit(how: string): void {
    clearTimeout(watchdog);
    const reason = killReason ?? how;
    child = null;
    killReason = null;
    const lost = running;
    running = null;
    touch.end(null, {}, { rv: CKR.CKR_DEVICE_REMOVED });
    if (openPrompt !== null) {
      // It died with the terminal in its hands.
      if (openPrompt.terminal !== null) restoreTerminal(openPrompt.terminal);
      events.emit("prompt", { ...openPrompt.prompt, state: "closed" });
      openPrompt = null;
    }
    lost?.finish({ rv: state === "closed" ? CKR.CKR_CRYPTOKI_NOT_INITIALIZED : CKR.CKR_DEVICE_REMOVED });
    for (const settle of [...requests.values()]) settle(null);
    if (state === "closed") return;
    if (settleReady !== null) {
      state = "closed";
      const fault = new TokenfwdError("E_MODULE_FAULT", `${shownPath} ${reason} while it was loaded`, {
        hint: "try the module with pkcs11-tool --module PATH -L; update it or check that its service runs",
      });
      settleReady.reject(loadFailure ?? fault);
      settleReady = null;
      answerQueue(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      return;
    }
    const text = loadFailure?.message ?? `the module's process ${reason}`;
    loadFailure = null;
    log.warn("the token host died", { reason: text, call: lost?.name ?? null });
    const { resting, waitMs } = faults.note();
    state = resting ? "resting" : "backoff";
    restart = setTimeout(launch, waitMs);
    events.emit("fault", { reason: text });
    if (resting) answerQueue(CKR.CKR_DEVICE_REMOVED);
  }

  function launch(): void {
    state = "starting";
    loads += 1;
    const started = startHostChild({
      pinDescriptor: options.pinDescriptor,
      log,
      onMessage: (message) => {
        onMessage(message);
        // A process whose module did not load is of no more use.
        if (message.kind === "failed") started.kill();
      },
      onExit,
    });
    child = started;
    watch(loadTimeoutMs, "loading");
    started.send(start);
  }

  function call<N extends CallName>(name: N, args: CallArgs<N>, ctx: CallContext): Promise<CallResult<N>> {
    const answer = (rv: number) => Promise.resolve({ rv } as CallResult<N>);
    if (state === "closed") return answer(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
    if (state === "resting") return answer(CKR.CKR_DEVICE_REMOVED);
    if (ctx.signal.aborted) return answer(CKR.CKR_FUNCTION_CANCELED);
    return new Promise((resolve) => {
      const withdraw = () => {
        const at = queue.indexOf(queued);
        // What has reached the module cannot be taken back.
        if (at < 0) return;
        queue.splice(at, 1);
        queued.finish({ rv: CKR.CKR_FUNCTION_CANCELED });
      };
      const id = nextId++;
      const queued: QueuedCall = {
        id,
        name,
        args,
        class: callByName(name).class,
        epoch,
        finish(result) {
          ctx.signal.removeEventListener("abort", withdraw);
          log.debug("module call", { call: name, rv: rvName(result.rv) });
          resolve(result as CallResult<N>);
        },
      };
      ctx.signal.addEventListener("abort", withdraw, { once: true });
      queue.push(queued);
      pump();
    });
  }

  async function request(make: (id: number) => ToHost, signal?: AbortSignal): Promise<Reply | null> {
    const sentIn = epoch;
    if (state === "starting" || state === "backoff") {
      const isReady = await new Promise<boolean>((resolve) => {
        const resume = (value: boolean) => {
          waiting.delete(resume);
          signal?.removeEventListener("abort", abort);
          resolve(value);
        };
        const abort = () => resume(false);
        signal?.addEventListener("abort", abort, { once: true });
        waiting.add(resume);
      });
      if (!isReady) return null;
    }
    const id = nextId++;
    const message = make(id);
    if (state !== "ready" || signal?.aborted) return null;
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
    request,
    get epoch() {
      return epoch;
    },
    get pid() {
      return child?.pid;
    },
    async close() {
      if (state === "closed") return;
      state = "closed";
      clearTimeout(restart);
      clearTimeout(watchdog);
      answerQueue(CKR.CKR_CRYPTOKI_NOT_INITIALIZED);
      await child?.close();
    },
  };
}
