/*
 * Whether two mechanisms are one: type and parameter. Of parameters that nobody signs with twice none is ever the same.
 */
import type { Mechanism, MechanismParameter } from "./types.js";

function sameParameter(a: MechanismParameter | null, b: MechanismParameter | null): boolean {
  if (a === null || b === null) return a === b;
  if (a.kind === "bytes") return b.kind === "bytes" && a.bytes.equals(b.bytes);
  if (a.kind === "rsa-pss") return b.kind === "rsa-pss" && a.hashAlg === b.hashAlg && a.mgf === b.mgf && a.saltLength === b.saltLength;
  return false;
}

export function sameMechanism(a: Mechanism, b: Mechanism): boolean {
  return a.type === b.type && sameParameter(a.parameter, b.parameter);
}

/** A copy that outlives the message it came in. */
export function keptMechanism({ type, parameter }: Mechanism): Mechanism {
  return { type, parameter: parameter?.kind === "bytes" ? { kind: "bytes", bytes: Buffer.from(parameter.bytes) } : parameter };
}
