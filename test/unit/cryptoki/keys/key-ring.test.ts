/*
 * The key ring over a token on paper: which calls a signature takes, and what it does when what it held is void.
 */
import { createHash, generateKeyPairSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { boolAttribute, bytesAttribute, CKA, ulongAttribute } from "../../../../src/cryptoki/attributes.js";
import { CKF, CKK, CKO, CKU } from "../../../../src/cryptoki/constants.js";
import { digestInfo, digestOf } from "../../../../src/cryptoki/keys/digest-info.js";
import { KeyError } from "../../../../src/cryptoki/keys/key-error.js";
import { createKeyRing, type KeyRingOptions, type KeySignRequest } from "../../../../src/cryptoki/keys/key-ring.js";
import { spkiFingerprint } from "../../../../src/cryptoki/keys/spki.js";
import { localContext } from "../../../../src/cryptoki/local-context.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { Attribute, MechanismParameter } from "../../../../src/cryptoki/types.js";
import { createPaperToken, type PaperToken, paperSignature } from "../../../support/paper-token.js";

const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
const JWK = publicKey.export({ format: "jwk" });
const SPKI = publicKey.export({ type: "spki", format: "der" });
const MODULUS = Buffer.from(JWK.n ?? "", "base64url");
const OTHER_MODULUS = Buffer.from(
  generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" }).n ?? "",
  "base64url",
);

function rsaObject(cls: bigint, id: string, label: string, modulus = MODULUS): Attribute[] {
  return [
    ulongAttribute(CKA.CKA_CLASS, cls),
    boolAttribute(CKA.CKA_TOKEN, true),
    boolAttribute(CKA.CKA_PRIVATE, cls === CKO.CKO_PRIVATE_KEY),
    bytesAttribute(CKA.CKA_LABEL, Buffer.from(label)),
    bytesAttribute(CKA.CKA_ID, Buffer.from(id, "hex")),
    ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_RSA),
    bytesAttribute(CKA.CKA_MODULUS, modulus),
    bytesAttribute(CKA.CKA_PUBLIC_EXPONENT, Buffer.from([1, 0, 1])),
  ];
}
const pair = (id: string, label: string, modulus = MODULUS) => [
  rsaObject(CKO.CKO_PUBLIC_KEY, id, label, modulus),
  rsaObject(CKO.CKO_PRIVATE_KEY, id, label, modulus),
];

const ALL = [CKM.CKM_RSA_PKCS, CKM.CKM_SHA256_RSA_PKCS, CKM.CKM_RSA_PKCS_PSS];
const DOCUMENT = Buffer.from("document");
const ctx = (signal: AbortSignal = new AbortController().signal) => localContext("test", signal);

function ringOf(token: PaperToken, more: Partial<KeyRingOptions> = {}) {
  const logins: bigint[] = [];
  const ring = createKeyRing({
    cryptoki: token,
    login: async (slot, session, context) => {
      logins.push(slot);
      return (await token.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, context)).rv;
    },
    ...more,
  });
  return { ring, logins };
}

const asked = (more: Partial<KeySignRequest> = {}): KeySignRequest => ({
  key: { uri: "pkcs11:id=%01", spki: null },
  mechanism: null,
  parameter: null,
  data: DOCUMENT,
  isDigest: false,
  expect: null,
  ...more,
});

async function failure(work: Promise<unknown>): Promise<KeyError> {
  const thrown = await work.then(() => null).catch((error: unknown) => error);
  if (!(thrown instanceof KeyError)) throw new Error(`no KeyError but ${String(thrown)}`);
  return thrown;
}

/** A gate that calls wait at, and that tells how many do. */
function gate() {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open: () => open(), opened };
}

describe("a signature", () => {
  it("with a key and mechanism used before is C_SignInit and C_Sign and nothing else", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    for (const key of [asked().key, { uri: null, spki: spkiFingerprint(SPKI) }]) {
      await ring.sign(asked({ key }), ctx());
      token.calls.length = 0;
      await ring.sign(asked({ key }), ctx());
      expect(token.calls).toEqual(["C_SignInit", "C_Sign"]);
    }
  });

  it("tells the calls its purpose", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    const purposes = new Set<string | undefined>();
    token.before = (_name, _args, { purpose }) => void purposes.add(purpose);
    await ring.sign(asked({ purpose: "git" }), ctx());
    expect([...purposes]).toEqual(["git"]);
  });

  it("finds the key again after the module started anew, once, with another log-in", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring, logins } = ringOf(token);
    await ring.sign(asked(), ctx());
    token.restart();
    const { signature } = await ring.sign(asked(), ctx());
    const key = [...token.objects.keys()][1] ?? 0n;
    expect(signature).toEqual(paperSignature(CKM.CKM_SHA256_RSA_PKCS, key, DOCUMENT));
    expect(logins).toHaveLength(2);
  });

  it("does not use another key that lies under the id after the module started anew", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    await ring.sign(asked({ expect: SPKI }), ctx());
    token.objects.clear();
    for (const [index, each] of pair("01", "work", OTHER_MODULUS).entries()) token.objects.set(BigInt(index + 1), each);
    token.restart();
    expect((await failure(ring.sign(asked({ expect: SPKI }), ctx()))).reason).toBe("mismatch");
  });

  it("is not asked for a second time when it may have been made", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    await ring.sign(asked(), ctx());
    for (const rv of [CKR.CKR_DEVICE_REMOVED, CKR.CKR_SESSION_CLOSED]) {
      token.calls.length = 0;
      token.before = (name) => (name === "C_Sign" ? { rv } : undefined);
      expect(await failure(ring.sign(asked(), ctx()))).toMatchObject({ reason: "cryptoki", rv, call: "C_Sign" });
      expect(token.calls.filter((name) => name === "C_Sign")).toHaveLength(1);
    }
  });

  it.each([
    ["C_Login", CKR.CKR_DEVICE_REMOVED],
    ["C_Login", CKR.CKR_SESSION_HANDLE_INVALID],
    ["C_SignInit", CKR.CKR_USER_NOT_LOGGED_IN],
    ["C_SignInit", CKR.CKR_KEY_HANDLE_INVALID],
  ])("takes one log-in and no second one when %s answers 0x%s", async (call, rv) => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring, logins } = ringOf(token);
    await ring.tokens(ctx());
    token.before = (name) => (name === call ? { rv } : undefined);
    expect(await failure(ring.sign(asked(), ctx()))).toMatchObject({ rv, call });
    expect(logins).toHaveLength(1);
  });

  it("is given up when what was looked up anew is void as well", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    await ring.sign(asked(), ctx());
    token.calls.length = 0;
    token.before = (name) => (name === "C_SignInit" ? { rv: CKR.CKR_KEY_HANDLE_INVALID } : undefined);
    expect(await failure(ring.sign(asked(), ctx()))).toMatchObject({ rv: CKR.CKR_KEY_HANDLE_INVALID, call: "C_SignInit" });
    expect(token.calls.filter((name) => name === "C_SignInit")).toHaveLength(2);
  });

  it("logs in again, once, when the token forgot the log-in", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring, logins } = ringOf(token);
    await ring.sign(asked(), ctx());
    token.isLoggedIn = false;
    await ring.sign(asked(), ctx());
    expect(logins).toHaveLength(2);
  });

  it("logs in at a token that says it needs none and then wants one", async () => {
    const open = pair("01", "work").map((each) => each.map((a) => (a.type === CKA.CKA_PRIVATE ? boolAttribute(a.type, false) : a)));
    const token = createPaperToken(open, ALL);
    token.flags = CKF.CKF_TOKEN_INITIALIZED;
    const { ring, logins } = ringOf(token);
    await ring.sign(asked(), ctx());
    expect(logins).toHaveLength(1);
  });

  it("asks again with the room that the token wants", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    const rooms: unknown[] = [];
    token.before = (name, args) => {
      if (name !== "C_Sign") return undefined;
      rooms.push(args["room"]);
      return rooms.length === 1 ? { rv: CKR.CKR_BUFFER_TOO_SMALL, output: 5_000 } : undefined;
    };
    await ring.sign(asked(), ctx());
    expect(rooms[1]).toBe(5_000);
  });

  it("takes the log-in of the operation where the key wants one for every signature", async () => {
    const [open, secret] = pair("01", "work");
    const token = createPaperToken([open ?? [], [...(secret ?? []), boolAttribute(CKA.CKA_ALWAYS_AUTHENTICATE, true)]], ALL);
    const { ring } = ringOf(token, { loginForOperation: async () => CKR.CKR_PIN_INCORRECT });
    expect(await failure(ring.sign(asked(), ctx()))).toMatchObject({ rv: CKR.CKR_PIN_INCORRECT, call: "C_Login" });
    expect(token.calls).not.toContain("C_Sign");
    // The operation that was begun went with its session.
    expect(token.calls.at(-1)).toBe("C_CloseSession");
  });
});

describe("a request that cannot be", () => {
  it.each([
    ["another key is expected", { expect: Buffer.from("other") }, "mismatch"],
    ["the mechanism is another type's", { mechanism: CKM.CKM_ECDSA }, "mechanism"],
    ["the token lacks the mechanism", { mechanism: CKM.CKM_RSA_X_509 }, "mechanism"],
    ["a raw mechanism is given a document", { mechanism: CKM.CKM_RSA_PKCS }, "mechanism"],
    ["the digest is as long as none is", { isDigest: true, data: Buffer.alloc(31) }, "bad-input"],
    ["the digest is another hash's", { isDigest: true, data: Buffer.alloc(20), mechanism: CKM.CKM_SHA256_RSA_PKCS }, "bad-input"],
    ["the URI carries a PIN", { key: { uri: "pkcs11:id=%01?pin-value=1234", spki: null } }, "bad-input"],
    ["the key is named twice", { key: { uri: "pkcs11:id=%01", spki: Buffer.alloc(32) } }, "bad-input"],
    ["the URI names no key", { key: { uri: "pkcs11:token=paper", spki: null } }, "bad-input"],
  ] as const)("does not log in: %s", async (_why, more, reason) => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring, logins } = ringOf(token);
    const error = await failure(ring.sign(asked(more), ctx()));
    expect(error.reason).toBe(reason);
    expect(`${error.message} ${error.hint}`).not.toContain("1234");
    expect(logins).toEqual([]);
    expect(token.calls).not.toContain("C_SignInit");
  });

  it("names the URIs to choose from when several keys match", async () => {
    const token = createPaperToken([...pair("01", "work"), ...pair("02", "work", OTHER_MODULUS)], ALL);
    const { ring } = ringOf(token);
    const error = await failure(ring.sign(asked({ key: { uri: "pkcs11:object=work", spki: null } }), ctx()));
    expect(error.reason).toBe("ambiguous");
    expect(error.hint).toMatch(/id=%01.* .*id=%02/);
  });

  it("is refused when the private key under the id is not the public key's", async () => {
    const token = createPaperToken(
      [rsaObject(CKO.CKO_PUBLIC_KEY, "01", "work"), rsaObject(CKO.CKO_PRIVATE_KEY, "01", "work", OTHER_MODULUS)],
      ALL,
    );
    const { ring } = ringOf(token);
    expect((await failure(ring.sign(asked(), ctx()))).reason).toBe("not-found");
  });
});

describe("a token that shows its key only after a log-in", () => {
  const hidden = () => createPaperToken([rsaObject(CKO.CKO_PRIVATE_KEY, "01", "work")], ALL);

  it("signs with it by URI, and then lists it", async () => {
    const { ring, logins } = ringOf(hidden());
    expect((await ring.tokens(ctx()))[0]?.keys).toEqual([]);
    const { key } = await ring.sign(asked({ expect: SPKI }), ctx());
    expect(key).toMatchObject({ type: "RSA", bits: 1024 });
    expect(key.spki).toEqual(SPKI);
    expect((await ring.tokens(ctx()))[0]?.keys).toHaveLength(1);
    expect(logins).toHaveLength(1);
  });

  it("is logged in to for a list only when that is wished", async () => {
    const { ring, logins } = ringOf(hidden());
    await ring.tokens(ctx());
    expect(logins).toHaveLength(0);
    expect((await ring.tokens(ctx(), { loginWhereEmpty: () => true }))[0]?.keys).toHaveLength(1);
  });
});

it("keys are listed in one order, whatever the token's is", async () => {
  const objects = [...pair("02", "b", OTHER_MODULUS), ...pair("01", "a"), rsaObject(CKO.CKO_PUBLIC_KEY, "", "0")];
  for (const each of [objects, objects.toReversed()]) {
    const [token] = await ringOf(createPaperToken(each, ALL)).ring.tokens(ctx());
    expect(token?.keys.map(({ uri }) => uri.replace(/^.*token=paper;/, ""))).toEqual([
      "id=%01;type=private",
      "id=%02;type=private",
      "object=0;type=private",
    ]);
  }
});

it("a token that cannot be read does not take the others away, and is an error where it is the only one", async () => {
  const token = createPaperToken(pair("01", "work"), ALL);
  const { ring } = ringOf(token);
  let slots = [7n, 8n];
  token.before = (name, args) => {
    if (name === "C_GetSlotList") return { rv: CKR.CKR_OK, slots };
    return args["slot"] === 8n ? { rv: CKR.CKR_DEVICE_ERROR } : undefined;
  };
  expect((await ring.tokens(ctx())).map(({ slot }) => slot)).toEqual([7n]);
  expect((await ring.sign(asked(), ctx())).key.slot).toBe(7n);
  slots = [8n];
  ring.forget();
  expect(await failure(ring.tokens(ctx()))).toMatchObject({ rv: CKR.CKR_DEVICE_ERROR, call: "C_GetTokenInfo" });
});

it("a signature that had to be by a certain key is thrown away when the token was changed under it", async () => {
  for (const during of ["C_SignInit", "C_Sign"]) {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token);
    token.before = (name) => {
      if (name === during) ring.tokenChanged();
      return undefined;
    };
    const expected = { ...asked(), expect: SPKI };
    expect(await failure(ring.sign(expected, ctx()))).toMatchObject({ reason: "mismatch" });
    token.before = () => undefined;
    expect((await ring.sign(expected, ctx())).key.spki?.equals(SPKI)).toBe(true);
  }
});

describe("many signatures at once", () => {
  it("use as many sessions as are allowed, never one for two, and ask for one log-in", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring, logins } = ringOf(token, { maxSessions: 3 });
    let most = 0;
    const busy = new Set<unknown>();
    token.before = async (name, args) => {
      if (name !== "C_SignInit" && name !== "C_Sign") return undefined;
      if (name === "C_SignInit") {
        expect(busy.has(args["session"])).toBe(false);
        busy.add(args["session"]);
        most = Math.max(most, busy.size);
      }
      await new Promise(setImmediate);
      if (name === "C_Sign") busy.delete(args["session"]);
      return undefined;
    };
    const documents = Array.from({ length: 20 }, (_, index) => Buffer.from(`document ${index}`));
    const made = await Promise.all(documents.map((data) => ring.sign(asked({ data }), ctx())));
    const key = [...token.objects.keys()][1] ?? 0n;
    expect(made.map(({ signature }) => signature)).toEqual(documents.map((data) => paperSignature(CKM.CKM_SHA256_RSA_PKCS, key, data)));
    expect([most, token.sessions.size, logins.length]).toEqual([3, 3, 1]);
  });

  it("make do with the sessions that the token has", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    token.maxSessions = 2;
    const { ring } = ringOf(token);
    const made = await Promise.all(Array.from({ length: 10 }, () => ring.sign(asked(), ctx())));
    expect(made).toHaveLength(10);
    expect(token.sessions.size).toBe(2);
  });

  it("share a refused log-in, and do not try it once each", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const asking = gate();
    let tries = 0;
    const login = async () => {
      tries += 1;
      await asking.opened;
      return CKR.CKR_PIN_INCORRECT;
    };
    const { ring } = ringOf(token, { login });
    const signing = Array.from({ length: 5 }, () => failure(ring.sign(asked(), ctx())));
    await new Promise(setImmediate);
    asking.open();
    expect((await Promise.all(signing)).map(({ rv }) => rv)).toEqual(Array(5).fill(CKR.CKR_PIN_INCORRECT));
    expect(tries).toBe(1);
  });

  it("are not failed by one that takes its log-in back", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const first = new AbortController();
    let tries = 0;
    const login: KeyRingOptions["login"] = async (_slot, session, context) => {
      tries += 1;
      if (context.signal === first.signal) {
        await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
        return CKR.CKR_FUNCTION_CANCELED;
      }
      return (await token.call("C_Login", { session, userType: CKU.CKU_USER, pin: null }, context)).rv;
    };
    const { ring } = ringOf(token, { login });
    const one = failure(ring.sign(asked(), ctx(first.signal)));
    while (tries === 0) await new Promise(setImmediate);
    const two = ring.sign(asked(), ctx());
    await new Promise(setImmediate);
    first.abort();
    expect((await one).rv).toBe(CKR.CKR_FUNCTION_CANCELED);
    expect((await two).mechanism).toBe(CKM.CKM_SHA256_RSA_PKCS);
    expect(tries).toBe(2);
  });

  it("leave the queue when they are taken back, and the session of one taken back is not used again", async () => {
    const token = createPaperToken(pair("01", "work"), ALL);
    const { ring } = ringOf(token, { maxSessions: 1 });
    await ring.sign(asked(), ctx());
    const signing = gate();
    const stop = new AbortController();
    token.before = async (name, _args, { signal }) => {
      if (name !== "C_Sign" || signal !== stop.signal) return undefined;
      await signing.opened;
      return { rv: CKR.CKR_FUNCTION_CANCELED };
    };
    const slow = failure(ring.sign(asked(), ctx(stop.signal)));
    await new Promise(setImmediate);
    const waits = new AbortController();
    const waiting = failure(ring.sign(asked(), ctx(waits.signal)));
    const last = ring.sign(asked(), ctx());
    await new Promise(setImmediate);
    waits.abort();
    expect((await waiting).rv).toBe(CKR.CKR_FUNCTION_CANCELED);
    const [held] = token.sessions;
    signing.open();
    expect((await slow).rv).toBe(CKR.CKR_FUNCTION_CANCELED);
    await last;
    expect(token.sessions.has(held ?? 0n)).toBe(false);
  });
});

describe("what goes to the token", () => {
  async function sent(mechanisms: readonly number[], more: Partial<KeySignRequest>) {
    const token = createPaperToken(pair("01", "work"), mechanisms);
    const { ring } = ringOf(token);
    const seen: { type?: number; parameter?: MechanismParameter | null; data?: Buffer } = {};
    token.before = (name, args) => {
      if (name === "C_SignInit") Object.assign(seen, args["mechanism"]);
      if (name === "C_Sign") seen.data = args["data"] as Buffer;
      return undefined;
    };
    const { mechanism } = await ring.sign(asked(more), ctx());
    return { ...seen, reported: mechanism };
  }
  const sha256 = createHash("sha256").update(DOCUMENT).digest();
  const info = digestInfo("sha256", sha256);

  it("is the document where the token hashes, and a DigestInfo where it does not", async () => {
    expect(await sent(ALL, {})).toMatchObject({ type: CKM.CKM_SHA256_RSA_PKCS, data: DOCUMENT, reported: CKM.CKM_SHA256_RSA_PKCS });
    expect(await sent([CKM.CKM_RSA_PKCS], {})).toMatchObject({ type: CKM.CKM_RSA_PKCS, data: info, reported: CKM.CKM_SHA256_RSA_PKCS });
  });

  it("is the DigestInfo of a digest, and a DigestInfo as it is", async () => {
    for (const data of [sha256, info]) {
      const made = await sent(ALL, { mechanism: CKM.CKM_RSA_PKCS, isDigest: true, data });
      expect(made).toMatchObject({ type: CKM.CKM_RSA_PKCS, data: info, reported: CKM.CKM_RSA_PKCS });
    }
    const sha512 = digestOf("sha512", DOCUMENT);
    expect(await sent(ALL, { isDigest: true, data: sha512 })).toMatchObject({ data: digestInfo("sha512", sha512) });
  });

  it("is a PSS parameter of the hash where none was given, and the one given where it fits", async () => {
    const standard = { kind: "rsa-pss", hashAlg: BigInt(CKM.CKM_SHA256), mgf: 2n, saltLength: 32n };
    const made = await sent(ALL, { mechanism: CKM.CKM_SHA256_RSA_PKCS_PSS });
    expect(made).toMatchObject({ type: CKM.CKM_RSA_PKCS_PSS, parameter: standard, data: sha256, reported: CKM.CKM_SHA256_RSA_PKCS_PSS });
    const own = { kind: "rsa-pss", hashAlg: BigInt(CKM.CKM_SHA256), mgf: 2n, saltLength: 20n } as const;
    expect(await sent(ALL, { mechanism: CKM.CKM_RSA_PKCS_PSS, parameter: own })).toMatchObject({ parameter: own, data: sha256 });
    const wrong = { ...own, hashAlg: BigInt(CKM.CKM_SHA512) };
    await expect(sent(ALL, { mechanism: CKM.CKM_SHA256_RSA_PKCS_PSS, parameter: wrong })).rejects.toMatchObject({ reason: "bad-input" });
  });
});
