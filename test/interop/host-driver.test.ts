/*
 * The driver on a real SoftHSM, through the host process (a mistake in it would end this one): what pkcs11js cannot
 * carry and we emulate, and that no malformed argument ends the process. What stays lost is in docs/operations.md, "What this
 * version cannot do"; what of it is refused is tested here with its code.
 */
import { createPublicKey, createVerify, constants as cryptoConstants, publicEncrypt, verify } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { CKA, findBytes, ulongAttribute } from "../../src/cryptoki/attributes.js";
import { CALLS, splitSignature } from "../../src/cryptoki/calls.js";
import { CK_UNAVAILABLE_INFORMATION, CKK, CKO } from "../../src/cryptoki/constants.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { Attribute, CallContext, Mechanism } from "../../src/cryptoki/types.js";
import { createTokenHost, type TokenHost } from "../../src/token/host/host.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";

const origin = { kind: "local", destination: null, user: null, host: null, port: null, hostKeySha256: null, connectId: "test" } as const;
const ctx: CallContext = { client: "test", origin, signal: new AbortController().signal };
const RW = 6n;
const plain = (type: number): Mechanism => ({ type, parameter: null });
const bool = (type: number, value: boolean): Attribute => ({ type, value: Buffer.from([Number(value)]), length: 1 });

let token: SoftHsm;
let host: TokenHost;
let call: TokenHost["cryptoki"]["call"];
let slot: bigint;
let session: bigint;
let rsa: bigint;
let ec: bigint;

beforeAll(async () => {
  token = await createSoftHsm({ label: "etikett ü" });
  vi.stubEnv("SOFTHSM2_CONF", token.configFile);
  host = await createTokenHost({ modulePath: token.modulePath, pinSource: { kind: "client" } });
  call = host.cryptoki.call;
  const { slots } = await call("C_GetSlotList", { tokenPresent: 1, room: 64 }, ctx);
  slot = (slots as readonly bigint[])[0] as bigint;
  session = await open();
  await call("C_Login", { session, userType: 1n, pin: Buffer.from(token.pin) }, ctx);
  rsa = await find(CKO.CKO_PRIVATE_KEY, CKK.CKK_RSA);
  ec = await find(CKO.CKO_PRIVATE_KEY, CKK.CKK_EC);
});
// An operation that a refused call leaves active must not reach the next test; the first session keeps the log-in.
beforeEach(async () => {
  session = await open();
  return async () => void (await call("C_CloseSession", { session }, ctx));
});
afterAll(async () => {
  await host.close();
  vi.unstubAllEnvs();
  await token.dispose();
});

async function open(): Promise<bigint> {
  return (await call("C_OpenSession", { slot, flags: RW }, ctx)).session ?? 0n;
}

async function find(objectClass: bigint, keyType: bigint): Promise<bigint> {
  const template = [ulongAttribute(CKA.CKA_CLASS, objectClass), ulongAttribute(CKA.CKA_KEY_TYPE, keyType)];
  await call("C_FindObjectsInit", { session, template }, ctx);
  const { objects } = await call("C_FindObjects", { session, room: 8 }, ctx);
  await call("C_FindObjectsFinal", { session }, ctx);
  return (objects as readonly bigint[])[0] ?? 0n;
}

async function aesKey(): Promise<bigint> {
  const flags = [CKA.CKA_ENCRYPT, CKA.CKA_DECRYPT].map((type) => bool(type, true));
  const template = [...flags, bool(CKA.CKA_TOKEN, false), ulongAttribute(CKA.CKA_VALUE_LEN, 32)];
  return (await call("C_GenerateKey", { session, mechanism: plain(0x1080), template }, ctx)).key ?? 0n;
}

async function sign(mechanism: Mechanism, key: bigint, data: Buffer): Promise<Buffer> {
  expect((await call("C_SignInit", { session, mechanism, key }, ctx)).rv).toBe(CKR.CKR_OK);
  const { rv, output } = await call("C_Sign", { session, data, room: 1024 }, ctx);
  expect(rv).toBe(CKR.CKR_OK);
  return output as Buffer;
}

describe("attributes", () => {
  it("come in part when some are sensitive or unknown, with the CK_RV and -1 for each that failed", async () => {
    const query = [CKA.CKA_KEY_TYPE, CKA.CKA_PRIVATE_EXPONENT, CKA.CKA_LABEL].map((type) => ({ type, room: 512 }));
    const { rv, attributes = [] } = await call("C_GetAttributeValue", { session, object: rsa, query }, ctx);
    expect(rv).toBe(CKR.CKR_ATTRIBUTE_SENSITIVE);
    expect(attributes.map(({ length }) => length)).toEqual([8, -1, 7]);
    expect(findBytes(attributes, CKA.CKA_LABEL)?.toString()).toBe("rsa key");
  });

  it("answer a length where no room is given, and -1 with CKR_BUFFER_TOO_SMALL where it is too small", async () => {
    const query = [
      { type: CKA.CKA_MODULUS, room: null },
      { type: CKA.CKA_LABEL, room: 3 },
      { type: CKA.CKA_ID, room: 1 },
    ];
    const { rv, attributes } = await call("C_GetAttributeValue", { session, object: rsa, query }, ctx);
    expect(rv).toBe(CKR.CKR_BUFFER_TOO_SMALL);
    expect(attributes).toEqual([
      { type: CKA.CKA_MODULUS, value: null, length: 256 },
      { type: CKA.CKA_LABEL, value: null, length: -1 },
      { type: CKA.CKA_ID, value: Buffer.from([1]), length: 1 },
    ]);
  });

  it("read an empty date as no bytes and a real one as its digits", async () => {
    const query = [
      { type: CKA.CKA_START_DATE, room: 8 },
      { type: CKA.CKA_END_DATE, room: 8 },
    ];
    const date = { type: CKA.CKA_START_DATE, value: Buffer.from("20270131"), length: 8 };
    const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_CERTIFICATE), ulongAttribute(CKA.CKA_CERTIFICATE_TYPE, 0)];
    const body = [CKA.CKA_VALUE, CKA.CKA_SUBJECT].map((type) => ({ type, value: Buffer.from("3000", "hex"), length: 2 }));
    const made = await call("C_CreateObject", { session, template: [...template, ...body, date] }, ctx);
    expect(made.rv).toBe(CKR.CKR_OK);
    const read = await call("C_GetAttributeValue", { session, object: made.object ?? 0n, query }, ctx);
    expect(read.rv).toBe(CKR.CKR_OK);
    expect(read.attributes).toEqual([date, { type: CKA.CKA_END_DATE, value: Buffer.alloc(0), length: 0 }]);
    await call("C_DestroyObject", { session, object: made.object ?? 0n }, ctx);
  });

  it("that are nested templates are refused, and the others still come", async () => {
    const query = [
      { type: CKA.CKA_WRAP_TEMPLATE, room: 240, nested: [] },
      { type: CKA.CKA_ID, room: 8 },
    ];
    const { rv, attributes } = await call("C_GetAttributeValue", { session, object: rsa, query }, ctx);
    expect(rv).toBe(CKR.CKR_ATTRIBUTE_TYPE_INVALID);
    expect(attributes?.map(({ length }) => length)).toEqual([-1, 1]);
    const nested = [{ type: CKA.CKA_WRAP_TEMPLATE, value: [bool(CKA.CKA_TOKEN, true)], length: 24 }];
    expect((await call("C_FindObjectsInit", { session, template: nested }, ctx)).rv).toBe(CKR.CKR_ATTRIBUTE_TYPE_INVALID);
  });

  it("of an object that is not there answer the module's CK_RV and nothing else", async () => {
    const query = [{ type: CKA.CKA_ID, room: 8 }];
    expect(await call("C_GetAttributeValue", { session, object: 999_999n, query }, ctx)).toEqual({ rv: CKR.CKR_OBJECT_HANDLE_INVALID });
  });
});

describe("information", () => {
  it("has the exact bytes of the C structs, also for a label that is not ASCII", async () => {
    const info = await call("C_GetTokenInfo", { slot }, ctx);
    expect(info.label).toEqual(Buffer.from("etikett ü".padEnd(31)));
    expect([info.manufacturer?.length, info.model?.length, info.serial?.length, info.utcTime?.length]).toEqual([32, 16, 16, 16]);
    expect(info.sessionCount).toBe(CK_UNAVAILABLE_INFORMATION);
    const slotInfo = await call("C_GetSlotInfo", { slot }, ctx);
    expect([slotInfo.description?.length, slotInfo.manufacturer?.length]).toEqual([64, 32]);
  });

  it("answers the length of a list without room, and CKR_BUFFER_TOO_SMALL with too little", async () => {
    const all = await call("C_GetMechanismList", { slot, room: 4096 }, ctx);
    const count = (all.mechanisms as readonly bigint[]).length;
    expect(await call("C_GetMechanismList", { slot, room: null }, ctx)).toEqual({ rv: CKR.CKR_OK, mechanisms: count });
    expect(await call("C_GetMechanismList", { slot, room: 1 }, ctx)).toEqual({ rv: CKR.CKR_BUFFER_TOO_SMALL, mechanisms: count });
  });

  it("of a slot number that needs more than 32 bits is not that of another slot", async () => {
    expect((await call("C_GetSlotInfo", { slot: slot + (1n << 32n) }, ctx)).rv).toBe(CKR.CKR_SLOT_ID_INVALID);
    expect((await call("C_GetMechanismInfo", { slot, mechanismType: 0x1_0000_0001n }, ctx)).rv).toBe(CKR.CKR_MECHANISM_INVALID);
  });

  it("about slot events is given at once and never waited for", async () => {
    expect((await call("C_WaitForSlotEvent", { flags: 0n }, ctx)).rv).toBe(CKR.CKR_FUNCTION_NOT_SUPPORTED);
    expect([CKR.CKR_NO_EVENT, CKR.CKR_OK, CKR.CKR_FUNCTION_NOT_SUPPORTED]).toContain(
      (await call("C_WaitForSlotEvent", { flags: 1n }, ctx)).rv,
    );
  });
});

describe("output buffers", () => {
  it("tell a length query from a buffer of no bytes, give the needed length, and keep the operation", async () => {
    await call("C_SignInit", { session, mechanism: plain(0x1041), key: ec }, ctx);
    const data = Buffer.alloc(32, 7);
    expect(await call("C_Sign", { session, data, room: null }, ctx)).toEqual({ rv: CKR.CKR_OK, output: 64 });
    expect(await call("C_Sign", { session, data, room: 0 }, ctx)).toEqual({ rv: CKR.CKR_BUFFER_TOO_SMALL, output: 64 });
    expect(await call("C_Sign", { session, data, room: 63 }, ctx)).toEqual({ rv: CKR.CKR_BUFFER_TOO_SMALL, output: 64 });
    const done = await call("C_Sign", { session, data, room: 0xffff_fffe }, ctx);
    expect([done.rv, (done.output as Buffer).length]).toEqual([CKR.CKR_OK, 64]);
  });

  it("work for data of no bytes, which is not a NULL pointer", async () => {
    const signature = await sign(plain(0x40), rsa, Buffer.alloc(0));
    const key = await readFile(token.keys.rsa?.publicKeyFile ?? "", "utf8");
    expect(createVerify("sha256").update("").verify(key, signature)).toBe(true);
    await call("C_SignInit", { session, mechanism: plain(0x40), key: rsa }, ctx);
    expect((await call("C_Sign", { session, data: null, room: 512 }, ctx)).rv).toBe(CKR.CKR_ARGUMENTS_BAD);
  });
});

describe("mechanisms with parameters", () => {
  it("sign PSS and ECDSA so that OpenSSL agrees", async () => {
    const parameter = { kind: "rsa-pss", hashAlg: 0x250n, mgf: 2n, saltLength: 32n } as const;
    const data = Buffer.from("what is signed");
    const signature = await sign({ type: 0x43, parameter }, rsa, data);
    const rsaKey = createPublicKey(await readFile(token.keys.rsa?.publicKeyFile ?? ""));
    const pss = { key: rsaKey, padding: cryptoConstants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    expect(verify("sha256", data, pss, signature)).toBe(true);
    const ecKey = createPublicKey(await readFile(token.keys.ec?.publicKeyFile ?? ""));
    const raw = await sign(plain(0x1041), ec, await digest(data));
    expect(verify("sha256", data, { key: ecKey, dsaEncoding: "ieee-p1363" }, raw)).toBe(true);
  });

  it("decrypt what OpenSSL encrypted with OAEP", async () => {
    const key = await readFile(token.keys.rsa?.publicKeyFile ?? "", "utf8");
    const sealed = publicEncrypt({ key, padding: cryptoConstants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha1" }, Buffer.from("secret"));
    const parameter = { kind: "rsa-oaep", hashAlg: 0x220n, mgf: 1n, source: 1n, sourceData: null } as const;
    expect((await call("C_DecryptInit", { session, mechanism: { type: 9, parameter }, key: rsa }, ctx)).rv).toBe(CKR.CKR_OK);
    const { output } = await call("C_Decrypt", { session, data: sealed, room: 512 }, ctx);
    expect((output as Buffer).toString()).toBe("secret");
  });

  it("encrypt and decrypt with GCM, CTR and an IV", async () => {
    const key = await aesKey();
    const iv = Buffer.alloc(12, 1);
    const mechanisms: Mechanism[] = [
      { type: 0x1087, parameter: { kind: "gcm", iv, ivBits: 96n, aad: Buffer.from("aad"), tagBits: 128n } },
      { type: 0x1086, parameter: { kind: "aes-ctr", counterBits: 32n, counterBlock: Buffer.alloc(16, 2) } },
      { type: 0x1085, parameter: { kind: "bytes", bytes: Buffer.alloc(16, 3) } },
    ];
    for (const mechanism of mechanisms) {
      expect((await call("C_EncryptInit", { session, mechanism, key }, ctx)).rv).toBe(CKR.CKR_OK);
      const sealed = await call("C_Encrypt", { session, data: Buffer.from("plain text"), room: 256 }, ctx);
      await call("C_DecryptInit", { session, mechanism, key }, ctx);
      const opened = await call("C_Decrypt", { session, data: sealed.output as Buffer, room: 256 }, ctx);
      expect((opened.output as Buffer).toString()).toBe("plain text");
    }
  });

  it("derive with ECDH1", async () => {
    const publicKey = await find(CKO.CKO_PUBLIC_KEY, CKK.CKK_EC);
    const { attributes = [] } = await call(
      "C_GetAttributeValue",
      { session, object: publicKey, query: [{ type: CKA.CKA_EC_POINT, room: 256 }] },
      ctx,
    );
    const publicData = findBytes(attributes, CKA.CKA_EC_POINT) ?? null;
    const mechanism: Mechanism = { type: 0x1050, parameter: { kind: "ecdh1", kdf: 1n, sharedData: null, publicData } };
    const derivable = [bool(CKA.CKA_TOKEN, false), bool(CKA.CKA_DERIVE, true)];
    const pair = await call(
      "C_GenerateKeyPair",
      {
        session,
        mechanism: plain(0x1040),
        publicTemplate: [
          bool(CKA.CKA_TOKEN, false),
          { type: CKA.CKA_EC_PARAMS, value: Buffer.from("06082a8648ce3d030107", "hex"), length: 10 },
        ],
        privateTemplate: derivable,
      },
      ctx,
    );
    const template = [
      ulongAttribute(CKA.CKA_CLASS, CKO.CKO_SECRET_KEY),
      ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_GENERIC_SECRET),
      ulongAttribute(CKA.CKA_VALUE_LEN, 32),
      bool(CKA.CKA_TOKEN, false),
    ];
    const derived = await call("C_DeriveKey", { session, mechanism, baseKey: pair.privateKey ?? 0n, template }, ctx);
    expect(derived.rv).toBe(CKR.CKR_OK);
    expect(derived.key).toBeTypeOf("bigint");
  });

  it("that are NULL, which would cancel an operation, are refused", async () => {
    for (const name of ["C_SignInit", "C_DecryptInit", "C_EncryptInit", "C_VerifyInit"] as const)
      expect([name, (await call(name, { session, mechanism: null, key: rsa }, ctx)).rv]).toEqual([name, CKR.CKR_ARGUMENTS_BAD]);
    expect((await call("C_DigestInit", { session, mechanism: null }, ctx)).rv).toBe(CKR.CKR_ARGUMENTS_BAD);
  });

  it("never pass a client's pointers to the module", async () => {
    const bytes = Buffer.alloc(40, 0x41);
    for (const type of [0x9, 0x1050, 0x1087, 0x1104, 0x1105]) {
      const mechanism: Mechanism = { type, parameter: { kind: "bytes", bytes } };
      expect((await call("C_EncryptInit", { session, mechanism, key: await aesKey() }, ctx)).rv).toBe(CKR.CKR_MECHANISM_PARAM_INVALID);
    }
  });
});

describe("objects and PINs", () => {
  it("are made, copied, changed, measured and destroyed", async () => {
    const label = { type: CKA.CKA_LABEL, value: Buffer.from("made"), length: 4 };
    const template = [ulongAttribute(CKA.CKA_CLASS, CKO.CKO_DATA), bool(CKA.CKA_TOKEN, false), label];
    const made = (await call("C_CreateObject", { session, template }, ctx)).object ?? 0n;
    const changed = { type: CKA.CKA_LABEL, value: Buffer.from("changed"), length: 7 };
    expect((await call("C_SetAttributeValue", { session, object: made, template: [changed] }, ctx)).rv).toBe(CKR.CKR_OK);
    const copy = await call("C_CopyObject", { session, object: made, template: [] }, ctx);
    expect((await call("C_GetObjectSize", { session, object: made }, ctx)).rv).toBe(CKR.CKR_OK);
    const { attributes = [] } = await call(
      "C_GetAttributeValue",
      { session, object: copy.object ?? 0n, query: [{ type: CKA.CKA_LABEL, room: 32 }] },
      ctx,
    );
    expect(findBytes(attributes, CKA.CKA_LABEL)?.toString()).toBe("changed");
    expect((await call("C_DestroyObject", { session, object: made }, ctx)).rv).toBe(CKR.CKR_OK);
  });

  it("a PIN that is NULL or not UTF-8 never reaches the token", async () => {
    const before = await call("C_GetTokenInfo", { slot }, ctx);
    expect((await call("C_Login", { session, userType: 1n, pin: null }, ctx)).rv).toBe(CKR.CKR_ARGUMENTS_BAD);
    expect((await call("C_Login", { session, userType: 1n, pin: Buffer.from([0xff, 0xfe, 0x31, 0x32]) }, ctx)).rv).toBe(
      CKR.CKR_PIN_INVALID,
    );
    expect((await call("C_GetTokenInfo", { slot }, ctx)).flags).toBe(before.flags);
  });

  it("a token is initialised with its label cut to nothing and padded to 32 bytes", async () => {
    await token.addToken("second");
    const slots = (await call("C_GetSlotList", { tokenPresent: 1, room: 64 }, ctx)).slots as readonly bigint[];
    const free = slots.at(-1) ?? 0n;
    const made = await call("C_InitToken2", { slot: free, pin: Buffer.from("12345678"), label: Buffer.from("fresh") }, ctx);
    expect(made.rv).toBe(CKR.CKR_OK);
    const labels = await Promise.all(
      ((await call("C_GetSlotList", { tokenPresent: 1, room: 64 }, ctx)).slots as readonly bigint[]).map(async (one) =>
        (await call("C_GetTokenInfo", { slot: one }, ctx)).label?.toString(),
      ),
    );
    expect(labels).toContain("fresh".padEnd(32));
  });

  it("random bytes and digests come as asked", async () => {
    const random = await call("C_GenerateRandom", { session, room: 64 }, ctx);
    expect(new Set(random.output as Buffer).size).toBeGreaterThan(16);
    expect(await digest(Buffer.from("abc"))).toEqual(
      Buffer.from("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "hex"),
    );
  });
});

async function digest(data: Buffer): Promise<Buffer> {
  await call("C_DigestInit", { session, mechanism: plain(0x250) }, ctx);
  await call("C_DigestUpdate", { session, data: data.subarray(0, 1) }, ctx);
  await call("C_DigestUpdate", { session, data: data.subarray(1) }, ctx);
  return (await call("C_DigestFinal", { session, room: 64 }, ctx)).output as Buffer;
}

describe("malformed arguments", () => {
  /** For each kind of request element: values that no codec of ours makes, and some it may make. */
  const STRANGE: Readonly<Record<string, readonly unknown[]>> = {
    y: [undefined, -1, "1", 2 ** 40],
    u: [undefined, -1n, 1n << 64n, 0xffffffffffffffffn, 5, "7", null],
    z: [undefined, "label", Buffer.alloc(64, 0xff), null],
    s: [undefined, "label", Buffer.alloc(64, 0xff), null],
    M: [
      null,
      undefined,
      {},
      { type: "x", parameter: null },
      { type: -1, parameter: null },
      { type: 9, parameter: { kind: "rsa-oaep", hashAlg: -1n, mgf: 1n, source: 1n, sourceData: "x" } },
      { type: 0x1050, parameter: { kind: "ecdh1", kdf: 1n, sharedData: null, publicData: null } },
      { type: 0x1087, parameter: { kind: "gcm", iv: null, ivBits: 1n << 63n, aad: null, tagBits: 0n } },
      { type: 0x1086, parameter: { kind: "aes-ctr", counterBits: 1n, counterBlock: Buffer.alloc(3) } },
      { type: 0x1, parameter: { kind: "ibm", fields: [1n, Buffer.alloc(3), null] } },
      { type: 0x1, parameter: { kind: "unheard of" } },
      { type: 0x1, parameter: { kind: "bytes", bytes: "x" } },
    ],
    ay: [undefined, 5, "x", {}, Buffer.alloc(0), null],
    aA: [
      undefined,
      null,
      "x",
      [null],
      [{}],
      [{ type: "x", value: null, length: 0 }],
      [{ type: 0, value: null, length: 8 }],
      [{ type: CKA.CKA_START_DATE, value: Buffer.from("2027"), length: 4 }],
      [{ type: CKA.CKA_START_DATE, value: Buffer.alloc(0), length: 0 }],
      [{ type: CKA.CKA_WRAP_TEMPLATE, value: [{ type: 0, value: [], length: 24 }], length: 24 }],
      Array.from({ length: 5000 }, () => ({ type: 0, value: null, length: 0 })),
    ],
    fy: [undefined, -1, 1.5, Number.NaN, "x", 2 ** 53],
    fu: [undefined, -1, 1.5, Number.NaN, "x", 2 ** 53],
    fA: [undefined, null, [null], [{ type: "x", room: 1 }], [{ type: 0, room: -1 }], [{ type: CKA.CKA_UNWRAP_TEMPLATE, room: 1000 }]],
  };
  const SANE: Readonly<Record<string, () => unknown>> = {
    y: () => 1,
    u: () => session,
    z: () => Buffer.from("label"),
    s: () => Buffer.from("label"),
    M: () => plain(0x40),
    ay: () => Buffer.from("bytes"),
    aA: () => [],
    fy: () => 64,
    fu: () => 4,
    fA: () => [{ type: CKA.CKA_ID, room: 8 }],
  };
  /** These would change what the other tests look at; their arguments are those of calls that are here. */
  const LEFT_OUT = new Set(["C_CloseAllSessions", "C_CloseSession", "C_Logout", "C_InitToken", "C_InitToken2", "C_SetPIN", "C_InitPIN"]);

  it.each(CALLS.filter(({ name }) => !LEFT_OUT.has(name)).map((row) => [row.name, row] as const))(
    "of %s are answered with a CK_RV and end nothing",
    async (name, row) => {
      const { pid, epoch } = host;
      const codes = splitSignature(row.request);
      const sane = Object.fromEntries(row.args.map((argument, index) => [argument, SANE[codes[index] ?? ""]?.()]));
      for (const [index, argument] of row.args.entries()) {
        for (const strange of STRANGE[codes[index] ?? ""] ?? []) {
          const result = await call(name, { ...sane, [argument]: strange } as never, ctx);
          expect(result.rv).toBeTypeOf("number");
        }
      }
      await call(name, {} as never, ctx);
      expect((await call("C_GetInfo", {}, ctx)).rv).toBe(CKR.CKR_OK);
      expect({ pid: host.pid, epoch: host.epoch }).toEqual({ pid, epoch });
    },
  );

  it("of the 3.x calls are never looked at: they answer CKR_FUNCTION_NOT_SUPPORTED", async () => {
    for (const { name, id } of CALLS) {
      if (id < 66 || name === "C_InitToken2") continue;
      expect([name, (await call(name, {} as never, ctx)).rv]).toEqual([name, CKR.CKR_FUNCTION_NOT_SUPPORTED]);
    }
  });
});
