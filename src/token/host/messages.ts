/*
 * What crosses the pipe between the agent and its token host. Types only.
 * A PIN crosses it in one case: the arguments of a call that a client sent one in (`client` mode, or the profile full).
 */
import type { ErrorCode } from "../../base/errors.js";
import type { CallClass, CallName } from "../../cryptoki/calls.js";
import type { CallResult } from "../../cryptoki/types.js";

/** Where the PIN comes from. `fd` is a descriptor of the process that calls createTokenHost. */
export type PinSource =
  | { readonly kind: "ask" }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "fd"; readonly fd: number }
  | { readonly kind: "client" };

/** Where a host's PIN comes from: the source, or the first host of the same module, which has seen it accepted. */
export type HostPinSource = PinSource | { readonly kind: "first-host" };

export interface UnlockRequest {
  readonly slot: bigint;
  /** A real session of this slot. */
  readonly session: bigint;
  /** CKU_USER or CKU_CONTEXT_SPECIFIC. */
  readonly userType: bigint;
  /** The module has answered CKR_USER_NOT_LOGGED_IN: what it says of its own log-in is not believed. Default false. */
  readonly lost?: boolean;
  /** Who asks, as the question shows it: `ops@bastion`. */
  readonly who: string;
  /** For each question; default 60,000. */
  readonly timeoutMs?: number;
}

/**
 * How an unlock ended. `asked` is false when nobody at the workstation was asked for it: the token was logged in
 * already, or the PIN was at hand; who wants a person's yes must then ask for it.
 */
export interface UnlockResult {
  readonly rv: number;
  readonly asked: boolean;
  readonly reason?: "cancelled" | "timeout" | "no-source" | "last-try-declined" | "wrong-pin" | "locked" | "pin-pad";
}

/** A question at the workstation, or the device waiting for a finger. `token` is its label, empty where unknown. */
export interface PromptEvent {
  readonly kind: "pin" | "confirm" | "touch";
  readonly state: "open" | "closed";
  readonly token: string;
  /** 1 when the token says that one try is left; null when it does not say. */
  readonly triesLeft: number | null;
  /** Of a touch: whose call waits for it. */
  readonly client?: string;
}

/** A call of the table on real handles. */
export interface HostStep {
  readonly name: CallName;
  readonly args: object;
}

/**
 * Agent to host. Calls run in order, each in a turn of its own; all else is taken up when it arrives. A call with `first` is two in
 * one crossing: `first` is made, and the call itself only when that answered CKR_OK. `again`: the same C_SignInit is likely to come
 * next, and may be made ahead (steps.ts). `withdraw` drops a call that has not begun.
 */
export type ToHost =
  | {
      readonly kind: "start";
      readonly modulePath: string;
      readonly pinSource: HostPinSource;
      readonly pinentry: string | null;
      /** Keeps an accepted PIN whatever its source, for the hosts that borrow it. */
      readonly lends: boolean;
    }
  | {
      readonly kind: "call";
      readonly id: number;
      readonly name: CallName;
      readonly args: object;
      readonly first?: HostStep;
      readonly again?: boolean;
    }
  | { readonly kind: "withdraw"; readonly id: number }
  | { readonly kind: "unlock"; readonly id: number; readonly request: UnlockRequest }
  | { readonly kind: "confirm"; readonly id: number; readonly question: string; readonly timeoutMs: number }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "can-ask"; readonly id: number }
  | { readonly kind: "lock"; readonly id: number; readonly slot: bigint }
  /** Lets go of the module, and of every handle; the next call opens it again. PINs are kept. */
  | { readonly kind: "release"; readonly id: number }
  | { readonly kind: "close" };

/** Host to agent. */
export type FromHost =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly code: ErrorCode; readonly message: string; readonly hint: string | null; readonly reason?: string }
  /** `begun` false: the call's `first` did not answer CKR_OK, and this is its answer. `ahead`: its C_SignInit is made once more now. */
  | { readonly kind: "result"; readonly id: number; readonly result: CallResult; readonly begun?: boolean; readonly ahead?: boolean }
  | { readonly kind: "unlocked"; readonly id: number; readonly result: UnlockResult }
  | { readonly kind: "answer"; readonly id: number; readonly yes: boolean }
  /** The host is about to call the module of its own accord: the deadline of this class holds until `idle`. */
  | { readonly kind: "busy"; readonly class: CallClass }
  | { readonly kind: "idle" }
  /** `terminal`: how `stty` restores the terminal if the host dies while the question is open. */
  | { readonly kind: "prompt"; readonly prompt: PromptEvent; readonly terminal: string | null }
  | { readonly kind: "event"; readonly name: "token-in" | "token-gone" | "locked"; readonly slot: bigint };
