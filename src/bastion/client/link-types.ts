/*
 * One connection to what lives on a socket, as the client sees it. Types only.
 */
import type { KeyRing } from "../../cryptoki/keys/key-ring.js";
import type { Cryptoki } from "../../cryptoki/types.js";
import type { RpcClient } from "../../wire/rpc/client.js";
import type { PinTries } from "./stock-login.js";
import type { PinProvider } from "./types.js";

export interface LinkTimes {
  /** Until the socket takes the connection, in milliseconds. */
  readonly connectMs: number;
  /** Until the other end says its first byte. */
  readonly firstByteMs: number;
  /** Until an agent that was asked for its tokens and keys has named them; it may have to read them from slow cards. */
  readonly snapshotMs: number;
}

export interface LinkSettings {
  readonly client: string;
  readonly snapshot: boolean;
  readonly pin: PinProvider | undefined;
  readonly tries: PinTries;
  readonly times: LinkTimes;
}

interface AnyLink {
  readonly path: string;
  readonly cryptoki: Cryptoki;
  /** Keys over this connection, with its own sessions. */
  readonly ring: KeyRing;
  readonly isGone: () => boolean;
  /** Ends it at once. Safe to call twice. */
  close(): void;
}

export interface AgentLink extends AnyLink {
  readonly protocol: "tokenfwd";
  readonly rpc: RpcClient;
  /** False when the other end was no agent after all, and nothing of what was sent was understood. Rejects when it is silent. */
  readonly isAgent: Promise<boolean>;
}

export interface StockLink extends AnyLink {
  readonly protocol: "p11-kit";
}

export type Link = AgentLink | StockLink;
