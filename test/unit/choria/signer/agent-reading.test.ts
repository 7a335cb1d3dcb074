/* What the agent's part makes of a request: read, unreadable, or somebody else's. */
import { describe, expect, it } from "vitest";
import { formatRequest } from "../../../../src/choria/documents/request.js";
import { readForAgent } from "../../../../src/choria/signer/agent-reading.js";
import { makeCertificate } from "../../../support/certificates.js";
import { request } from "../documents/requests.js";

describe("readForAgent", () => {
  it("describes a request, which the key of its caller's certificate may sign", () => {
    const read = readForAgent(Buffer.from(formatRequest(request())));
    expect(read?.line).toBe("rpcutil#ping in mcollective, filter: none, by choria=ptittle");
    expect(read?.refusedFor(makeCertificate().certificate)).toBeNull();
  });

  it.each([
    ["of another name", makeCertificate({ subject: "/CN=mallory" }).certificate, "this key's certificate is the one of choria=mallory"],
    ["that is none", Buffer.from("junk"), "this key's certificate is no caller's"],
    ["that is not there", null, "the token shows no certificate of this key"],
  ])("refuses it for the key of a certificate %s", (_name, certificate, why) => {
    const read = readForAgent(Buffer.from(formatRequest(request())));
    expect(read?.refusedFor(certificate)).toBe(`the request names the caller choria=ptittle, and ${why}`);
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
