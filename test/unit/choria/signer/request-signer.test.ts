import { sign, X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { formatRequest, parseRequest, type RequestEnvelope } from "../../../../src/choria/documents/request.js";
import { parseSecureRequest } from "../../../../src/choria/documents/secure-request.js";
import { identityOf } from "../../../../src/choria/signer/certificate.js";
import { createRequestSigner, type RequestSigner, type RequestSignerOptions } from "../../../../src/choria/signer/request-signer.js";
import type { ChoriaIdentity } from "../../../../src/choria/types.js";
import { makeCertificate, type TestCertificate } from "../../../support/certificates.js";

const signal = new AbortController().signal;
// Later than the certificate, which is made when the tests begin.
const NOW_S = Math.floor(Date.now() / 1000) + 600;
const ID = "0123456789abcdef0123456789abcdef";

function request(envelope: Partial<RequestEnvelope> = {}, action = "ping"): Buffer {
  const filter = { fact: [], cf_class: [], agent: [], identity: [], compound: [] };
  const agent = "rpcutil";
  const message = JSON.stringify({ agent, action, data: {} });
  const mine = { requestid: ID, senderid: "bastion.example.net", callerid: "choria=joe.mcollective", collective: "mcollective", agent };
  return Buffer.from(formatRequest({ message, envelope: { ...mine, ttl: 60, time: NOW_S, filter, ...envelope } }));
}
const idOf = (number: number): string => String(number).padStart(32, "0");

describe("createRequestSigner", () => {
  let mine: TestCertificate;
  let identity: ChoriaIdentity;
  beforeAll(() => {
    mine = makeCertificate();
    identity = identityOf(mine.certificate, { uri: "pkcs11:object=ops", spki: mine.spki }, Date.now());
  });

  interface Made extends RequestSigner {
    /** What the key was asked to sign. */
    readonly documents: Buffer[];
    nowMs: number;
  }

  function signer(options: Partial<RequestSignerOptions> = {}): Made {
    const documents: Buffer[] = [];
    const clock = { documents, nowMs: NOW_S * 1000 };
    return Object.assign(
      clock,
      createRequestSigner({
        identity,
        signer: {
          async sign(document) {
            documents.push(document);
            return sign("sha256", document, mine.key);
          },
        },
        now: () => clock.nowMs,
        ...options,
      }),
    );
  }

  it("signs a request in the name of the certificate, whatever name it came with", async () => {
    const made = signer();
    for (const [index, callerid] of ["choria=joe.mcollective", "choria=root", "up=ptittle", "choria=ptittle root", "x"].entries()) {
      const given = request({ callerid, requestid: idOf(index) });
      const secure = parseSecureRequest(await made.sign(given, { signal }));
      const asked = parseRequest(given);
      expect(parseRequest(Buffer.from(secure.message))).toEqual({ ...asked, envelope: { ...asked.envelope, callerid: "choria=ptittle" } });
      expect(secure.pubcert).toBe(new X509Certificate(mine.certificate).toString());
      expect(secure.signature.equals(sign("sha256", Buffer.from(secure.message), mine.key))).toBe(true);
      expect(made.documents[index]?.toString()).toBe(secure.message);
    }
  });

  it("writes anew what it signs", async () => {
    const made = signer();
    const pretty = Buffer.from(JSON.stringify(JSON.parse(request().toString()), null, 2));
    const secure = parseSecureRequest(await made.sign(pretty, { signal }));
    expect(secure.message).toBe(request({ callerid: "choria=ptittle" }).toString());
  });

  async function refusal(made: Made, given: Buffer): Promise<{ message: string; hint: string | undefined; code: string }> {
    const asked = made.documents.length;
    const error = await made.sign(given, { signal }).then(
      () => null,
      (thrown: unknown) => thrown as { message: string; hint: string | undefined; code: string },
    );
    if (error === null) throw new Error("it was signed");
    expect(made.documents.length, "the key was not used").toBe(asked);
    return error;
  }

  it.each([
    [-61, "not signed: the request was made 61 s ago, and 60 s are the most"],
    [61, "not signed: the request was made 61 s in the future, and 60 s are the most"],
    [-31_536_000, "not signed: the request was made 31536000 s ago, and 60 s are the most"],
  ])("refuses a request whose time is %d s away", async (away, message) => {
    expect(await refusal(signer(), request({ time: NOW_S + away }))).toMatchObject({ code: "E_CHORIA_REQUEST", message });
  });

  it("signs one whose time is 60 s away", async () => {
    const made = signer();
    await made.sign(request({ time: NOW_S - 60, requestid: idOf(1) }), { signal });
    await made.sign(request({ time: NOW_S + 60, requestid: idOf(2) }), { signal });
  });

  it("refuses a ttl above what it was told, and says that batches may need more", async () => {
    expect(await refusal(signer(), request({ ttl: 301 }))).toMatchObject({
      code: "E_CHORIA_REQUEST",
      message: "not signed: the request's ttl is 301 s, and 300 s are the most here; whoever sees the request can send it again as long",
      hint: "a request in batches may need more: --max-ttl takes 30 to 18000",
    });
    expect(await refusal(signer(), request({ ttl: 86_400 }))).toMatchObject({ code: "E_CHORIA_REQUEST" });
    expect(await refusal(signer(), request({ ttl: 29 }))).toMatchObject({
      code: "E_CHORIA_REQUEST",
      message: "not signed: the request.envelope.ttl must be from 30 to 315360000, and is 29",
    });
    await signer().sign(request({ ttl: 300 }), { signal });
    await signer().sign(request({ ttl: 30 }), { signal });
    await signer({ maxTtlSeconds: 18_000 }).sign(request({ ttl: 18_000 }), { signal });
  });

  it("refuses a document of protocol v2 with a text of its own", async () => {
    const document = Buffer.from('{"protocol":"io.choria.protocol.v2.request","message":"e30="}');
    expect(await refusal(signer(), document)).toMatchObject({
      code: "E_CHORIA_REQUEST",
      message: 'not signed: it is a document of protocol v2 ("io.choria.protocol.v2.request"), and here is choria:request:1 alone',
      hint: "let the client use Choria's protocol v1: plugin.security.provider = file",
    });
  });

  it("refuses junk, digests and other documents", async () => {
    const digestInfo = Buffer.concat([Buffer.from("3031300d060960864801650304020105000420", "hex"), Buffer.alloc(32)]);
    for (const given of [
      Buffer.alloc(0),
      Buffer.from("junk"),
      Buffer.alloc(32),
      digestInfo,
      Buffer.from('{"protocol":"choria:reply:1"}'),
    ]) {
      expect(await refusal(signer(), given)).toMatchObject({ code: "E_CHORIA_REQUEST", message: expect.stringMatching(/^not signed: /) });
    }
  });

  it("signs a requestid once", async () => {
    const made = signer();
    await made.sign(request(), { signal });
    const message = "not signed: a request with this requestid was signed already";
    expect(await refusal(made, request())).toMatchObject({ code: "E_CHORIA_REQUEST", message });
    expect(await refusal(made, request({ callerid: "choria=other" }))).toMatchObject({ message });
    expect(await refusal(made, request({ time: NOW_S - 1 }))).toMatchObject({ message });
    expect(await refusal(made, request({ time: NOW_S + 1, ttl: 61 }))).toMatchObject({ message });
    expect(await refusal(made, request({ time: NOW_S + 1 }, "other"))).toMatchObject({ message });
  });

  it("signs the same request anew for the next batch, which has a later time", async () => {
    const made = signer();
    for (const later of [0, 1, 2]) await made.sign(request({ time: NOW_S + later }), { signal });
    expect(made.documents).toHaveLength(3);
    expect(await refusal(made, request({ time: NOW_S + 2 }))).toMatchObject({ code: "E_CHORIA_REQUEST" });
  });

  it("signs one of two that come at the same time", async () => {
    const made = signer();
    const outcomes = await Promise.allSettled([1, 2].map(() => made.sign(request(), { signal })));
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(made.documents).toHaveLength(1);
  });

  it("forgets a request only when it cannot be signed any more, and keeps no more than it was told", async () => {
    const made = signer({ maxRemembered: 2 });
    await made.sign(request({ requestid: idOf(1) }), { signal });
    await made.sign(request({ requestid: idOf(2) }), { signal });
    const full = {
      code: "E_CHORIA_REQUEST",
      message: "not signed: 2 requests were signed a short time ago, and no more can be remembered",
    };
    expect(await refusal(made, request({ requestid: idOf(3) }))).toMatchObject(full);
    made.nowMs += 120_000;
    expect(await refusal(made, request({ requestid: idOf(3), time: NOW_S + 120 }))).toMatchObject(full);
    made.nowMs += 1_000;
    await made.sign(request({ requestid: idOf(3), time: NOW_S + 121 }), { signal });
    expect(await refusal(made, request({ requestid: idOf(3), time: NOW_S + 121 }))).toMatchObject({
      message: "not signed: a request with this requestid was signed already",
    });
  });

  it("lets a request be tried again whose signature was not made", async () => {
    let fails = true;
    const made = signer({
      signer: {
        async sign(document) {
          if (fails) throw new Error("no");
          return sign("sha256", document, mine.key);
        },
      },
    });
    await expect(made.sign(request(), { signal })).rejects.toThrow("no");
    fails = false;
    await made.sign(request(), { signal });
  });

  it("hands out no signature that is not the certificate's", async () => {
    const other = makeCertificate();
    const made = signer({ signer: { sign: async (document) => sign("sha256", document, other.key) } });
    await expect(made.sign(request(), { signal })).rejects.toMatchObject({
      code: "E_CHORIA_CERT",
      message: "the signature that came back does not belong to the token's certificate; it was thrown away",
    });
  });

  it("looks at the certificate again for every request", async () => {
    const made = signer();
    await made.sign(request(), { signal });
    made.nowMs += 11 * 86_400_000;
    const time = Math.floor(made.nowMs / 1000);
    expect(await refusal(made, request({ time, requestid: idOf(1) }))).toMatchObject({
      code: "E_CHORIA_CERT",
      message: expect.stringMatching(/^the token's certificate expired on /),
    });
  });

  it("asks the key for nothing once it was aborted", async () => {
    const made = signer();
    await expect(made.sign(request(), { signal: AbortSignal.abort(new Error("gone")) })).rejects.toThrow("gone");
    expect(made.documents).toHaveLength(0);
  });
});
