/* What sign reads, asks for and writes, with a client that remembers what it was asked. */
import { createHash, randomBytes } from "node:crypto";
import { PassThrough, Readable, Writable } from "node:stream";
import { describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import type { ConnectOptions, TokenfwdClient } from "../../../../src/bastion/client/index.js";
import { createLifetime } from "../../../../src/cli/lifetime.js";
import { type SignAround, sign } from "../../../../src/cli/sign/command.js";
import { MAX_DOCUMENT_BYTES, readSignInput } from "../../../../src/cli/sign/input.js";
import { createUi } from "../../../../src/cli/ui.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";
import type { SignMessage, SignResult } from "../../../../src/wire/rpc/messages.js";

const KEY = "pkcs11:id=%01;type=private";
const DOCUMENT = Buffer.from("a document");

interface Stage {
  readonly around: SignAround;
  readonly asked: SignMessage[];
  readonly deadlines: (number | undefined)[];
  readonly connected: ConnectOptions[];
  readonly closed: () => number;
  readonly written: () => Buffer;
  readonly said: () => string;
  readonly lifetime: ReturnType<typeof createLifetime>;
}

function stage(
  given: {
    input?: Readable;
    tty?: { stdin?: boolean; stdout?: boolean };
    protocol?: "tokenfwd" | "p11-kit";
    stdout?: Writable;
    answer?: (request: SignMessage, signal: AbortSignal | undefined) => Promise<SignResult>;
  } = {},
): Stage {
  const asked: SignMessage[] = [];
  const deadlines: (number | undefined)[] = [];
  const connected: ConnectOptions[] = [];
  const chunks: Buffer[] = [];
  let closed = 0;
  let said = "";
  const lifetime = createLifetime(() => () => {});
  const collecting = new Writable({
    write(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
  const signature = Buffer.concat([Buffer.alloc(32, 0x11), Buffer.alloc(32, 0x91)]);
  const usual = async (request: SignMessage): Promise<SignResult> => ({
    signature,
    mechanism: request.mechanism ?? CKM.CKM_ECDSA_SHA256,
    uri: KEY,
    spki: null,
  });
  const around: SignAround = {
    stdin: Object.assign(given.input ?? Readable.from([DOCUMENT]), { isTTY: given.tty?.stdin === true }),
    stdout: Object.assign(given.stdout ?? collecting, { isTTY: given.tty?.stdout === true }),
    ui: createUi({
      write(text: string) {
        said += text;
        return true;
      },
    }),
    lifetime,
    env: {},
    async connect(options) {
      connected.push(options);
      return {
        protocol: given.protocol ?? "tokenfwd",
        signer: {
          sign(request: SignMessage, options: { signal?: AbortSignal; deadlineMs?: number } = {}) {
            asked.push(request);
            deadlines.push(options.deadlineMs);
            return (given.answer ?? usual)(request, options.signal);
          },
        },
        async close() {
          closed += 1;
        },
      } as unknown as TokenfwdClient;
    },
  };
  return { around, asked, deadlines, connected, closed: () => closed, written: () => Buffer.concat(chunks), said: () => said, lifetime };
}

describe("sign", () => {
  it("asks once for a signature of the whole document and writes what it got", async () => {
    const { around, asked, connected, written, said, closed } = stage();
    expect(await sign({ key: KEY, purpose: "release" }, around)).toBe(0);
    expect(asked).toEqual([
      {
        key: { uri: KEY, spki: null },
        mechanism: null,
        parameter: null,
        data: DOCUMENT,
        isDigest: false,
        purpose: "release",
        expect: null,
      },
    ]);
    expect(connected).toMatchObject([{ snapshot: false }]);
    expect(written()).toHaveLength(64);
    expect(said()).toBe("");
    expect(closed()).toBe(1);
  });

  it("writes an ECDSA signature as DER, and any as base64, when asked to", async () => {
    const der = Buffer.concat([
      Buffer.from([0x30, 0x45, 0x02, 0x20]),
      Buffer.alloc(32, 0x11),
      Buffer.from([0x02, 0x21, 0]),
      Buffer.alloc(32, 0x91),
    ]);
    const first = stage();
    await sign({ key: KEY, der: true }, first.around);
    expect(first.asked[0]?.mechanism).toBe(CKM.CKM_ECDSA_SHA256);
    expect(first.written()).toEqual(der);
    const second = stage({ tty: { stdout: true } });
    await sign({ key: KEY, der: true, base64: true }, second.around);
    expect(second.written().toString()).toBe(`${der.toString("base64")}\n`);
  });

  it("gives no deadline by itself, since a touch takes its time, and the one it was given", async () => {
    const { around, deadlines } = stage();
    await sign({ key: KEY }, around);
    await sign({ key: KEY, deadline: "5" }, { ...around, stdin: Object.assign(Readable.from([DOCUMENT]), { isTTY: false }) });
    expect(deadlines[0]).toBe(undefined);
    // What connecting took is gone from it.
    expect(deadlines[1]).toBeGreaterThan(4000);
    expect(deadlines[1]).toBeLessThanOrEqual(5000);
  });

  it("refuses to write bytes to a terminal before anything is asked", async () => {
    const { around, connected } = stage({ tty: { stdout: true } });
    await expect(sign({ key: KEY }, around)).rejects.toMatchObject({ code: "E_USAGE", hint: expect.stringContaining("--base64") });
    expect(connected).toEqual([]);
  });

  it("says that it reads from a terminal, and refuses to sign nothing", async () => {
    const { around, said, connected } = stage({ tty: { stdin: true }, input: Readable.from([]) });
    await expect(sign({ key: KEY }, around)).rejects.toMatchObject({ code: "E_USAGE", message: "stdin holds nothing to sign" });
    expect(said()).toMatch(/reading the document from the terminal/);
    expect(connected).toEqual([]);
  });

  it("says that a PIN source was not used where nobody wanted the PIN, and not where somebody did", async () => {
    const options = { key: KEY, pinSource: "file:/nonexistent/pin" };
    const vain = stage();
    await sign(options, vain.around);
    expect(vain.said()).toContain("--pin-source was not used");
    const used = stage({
      answer: async ({ mechanism }) => {
        await used.connected[0]?.pin?.({ label: "t", uri: "u" }, used.lifetime.signal).catch(() => null);
        return { signature: Buffer.alloc(64), mechanism: mechanism ?? CKM.CKM_ECDSA_SHA256, uri: KEY, spki: null };
      },
    });
    await sign(options, used.around);
    expect(used.said()).toBe("");
  });

  it("says of a wrong PIN where it was given", async () => {
    const wrong = async (): Promise<SignResult> => {
      throw new TokenfwdError("E_PIN_WRONG", "the token refused the PIN");
    };
    await expect(sign({ key: KEY }, stage({ answer: wrong }).around)).rejects.toMatchObject({
      hint: expect.stringMatching(/^it was given at the workstation/),
    });
    const here = stage({
      protocol: "tokenfwd",
      answer: async () => {
        await here.connected[0]?.pin?.({ label: "t", uri: "u" }, here.lifetime.signal).catch(() => null);
        return await wrong();
      },
    });
    await expect(sign({ key: KEY, pinSource: "file:/nonexistent/pin" }, here.around)).rejects.toMatchObject({
      hint: expect.stringMatching(/^it was tried once/),
    });
  });

  it("writes nothing when signing fails, closes, and says what --der has to do with it", async () => {
    const fails = async (): Promise<SignResult> => {
      throw new TokenfwdError("E_MECHANISM", "CKM_ECDSA_SHA256 does not sign with an RSA key");
    };
    const { around, written, closed } = stage({ answer: fails });
    await expect(sign({ key: KEY, der: true }, around)).rejects.toMatchObject({
      code: "E_MECHANISM",
      hint: expect.stringContaining("leave it out"),
    });
    expect(written()).toHaveLength(0);
    expect(closed()).toBe(1);
  });

  it("fails when the signature cannot be written", async () => {
    const full = new Writable({
      write(_chunk, _encoding, done) {
        done(Object.assign(new Error("full"), { code: "ENOSPC" }));
      },
    });
    await expect(sign({ key: KEY }, stage({ stdout: full }).around)).rejects.toMatchObject({ code: "E_OUTPUT", exitCode: 1 });
  });

  it("ends with 130 when it is interrupted while it reads, and while the token is waited for", async () => {
    const reading = stage({ input: new PassThrough() });
    const first = sign({ key: KEY }, reading.around);
    reading.lifetime.stop("SIGINT");
    await expect(first).rejects.toMatchObject({ code: "E_INTERRUPTED", exitCode: 130 });
    expect(reading.connected).toEqual([]);

    let waiting: () => void = () => {};
    const begun = new Promise<void>((resolve) => {
      waiting = resolve;
    });
    const touch = stage({
      answer: (_request, signal) =>
        new Promise((_resolve, reject) => {
          signal?.addEventListener("abort", () => reject(new TokenfwdError("E_AGENT_LOST", "taken back")));
          waiting();
        }),
    });
    const second = sign({ key: KEY }, touch.around);
    await begun;
    touch.lifetime.stop("SIGINT");
    await expect(second).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    expect(touch.written()).toHaveLength(0);
    expect(touch.closed()).toBe(1);
  });
});

describe("what sign reads", () => {
  const read = (bytes: Buffer, options: { mechanism?: number | null; isDigest?: boolean } = {}, piece = 65_536) => {
    const pieces = Array.from({ length: Math.ceil(bytes.length / piece) }, (_, at) => bytes.subarray(at * piece, (at + 1) * piece));
    return readSignInput(Readable.from(pieces), { mechanism: options.mechanism ?? null, isDigest: options.isDigest ?? false });
  };
  const long = randomBytes(MAX_DOCUMENT_BYTES + 1);

  it("is the document itself as long as one message holds it", async () => {
    expect(await read(long.subarray(1))).toEqual({ data: long.subarray(1), isDigest: false });
    expect(await read(Buffer.from("abc"), {}, 1)).toEqual({ data: Buffer.from("abc"), isDigest: false });
  });

  it("is the digest of a longer one, by the mechanism's own hash", async () => {
    const cases = [
      [null, "sha256"],
      [CKM.CKM_SHA256_RSA_PKCS, "sha256"],
      [CKM.CKM_ECDSA_SHA384, "sha384"],
      [CKM.CKM_SHA512_RSA_PKCS_PSS, "sha512"],
    ] as const;
    for (const [mechanism, hash] of cases)
      expect(await read(long, { mechanism })).toEqual({ data: createHash(hash).update(long).digest(), isDigest: true });
  });

  it("is refused where the mechanism takes no digest in its place", async () => {
    for (const mechanism of [CKM.CKM_EDDSA, CKM.CKM_RSA_PKCS, 0x80000001])
      await expect(read(long, { mechanism })).rejects.toMatchObject({ code: "E_USAGE", message: expect.stringContaining("longer than") });
  });

  it("is a digest of a known length, and never its hex", async () => {
    for (const length of [20, 28, 32, 48, 64])
      expect(await read(Buffer.alloc(length, 0xee), { isDigest: true })).toMatchObject({ isDigest: true });
    for (const length of [0, 31, 33, 65, 5000])
      await expect(read(Buffer.alloc(length, 0xee), { isDigest: true })).rejects.toThrow(/which is no digest/);
    for (const text of ["ab".repeat(32), `${"AB".repeat(20)}\n`, `${"ab".repeat(64)}\n`])
      await expect(read(Buffer.from(text), { isDigest: true })).rejects.toThrow(/hex digits/);
  });

  it("is left to a named mechanism to judge as a digest, up to a size that no digest has", async () => {
    const mechanism = CKM.CKM_RSA_PKCS;
    expect(await read(Buffer.alloc(51, 0xee), { isDigest: true, mechanism })).toMatchObject({ isDigest: true });
    await expect(read(Buffer.alloc(1025), { isDigest: true, mechanism })).rejects.toThrow(/no digest/);
  });

  it("is an error of its own when stdin cannot be read", async () => {
    const broken = new Readable({
      read() {
        this.destroy(Object.assign(new Error("is a directory"), { code: "EISDIR" }));
      },
    });
    await expect(readSignInput(broken, { mechanism: null, isDigest: false })).rejects.toMatchObject({
      code: "E_USAGE",
      message: "stdin cannot be read (EISDIR)",
    });
  });
});
