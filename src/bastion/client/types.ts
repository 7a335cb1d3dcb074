/*
 * What a program on the bastion is given of the token at the workstation. Types only; index.ts is what is exported.
 */
import type { Emitter } from "../../base/events.js";
import type { KeyEntry } from "../../cryptoki/keys/types.js";
import type { Cryptoki, CryptokiEvents } from "../../cryptoki/types.js";
import type { SignMessage, SignResult, StatusResult } from "../../wire/rpc/messages.js";

/**
 * Answers the PIN of a token, or null for "no PIN" (E_PIN_CANCELLED). Asked only for a stock p11-kit server, and for an
 * agent that runs with `--pin-source client`: to these the PIN goes over the wire; else it is asked at the workstation. One
 * question at a time. The buffer becomes ours and is overwritten after use. `signal` is aborted when nobody waits for the
 * answer any more. `label` and `uri` are printable.
 */
export type PinProvider = (token: { readonly label: string; readonly uri: string }, signal: AbortSignal) => Promise<Buffer | null>;

export interface ConnectOptions {
  /** Path of the socket. Without it the environment and the well-known places are looked at, see findSockets. */
  readonly socket?: string;
  /** Default process.env. */
  readonly env?: NodeJS.ProcessEnv;
  /** See PinProvider. Without it a token that wants its PIN from this side is E_PIN_SOURCE. */
  readonly pin?: PinProvider;
  /** What this program calls itself in the workstation's log; default `tokenfwd/client`. */
  readonly client?: string;
  /**
   * Whether the first flight asks for all tokens and keys, default true: `keys` then takes no trip of its own. false is for
   * who only signs: nothing is waited for, and magic, hello and the first request go in one flight.
   */
  readonly snapshot?: boolean;
  /** Aborts the connecting; not what is done later. */
  readonly signal?: AbortSignal;
}

export interface Signer {
  /**
   * Signs once. Rejects with a TokenfwdError; or, when `signal` was aborted, with its reason. A request that was sent is
   * never sent again: after E_AGENT_LOST the signature may have been made. `deadlineMs` is 1 to 600000, for connecting and
   * all else; without it the answer is waited for as long as somebody may be looking for the token.
   */
  sign(request: SignMessage, options?: { readonly signal?: AbortSignal; readonly deadlineMs?: number }): Promise<SignResult>;
}

export interface TokenfwdClient extends AsyncDisposable {
  /** What the other end speaks, `p11-kit` being a stock server. Before the first answer: what is expected of the socket. */
  readonly protocol: "tokenfwd" | "p11-kit";
  /** Path of the socket in use. */
  readonly socket: string;
  /**
   * Every Cryptoki call, many in flight. After a loss the calls in flight answer CKR_DEVICE_REMOVED and the next call
   * connects anew: handles of before are void then, which the event `epoch` tells.
   */
  readonly cryptoki: Cryptoki;
  readonly signer: Signer;
  /**
   * The keys of all tokens, without a log-in (where the PIN is wanted from this side and there is a PinProvider: with one on
   * a token that shows no key).
   * The first call answers what came with hello; every later one looks again.
   */
  keys(options?: { readonly signal?: AbortSignal }): Promise<readonly KeyEntry[]>;
  /** What the agent says of this connection; null at a stock server. */
  status(): Promise<StatusResult | null>;
  /** Touch wanted, token in or gone, locked, epoch. Listening subscribes; a stock server tells only `epoch`. */
  readonly events: Emitter<CryptokiEvents>;
  /** Ends the connection; what is in flight rejects with E_AGENT_LOST. Safe to call twice. */
  close(): Promise<void>;
}
