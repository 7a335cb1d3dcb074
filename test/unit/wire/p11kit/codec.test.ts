/*
 * The value kinds of the p11-kit wire, each against the bytes that stock peers write for it.
 */
import { describe, expect, it } from "vitest";
import { createReader, createWriter, DecodeError } from "../../../../src/base/bytes.js";
import { callByName } from "../../../../src/cryptoki/calls.js";
import type { Attribute, AttributeQuery, Mechanism } from "../../../../src/cryptoki/types.js";
import { fitAnswer, readAttributes, readQueries, writeAttributes, writeQueries } from "../../../../src/wire/p11kit/attributes.js";
import { createBudget, DEFAULT_LIMITS } from "../../../../src/wire/p11kit/limits.js";
import { type Dialect, readMechanism, readUpdate, writeMechanism, writeUpdate } from "../../../../src/wire/p11kit/mechanisms.js";
import { decodeRequest } from "../../../../src/wire/p11kit/requests.js";
import { decodeResponse, encodeResponse } from "../../../../src/wire/p11kit/responses.js";
import * as values from "../../../../src/wire/p11kit/values.js";

const from = (hex: string) => createReader(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const budget = () => createBudget(DEFAULT_LIMITS);
function hexOf(write: (writer: ReturnType<typeof createWriter>) => void): string {
  const writer = createWriter();
  write(writer);
  return writer.finish().toString("hex");
}
const ulong = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};

describe("byte strings", () => {
  it.each<[string, Buffer | number | null]>([
    ["01 00000002 abcd", Buffer.from("abcd", "hex")],
    ["01 00000000", Buffer.alloc(0)],
    ["01 ffffffff", null],
    ["00 00000009", 9],
  ])("%s", (hex, value) => {
    expect(values.readBytes(from(hex), "x")).toEqual(value);
    expect(hexOf((writer) => values.writeBytes(writer, value))).toBe(hex.replaceAll(" ", ""));
  });

  it("are NULL in a request in either form", () => {
    const login = "0000001200000004757561790000000000000001 0000000000000001";
    for (const pin of ["00 00000000", "01 ffffffff"]) {
      const request = decodeRequest(Buffer.from((login + pin).replaceAll(" ", ""), "hex"), "legacy");
      expect(request).toMatchObject({ kind: "call", args: { pin: null } });
    }
  });
});

describe("lists of numbers", () => {
  it.each<[string, bigint[] | number]>([
    ["01 00000002 0000000000000001 ffffffffffffffff", [1n, 0xffffffffffffffffn]],
    ["01 00000000", []],
    ["00 00000046", 0x46],
  ])("%s", (hex, value) => {
    expect(values.readNumbers(from(hex), "x")).toEqual(value);
    expect(hexOf((writer) => values.writeNumbers(writer, value))).toBe(hex.replaceAll(" ", ""));
  });

  it("are refused when their count is above the bytes that follow", () => {
    expect(() => values.readNumbers(from("01 ffffffff 0000000000000001"), "x")).toThrow(/^malformed: x: count above/);
  });
});

describe("strings and versions", () => {
  it("are padded with spaces, or cut, to the length of their field", () => {
    expect(hexOf((writer) => values.writeString(writer, Buffer.from("ab"), 4))).toBe("0000000461622020");
    expect(hexOf((writer) => values.writeString(writer, Buffer.from("abcdef"), 4))).toBe("0000000461626364");
  });

  it("carry a version as two bytes", () => {
    expect(hexOf((writer) => values.writeVersion(writer, { major: 2, minor: 40 }))).toBe("0228");
    expect(values.readVersion(from("0228"), "x")).toEqual({ major: 2, minor: 40 });
  });
});

describe("rooms", () => {
  it.each<[string, number | null]>([
    ["00000000", null],
    ["ffffffff", 0],
    ["00000200", 512],
  ])("in bytes: %s", (hex, room) => {
    expect(values.readByteRoom(from(hex), "x", budget())).toBe(room);
    expect(hexOf((writer) => values.writeByteRoom(writer, room, true))).toBe(hex);
  });

  it("in numbers: none is 0", () => {
    expect(values.readNumberRoom(from("00000000"), "x", budget())).toBeNull();
    expect(hexOf((writer) => values.writeNumberRoom(writer, null))).toBe("00000000");
  });
});

describe("attributes", () => {
  const date = Buffer.from("20261123");
  it.each<[string, string, Attribute]>([
    ["a boolean", "00000108 01 00000001 01", { type: 0x108, value: Buffer.from([1]), length: 1 }],
    ["a number", "00000000 01 00000008 0000000000000003", { type: 0, value: ulong(3n), length: 8 }],
    ["bytes", "00000102 01 00000002 00000002 0a0b", { type: 0x102, value: Buffer.from([10, 11]), length: 2 }],
    ["empty bytes", "00000102 01 00000000 00000000", { type: 0x102, value: Buffer.alloc(0), length: 0 }],
    ["a length alone", "00000102 01 00000014 ffffffff", { type: 0x102, value: null, length: 20 }],
    ["an unavailable one", "00000123 00", { type: 0x123, value: null, length: -1 }],
    ["a date", `00000110 01 00000008 00000008 ${date.toString("hex")}`, { type: 0x110, value: date, length: 8 }],
    ["an empty date", "00000111 01 00000000 ffffffff", { type: 0x111, value: null, length: 0 }],
    [
      "a number that p11-kit does not list, as its sender's memory holds it",
      "0000061d 01 00000008 00000008 0400000000000000",
      { type: 0x61d, value: ulong(4n), length: 8 },
    ],
    [
      "allowed mechanisms",
      "40000600 01 00000010 00000002 0000000000000040 0000000000001044",
      { type: 0x40000600, value: Buffer.concat([ulong(0x40n), ulong(0x1044n)]), length: 16 },
    ],
    ["the length of allowed mechanisms", "40000600 01 00000010 00000000", { type: 0x40000600, value: null, length: 16 }],
    [
      "a template within",
      "40000211 01 00000018 00000001 00000103 01 00000001 01",
      { type: 0x40000211, value: [{ type: 0x103, value: Buffer.from([1]), length: 1 }], length: 24 },
    ],
    ["the length of a template", "40000212 01 00000018 00000000", { type: 0x40000212, value: null, length: 24 }],
  ])("%s", (_name, hex, attribute) => {
    const wire = `00000001${hex.replaceAll(" ", "")}`;
    expect(readAttributes(from(wire), { budget: budget() })).toEqual([attribute]);
    expect(hexOf((writer) => writeAttributes(writer, [attribute]))).toBe(wire);
  });

  it("are written as unavailable when the value does not fit the kind", () => {
    const misfits: Attribute[] = [
      { type: 0, value: Buffer.alloc(4), length: 4 },
      { type: 0x108, value: Buffer.alloc(0), length: 0 },
      { type: 0x110, value: Buffer.alloc(5), length: 5 },
      { type: 0x40000600, value: Buffer.alloc(9), length: 9 },
      { type: 0x40000211, value: Buffer.alloc(24), length: 24 },
      { type: 0x102, value: Buffer.alloc(3), length: 4 },
    ];
    for (const misfit of misfits) expect(hexOf((writer) => writeAttributes(writer, [misfit])).slice(16)).toBe("00");
  });

  it("read the count without elements that stock servers give to a length query", () => {
    const queries: AttributeQuery[] = [{ type: 0x40000600, room: null }];
    const reading = { budget: budget(), queries };
    expect(readAttributes(from("00000001 40000600 01 00000010 00000002"), reading)).toEqual([
      { type: 0x40000600, value: null, length: 16 },
    ]);
  });

  it("hold no value where only the length was asked, and none beyond the room", () => {
    const label = { type: 3, value: Buffer.from("label"), length: 5 };
    expect(fitAnswer([{ type: 3, room: null }], [label])).toEqual({ attributes: [{ type: 3, value: null, length: 5 }], tooSmall: false });
    expect(fitAnswer([{ type: 3, room: 4 }], [label])).toEqual({ attributes: [{ type: 3, value: null, length: -1 }], tooSmall: true });
    expect(fitAnswer([{ type: 3, room: 5 }], [label])).toEqual({ attributes: [label], tooSmall: false });
    expect(fitAnswer([{ type: 4, room: 5 }], [label])).toBeNull();
  });

  it("of a template are told by length alone to a client that gave no rooms for them", () => {
    const nested = { type: 0x103, value: Buffer.from([1]), length: 1 };
    const template = { type: 0x40000211, value: [nested], length: 24 };
    expect(fitAnswer([{ type: 0x40000211, room: 24 }], [template])?.attributes).toEqual([
      { type: 0x40000211, value: [{ type: 0x103, value: null, length: 1 }], length: 24 },
    ]);
    const query = { type: 0x40000211, room: 24, nested: [{ type: 0x103, room: 1 }] };
    expect(fitAnswer([query], [template])?.attributes).toEqual([template]);
  });
});

describe("attribute queries", () => {
  const queries: AttributeQuery[] = [
    { type: 0x40000211, room: 24, nested: [{ type: 0x103, room: 1 }] },
    { type: 3, room: null },
  ];
  const nestedHex = "00000002 40000211 00000018 00000001 00000103 00000001 00000003 00000000".replaceAll(" ", "");

  it("carry the rooms within templates, or leave them out", () => {
    expect(hexOf((writer) => writeQueries(writer, queries, true))).toBe(nestedHex);
    expect(readQueries(from(nestedHex), budget(), true)).toEqual(queries);
    const flatHex = "00000002 40000211 00000018 00000003 00000000".replaceAll(" ", "");
    expect(hexOf((writer) => writeQueries(writer, queries, false))).toBe(flatHex);
  });

  it("without rooms within templates are recognised by the length of the body", () => {
    const flat = "00000018000000047575664100000000000000010000000000000002 00000002 40000211 00000018 00000003 00000000";
    const request = decodeRequest(Buffer.from(flat.replaceAll(" ", ""), "hex"), "legacy");
    expect(request).toMatchObject({
      kind: "call",
      args: {
        query: [
          { type: 0x40000211, room: 24 },
          { type: 3, room: null },
        ],
      },
    });
  });
});

describe("mechanisms", () => {
  const pss = { kind: "rsa-pss", hashAlg: 0x250n, mgf: 2n, saltLength: 32n } as const;
  const pssHex = "0000000000000250 0000000000000002 0000000000000020";
  const iv = Buffer.alloc(16, 0xab);
  const ivHex = `00000010 ${iv.toString("hex")}`;
  it.each<[string, Dialect, string, Mechanism | null]>([
    ["NULL", "legacy", "ffffffff", null],
    ["NULL", "new", "ffffffff", null],
    ["without parameter", "legacy", "00000040 ffffffff", { type: 0x40, parameter: null }],
    ["without parameter", "new", "00000040", { type: 0x40, parameter: null }],
    ["PSS", "legacy", `0000000d ${pssHex}`, { type: 0xd, parameter: pss }],
    ["PSS", "new", `0000000d 01 ${pssHex}`, { type: 0xd, parameter: pss }],
    ["an IV", "legacy", `00001085 ${ivHex}`, { type: 0x1085, parameter: { kind: "bytes", bytes: iv } }],
    ["an IV", "new", `00001085 01 ${ivHex}`, { type: 0x1085, parameter: { kind: "bytes", bytes: iv } }],
    ["a missing IV", "new", "00001085 00", { type: 0x1085, parameter: null }],
    ["unlisted", "legacy", "00001057 ffffffff", { type: 0x1057, parameter: null }],
    ["unlisted", "new", "00001057 00", { type: 0x1057, parameter: null }],
  ])("%s, %s", (_name, dialect, hex, mechanism) => {
    const wire = hex.replaceAll(" ", "");
    expect(readMechanism(from(wire), dialect, "flagged")).toEqual(mechanism);
    expect(hexOf((writer) => writeMechanism(writer, mechanism, dialect))).toBe(wire);
  });

  it.each<[string, Dialect, Mechanism]>([
    ["a parameter for a mechanism that takes none", "new", { type: 0x40, parameter: { kind: "bytes", bytes: iv } }],
    ["a parameter of another shape", "new", { type: 0x9, parameter: pss }],
    ["a struct that is missing", "legacy", { type: 0x9, parameter: null }],
    ["an IV of 15 bytes", "legacy", { type: 0x1085, parameter: { kind: "bytes", bytes: iv.subarray(1) } }],
  ])("cannot carry %s", (_name, dialect, mechanism) => {
    expect(() => hexOf((writer) => writeMechanism(writer, mechanism, dialect))).toThrow("mechanism parameter");
  });

  it.each<[string, number, Buffer | null, string]>([
    ["none", 0x40, null, ""],
    ["ECDH", 0x1050, null, "01"],
    ["BTC derive with a length", 0x80070001, Buffer.from("0000000020", "hex"), "010000000020"],
    ["Kyber, decapsulating", 0x80010024, Buffer.from("02", "hex"), "0102"],
    ["Kyber, encapsulating", 0x80010024, Buffer.from("010100000001aa", "hex"), "01010100000001aa"],
  ])("have an update: %s", (_name, type, bytes, hex) => {
    const mechanism = { type, parameter: null };
    const update = hex === "" ? null : { type, bytes };
    expect(hexOf((writer) => writeUpdate(writer, update, mechanism))).toBe(hex);
    expect(readUpdate(from(hex), mechanism)).toEqual(update);
  });
});

describe("answers", () => {
  it("have a slot description of 64 bytes and a module description of 32", () => {
    const version = { major: 1, minor: 0 };
    const common = { manufacturer: Buffer.from("m"), flags: 0n, description: Buffer.from("d") };
    const slot = { rv: 0, ...common, hardwareVersion: version, firmwareVersion: version };
    const slotCall = callByName("C_GetSlotInfo");
    expect(encodeResponse(slotCall, { slot: 0n }, slot).length).toBe(8 + 5 + 4 + 64 + 4 + 32 + 8 + 2 + 2);
    const info = { rv: 0, ...common, cryptokiVersion: version, libraryVersion: version };
    expect(encodeResponse(callByName("C_GetInfo"), {}, info).length).toBe(8 + 5 + 2 + 4 + 32 + 8 + 4 + 32 + 2);
  });

  it("are refused when they have more or other attributes than were asked for", () => {
    const call = callByName("C_GetAttributeValue");
    const body = encodeResponse(
      call,
      { query: [{ type: 3, room: 1 }] },
      { rv: 0, attributes: [{ type: 3, value: Buffer.from("x"), length: 1 }] },
    );
    expect(() => decodeResponse(body, call, { query: [{ type: 4, room: 1 }] }, DEFAULT_LIMITS)).toThrow("not asked for");
    expect(() => decodeResponse(body.subarray(0, -1), call, { query: [{ type: 3, room: 1 }] }, DEFAULT_LIMITS)).toThrow(DecodeError);
  });
});
