/*
 * What an agent makes of a document that it is to sign for the purpose `choria-request`. It trusts no signer: who asks it may be
 * anybody on a bastion. It must never let a request through that this project's signer would not have made.
 */
import { printable } from "../../base/printable.js";
import { describeRequest } from "../documents/describe.js";
import { DocumentError } from "../documents/json.js";
import { isCallerId, parseRequest } from "../documents/request.js";
import { callerOf } from "./certificate.js";

/** A request that was read: its line for a person, and whether the key of a certificate may sign it. */
export interface AgentReading {
  readonly line: string;
  /** Why not, printable: the request names another caller than the certificate, DER, or there is none. Null: it may. */
  refusedFor(certificate: Buffer | null): string | null;
}

/** Reads a document; null when it is no request that the signer would sign, and must not be signed. `nowMs`: since 1970. */
export function readForAgent(document: Buffer, nowMs = Date.now()): AgentReading | null {
  try {
    const request = parseRequest(document);
    const { callerid } = request.envelope;
    if (!isCallerId(callerid)) return null;
    return { line: describeRequest(request, nowMs), refusedFor: (certificate) => foreignCaller(callerid, certificate) };
  } catch (thrown) {
    if (thrown instanceof DocumentError) return null;
    throw thrown;
  }
}

function foreignCaller(callerid: string, certificate: Buffer | null): string | null {
  if (certificate === null) return `the request names the caller ${callerid}, and the token shows no certificate of this key`;
  const caller = callerOf(certificate);
  if (caller === callerid) return null;
  return `the request names the caller ${callerid}, and this key's certificate is ${caller === null ? "no caller's" : `the one of ${printable(caller, 100)}`}`;
}
