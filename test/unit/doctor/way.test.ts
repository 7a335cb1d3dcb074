/*
 * Checks of the way on recorded facts: what no machine of the tests can be brought to show, such as systemd's socket unit, a server
 * without strict key exchange, or a key of a kind that SoftHSM does not make here.
 */
import { describe, expect, it } from "vitest";
import type { KeyEntry } from "../../../src/cryptoki/keys/types.js";
import { CKM } from "../../../src/cryptoki/mechanisms.js";
import type { DoctorContext } from "../../../src/doctor/context.js";
import { walk } from "../../../src/doctor/walk.js";
import { WAY_CHECKS } from "../../../src/doctor/way/checks.js";
import { dialectOf, hiddenByStock } from "../../../src/doctor/way/p11-kit-releases.js";
import type { Survey } from "../../../src/forward/remote/survey.js";

interface Recorded {
  readonly wellKnown?: Partial<Survey["wellKnown"]>;
  readonly unit?: boolean;
  readonly strictKex?: boolean;
  readonly p11Kit?: string;
  readonly pulse?: { rttMs: number; heldMs: number } | null;
  readonly proof?: Record<string, unknown>;
  readonly keys?: readonly Partial<KeyEntry>[];
}

/** Walks one check on these facts. */
async function find(id: string, recorded: Recorded): Promise<unknown> {
  const { wellKnown = {}, unit = false, strictKex = true, p11Kit = "0.24.1-2", pulse = { rttMs: 1, heldMs: 0 }, keys = [] } = recorded;
  const proof = recorded.proof ?? { passed: true, rttMs: 1, via: "direct-streamlocal", behind: "agent" };
  const bastion = async () => ({
    looked: { strictKex, pty: true, probe: { p11Kit, p11KitClient: "/usr/lib/p11-kit-client.so" } },
  });
  const way = {
    bastion,
    survey: async () => ({ wellKnown: { path: "/run/user/7/p11-kit/pkcs11", state: "none", holder: null, ...wellKnown }, unit }),
    pulse: async () => pulse,
    proof: async () => proof,
    agentSide: async () => ({ keys: keys.map((key) => ({ uri: "pkcs11:object=k", ...key })) }),
  };
  const check = WAY_CHECKS.filter((one) => one.id === id).map((one) => ({ ...one, needs: [] }));
  const [result] = await walk(check, { way } as unknown as DoctorContext, { signal: new AbortController().signal });
  return result;
}

describe("a check of the way", () => {
  it("knows systemd's socket unit from any other listener, and names the process where it can be seen", async () => {
    expect(await find("well-known", { wellKnown: { state: "silent" }, unit: true })).toMatchObject({
      status: "warn",
      cause: "p11-kit-socket-unit",
      mend: expect.stringContaining("systemctl --user disable --now p11-kit-server.socket"),
    });
    expect(await find("well-known", { wellKnown: { state: "answers", holder: "71 p11-kit-server" } })).toMatchObject({
      status: "warn",
      cause: "path-in-use",
      detail: expect.stringContaining("71 p11-kit-server"),
      mend: expect.stringContaining("fuser '/run/user/7/p11-kit/pkcs11'"),
    });
    expect(await find("well-known", { wellKnown: { state: "dead" }, unit: true })).toMatchObject({ status: "pass" });
  });

  it("warns of a server without strict key exchange", async () => {
    expect(await find("handshake", { strictKex: false })).toMatchObject({ status: "warn", cause: "old-server" });
  });

  it("warns where connect would say ready without a proof", async () => {
    const proof = {
      passed: false,
      answered: false,
      foreign: false,
      reason: "the bastion has none of nc, socat, perl, python3",
      via: "none",
    };
    expect(await find("verify", { proof })).toMatchObject({ status: "warn", cause: "no-way-to-look", detail: proof.reason });
    expect(await find("latency", { pulse: null })).toMatchObject({ status: "pass" });
  });

  it("warns of a link on which each call takes long", async () => {
    expect(await find("latency", { pulse: { rttMs: 640, heldMs: 1 } })).toMatchObject({ status: "warn", cause: "far-away" });
  });

  it("warns where stock programs could use nothing of a key, and lists what they miss of another", async () => {
    const ed = { uri: "pkcs11:object=ed", mechanisms: [CKM.CKM_EDDSA] };
    const rsa = { mechanisms: [CKM.CKM_RSA_PKCS, CKM.CKM_SHA256_RSA_PKCS_PSS] };
    expect(await find("stock-mechanisms", { keys: [rsa, ed] })).toMatchObject({ status: "warn", cause: "key-hidden" });
    expect(await find("stock-mechanisms", { keys: [rsa] })).toMatchObject({ status: "pass", detail: "all but CKM_SHA256_RSA_PKCS_PSS" });
    expect(await find("stock-mechanisms", { keys: [rsa], p11Kit: "0.25.5-3" })).toMatchObject({
      status: "pass",
      detail: expect.stringMatching(/^everything/),
    });
  });
});

describe("a release of p11-kit", () => {
  it("says which version byte its client offers", () => {
    const versions = ["0.23.22-1", "0.24.1-2", "0.25.0", "0.25.5-2ubuntu1", "0.25.6-1", "1:0.26.4-1"].map((one) => dialectOf(one)?.version);
    expect(versions).toEqual([0, 0, 1, 1, 2, 2]);
    expect([dialectOf(null), dialectOf("unknown")]).toEqual([null, null]);
  });

  it("hides what its client does not send, and what no release does", () => {
    const all = [CKM.CKM_RSA_PKCS, CKM.CKM_ECDSA_SHA256, CKM.CKM_EDDSA, 0x7fff_0000];
    expect(hiddenByStock(all, { version: 0 })).toEqual([CKM.CKM_ECDSA_SHA256, CKM.CKM_EDDSA, 0x7fff_0000]);
    expect(hiddenByStock(all, { version: 2 })).toEqual([CKM.CKM_EDDSA, 0x7fff_0000]);
  });
});
