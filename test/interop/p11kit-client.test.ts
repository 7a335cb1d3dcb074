/*
 * Our p11-kit client against this machine's own `p11-kit server` (Debian: 0.24.1): many calls in flight, and what a stock server
 * says of a wrong PIN and of a connection that goes.
 */
import { createHash, constants as crypto, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { boolAttribute, CKA, ulongAttribute } from "../../src/cryptoki/attributes.js";
import { CKF, CKO, CKU } from "../../src/cryptoki/constants.js";
import { findAll } from "../../src/cryptoki/keys/find.js";
import { localContext } from "../../src/cryptoki/local-context.js";
import { CKR } from "../../src/cryptoki/rv.js";
import { createP11KitClient, type P11KitClient } from "../../src/wire/p11kit/client.js";
import { negotiateP11Kit } from "../../src/wire/p11kit/negotiate.js";
import { initializeArgs } from "../../src/wire/p11kit/requests.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startStockServer } from "./agent-process.js";

let token: SoftHsm;
let server: ServerProcess;
let client: P11KitClient;
let socket: Socket;
const ctx = localContext("test", new AbortController().signal);
const DATA = Buffer.from("signed through our client");
const DIGEST = createHash("sha256").update(DATA).digest();

beforeAll(async () => {
  token = await createSoftHsm();
  server = await startStockServer(token);
}, 60_000);
afterAll(async () => {
  await server?.dispose();
  await token?.dispose();
});
beforeEach(async () => {
  const made = await negotiateP11Kit(
    async (offerVersion) => {
      const stream = connect({ path: server.socket });
      const own = createP11KitClient({ write: (bytes) => void stream.write(bytes), end: () => void stream.end(), offerVersion });
      stream.on("data", (chunk: Buffer) => own.push(chunk));
      stream.on("error", () => {});
      stream.once("close", () => own.closed());
      return { client: own, stream, abandon: () => void stream.destroy() };
    },
    { firstByteMs: 10_000, signal: ctx.signal },
  );
  if (!made.ok) throw new Error(made.why);
  ({ client, stream: socket } = made.opened);
  expect(await client.call("C_Initialize", initializeArgs(), ctx)).toEqual({ rv: CKR.CKR_OK });
});
afterEach(async () => {
  const closed = new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once("close", () => resolve())));
  await client.close();
  await closed;
});

async function openSession(): Promise<{ slot: bigint; session: bigint }> {
  const { slots } = await client.call("C_GetSlotList", { tokenPresent: 1, room: 16 }, ctx);
  for (const slot of Array.isArray(slots) ? (slots as bigint[]) : []) {
    const { label } = await client.call("C_GetTokenInfo", { slot }, ctx);
    if (label?.toString().trim() !== token.label) continue;
    const { session = 0n } = await client.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
    return { slot, session };
  }
  throw new Error("the token is not shown");
}

async function privateKey(session: bigint, id: string): Promise<bigint> {
  const template = [
    ulongAttribute(CKA.CKA_CLASS, CKO.CKO_PRIVATE_KEY),
    { type: CKA.CKA_ID, value: Buffer.from(id, "hex"), length: id.length / 2 },
    boolAttribute(CKA.CKA_TOKEN, true),
  ];
  const { objects } = await findAll(client, session, template, ctx);
  const [key] = objects;
  if (key === undefined) throw new Error("no key");
  return key;
}

describe("the stock server", () => {
  it("signs for many callers of one connection at once, each answer going to its own", async () => {
    const { slot, session } = await openSession();
    expect(await client.call("C_Login", { session, userType: CKU.CKU_USER, pin: Buffer.from(token.pin) }, ctx)).toEqual({ rv: CKR.CKR_OK });
    const rsa = await privateKey(session, "01");
    const ec = await privateKey(session, "02");
    const publicKeys = { rsa: readFileSync(token.keys.rsa?.publicKeyFile ?? ""), ec: readFileSync(token.keys.ec?.publicKeyFile ?? "") };
    const one = async (index: number): Promise<boolean> => {
      const { session: own = 0n } = await client.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
      const data = Buffer.from(`${DATA}${index}`);
      const isRsa = index % 2 === 0;
      const mechanism = isRsa ? { type: 0x40, parameter: null } : { type: 0x1041, parameter: null };
      // Without waiting in between: the server takes them in the order they were written.
      const init = client.call("C_SignInit", { session: own, mechanism, key: isRsa ? rsa : ec }, ctx);
      const signed = client.call(
        "C_Sign",
        { session: own, data: isRsa ? data : createHash("sha256").update(data).digest(), room: 512 },
        ctx,
      );
      expect((await init).rv).toBe(CKR.CKR_OK);
      const { output } = await signed;
      if (!Buffer.isBuffer(output)) return false;
      const key = isRsa ? publicKeys.rsa : { key: publicKeys.ec, dsaEncoding: "ieee-p1363" as const };
      return verify("sha256", data, key, output);
    };
    expect(await Promise.all(Array.from({ length: 48 }, (_, index) => one(index)))).toEqual(Array.from({ length: 48 }, () => true));
  });

  it("signs with PSS, whose parameter it reads in its own form", async () => {
    const { session } = await openSession();
    await client.call("C_Login", { session, userType: CKU.CKU_USER, pin: Buffer.from(token.pin) }, ctx);
    const key = await privateKey(session, "01");
    const parameter = { kind: "rsa-pss", hashAlg: 0x250n, mgf: 2n, saltLength: 32n } as const;
    const init = await client.call("C_SignInit", { session, mechanism: { type: 0x0d, parameter }, key }, ctx);
    expect(init).toEqual({ rv: CKR.CKR_OK });
    const { output } = await client.call("C_Sign", { session, data: DIGEST, room: 512 }, ctx);
    const publicKey = readFileSync(token.keys.rsa?.publicKeyFile ?? "", "utf8");
    const padding = { padding: crypto.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    expect(verify("sha256", DATA, { key: publicKey, ...padding }, output as Buffer)).toBe(true);
  });

  it("says no to a wrong PIN and goes on, and every call of a connection that has gone is answered", async () => {
    const { slot, session } = await openSession();
    expect(await client.call("C_Login", { session, userType: CKU.CKU_USER, pin: Buffer.from("0000") }, ctx)).toEqual({
      rv: CKR.CKR_PIN_INCORRECT,
    });
    expect((await client.call("C_GetTokenInfo", { slot }, ctx)).rv).toBe(CKR.CKR_OK);
    const calls = Array.from({ length: 8 }, () => client.call("C_GetTokenInfo", { slot }, ctx));
    socket.destroy();
    expect((await Promise.all(calls)).map(({ rv }) => rv)).toEqual(Array.from({ length: 8 }, () => CKR.CKR_DEVICE_REMOVED));
  });
});
