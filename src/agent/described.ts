/*
 * Purposes whose documents the agent reads itself: it says at the workstation what they are, and hashes them. It must never let a
 * digest through under such a purpose, nor a document that could not be read.
 */
import { createHash } from "node:crypto";
import { printable } from "../base/printable.js";
import { hashOfMechanism } from "../cryptoki/keys/mechanism-choice.js";
import type { KeyEntry, KeySignRequest } from "../cryptoki/keys/types.js";
import { mechanismName } from "../cryptoki/mechanisms.js";
import { CKR } from "../cryptoki/rv.js";
import { RpcError, type SignMessage } from "../wire/rpc/messages.js";
import type { Refusal } from "./policy.js";

/** What is known of the documents of one purpose. */
export interface DescribedPurpose {
  /** The one mechanism (CKM number, of those that hash) that such documents are signed with. */
  readonly mechanism: number;
  /** What is known of a document; null: it cannot be read, and is not signed. It must not throw. */
  read(document: Buffer): ReadDocument | null;
}

export interface ReadDocument {
  /** One line for a person, made printable. */
  readonly line: string;
  /** Why the key of this certificate, DER or null where the token shows none, must not sign it; null: it may. It must not throw. */
  refusedFor(certificate: Buffer | null): string | null;
}

/** By the purpose's name. */
export type DescribedPurposes = Readonly<Record<string, DescribedPurpose>>;

export interface ReadRequest {
  /** The same request, with the digest of its document in the document's place. */
  readonly request: SignMessage & Required<Pick<KeySignRequest, "accept">>;
  readonly what: string;
}

const MAX_LINE = 2_000;

/**
 * Reads the document of a request whose purpose is one of these; null for every other purpose. What is refused is told to
 * `onRefused`, and thrown as the RpcError that the client gets.
 */
export function createDescribed(
  purposes: DescribedPurposes,
  onRefused: (refusal: Refusal) => void,
): (request: SignMessage) => ReadRequest | null {
  function refuse(why: string): RpcError {
    onRefused({ call: "C_Sign", rv: CKR.CKR_FUNCTION_REJECTED, why });
    return new RpcError("cryptoki", why, { rv: CKR.CKR_FUNCTION_REJECTED, call: "C_Sign", hint: why });
  }
  return (request) => {
    const { purpose, mechanism, data, isDigest } = request;
    const known = Object.hasOwn(purposes, purpose) ? purposes[purpose] : undefined;
    if (known === undefined) return null;
    if (isDigest) throw refuse(`for the purpose ${purpose} a whole document is signed, and no digest`);
    const hash = hashOfMechanism(known.mechanism);
    if (hash === null || (mechanism !== null && mechanism !== known.mechanism))
      throw refuse(`for the purpose ${purpose} the mechanism is ${mechanismName(known.mechanism)}`);
    const read = known.read(data);
    if (read === null) throw refuse(`what was sent for the purpose ${purpose} is not such a document`);
    const digest = createHash(hash).update(data).digest();
    const accept = ({ certificate }: KeyEntry): void => {
      const why = read.refusedFor(certificate);
      if (why !== null) throw refuse(why);
    };
    const signed = { ...request, mechanism: known.mechanism, data: digest, isDigest: true, accept };
    return { request: signed, what: printable(read.line, MAX_LINE) };
  };
}
