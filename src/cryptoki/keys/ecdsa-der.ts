/*
 * ECDSA signatures between the two forms in use: r and s side by side, as PKCS#11 gives them, and the DER SEQUENCE that
 * X.509, openssl and most programs take. Pure data.
 */
import { der, derUnsigned, elements, onlyElement, TAG, unsignedOf } from "./der.js";

/** DER of r and s side by side, each half of the bytes. Throws RangeError for an odd or empty length. */
export function rawToDer(raw: Buffer): Buffer {
  if (raw.length === 0 || raw.length % 2 !== 0) throw new RangeError("r and s are not equally long");
  const half = raw.length / 2;
  return der(TAG.SEQUENCE, derUnsigned(raw.subarray(0, half)), derUnsigned(raw.subarray(half)));
}

/** r and s side by side, each `partBytes` long (the bytes of the curve's order); null when it is no such DER. */
export function derToRaw(signature: Buffer, partBytes: number): Buffer | null {
  const numbers = elements(onlyElement(signature, TAG.SEQUENCE)?.content ?? Buffer.alloc(0));
  const parts = numbers?.length === 2 ? numbers.map(unsignedOf) : [];
  const raw = Buffer.alloc(partBytes * 2);
  if (parts.length !== 2) return null;
  for (const [index, part] of parts.entries()) {
    if (part === null || part.length > partBytes) return null;
    part.copy(raw, (index + 1) * partBytes - part.length);
  }
  return raw;
}
