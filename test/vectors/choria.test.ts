/*
 * The vectors of Choria's documents: stock ones are read and written again byte for byte, and every broken one is refused as
 * its vector says.
 */
import { createVerify, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DocumentError } from "../../src/choria/documents/json.js";
import { formatReply, formatSecureReply, parseReply, parseRpcReply, parseSecureReply } from "../../src/choria/documents/reply.js";
import { formatRequest, parseRequest } from "../../src/choria/documents/request.js";
import { formatSecureRequest, parseSecureRequest } from "../../src/choria/documents/secure-request.js";
import { formatTransport, parseTransport } from "../../src/choria/documents/transport.js";

interface Vector {
  readonly name: string;
  readonly document: string;
  readonly text?: string;
  readonly hex?: string;
  readonly before?: string;
  readonly repeat?: string;
  readonly times?: number;
  readonly after?: string;
  readonly canonical?: string;
  readonly expect?: string;
  readonly message?: string;
}

const read = (file: string): readonly Vector[] =>
  JSON.parse(readFileSync(join(import.meta.dirname, "../../protocol/vectors/choria", file), "utf8")) as readonly Vector[];
const documents = read("documents.json");
const failures = read("failures.json");

function bytesOf({ text, hex, before = "", repeat = "", times = 0, after = "" }: Vector): Buffer {
  return hex === undefined ? Buffer.from(text ?? before + repeat.repeat(times) + after) : Buffer.from(hex, "hex");
}

/** Reads a document of that protocol and writes it again. */
const AGAIN: Readonly<Record<string, (document: Buffer) => string>> = {
  "choria:request:1": (document) => formatRequest(parseRequest(document)),
  "choria:secure:request:1": (document) => formatSecureRequest(parseSecureRequest(document)),
  "choria:transport:1": (document) => formatTransport(parseTransport(document)),
  "choria:secure:reply:1": (document) => formatSecureReply(parseSecureReply(document)),
  "choria:reply:1": (document) => formatReply(parseReply(document.toString())),
};

function again(vector: Vector): string {
  const how = AGAIN[vector.document];
  if (how === undefined) throw new Error(`no document of ours: ${vector.document}`);
  return how(bytesOf(vector));
}

const stock = (name: string): Buffer => {
  const found = documents.find((vector) => vector.name === name);
  if (found === undefined) throw new Error(`no vector ${name}`);
  return bytesOf(found);
};

describe("the vectors of Choria's documents", () => {
  it.each(documents.map((vector) => [vector.name, vector] as const))("are written as they were read: %s", (_name, vector) => {
    expect(again(vector)).toBe(vector.canonical ?? bytesOf(vector).toString());
  });

  it.each(failures.map((vector) => [`${vector.document}, ${vector.name}`, vector] as const))("are refused: %s", (_name, vector) => {
    let thrown: unknown = null;
    try {
      again(vector);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(DocumentError);
    const { fault, message } = thrown as DocumentError;
    expect({ fault, message }).toEqual({ fault: vector.expect, message: vector.message ?? message });
  });

  it("have an example of every fault", () => {
    const faults = "size encoding syntax duplicate-key depth protocol missing-key unknown-key type value body base64 hash".split(" ");
    expect([...new Set(failures.map((vector) => vector.expect))].sort()).toEqual(faults.sort());
  });

  it("have one name each", () => {
    const names = [...documents, ...failures].map(({ document, name }) => `${document} ${name}`);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe("the documents that stock code made", () => {
  it("lie in one another, and the signature is over exactly the request's bytes", () => {
    const transport = parseTransport(stock("stock: the same, on its way"));
    expect(transport.data.equals(stock("stock: the same, signed"))).toBe(true);
    const { message, signature, pubcert } = parseSecureRequest(transport.data);
    const ours = formatRequest(parseRequest(Buffer.from(message)));
    expect(ours).toBe(stock("stock: rpcutil ping").toString());
    // PKCS#1 v1.5 is deterministic: whoever signs these bytes with this key makes this signature and no other.
    expect(createVerify("sha256").update(ours).verify(new X509Certificate(pubcert).publicKey, signature)).toBe(true);
    expect(createVerify("sha256").update(`${ours} `).verify(new X509Certificate(pubcert).publicKey, signature)).toBe(false);
  });

  it("answer what an RPC agent says", () => {
    const reply = parseReply(parseSecureReply(parseTransport(stock("stock: the answer, on its way")).data));
    expect(reply.envelope).toEqual({ requestid: "a".repeat(32), senderid: "node1.example.net", agent: "rpcutil", time: 1795419130 });
    expect(parseRpcReply(reply.message)).toEqual({ action: "ping", statuscode: 0, statusmsg: "OK" });
  });
});
