/*
 * Opens forwards in tests: a recording ForwardUi, collected io, a TCP proxy that can cut or freeze a connection, and
 * what lies below a directory. Everything it opens is closed by `dispose`.
 */
import { readdirSync, statSync } from "node:fs";
import { type AddressInfo, createServer, type Socket, connect as tcpConnect } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { type Forward, type ForwardOptions, type ForwardUi, openForward, type RunIo } from "../../src/forward/forward.js";
import { resolveSshSettings, type SshSettings } from "../../src/forward/ssh-settings.js";
import { createFakeP11Server, type FakeP11Server } from "./fake-p11-server.js";
import type { Sshd } from "./sshd.js";

export const SLOTS: readonly bigint[] = [5n, 7n];

export interface RecordedUi extends ForwardUi {
  readonly events: { readonly name: string; readonly data: Record<string, unknown> }[];
  readonly questions: unknown[];
}

/** A ui that records; `answers` are given to questions. */
export function recordingUi(answers: { confirm?: boolean; passphrases?: string[] } = {}): RecordedUi {
  const events: RecordedUi["events"] = [];
  const questions: unknown[] = [];
  const passphrases = [...(answers.passphrases ?? [])];
  return {
    events,
    questions,
    async confirmHostKey(question) {
      questions.push(question);
      return answers.confirm ?? false;
    },
    async askPassphrase(path) {
      questions.push(path);
      const next = passphrases.shift();
      return next === undefined ? null : Buffer.from(next);
    },
    async askLogin(question) {
      questions.push(question);
      const next = passphrases.shift();
      return next === undefined ? null : Buffer.from(next);
    },
    event: (name, data) => void events.push({ name, data }),
  };
}

export interface TestForward {
  readonly forward: Forward;
  readonly ui: RecordedUi;
  readonly agent: FakeP11Server;
}

/** The settings of the server's own client configuration, with `ssh -o` options. */
export async function settingsOf(sshd: Sshd, sshOptions: readonly string[] = []): Promise<SshSettings> {
  return await resolveSshSettings("bastion", { configFile: sshd.sshConfig, sshOptions });
}

let connects = 0;

/** Opens a forward with a fake agent behind it. Without a server the settings say where. */
export async function openTestForward(
  sshd: Sshd | null,
  changes: Partial<ForwardOptions> & { agent?: FakeP11Server; recorded?: RecordedUi } = {},
): Promise<TestForward> {
  const agent = changes.agent ?? createFakeP11Server({ slots: SLOTS });
  const ui = changes.recorded ?? recordingUi();
  connects += 1;
  const forward = await openForward({
    settings: changes.settings ?? (await settingsOf(sshd as Sshd)),
    workstationId: "0a1b2c3d",
    connectId: `test-${process.pid}-${connects}`,
    ui,
    signal: new AbortController().signal,
    attach: (stream) => agent.attach(stream),
    expectedSlots: async () => SLOTS,
    requirePty: false,
    ...changes,
  });
  return { forward, ui, agent };
}

/** The rejection of a promise, as one of ours; fails when it does not reject. */
export async function rejection(promise: Promise<unknown>): Promise<{ code: string; message: string; hint: string; reason: string }> {
  try {
    await promise;
  } catch (error) {
    const { code, message, hint = "", reason = "" } = error as { code: string; message: string; hint?: string; reason?: string };
    return { code, message, hint, reason };
  }
  throw new Error("it did not reject");
}

/** Everything below a directory, relative, sorted. */
export function contents(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
}

/** Waits until a directory holds exactly this, by watching it; the test's own time-out is the limit. */
export async function untilContents(directory: string, wanted: readonly string[]): Promise<void> {
  for (;;) {
    if (JSON.stringify(contents(directory)) === JSON.stringify(wanted)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits until there is no process of that id; the test's own time-out is the limit. */
export async function untilGone(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export interface CollectedIo extends RunIo {
  readonly out: () => Buffer;
  readonly err: () => Buffer;
  readonly abort: AbortController;
}

/** Standard streams in memory. `input` null leaves stdin open. */
export function collectedIo(input: Buffer | string | null = "", pty: RunIo["pty"] = null): CollectedIo {
  const stdin = new PassThrough();
  if (input !== null) stdin.end(input);
  const collect = () => {
    const stream = new PassThrough();
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    return { stream, bytes: () => Buffer.concat(chunks) };
  };
  const out = collect();
  const err = collect();
  const abort = new AbortController();
  return { stdin, stdout: out.stream, stderr: err.stream, pty, signal: abort.signal, out: out.bytes, err: err.bytes, abort };
}

export interface Proxy {
  readonly port: number;
  /** Cuts every connection at once, as a killed client would. */
  cut(): void;
  /** Passes nothing more in either direction, and tells nobody: a dead link. */
  freeze(): void;
  dispose(): Promise<void>;
}

/** A TCP proxy on loopback in front of `port`. */
export async function startProxy(port: number): Promise<Proxy> {
  const sockets: Socket[] = [];
  const server = createServer((near) => {
    const far = tcpConnect(port, "127.0.0.1");
    sockets.push(near, far);
    near.pipe(far);
    far.pipe(near);
    for (const socket of [near, far]) socket.on("error", () => {});
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    freeze() {
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
        socket.removeAllListeners("close");
      }
    },
    async dispose() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Settings that go through a proxy to the same server, under its own known_hosts name. */
export function through(proxy: Proxy, settings: SshSettings): SshSettings {
  return { ...settings, port: proxy.port, hostKeyAlias: `[127.0.0.1]:${settings.port}` };
}

/** The permission bits of a path. */
export function modeOf(...path: string[]): number {
  return statSync(join(...path)).mode & 0o777;
}
