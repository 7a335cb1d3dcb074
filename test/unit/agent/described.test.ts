/* A purpose whose documents the agent reads: what it signs of them, and what it does not. */
import { createHash } from "node:crypto";
import { expect, test, vi } from "vitest";
import { createAgent } from "../../../src/agent/agent.js";
import { createBeingSigned } from "../../../src/agent/being-signed.js";
import { createDescribed, type DescribedPurposes } from "../../../src/agent/described.js";
import { CKF, CKO } from "../../../src/cryptoki/constants.js";
import type { KeyEntry } from "../../../src/cryptoki/keys/types.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { SignMessage } from "../../../src/wire/rpc/messages.js";
import { connectRpc } from "../../support/agent-clients.js";
import { createFakeTokenHost, fakeAttributes, forwardOrigin } from "../../support/fake-token-host.js";

const PURPOSES: DescribedPurposes = {
  letter: {
    mechanism: CKM.CKM_SHA256_RSA_PKCS,
    read(document) {
      if (!document.toString().startsWith("dear ")) return null;
      const reader = document.toString().slice(5);
      return {
        line: `to ${reader}`,
        refusedFor: () => (reader === "enemy" ? "the enemy gets no letters" : null),
      };
    },
  },
};
const LETTER: SignMessage = {
  key: { uri: "pkcs11:object=the%20key;type=private", spki: null },
  mechanism: null,
  parameter: null,
  data: Buffer.from("dear \u001b[2Jreader"),
  isDigest: false,
  purpose: "letter",
  expect: null,
};
const digest = createHash("sha256").update(LETTER.data).digest();

const REFUSED: readonly (readonly [string, Partial<SignMessage>, string])[] = [
  ["what cannot be read", { data: Buffer.from("junk") }, "what was sent for the purpose letter is not such a document"],
  ["a digest", { data: digest, isDigest: true }, "for the purpose letter a whole document is signed, and no digest"],
  ["another hash", { mechanism: CKM.CKM_SHA1_RSA_PKCS }, "for the purpose letter the mechanism is CKM_SHA256_RSA_PKCS"],
  [
    "a mechanism that takes bytes as they are",
    { mechanism: CKM.CKM_RSA_PKCS },
    "for the purpose letter the mechanism is CKM_SHA256_RSA_PKCS",
  ],
];

test("the agent's own digest is signed, and what was read is said without control characters", () => {
  const read = createDescribed(PURPOSES, () => undefined)(LETTER);
  expect(read?.what).toBe("to \\x1b[2Jreader");
  const accept = expect.any(Function);
  expect(read?.request).toEqual({ ...LETTER, mechanism: CKM.CKM_SHA256_RSA_PKCS, data: digest, isDigest: true, accept });
});

test("a key that must not sign it is refused, and the workstation and the client are told why", () => {
  const told: unknown[] = [];
  const read = createDescribed(PURPOSES, (refusal) => told.push(refusal))({ ...LETTER, data: Buffer.from("dear enemy") });
  const why = "the enemy gets no letters";
  expect(() => read?.request.accept({ certificate: null } as KeyEntry)).toThrow(
    expect.objectContaining({ code: "cryptoki", rv: CKR.CKR_FUNCTION_REJECTED, call: "C_Sign", hint: why }),
  );
  expect(told).toEqual([{ call: "C_Sign", rv: CKR.CKR_FUNCTION_REJECTED, why }]);
});

test("every other purpose is left alone, whatever it is called", () => {
  const described = createDescribed(PURPOSES, () => undefined);
  for (const purpose of ["data", "constructor", "toString", "letters"]) expect(described({ ...LETTER, purpose }), purpose).toBeNull();
});

test.each(REFUSED)("%s is refused, and the workstation and the client are told why", (_name, more, why) => {
  const told: unknown[] = [];
  const described = createDescribed(PURPOSES, (refusal) => told.push(refusal));
  expect(() => described({ ...LETTER, ...more })).toThrow(
    expect.objectContaining({ code: "cryptoki", rv: CKR.CKR_FUNCTION_REJECTED, call: "C_Sign", hint: why }),
  );
  expect(told).toEqual([{ call: "C_Sign", rv: CKR.CKR_FUNCTION_REJECTED, why }]);
});

test("what is refused comes before any session, any log-in and any use of a key", async () => {
  const host = createFakeTokenHost({ 1: "1234" });
  host.flags = CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED;
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "the key", true));
  const calls: string[] = [];
  const { call } = host.cryptoki;
  host.cryptoki.call = (name, args, ctx) => {
    calls.push(name);
    return call(name, args, ctx);
  };
  const inspection = { tokens: [], certificates: [], publicKeys: [] };
  const agent = await createAgent({ host, key: "all", profile: "sign", pinMode: "ask", inspection, describe: PURPOSES });
  const refused: string[] = [];
  agent.events.on("refused", ({ why, origin, client }) => refused.push(`${client} ${origin.destination} ${why}`));
  const { rpc } = await connectRpc(agent, forwardOrigin("bastion"));
  calls.length = 0;
  for (const [, more] of REFUSED) {
    await expect(rpc.request("sign", { ...LETTER, ...more })).rejects.toMatchObject({ rv: CKR.CKR_FUNCTION_REJECTED });
  }
  expect(calls).toEqual([]);
  expect(refused).toEqual(REFUSED.map(([, , why]) => `c1 bastion ${why}`));
  await agent.close();
});

test("whoever is to touch the token is told what for, and of nobody else's document", async () => {
  const host = createFakeTokenHost({ 1: "1234" });
  const inspection = { tokens: [], certificates: [], publicKeys: [] };
  const agent = await createAgent({ host, key: "all", profile: "sign", pinMode: "ask", inspection, describe: PURPOSES });
  host.flags = CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED;
  host.addObject(1n, fakeAttributes(CKO.CKO_PRIVATE_KEY, "the key", true));
  // The question stays open, and with it the request.
  const asked = new Promise<void>((open) => {
    host.onUnlock = (_request, signal) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => resolve({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" }));
        open();
      });
  });
  const prompts: unknown[] = [];
  agent.events.on("prompt", (prompt) => prompts.push(prompt));
  const { rpc } = await connectRpc(agent, forwardOrigin("bastion"));
  const stop = new AbortController();
  const ended = rpc.request("sign", { ...LETTER, data: Buffer.from("dear reader") }, { signal: stop.signal }).catch(() => "given up");
  await asked;
  const touch = { kind: "touch", state: "open", token: "work", triesLeft: null } as const;
  host.events.emit("prompt", { ...touch, client: "c1" });
  host.events.emit("prompt", { ...touch, client: "c2" });
  host.events.emit("prompt", touch);
  expect(prompts).toEqual([{ ...touch, what: "to reader" }, touch, touch]);
  stop.abort();
  expect(await ended).toBe("given up");
  prompts.length = 0;
  await vi.waitFor(() => {
    prompts.length = 0;
    host.events.emit("prompt", { ...touch, client: "c1" });
    expect(prompts).toEqual([touch]);
  });
  await agent.close();
});

test("of several documents of one client one is named, and the number", () => {
  const signing = createBeingSigned();
  const ends = ["a", "b", "a"].map((what) => signing.begin("c1", what));
  expect([signing.of("c1"), signing.of("c2")]).toEqual(["one of 3, such as a", null]);
  ends[0]?.();
  expect(signing.of("c1")).toBe("one of 2, such as b");
  for (const end of ends.slice(1)) end();
  expect(signing.of("c1")).toBeNull();
});
