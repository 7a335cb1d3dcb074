/*
 * The calls on their way to the module, in order: a queue here, and a window of calls that lie in the host's pipe already,
 * so that the host need not wait for us between two. The host takes up a call only when the answer to the one before it has
 * left its process; so of what was sent, the oldest unanswered call alone may have reached the module when the process dies.
 * It must never send a call twice that may have reached the module, nor a handle of an earlier epoch to a new process.
 */
import { createSpinWait } from "../../base/spin-wait.js";
import type { CallClass, CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult } from "../../cryptoki/types.js";
import type { FromHost, HostStep, ToHost } from "./messages.js";

/** One call, and another that must succeed first if there is one. */
export interface LineCall extends HostStep {
  readonly id: number;
  readonly first: HostStep | null;
  /** `first` is likely to be made again. */
  readonly again: boolean;
  readonly class: CallClass;
  readonly client: string;
  readonly epoch: number;
  /** `begun` false: `first` has answered, and the call itself was not made. `ahead`: `first` is being made again. */
  finish(result: CallResult, begun: boolean, ahead: boolean): void;
}

export interface CallLineOptions {
  /** Now; a call of an earlier one that names a session is not sent. */
  epoch(): number;
  /** False holds everything back: there is no process that could take it. */
  isReady(): boolean;
  /** `now`: the host has nothing else to do. */
  send(message: ToHost, how: { readonly secret: boolean; readonly now: boolean }): void;
  /** This call is the module's now; null: none is. */
  onHead(call: LineCall | null): void;
  /** It has come back, before it is finished. */
  onAnswer(call: LineCall, result: CallResult): void;
}

export interface CallLine {
  readonly head: LineCall | null;
  add(call: LineCall): void;
  /** The caller has gone: a call that the module has not begun is answered CKR_FUNCTION_CANCELED, any other runs to its end. */
  withdraw(call: LineCall): void;
  /** Sends as much as the window has room for. */
  pump(): void;
  answered(message: Extract<FromHost, { kind: "result" }>): void;
  /** The process has died: finishes the head with `rv`; what was sent behind it had not begun, and waits for the next process. */
  lost(rv: number): CallName | null;
  /** Answers everything that is not sent. */
  answerQueue(rv: number): void;
}

/** Enough to keep the host busy while an answer and the next call cross; few enough that a dead client's calls are soon gone. */
const WINDOW = 16;
/** A signature that takes longer, as RSA does, is not waited for awake: it would cost more than the waking. */
const QUICK_ANSWER_MS = 0.5;

export function createCallLine({ epoch, isReady, send, onHead, onAnswer }: CallLineOptions): CallLine {
  const queue: LineCall[] = [];
  const sent: LineCall[] = [];
  /** Sent, and taken back since. */
  const withdrawn = new Set<LineCall>();
  /** The answer to a call that is alone under way: with several there is other work to do. */
  const answer = createSpinWait(QUICK_ANSWER_MS);

  function pump(): void {
    while (isReady() && sent.length < WINDOW) {
      const call = queue.shift();
      if (call === undefined) return;
      // Handles of a process that is gone name nothing, or worse, something else.
      if (call.epoch !== epoch() && "session" in call.args) {
        call.finish({ rv: CKR.CKR_SESSION_HANDLE_INVALID }, call.first === null, false);
        continue;
      }
      sent.push(call);
      if (sent.length === 1) onHead(call);
      const { id, name, args, first, again } = call;
      const message =
        first === null ? ({ kind: "call", id, name, args } as const) : ({ kind: "call", id, name, args, first, again } as const);
      send(message, { secret: call.class === "login" || call.class === "mutation", now: sent.length === 1 });
    }
  }

  return {
    get head() {
      return sent[0] ?? null;
    },
    add(call) {
      queue.push(call);
      pump();
      if (sent.length === 1 && queue.length === 0) answer.begin();
      else answer.cancel();
    },
    withdraw(call) {
      const at = queue.indexOf(call);
      if (at >= 0) {
        queue.splice(at, 1);
        call.finish({ rv: CKR.CKR_FUNCTION_CANCELED }, call.first === null, false);
      } else if (sent.indexOf(call) > 0) {
        // Whether it has begun meanwhile only the host knows: its answer says so.
        withdrawn.add(call);
        send({ kind: "withdraw", id: call.id }, { secret: false, now: false });
      }
    },
    pump,
    answered({ id, result, begun, ahead }) {
      answer.end();
      const at = sent.findIndex((call) => call.id === id);
      const call = sent[at];
      if (call === undefined) return;
      sent.splice(at, 1);
      withdrawn.delete(call);
      if (at === 0) {
        onAnswer(call, result);
        onHead(sent[0] ?? null);
      }
      call.finish(result, begun ?? true, ahead === true);
      pump();
    },
    lost(rv) {
      const [head, ...rest] = sent.splice(0);
      if (head === undefined) return null;
      for (const call of rest) if (withdrawn.has(call)) call.finish({ rv: CKR.CKR_FUNCTION_CANCELED }, call.first === null, false);
      queue.unshift(...rest.filter((call) => !withdrawn.has(call)));
      withdrawn.clear();
      head.finish({ rv }, true, false);
      return head.name;
    },
    answerQueue(rv) {
      for (const call of queue.splice(0)) call.finish({ rv }, call.first === null, false);
    },
  };
}
