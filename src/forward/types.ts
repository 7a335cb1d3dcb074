/*
 * The forwarder's contract with the command line: what it is given, what it asks, what it answers. Types only.
 */
import type { Duplex, Readable, Writable } from "node:stream";
import type { TokenfwdError } from "../base/errors.js";
import type { BastionFiles, CommandFile } from "./remote/command-files.js";
import type { Place, Probe } from "./remote/place.js";
import type { Pulse } from "./remote/pulse.js";
import type { Survey } from "./remote/survey.js";
import type { Tools } from "./remote/tools.js";
import type { SshSettings } from "./ssh-settings.js";
import type { Outcome } from "./transport.js";
import type { Verification } from "./verify.js";

/** Everything a person is asked or told. Texts are printable. */
export interface ForwardUi {
  /** An unknown host key; only a yes goes on. */
  confirmHostKey(question: { readonly host: string; readonly keyType: string; readonly fingerprint: string }): Promise<boolean>;
  /** The passphrase of an encrypted key file, null for none. The Buffer is overwritten after use. */
  askPassphrase(keyPath: string): Promise<Buffer | null>;
  /**
   * What the server asks at login. The lines are to be shown as they are, the answer is typed behind the last; null when nobody
   * answers. The Buffer is overwritten after use.
   */
  askLogin(question: { readonly lines: readonly string[]; readonly echo: boolean }): Promise<Buffer | null>;
  /** Progress, named as the events of `connect --json`. */
  event(name: "hostkey" | "auth" | "probe" | "forward" | "verify" | "tools" | "warning", data: Record<string, unknown>): void;
}

/** What it takes to reach the bastion and look at it. */
export interface BastionOptions {
  readonly settings: SshSettings;
  /** 8 hex digits: the directory's name on the bastion. */
  readonly workstationId: string;
  /** Unique per connection, letters, digits and hyphens: who owns the directory. */
  readonly connectId: string;
  readonly ui: ForwardUi;
  /** Aborting before ready rejects with E_INTERRUPTED, with nothing left on the bastion. */
  readonly signal: AbortSignal;
  /** -t: no terminal is an error, not a warning. */
  readonly requirePty: boolean;
  /** The one file of our program to put on CMD's PATH on the bastion, if any. */
  readonly tools?: Buffer;
}

/** What answers behind the socket on the bastion. */
export interface ForwardService {
  /** Takes over each connection to the remote socket. */
  attach(stream: Duplex): { onFirstFrameOptions(listener: (options: Buffer) => void): void };
  /** The slot list that a client of the agent must see. */
  expectedSlots(): Promise<readonly bigint[]>;
  /** The version byte that verification offers to what stands behind `attach`. Default 2, which our agent takes. */
  readonly offerVersion?: 0 | 2;
}

export type ForwardOptions = BastionOptions & ForwardService;

/** A bastion that is reached, logged in to and looked at; nothing has been made there. */
export interface Bastion {
  readonly hostKey: string;
  /** As Forward.lost. */
  readonly lost: Promise<TokenfwdError>;
  /** What lies there, as a program that the log-in starts would find it. */
  readonly files: BastionFiles;
  /**
   * Makes the socket; to be called once. Closed by itself when it rejects.
   * @throws TokenfwdError E_FORWARD_REFUSED, E_RUNTIME_DIR, E_PATH_TOO_LONG, E_REMOTE_SHELL, E_NOT_VERIFIED, E_SOCKET_FOREIGN,
   * E_TOOLS, E_SSH_LOST, E_INTERRUPTED
   */
  open(service: ForwardService): Promise<Forward>;
  /** As Forward.close, whether it was opened or not. */
  close(): Promise<void>;
}

/** A bastion for who wants to know more of it than whether it can be used. */
export interface SeenBastion extends Bastion {
  /** What was seen of it. */
  readonly looked: BastionFacts;
  /** What `open` does, step by step. */
  readonly steps: BastionSteps;
}

/** What a bastion shows before anything is made there. Texts are printable. */
export interface BastionFacts {
  readonly probe: Probe;
  /** Whether it gives a terminal. */
  readonly pty: boolean;
  /** What the login shell prints before it runs a command; empty for a quiet one. */
  readonly said: string;
  /** MaxSessions 1. */
  readonly oneSession: boolean;
  readonly strictKex: boolean;
}

/**
 * The steps of `Bastion.open`, for who wants to know of each whether it works: claim, listen, prove, dial, in this order, each once but
 * the last. None closes the connection; what they make goes with it. They reject as `open` does.
 */
export interface BastionSteps {
  /** Takes the directory of the socket. */
  claim(): Promise<Place>;
  /** Has sshd make the socket. */
  listen(service: Pick<ForwardService, "attach">): Promise<void>;
  /** Calls the socket from the bastion's side. */
  prove(service: ForwardService): Promise<Verification & { readonly via: string }>;
  /** Another connection from there to the socket, by the way on which it was proved. */
  dial(): Promise<Outcome<Duplex>>;
  /** What else lies on the bastion that bears upon the token. Needs none of the others. */
  survey(): Promise<Survey>;
  /** How long the way there and back is, and whether small packets are held back; null where no command can run beside the shell. */
  pulse(): Promise<Pulse | null>;
}

/** What runs on the bastion: words, byte for byte, or the login shell. */
export type RemoteWork = readonly (string | Buffer)[] | "shell";

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
  /** Our program there, when it was asked for; it goes with the connection. */
  readonly tools: Tools | null;
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
   * Runs a command on the bastion, argv byte for byte, or the user's login shell, with TOKENFWD_SOCKET and P11_KIT_SERVER_ADDRESS set,
   * and with the tools first on its PATH if there are any.
   * stdout and stderr are not ended. @throws TokenfwdError E_USAGE (over 32 KiB, or a NUL), E_PTY_REFUSED, E_SSH
   */
  run(work: RemoteWork, io: RunIo): Promise<{ readonly code: number | null; readonly signal: string | null }>;
  /**
   * Makes a port on the bastion's loopback and answers it; connections of programs there go to `connected` until the forward closes.
   * @throws TokenfwdError E_FORWARD_REFUSED, E_SSH_LOST
   */
  listenLoopback(connected: (stream: Duplex) => void): Promise<number>;
  /**
   * Opens a TCP connection from the bastion to somewhere else.
   * @throws TokenfwdError E_FORWARD_REFUSED, E_SSH_LOST; an Error with a printable message where the bastion does not get there
   */
  dial(host: string, port: number, signal: AbortSignal): Promise<Duplex>;
  /**
   * Puts files for CMD into a directory of their own, which comes first on its PATH; `make` is told its path. They go when the forward
   * closes, and so does what still runs with one of them. @throws TokenfwdError E_RUNTIME_DIR, E_REMOTE_SHELL, E_SSH_LOST
   */
  keep(make: (directory: string) => readonly CommandFile[]): Promise<void>;
  /** Resolves, never rejects, when the connection dies by itself. */
  readonly lost: Promise<TokenfwdError>;
  /** Removes what we made on the bastion, then ends the connection. Safe to call twice. */
  close(): Promise<void>;
}
