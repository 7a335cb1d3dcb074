/*
 * The forwarder's contract with the command line: what it is given, what it asks, what it answers. Types only.
 */
import type { Duplex, Readable, Writable } from "node:stream";
import type { TokenfwdError } from "../base/errors.js";
import type { SshSettings } from "./ssh-settings.js";

/** Everything a person is asked or told. Texts are printable. */
export interface ForwardUi {
  /** An unknown host key; only a yes goes on. */
  confirmHostKey(question: { readonly host: string; readonly keyType: string; readonly fingerprint: string }): Promise<boolean>;
  /** The passphrase of an encrypted key file, null for none. The Buffer is overwritten after use. */
  askPassphrase(keyPath: string): Promise<Buffer | null>;
  /** Progress, named as the events of `connect --json`. */
  event(name: "hostkey" | "auth" | "probe" | "forward" | "verify" | "warning", data: Record<string, unknown>): void;
}

export interface ForwardOptions {
  readonly settings: SshSettings;
  /** 8 hex digits: the directory's name on the bastion. */
  readonly workstationId: string;
  /** Unique per connection, letters, digits and hyphens: who owns the directory. */
  readonly connectId: string;
  readonly ui: ForwardUi;
  /** Aborting before ready rejects with E_INTERRUPTED, with nothing left on the bastion. */
  readonly signal: AbortSignal;
  /** Takes over each connection to the remote socket. */
  attach(stream: Duplex): { onFirstFrameOptions(listener: (options: Buffer) => void): void };
  /** The slot list that a client of the agent must see. */
  expectedSlots(): Promise<readonly bigint[]>;
  /** -t: no terminal is an error, not a warning. */
  readonly requirePty: boolean;
}

/** What holds once the socket on the bastion answers. */
export interface ForwardReady {
  readonly user: string;
  readonly host: string;
  readonly port: number;
  readonly hostKey: string;
  readonly pty: boolean;
  readonly verified: "rpc" | "no";
  /** Why not, when `verified` is "no". */
  readonly verifiedWhy?: string;
  readonly remoteSocket: string;
  /** `unix:path=...`, percent-encoded as p11-kit writes it. */
  readonly address: string;
  readonly wellKnown: "ours" | "foreign" | "none";
  /** One call there and back through the forward; 0 when it was not verified. */
  readonly rttMs: number;
  readonly warnings: readonly string[];
}

export interface RunIo {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly pty: { readonly cols: number; readonly rows: number; readonly term: string } | null;
  /** Aborting sends TERM and closes the channel. */
  readonly signal: AbortSignal;
  onResize?(listener: (size: { readonly cols: number; readonly rows: number }) => void): void;
}

export interface Forward {
  readonly ready: ForwardReady;
  /**
   * Runs a command on the bastion, argv byte for byte, with TOKENFWD_SOCKET and P11_KIT_SERVER_ADDRESS set.
   * stdout and stderr are not ended. @throws TokenfwdError E_USAGE (over 32 KiB, or a NUL), E_PTY_REFUSED, E_SSH
   */
  run(argv: readonly (string | Buffer)[], io: RunIo): Promise<{ readonly code: number | null; readonly signal: string | null }>;
  /** Resolves, never rejects, when the connection dies by itself. */
  readonly lost: Promise<TokenfwdError>;
  /** Removes what we made on the bastion, then ends the connection. Safe to call twice. */
  close(): Promise<void>;
}
