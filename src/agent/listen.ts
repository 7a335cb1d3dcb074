/*
 * The agent's listening Unix socket on the workstation: the directory's and the socket's modes, live or stale, and its
 * removal. It must never unlink anything that is not a socket, that somebody listens on, or that is not ours, and the
 * socket must never exist with a mode that lets another user in.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, linkSync, renameSync, rmdirSync, type Stats, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, resolve } from "node:path";
import { TokenfwdError } from "../base/errors.js";
import { directoryFault, lstatOrNull, makeDirectory, maxSocketPathBytes } from "../base/paths.js";
import { type PingAnswer, pingSocket } from "./ping.js";

export interface ListenOptions {
  readonly path: string;
  /** Each connection, once. Whoever takes it owns it; it is destroyed at close(). */
  onStream(stream: Socket): void;
  /** Connections above this are closed at once (default 256). */
  readonly maxClients?: number;
  /** Asks who listens on a path; for tests. */
  readonly ping?: (path: string) => Promise<PingAnswer>;
}

export interface Listening {
  /** Absolute path of the socket. */
  readonly path: string;
  /** Stops listening, ends every connection, removes the socket while it is still ours. Safe to call twice. */
  close(): Promise<void>;
}

/** The name a socket is bound under before it is moved to its place: `PATH~` and 6 hex digits. */
const SUFFIX_BYTES = 7;
const MAX_ATTEMPTS = 3;

/**
 * Listens on `path` with mode 0600. The parent must be a directory of ours that others cannot write to; it is made 0700
 * when missing. A socket nobody listens on is replaced. Rejects with E_SOCKET_PATH, or with E_AGENT_LIVE naming who lives there.
 */
export async function listenOn(options: ListenOptions): Promise<Listening> {
  const path = resolve(options.path);
  const longest = maxSocketPathBytes() - SUFFIX_BYTES;
  if (Buffer.byteLength(path) > longest) {
    throw new TokenfwdError("E_SOCKET_PATH", `the socket's path has ${Buffer.byteLength(path)} bytes, and ${longest} are the most`, {
      hint: "choose a shorter path with --socket",
    });
  }
  const madeParent = prepareParent(dirname(path));
  const ping = options.ping ?? ((at: string) => pingSocket(at));
  const temporary = `${path}~${randomBytes(3).toString("hex")}`;
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (sockets.size >= (options.maxClients ?? 256)) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
    options.onStream(socket);
  });
  let placed: Stats | null = null;
  try {
    await bind(server, temporary);
    placed = await place(temporary, path, ping);
  } catch (error) {
    await stop(server);
    if (madeParent) removeIfEmpty(dirname(path));
    throw error instanceof TokenfwdError ? error : cannotMake(path, error);
  } finally {
    unlinkIfThere(temporary);
  }
  let closing: Promise<void> | undefined;
  return {
    path,
    close() {
      closing ??= (async () => {
        if (placed !== null && isSame(lstatOrNull(path), placed)) unlinkIfThere(path);
        for (const socket of sockets) socket.destroy();
        await stop(server);
        if (madeParent) removeIfEmpty(dirname(path));
      })();
      return closing;
    },
  };
}

/** True when the parent was missing and has been made. */
function prepareParent(parent: string): boolean {
  let made = false;
  try {
    if (lstatOrNull(parent) === null) made = makeDirectory(parent, true);
  } catch (error) {
    throw cannotMake(parent, error);
  }
  const fault = directoryFault(parent, process.geteuid?.() ?? 0, false);
  if (fault === null) return made;
  throw new TokenfwdError("E_SOCKET_PATH", `the socket's directory ${parent} ${fault}`, {
    hint: "use a directory of your own that only you can write to: mkdir -m 0700 DIR",
  });
}

/**
 * Binds under a temporary name. libuv unlinks the bound name at close whatever lies there by then; a random one is nobody else's.
 * listen() binds before it returns, so the umask is narrow for that call alone.
 */
function bind(server: Server, temporary: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once("error", fail);
    const mask = process.umask(0o177);
    try {
      server.listen({ path: temporary, backlog: 256 });
    } finally {
      process.umask(mask);
    }
    server.once("listening", () => {
      server.off("error", fail);
      chmodSync(temporary, 0o600);
      done();
    });
  });
}

/** Gives the bound socket its real name, which link(2) does only where nothing lies. Answers the socket's identity. */
async function place(temporary: string, path: string, ping: (path: string) => Promise<PingAnswer>): Promise<Stats> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    try {
      linkSync(temporary, path);
      const placed = lstatOrNull(path);
      if (placed !== null) return placed;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    await clear(path, ping);
  }
  throw new TokenfwdError("E_AGENT_LIVE", `several programs are making ${path} at once`, { hint: "start one agent" });
}

/** Removes a stale socket of ours from `path`; throws when what lies there is to be kept. */
async function clear(path: string, ping: (path: string) => Promise<PingAnswer>): Promise<void> {
  const found = lstatOrNull(path);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new TokenfwdError("E_SOCKET_PATH", `${path} exists and is not a socket`, {
      hint: "choose another path with --socket, or remove it if it is not needed",
    });
  }
  if (found.uid !== (process.geteuid?.() ?? 0)) {
    throw new TokenfwdError("E_SOCKET_PATH", `${path} belongs to another user (uid ${found.uid})`, {
      hint: "choose another path with --socket",
    });
  }
  const answer = await ping(path);
  if (answer.kind !== "stale") {
    throw new TokenfwdError("E_AGENT_LIVE", `${owner(answer)} lives on ${path}`, {
      hint: answer.kind === "tokenfwd" ? "use that one, end it, or choose another path with --socket" : "choose another path with --socket",
    });
  }
  // Between the ping and now a new agent may have taken the name: move first, look at what was moved, then remove.
  const aside = `${path}~${randomBytes(3).toString("hex")}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if (!isSame(lstatOrNull(aside), found)) linkSync(aside, path);
  unlinkIfThere(aside);
}

function owner(answer: Exclude<PingAnswer, { kind: "stale" }>): string {
  if (answer.kind === "tokenfwd") return `another agent (pid ${answer.pid})`;
  return answer.kind === "p11-kit" ? "a p11-kit server that is not ours" : `another program (${answer.why})`;
}

function isSame(a: Stats | null, b: Stats): boolean {
  return a !== null && a.dev === b.dev && a.ino === b.ino;
}

function stop(server: Server): Promise<void> {
  return new Promise((done) => {
    server.close(() => done());
  });
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Somebody else put something there meanwhile; it stays.
  }
}

function cannotMake(path: string, cause: unknown): TokenfwdError {
  return new TokenfwdError("E_SOCKET_PATH", `cannot make ${path}: ${(cause as NodeJS.ErrnoException).code ?? "unknown reason"}`, {
    hint: "choose a directory of your own with --socket",
    cause,
  });
}
