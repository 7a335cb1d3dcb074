/*
 * The bundle as it is used on a bastion: one file named tokenfwd, mode 0755, alone in a directory, with what tests of it share.
 * It is built from the sources in memory, so that a test never runs what an older build left. Whoever makes one disposes of it.
 */
import { spawnSync } from "node:child_process";
import { createHash, createPublicKey, type KeyObject } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { expect } from "vitest";
import { bundle } from "../../bundle.config.mjs";
import type { SoftHsm, SoftHsmKey } from "../support/softhsm.js";
import { type CliExit, startCli } from "./cli-process.js";

export interface BundleRun {
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: Buffer | string;
  /** A descriptor that it gets as its descriptor 3. */
  readonly fd3?: number;
}

export interface InstalledBundle {
  /** Holds the program and nothing else. */
  readonly bin: string;
  readonly program: string;
  /** A directory for whatever a test makes. */
  readonly dir: string;
  /** The least environment: PATH with the program in front, and an empty runtime directory. */
  readonly env: NodeJS.ProcessEnv;
  /** Runs it to its end, without a terminal. */
  run(words: readonly string[], options?: BundleRun): Promise<CliExit>;
  dispose(): void;
}

/** Builds it and puts it into a new directory. */
export async function installBundle(): Promise<InstalledBundle> {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-bundle-"));
  const bin = mkdtempSync(join(tmpdir(), "tokenfwd-bin-"));
  const program = join(bin, "tokenfwd");
  writeFileSync(program, (await bundle()).text, { mode: 0o755 });
  const env = { PATH: [bin, dirname(process.execPath), "/usr/bin", "/bin"].join(delimiter), XDG_RUNTIME_DIR: dir, HOME: dir };
  return {
    bin,
    program,
    dir,
    env,
    async run(words, { env: more = {}, input, fd3 } = {}) {
      const cli = startCli(words, {
        program,
        env: { ...env, ...more },
        stdin: input === undefined ? "ignore" : "pipe",
        ...(fd3 === undefined ? {} : { fd3 }),
      });
      // It may end before it has read everything.
      cli.child.stdin?.on("error", () => {});
      if (input !== undefined) cli.child.stdin?.end(input);
      return await cli.exited;
    },
    dispose() {
      rmSync(dir, { recursive: true, force: true });
      rmSync(bin, { recursive: true, force: true });
    },
  };
}

/** A failure as every command of ours has it: a line with code and status, a hint, and nothing on stdout. */
export function expectFailure(ended: CliExit, code: string, status: number): void {
  expect(ended.stderr).toContain(`[${code} ${status}]`);
  expect(ended.stderr).toMatch(/^tokenfwd: .*\nhint: .*\n$/);
  expect({ status: ended.code, stdout: ended.stdout.length }).toEqual({ status, stdout: 0 });
}

/** A key of a token that was made with certificates, and the name of its public key as `tokenfwd keys` has it. */
export function keyOfToken(
  token: SoftHsm,
  name: "rsa" | "ec",
): SoftHsmKey & { readonly certificateFile: string; readonly publicKey: KeyObject; readonly spkiHex: string } {
  const key = token.keys[name];
  if (key === undefined || key.certificateFile === null) throw new Error("the token was made without this key");
  const publicKey = createPublicKey(readFileSync(key.publicKeyFile));
  const spkiHex = createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
  return { ...key, certificateFile: key.certificateFile, publicKey, spkiHex };
}

/** What `openssl dgst -verify` says, which takes ECDSA as DER. */
export function verifiedByOpenssl(publicKeyFile: string, document: Buffer, signature: Buffer, hash = "sha256"): boolean {
  const scratch = mkdtempSync(join(tmpdir(), "tokenfwd-verify-"));
  try {
    writeFileSync(join(scratch, "document"), document);
    writeFileSync(join(scratch, "signature"), signature);
    const words = ["dgst", `-${hash}`, "-verify", publicKeyFile, "-signature", join(scratch, "signature")];
    return spawnSync("openssl", [...words, join(scratch, "document")]).status === 0;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** A socket in front of another one that keeps what passes. */
export interface SocketBetween {
  readonly path: string;
  /** All that clients have sent. */
  sent(): Buffer;
  /** Who spoke, in order; what comes in several pieces from one side is one flight. */
  flights(): readonly ("there" | "back")[];
  close(): Promise<void>;
}

/** Starts to listen in a directory of its own. */
export async function listenBetween(target: string): Promise<SocketBetween> {
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-tap-"));
  const path = join(dir, "s");
  const sent: Buffer[] = [];
  const flights: ("there" | "back")[] = [];
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target);
    for (const [one, other, way] of [
      [client, upstream, "there"],
      [upstream, client, "back"],
    ] as const) {
      open.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => open.delete(one));
      one.on("data", (chunk: Buffer) => {
        if (way === "there") sent.push(chunk);
        if (flights.at(-1) !== way) flights.push(way);
      });
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    path,
    sent: () => Buffer.concat(sent),
    flights: () => flights,
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
