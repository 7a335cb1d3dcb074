/*
 * Our end of the p11-kit wire against the stock other end: pkcs11-tool with p11-kit-client.so talks to our server over a
 * Cryptoki in memory, and our client talks to `p11-kit remote` in front of SoftHSM.
 */
import { execFile, spawn } from "node:child_process";
import { once, setMaxListeners } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CKF, CKK, CKO } from "../../src/cryptoki/constants.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, CallContext } from "../../src/cryptoki/types.js";
import { createP11KitClient } from "../../src/wire/p11kit/client.js";
import { initializeArgs } from "../../src/wire/p11kit/requests.js";
import { createP11KitServer } from "../../src/wire/p11kit/server.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { createRecordingCryptoki, type RecordingCryptoki, TEST_ORIGIN } from "../support/wire-peers.js";

const execute = promisify(execFile);
const CLIENT_MODULE = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
  .map((directory) => `${directory}/pkcs11/p11-kit-client.so`)
  .find((path) => existsSync(path));
const REMOTE = ["/usr/libexec/p11-kit/p11-kit-remote", "/usr/lib/p11-kit/p11-kit-remote"].find((path) => existsSync(path));

const SLOT = 0x1122334455667788n;
const HARDWARE = { major: 1, minor: 2 };

/** A fixed-length string with its value in front. */
const padded = (text: string, length: number) => Buffer.from(text.padEnd(length));

/** A list as C_GetSlotList and its like answer it: the count where there is no room. */
function list(name: string, values: readonly bigint[]) {
  return (args: AnyArgs): AnyResult => {
    const room = args["room"] as number | null;
    if (room === null) return { rv: CKR.CKR_OK, [name]: values.length };
    return room < values.length ? { rv: CKR.CKR_BUFFER_TOO_SMALL, [name]: values.length } : { rv: CKR.CKR_OK, [name]: values };
  };
}

function createTokenInMemory(): RecordingCryptoki {
  return createRecordingCryptoki({
    C_GetInfo: () => ({
      rv: CKR.CKR_OK,
      cryptokiVersion: { major: 2, minor: 40 },
      manufacturer: padded("tokenfwd", 32),
      flags: 0n,
      description: padded("in memory", 32),
      libraryVersion: HARDWARE,
    }),
    C_GetSlotList: list("slots", [SLOT]),
    C_GetSlotInfo: () => ({
      rv: CKR.CKR_OK,
      description: padded("a slot in memory", 64),
      manufacturer: padded("tokenfwd", 32),
      flags: CKF.CKF_TOKEN_PRESENT,
      hardwareVersion: HARDWARE,
      firmwareVersion: HARDWARE,
    }),
    C_GetTokenInfo: () => ({
      rv: CKR.CKR_OK,
      label: padded("a token in memory", 32),
      manufacturer: padded("tokenfwd", 32),
      model: padded("model", 16),
      serial: padded("serial-0001", 16),
      flags: CKF.CKF_TOKEN_INITIALIZED,
      maxSessionCount: 0n,
      sessionCount: 0xffffffffffffffffn,
      maxRwSessionCount: 0n,
      rwSessionCount: 0xffffffffffffffffn,
      maxPinLen: 8n,
      minPinLen: 4n,
      totalPublicMemory: 0xffffffffffffffffn,
      freePublicMemory: 0xffffffffffffffffn,
      totalPrivateMemory: 0xffffffffffffffffn,
      freePrivateMemory: 0xffffffffffffffffn,
      hardwareVersion: HARDWARE,
      firmwareVersion: HARDWARE,
      utcTime: padded("", 16),
    }),
    C_GetMechanismList: list("mechanisms", [BigInt(CKM.CKM_RSA_PKCS), BigInt(CKM.CKM_ECDSA), BigInt(CKM.CKM_EDDSA)]),
    C_GetMechanismInfo: () => ({ rv: CKR.CKR_OK, minKeySize: 256n, maxKeySize: 521n, flags: CKF.CKF_SIGN | CKF.CKF_HW }),
  });
}

describe("stock pkcs11-tool with p11-kit-client.so against our server", () => {
  let directory: string;
  let cryptoki: RecordingCryptoki;
  let violations: string[];
  let idle: Promise<void>[];
  let stop: () => Promise<void>;
  let address: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "tokenfwd-wire-"));
    const path = join(directory, "p11");
    address = `unix:path=${path}`;
    cryptoki = createTokenInMemory();
    violations = [];
    idle = [];
    const listener = createServer((socket: Socket) => {
      const server = createP11KitServer({
        cryptoki,
        client: "stock",
        origin: TEST_ORIGIN,
        write: (bytes) => void socket.write(bytes),
        onViolation: (reason) => violations.push(reason),
      });
      idle.push(server.idle);
      socket.on("data", (chunk) => server.push(chunk));
      socket.on("error", () => {});
      socket.on("close", () => server.end());
    });
    listener.listen(path);
    await once(listener, "listening");
    stop = async () => {
      listener.close();
      await once(listener, "close");
      await rm(directory, { recursive: true, force: true });
    };
  });

  afterEach(async () => {
    await stop();
  });

  const tool = async (...args: string[]) => {
    if (CLIENT_MODULE === undefined) throw new Error("p11-kit-client.so is not installed");
    const { stdout } = await execute("pkcs11-tool", ["--module", CLIENT_MODULE, ...args], {
      env: { ...process.env, P11_KIT_SERVER_ADDRESS: address },
    });
    await Promise.all(idle);
    return stdout;
  };

  it("lists the slot and its token (-L)", async () => {
    const output = await tool("-L");
    expect(output).toMatch(/a slot in memory/);
    expect(output).toMatch(/token label +: a token in memory/);
    expect(output).toMatch(/serial num +: serial-0001/);
    expect(output).toMatch(/hardware version +: 1\.2/);
    expect(violations).toEqual([]);
    expect(cryptoki.calls.at(0)?.name).toBe("C_Initialize");
    expect(cryptoki.calls.at(-1)?.name).toBe("C_Finalize");
  });

  it("lists the mechanisms it knows (-M), each with its key sizes", async () => {
    const output = await tool("-M");
    expect(output).toMatch(/RSA-PKCS, keySize=\{256,521\}, hw, sign/);
    expect(output).toMatch(/ECDSA, keySize=\{256,521\}, hw, sign/);
    // No stock release knows EdDSA: its client takes the mechanism out of the list.
    expect(output).not.toMatch(/EDDSA/i);
    expect(violations).toEqual([]);
  });
});

describe("a client that asks and does not read", () => {
  it("is served no further than its stream takes, and gets every answer once it reads", async () => {
    const requests = 400;
    const answer = Buffer.alloc(256 * 1024, 5);
    const cryptoki = createRecordingCryptoki({ C_GenerateRandom: () => ({ rv: 0, output: answer }) });
    const directory = await mkdtemp(join(tmpdir(), "tokenfwd-wire-"));
    let onHeld: (bytes: number) => void = () => {};
    const held = new Promise<number>((resolve) => {
      onHeld = resolve;
    });
    const listener = createServer((socket) => {
      const server = createP11KitServer({
        cryptoki,
        client: "greedy",
        origin: TEST_ORIGIN,
        write: (bytes) => void socket.write(bytes),
        full() {
          if (!socket.writableNeedDrain) return null;
          onHeld(socket.writableLength);
          return new Promise((resolve) => {
            socket.once("drain", resolve);
            socket.once("close", resolve);
          });
        },
      });
      socket.setMaxListeners(0);
      socket.on("data", (chunk) => server.push(chunk));
      socket.on("close", () => server.end());
    });
    const path = join(directory, "p11");
    listener.listen(path);
    await once(listener, "listening");
    const socket = connect(path);
    try {
      let read = 0;
      const client = createP11KitClient({ write: (bytes) => void socket.write(bytes), end: () => void socket.end() });
      const { signal } = new AbortController();
      setMaxListeners(requests + 1, signal);
      const ctx: CallContext = { client: "test", origin: TEST_ORIGIN, signal };
      const initialized = client.call("C_Initialize", initializeArgs(), ctx);
      socket.on("data", (chunk: Buffer) => {
        read += chunk.length;
        client.push(chunk);
      });
      await initialized;
      socket.pause();
      const all = Array.from({ length: requests }, () => client.call("C_GenerateRandom", { session: 1n, room: answer.length }, ctx));
      expect(await held).toBeLessThan(2 * answer.length);
      expect(cryptoki.calls.length).toBeLessThan(requests);
      socket.resume();
      for (const result of await Promise.all(all)) expect(result.rv).toBe(0);
      expect(read).toBeGreaterThan(requests * answer.length);
    } finally {
      socket.destroy();
      listener.close();
      await once(listener, "close");
      await rm(directory, { recursive: true, force: true });
    }
  });
});

describe("our client against the stock p11-kit remote in front of SoftHSM", () => {
  let token: SoftHsm;

  beforeAll(async () => {
    token = await createSoftHsm({ objects: "ec", certificates: false });
  });

  afterAll(async () => {
    await token.dispose();
  });

  it("logs in, finds the key, signs with it, and reads attributes that partly fail", async () => {
    if (REMOTE === undefined) throw new Error("p11-kit-remote is not installed");
    const child = spawn(REMOTE, [token.modulePath], { env: token.env, stdio: ["pipe", "pipe", "inherit"] });
    const exited = once(child, "exit");
    const client = createP11KitClient({ write: (bytes) => void child.stdin.write(bytes), end: () => void child.stdin.end() });
    child.stdout.on("data", (chunk: Buffer) => client.push(chunk));
    child.stdout.on("close", () => client.closed());
    const ctx: CallContext = { client: "test", origin: TEST_ORIGIN, signal: new AbortController().signal };
    try {
      expect(await client.negotiated).toBeLessThanOrEqual(2);
      expect(await client.call("C_Initialize", initializeArgs(), ctx)).toEqual({ rv: 0 });
      const { slots } = await client.call("C_GetSlotList", { tokenPresent: 1, room: 16 }, ctx);
      const slot = Array.isArray(slots) ? slots[0] : undefined;
      const { session } = await client.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
      if (session === undefined) throw new Error("no session");
      expect(await client.call("C_Login", { session, userType: 1n, pin: Buffer.from("0000") }, ctx)).toEqual({ rv: CKR.CKR_PIN_INCORRECT });
      expect(await client.call("C_Login", { session, userType: 1n, pin: Buffer.from(token.pin) }, ctx)).toEqual({ rv: 0 });

      const template = [{ type: 0, value: Buffer.from(new BigUint64Array([CKO.CKO_PRIVATE_KEY]).buffer), length: 8 }];
      await client.call("C_FindObjectsInit", { session, template }, ctx);
      const { objects } = await client.call("C_FindObjects", { session, room: 10 }, ctx);
      await client.call("C_FindObjectsFinal", { session }, ctx);
      const object = Array.isArray(objects) ? objects[0] : undefined;
      if (object === undefined) throw new Error("no key");

      const query = [
        { type: 0x100, room: 8 },
        { type: 0x11, room: 100 },
        { type: 0x102, room: null },
      ];
      const read = await client.call("C_GetAttributeValue", { session, object, query }, ctx);
      expect(read.rv).toBe(CKR.CKR_ATTRIBUTE_SENSITIVE);
      expect(read.attributes).toEqual([
        { type: 0x100, value: Buffer.from(new BigUint64Array([CKK.CKK_EC]).buffer), length: 8 },
        { type: 0x11, value: null, length: -1 },
        { type: 0x102, value: null, length: 1 },
      ]);

      const mechanism = { type: CKM.CKM_ECDSA, parameter: null };
      expect(await client.call("C_SignInit", { session, mechanism, key: object }, ctx)).toEqual({ rv: 0 });
      const data = Buffer.alloc(32, 7);
      expect(await client.call("C_Sign", { session, data, room: null }, ctx)).toEqual({ rv: 0, output: 64 });
      const signed = await client.call("C_Sign", { session, data, room: 64 }, ctx);
      expect(Buffer.isBuffer(signed.output) && signed.output.length).toBe(64);
      expect(await client.call("C_Finalize", {}, ctx)).toEqual({ rv: 0 });
    } finally {
      await client.close();
      child.stdin.end();
      await exited;
    }
    expect(child.exitCode).toBe(0);
  });
});
