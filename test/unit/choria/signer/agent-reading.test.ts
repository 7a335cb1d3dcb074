/* What the agent's part makes of a request: read, unreadable, or somebody else's. */
import { describe, expect, it } from "vitest";
import { formatRequest } from "../../../../src/choria/documents/request.js";
import { readForAgent } from "../../../../src/choria/signer/agent-reading.js";
import { makeCertificate } from "../../../support/certificates.js";
import { request } from "../documents/requests.js";

const NOW = request().envelope.time * 1_000;

describe("readForAgent", () => {
  it("describes a request, which the key of its caller's certificate may sign", () => {
    const read = readForAgent(Buffer.from(formatRequest(request())), NOW);
    expect(read?.line).toBe("rpcutil#ping in mcollective, filter: none, by choria=ptittle");
    expect(read?.refusedFor(makeCertificate().certificate)).toBeNull();
  });

  it.each([
    ["of another name", makeCertificate({ subject: "/CN=mallory" }).certificate, "this key's certificate is the one of choria=mallory"],
    ["that is none", Buffer.from("junk"), "this key's certificate is no caller's"],
    ["that is not there", null, "the token shows no certificate of this key"],
  ])("refuses it for the key of a certificate %s", (_name, certificate, why) => {
    const read = readForAgent(Buffer.from(formatRequest(request())), NOW);
    expect(read?.refusedFor(certificate)).toBe(`the request names the caller choria=ptittle, and ${why}`);
  });

  it("says the date of one that is not of this minute, which servers would take when nobody may be connected", () => {
    const line = (time: number) => readForAgent(Buffer.from(formatRequest(request({ time }))), NOW)?.line;
    const now = NOW / 1_000;
    for (const near of [-60, 60]) expect(line(now + near)).toBe("rpcutil#ping in mcollective, filter: none, by choria=ptittle");
    expect(line(now + 86_400)).toBe("rpcutil#ping in mcollective, filter: none, by choria=ptittle, dated 2026-11-24T07:24:20Z");
    expect(line(0)).toMatch(/, dated 1970-01-01T00:00:00Z$/);
    expect(line(253_402_300_799)).toMatch(/, dated 9999-12-31T23:59:59Z$/);
  });

  it.each([
    ["what does not parse", Buffer.from("junk")],
    ["a digest", Buffer.alloc(32, 0x5a)],
    ["a callerid of which servers read a part", Buffer.from(formatRequest(request({ callerid: "choria=ptittle root" })))],
    ["a callerid of another kind", Buffer.from(formatRequest(request({ callerid: "up=ptittle" })))],
  ])("has nothing to say of %s", (_name, document) => {
    expect(readForAgent(document)).toBeNull();
  });
});
