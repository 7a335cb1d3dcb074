/*
 * What the forwarder needs of an SSH connection, whoever makes it (design 9). Implementations live in a folder each;
 * nothing outside them may know which one is in use. Every text of the server that leaves here is printable.
 */
import type { Duplex, Readable } from "node:stream";
import type { TokenfwdError } from "../base/errors.js";

/** How a remote command ended. Both null: the channel closed without a word. */
export interface ExitStatus {
  readonly code: number | null;
  /** With `SIG` in front, e.g. `SIGTERM`. */
  readonly signal: string | null;
}

export interface PtyRequest {
  readonly cols: number;
  readonly rows: number;
  readonly term: string;
}

/** A session channel that runs a command. */
export interface ExecChannel {
  /** stdin and stdout. Ending it sends EOF. */
  readonly stream: Duplex;
  readonly stderr: Readable;
  /** Resolves when the channel has closed; never rejects. */
  readonly exit: Promise<ExitStatus>;
  resize(size: { readonly cols: number; readonly rows: number }): void;
  /** Asks the server to signal the command, e.g. `TERM`. Servers may ignore it. */
  signal(name: string): void;
  close(): void;
}

/** Why the server refused a channel or a request. */
export interface Refusal {
  /** `silent`: no answer within the time that ConnectTimeout gives to each. `prohibited`: the server's own rules, not the network. */
  readonly refused: "session" | "pty" | "exec" | "listen" | "open" | "prohibited" | "closed" | "silent";
  /** Printable. */
  readonly reason: string;
}

/** An answer, or the refusal as a value: what it means is the caller's to find out. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | ({ readonly ok: false } & Refusal);

export interface Transport {
  /** `SHA256:...` of the verified host key. */
  readonly hostKey: string;
  /** Whether both sides agreed on strict key exchange. */
  readonly strictKex: boolean;
  /** SSH_MSG_DEBUG texts of the server so far, oldest first, printable, at most 100. */
  debugTexts(): readonly string[];
  /** Runs a command line through the login shell. `command` is ASCII. */
  exec(command: string, options?: { readonly pty?: PtyRequest }): Promise<Outcome<ExecChannel>>;
  /** Asks for a Unix socket on the server. Connections to it go to `connected`, and to nothing else. */
  listenRemote(path: string, connected: (stream: Duplex) => void): Promise<Outcome<null>>;
  /** Stops listening. The socket file stays (sshd unlinks only when it binds). */
  unlistenRemote(path: string): Promise<void>;
  /** Opens a connection to a Unix socket on the server. */
  openRemote(path: string): Promise<Outcome<Duplex>>;
  /**
   * Asks for a TCP port on the server's loopback, which the server chooses; answers it. Connections to it that come from its own
   * loopback go to `connected`, and to nothing else.
   */
  listenLoopback(connected: (stream: Duplex) => void): Promise<Outcome<number>>;
  /** Stops listening on such a port. */
  unlistenLoopback(port: number): Promise<void>;
  /** Opens a TCP connection from the server to somewhere else, by the name that the server knows. */
  openTcp(host: string, port: number): Promise<Outcome<Duplex>>;
  /** Resolves when the connection has ended: null when we ended it, else why. Never rejects. */
  readonly closed: Promise<TokenfwdError | null>;
  /** Ends the connection; resolves when it has closed. */
  end(): Promise<void>;
}
