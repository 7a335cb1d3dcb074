/*
 * The little of DER that keys, signatures and certificates need. What is read comes from a token or a peer: every length
 * is checked, nothing is read past its end, and what is not well formed is null, never an exception.
 */

export const TAG = {
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  NULL: 0x05,
  OID: 0x06,
  PRINTABLE_STRING: 0x13,
  SEQUENCE: 0x30,
} as const;

/** One element: its content and, as `whole`, with its header. Both are views. */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  readonly whole: Buffer;
}

function lengthBytes(length: number): number[] {
  if (length < 0x80) return [length];
  const bytes: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return [0x80 | bytes.length, ...bytes];
}

/** One element with these contents, one after another. */
export function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const length = contents.reduce((sum, content) => sum + content.length, 0);
  return Buffer.concat([Buffer.from([tag, ...lengthBytes(length)]), ...contents]);
}

/** The bytes of an unsigned number without leading zeros; one zero byte for zero. */
export function trimZeros(bytes: Buffer): Buffer {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start += 1;
  return bytes.subarray(start);
}

/** An INTEGER of an unsigned big-endian number. */
export function derUnsigned(bytes: Buffer): Buffer {
  const trimmed = bytes.length === 0 ? Buffer.alloc(1) : trimZeros(bytes);
  return der(TAG.INTEGER, (trimmed[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.alloc(1), trimmed]) : trimmed);
}

/** The element at the start of `bytes`; null when it is none, is longer than they are, or its length is not DER. */
export function firstElement(bytes: Buffer): DerElement | null {
  const tag = bytes[0];
  const first = bytes[1];
  // A tag number above 30 takes more bytes; nothing that is read here has one.
  if (tag === undefined || first === undefined || (tag & 0x1f) === 0x1f) return null;
  let at = 2;
  let length = first;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 4 || bytes.length < 2 + count) return null;
    length = bytes.readUIntBE(2, count);
    at = 2 + count;
    if (length < 0x80 || lengthBytes(length).length !== count + 1) return null;
  }
  if (bytes.length < at + length) return null;
  return { tag, content: bytes.subarray(at, at + length), whole: bytes.subarray(0, at + length) };
}

/** All of `bytes` as one element with this tag; null when it is not exactly that. */
export function onlyElement(bytes: Buffer, tag: number): DerElement | null {
  const element = firstElement(bytes);
  return element !== null && element.tag === tag && element.whole.length === bytes.length ? element : null;
}

/** The elements that `bytes` is made of, at most `most` of them; null when it is not made of elements. */
export function elements(bytes: Buffer, most = 32): DerElement[] | null {
  const found: DerElement[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    const element = firstElement(rest);
    if (element === null || found.length === most) return null;
    found.push(element);
    rest = rest.subarray(element.whole.length);
  }
  return found;
}

/** The bytes of a non-negative INTEGER without leading zeros, null for any other element. */
export function unsignedOf(element: DerElement | undefined): Buffer | null {
  if (element?.tag !== TAG.INTEGER || element.content.length === 0 || (element.content[0] ?? 0) >= 0x80) return null;
  return trimZeros(element.content);
}

/** An OID's content in dots; null when it is not one. */
export function oidInDots(content: Buffer): string | null {
  if (content.length === 0 || content.length > 64) return null;
  const arcs: bigint[] = [];
  let value = 0n;
  for (const byte of content) {
    value = (value << 7n) | BigInt(byte & 0x7f);
    if (byte >= 0x80) continue;
    arcs.push(value);
    value = 0n;
  }
  const first = arcs[0];
  if (first === undefined || (content[content.length - 1] ?? 0x80) >= 0x80) return null;
  const top = first < 40n ? 0n : first < 80n ? 1n : 2n;
  return [top, first - top * 40n, ...arcs.slice(1)].join(".");
}

/** The OID element of a number in dots. */
export function derOid(dots: string): Buffer {
  const [top = 0, second = 0, ...rest] = dots.split(".").map(Number);
  const bytes = [top * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) groups.unshift(0x80 | (left % 128));
    return groups;
  });
  return der(TAG.OID, Buffer.from(bytes));
}
