/*
 * Clients of a token broker over the fake token host, with the calls that the tests of the session layer make over and over.
 */
import { bytesAttribute, CKA } from "../../src/cryptoki/attributes.js";
import { CKF, CKO, CKU } from "../../src/cryptoki/constants.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { CallContext } from "../../src/cryptoki/types.js";
import { createTokenBroker, type TokenBroker, type Visibility } from "../../src/token/broker.js";
import type { PinMode } from "../../src/token/login.js";
import { createFakeTokenHost, type FakeTokenHost, fakeAttributes, forwardOrigin } from "./fake-token-host.js";

/** A policy that hides nothing. */
export const everything: Visibility = { slot: () => true, object: () => true, attribute: () => true };
/** A template element. */
export const label = (text: string) => bytesAttribute(CKA.CKA_LABEL, Buffer.from(text));

/** One client of the broker, with the calls that the tests make over and over. */
export function connect(broker: TokenBroker, client: string, { destination = "bastion", port = 22, visibility = everything } = {}) {
  const leaving = new AbortController();
  const ctx: CallContext = { client, origin: forwardOrigin(destination, port), signal: leaving.signal };
  const cryptoki = broker.createClient(client, visibility);
  return {
    cryptoki,
    ctx,
    leaving,
    open: async (slot = 1n) => (await cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx)).session ?? 0n,
    login: async (session: bigint, pin: string | null = null, userType: bigint = CKU.CKU_USER) =>
      (await cryptoki.call("C_Login", { session, userType, pin: pin === null ? null : Buffer.from(pin) }, ctx)).rv,
    logout: async (session: bigint) => (await cryptoki.call("C_Logout", { session }, ctx)).rv,
    close: async (session: bigint) => (await cryptoki.call("C_CloseSession", { session }, ctx)).rv,
    create: async (session: bigint, text: string) =>
      (await cryptoki.call("C_CreateObject", { session, template: fakeAttributes(CKO.CKO_DATA, text, false) }, ctx)).object ?? 0n,
    destroy: async (session: bigint, object: bigint) => (await cryptoki.call("C_DestroyObject", { session, object }, ctx)).rv,
    async find(session: bigint, text: string) {
      const { rv } = await cryptoki.call("C_FindObjectsInit", { session, template: [label(text)] }, ctx);
      if (rv !== CKR.CKR_OK) return rv;
      const { objects } = await cryptoki.call("C_FindObjects", { session, room: 10 }, ctx);
      await cryptoki.call("C_FindObjectsFinal", { session }, ctx);
      return objects as readonly bigint[];
    },
  };
}

/** A host with two tokens (PINs 1234 and 5678, one private key) and a broker over it. */
export function start(mode: PinMode): { host: FakeTokenHost; broker: TokenBroker } {
  const host = createFakeTokenHost({ 1: "1234", 2: "5678" });
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "secret key", true));
  return { host, broker: createTokenBroker(host, mode) };
}
