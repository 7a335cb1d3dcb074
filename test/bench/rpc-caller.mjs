/*
 * A program on `tokenfwd/client`, driven by the same lines as sign-loop.c: one connection with a number of signatures under
 * way, by `sign` or by C_SignInit and C_Sign through `call`. It must use nothing but the library's public surface.
 *
 *   rpc-caller.mjs SOCKET KEY_ID_HEX rsa|ec sign|call IN_FLIGHT
 */
import { connectClient } from "../../dist/bastion/client/index.js";
import { speakLines } from "./caller-lines.mjs";

const CKM_SHA256_RSA_PKCS = 0x40;
const CKM_ECDSA = 0x1041;
const CKF_SERIAL_SESSION = 4n;
const CKU_USER = 1n;
const CKA_CLASS = 0;
const CKA_ID = 0x102;
const CKO_PRIVATE_KEY = 3n;

const [socket = "", id = "", algorithm = "", how = "", inFlight = "1"] = process.argv.slice(2);
const mechanism = algorithm === "rsa" ? CKM_SHA256_RSA_PKCS : CKM_ECDSA;
const client = await connectClient({ socket, client: "bench" });

/** Answers a function that signs once. */
async function signer() {
  const key = (await client.keys()).find((one) => one.id.toString("hex") === id);
  if (key === undefined) throw new Error("there is no key of this id");
  const named = { uri: key.uri, spki: null };
  const isDigest = algorithm === "ec";
  return (data) => client.signer.sign({ key: named, mechanism, parameter: null, data, isDigest, purpose: "bench", expect: null });
}

/** The same by Cryptoki calls, on a session of its own. */
async function caller() {
  const ctx = {
    client: "bench",
    origin: { kind: "local", destination: null, user: null, host: null, port: null, hostKeySha256: null, connectId: "bench" },
    signal: new AbortController().signal,
  };
  const call = async (name, args, fine = [0]) => {
    const result = await client.cryptoki.call(name, args, ctx);
    if (!fine.includes(result.rv)) throw new Error(`${name} answered 0x${result.rv.toString(16)}`);
    return result;
  };
  const ulong = Buffer.alloc(8);
  ulong.writeBigUInt64LE(CKO_PRIVATE_KEY);
  const template = [
    { type: CKA_CLASS, value: ulong, length: 8 },
    { type: CKA_ID, value: Buffer.from(id, "hex"), length: id.length / 2 },
  ];
  const { slots } = await call("C_GetSlotList", { tokenPresent: 1, room: 64 });
  for (const slot of slots) {
    const { session } = await call("C_OpenSession", { slot, flags: CKF_SERIAL_SESSION });
    await call("C_Login", { session, userType: CKU_USER, pin: null }, [0, 0x100]);
    await call("C_FindObjectsInit", { session, template });
    const { objects } = await call("C_FindObjects", { session, room: 1 });
    await call("C_FindObjectsFinal", { session });
    const key = objects[0];
    if (key === undefined) continue;
    return async (data) => {
      // Both leave in one flight: the second is carried out after the first.
      const [, signed] = await Promise.all([
        call("C_SignInit", { session, mechanism: { type: mechanism, parameter: null }, key }),
        call("C_Sign", { session, data, room: 512 }),
      ]);
      return signed;
    };
  }
  throw new Error("there is no key of this id");
}

// Our agent has the PIN already.
await speakLines(async () => {
  const lanes = [];
  while (lanes.length < Number(inFlight)) lanes.push(how === "sign" ? (lanes[0] ?? (await signer())) : await caller());
  return lanes;
});
await client.close();
