/*
 * Random arguments and results for every call of the table, as fast-check arbitraries: legal values in the forms of
 * src/cryptoki/types.ts that p11-kit can carry without loss.
 */
import fc from "fast-check";
import { attributeKind, CKA } from "../../src/cryptoki/attributes.js";
import { type AnyCall, splitSignature } from "../../src/cryptoki/calls.js";
import { MECHANISMS } from "../../src/cryptoki/mechanisms.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, AttributeQuery, Mechanism, MechanismParameter } from "../../src/cryptoki/types.js";
import type { Dialect } from "../../src/wire/p11kit/mechanisms.js";

const u64 = fc.bigInt({ min: 0n, max: 0xffffffffffffffffn });
const bytes = (constraints: { minLength?: number; maxLength?: number } = { maxLength: 40 }) =>
  fc.uint8Array(constraints).map((array) => Buffer.from(array));
const exactly = (length: number) => bytes({ minLength: length, maxLength: length });
const orNull = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });
const parameterOf = (parameter: fc.Arbitrary<MechanismParameter>) => parameter;
const version = fc.record({ major: fc.nat(255), minor: fc.nat(255) });

const PARAMETERS: Readonly<Record<string, fc.Arbitrary<MechanismParameter>>> = {
  bytes: parameterOf(fc.record({ kind: fc.constant("bytes" as const), bytes: bytes() })),
  iv8: parameterOf(fc.record({ kind: fc.constant("bytes" as const), bytes: exactly(8) })),
  iv16: parameterOf(fc.record({ kind: fc.constant("bytes" as const), bytes: exactly(16) })),
  "rsa-pss": parameterOf(fc.record({ kind: fc.constant("rsa-pss" as const), hashAlg: u64, mgf: u64, saltLength: u64 })),
  "rsa-oaep": parameterOf(
    fc.record({ kind: fc.constant("rsa-oaep" as const), hashAlg: u64, mgf: u64, source: u64, sourceData: orNull(bytes()) }),
  ),
  ecdh1: parameterOf(
    fc.record({ kind: fc.constant("ecdh1" as const), kdf: u64, sharedData: orNull(bytes()), publicData: orNull(bytes()) }),
  ),
  "aes-ctr": parameterOf(fc.record({ kind: fc.constant("aes-ctr" as const), counterBits: u64, counterBlock: exactly(16) })),
  gcm: parameterOf(fc.record({ kind: fc.constant("gcm" as const), iv: orNull(bytes()), ivBits: u64, aad: orNull(bytes()), tagBits: u64 })),
  "mac-general": parameterOf(fc.record({ kind: fc.constant("mac-general" as const), length: u64 })),
  "ibm-attrbound-wrap": ibm(u64),
  "ibm-ecdsa-other": ibm(u64),
  "ibm-btc-derive": ibm(u64, u64, orNull(bytes()), u64),
  "ibm-kyber": ibm(u64, u64, u64, fc.nat(255), orNull(bytes()), orNull(bytes()), u64),
};

function ibm(...fields: fc.Arbitrary<bigint | number | Buffer | null>[]): fc.Arbitrary<MechanismParameter> {
  return fc.tuple(...fields).map((values) => ({ kind: "ibm", fields: values }));
}

/** A mechanism of the table or outside it, with a parameter that the dialect can carry. */
export function mechanism(dialect: Dialect): fc.Arbitrary<Mechanism> {
  const listed = fc.constantFrom(...MECHANISMS.keys());
  const any = fc.nat(0xfffffffe);
  return fc.oneof({ weight: 8, arbitrary: listed }, { weight: 1, arbitrary: any }).chain((type) => {
    const row = MECHANISMS.get(type);
    const shape = dialect === "legacy" && row?.stockSince === 2 ? null : (row?.shape ?? null);
    if (shape === "none" && dialect === "new") return fc.constant({ type, parameter: null });
    const parameter = PARAMETERS[shape === null || shape === "none" ? "bytes" : shape] ?? fc.constant(null);
    const byteShaped = shape === null || ["none", "bytes", "iv8", "iv16"].includes(shape);
    return (dialect === "new" || byteShaped ? orNull(parameter) : parameter).map((value) => ({ type, parameter: value }));
  });
}

const ATTRIBUTE_TYPES = [...Object.values(CKA), 0x172, 0x8c, 0x61d, 0xffffffff];

function attributeValue(type: number, depth: number): fc.Arbitrary<Attribute> {
  const valued = (value: fc.Arbitrary<Buffer>) => value.map((buffer) => ({ type, value: buffer, length: buffer.length }));
  const lengths = (unit: number) => fc.integer({ min: 1, max: 4 }).map((count) => ({ type, value: null, length: unit * count }));
  switch (attributeKind(type)) {
    case "bool":
      return valued(exactly(1));
    case "ulong":
      return valued(exactly(8));
    case "date":
      return fc.oneof(valued(exactly(8)), valued(exactly(0)), fc.constant({ type, value: null, length: 8 }));
    case "mechanisms":
      return fc.oneof(
        fc.integer({ min: 0, max: 4 }).chain((count) => valued(exactly(8 * count))),
        lengths(8),
      );
    case "template":
      return depth === 0
        ? lengths(24)
        : fc.oneof(
            lengths(24),
            fc.array(attribute(depth - 1), { maxLength: 3 }).map((value) => ({ type, value, length: 24 * value.length })),
          );
    case "bytes":
      return fc.oneof(
        valued(bytes()),
        fc.nat(100).map((length) => ({ type, value: null, length })),
      );
  }
}

/** An attribute of a template, nested at most `depth` deep. */
export function attribute(depth = 2): fc.Arbitrary<Attribute> {
  return fc
    .constantFrom(...ATTRIBUTE_TYPES)
    .chain((type) => fc.oneof({ weight: 9, arbitrary: attributeValue(type, depth) }, { weight: 1, arbitrary: unavailable(type) }));
}

function unavailable(type: number): fc.Arbitrary<Attribute> {
  return fc.constant({ type, value: null, length: -1 });
}

function query(depth = 2): fc.Arbitrary<AttributeQuery> {
  return fc.constantFrom(...ATTRIBUTE_TYPES).chain((type): fc.Arbitrary<AttributeQuery> => {
    const lengthQuery = fc.constant<AttributeQuery>({ type, room: null });
    if (attributeKind(type) !== "template")
      return fc.oneof(
        lengthQuery,
        fc.integer({ min: 1, max: 80 }).map((room) => ({ type, room })),
      );
    if (depth === 0) return lengthQuery;
    const nested = fc.array(query(depth - 1), { minLength: 1, maxLength: 3 });
    return fc.oneof(
      lengthQuery,
      nested.map((queries) => ({ type, room: 24 * queries.length, nested: queries })),
    );
  });
}

function answerTo(asked: AttributeQuery): fc.Arbitrary<Attribute> {
  const { type, room, nested } = asked;
  if (nested !== undefined) {
    return fc.tuple(...nested.map(answerTo)).map((value) => ({ type, value, length: 24 * value.length }));
  }
  return fc.oneof(
    unavailable(type),
    attributeValue(type, 0).map((one): Attribute => {
      if (room === null) return { type, value: null, length: one.length };
      return one.value !== null && one.length <= room ? one : { type, value: null, length: -1 };
    }),
  );
}

/** Random arguments of a call. */
export function argsOf(call: AnyCall, dialect: Dialect): fc.Arbitrary<AnyArgs> {
  const elements: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
    y: fc.nat(255),
    u: u64,
    s: exactly(32),
    z: exactly(32),
    M: orNull(mechanism(dialect)),
    ay: orNull(bytes()),
    aA: fc.array(attribute(), { maxLength: 5 }),
    fy: orNull(fc.nat(1000)),
    fu: orNull(fc.integer({ min: 1, max: 1000 })),
    fA: fc.array(query(), { maxLength: 5 }),
  };
  return fc.record(byName(call.args, splitSignature(call.request), elements));
}

/** A random result of a call that was made with these arguments. */
export function resultOf(call: AnyCall, args: AnyArgs): fc.Arbitrary<AnyResult> {
  const failed = fc.integer({ min: 0x200, max: 0xffffffff }).map((rv): AnyResult => ({ rv }));
  return fc.oneof({ weight: 1, arbitrary: failed }, { weight: 4, arbitrary: outputsOf(call, args) });
}

function outputsOf(call: AnyCall, args: AnyArgs): fc.Arbitrary<AnyResult> {
  const elements = splitSignature(call.response);
  const room = args["room"] as number | null | undefined;
  const [first] = elements;
  if (first === "aA") {
    const rv = fc.constantFrom(CKR.CKR_OK, CKR.CKR_ATTRIBUTE_SENSITIVE, CKR.CKR_ATTRIBUTE_TYPE_INVALID, CKR.CKR_BUFFER_TOO_SMALL);
    return fc.record({ rv, attributes: fc.tuple(...(args["query"] as AttributeQuery[]).map(answerTo)) });
  }
  if (elements.includes("P")) {
    const update = updateOf(args["mechanism"] as Mechanism | null);
    return fc.oneof(
      fc.record({ rv: fc.constant(CKR.CKR_OK), update, key: u64 }),
      fc.record({ rv: fc.constant(CKR.CKR_BUFFER_TOO_SMALL), update }),
    );
  }
  if ((first === "ay" || first === "au") && elements.length === 1) {
    const name = call.outs[0] ?? "";
    const length = fc.integer({ min: 1, max: 0x7fffffff });
    if (room === null || room === undefined) return length.map((one): AnyResult => ({ rv: CKR.CKR_OK, [name]: one }));
    const maxLength = Math.min(room, 64);
    const whole: fc.Arbitrary<unknown> = first === "ay" ? bytes({ maxLength }) : fc.array(u64, { maxLength });
    return fc.oneof(
      whole.map((one): AnyResult => ({ rv: CKR.CKR_OK, [name]: one })),
      length.map((one): AnyResult => ({ rv: CKR.CKR_BUFFER_TOO_SMALL, [name]: one })),
    );
  }
  const lengthOf = (name: string) => (call.name === "C_GetSlotInfo" && name === "description" ? 64 : 32);
  const strings: Readonly<Record<string, fc.Arbitrary<unknown>>> = { model: exactly(16), serial: exactly(16), utcTime: exactly(16) };
  const fields = call.outs.map((name, index) => {
    const element = elements[index];
    if (element === "s") return [name, strings[name] ?? exactly(lengthOf(name))] as const;
    return [name, element === "v" ? version : u64] as const;
  });
  return fc.record({ rv: fc.constant(CKR.CKR_OK), ...Object.fromEntries(fields) }) as fc.Arbitrary<AnyResult>;
}

function updateOf(made: Mechanism | null): fc.Arbitrary<unknown> {
  const shape = made === null ? "none" : (MECHANISMS.get(made.type)?.shape ?? null);
  if (made === null || shape === "none") return fc.constant(null);
  const length = Buffer.from([0, 0, 0, 0, 9]);
  const valued = Buffer.from([1, 0, 0, 0, 2, 7, 7]);
  const { type } = made;
  if (shape === "ibm-btc-derive") return orNull(fc.constantFrom({ type, bytes: length }, { type, bytes: valued }));
  if (shape === "ibm-kyber") {
    return orNull(fc.constantFrom({ type, bytes: Buffer.from([2]) }, { type, bytes: Buffer.concat([Buffer.from([1]), valued]) }));
  }
  return orNull(fc.constant({ type, bytes: null }));
}

function byName(
  names: readonly string[],
  elements: readonly string[],
  arbitraries: Readonly<Record<string, fc.Arbitrary<unknown>>>,
): Record<string, fc.Arbitrary<unknown>> {
  return Object.fromEntries(
    names.map((name, index) => {
      const arbitrary = arbitraries[elements[index] ?? ""];
      if (arbitrary === undefined) throw new Error(`no arbitrary for ${elements[index]}`);
      return [name, arbitrary];
    }),
  );
}
