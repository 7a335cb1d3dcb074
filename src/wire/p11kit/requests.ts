/*
 * Request bodies of the p11-kit RPC: call id, signature, arguments, all by the calls table. Reading is a matter of
 * trying the forms a peer may mean until one consumes the body exactly. Nothing here answers anything.
 * See protocol/p11kit-rpc.md, "Messages".
 */
import { createReader, createWriter, DecodeError, type Reader, type Writer } from "../../base/bytes.js";
import { wipeable } from "../../base/secret.js";
import { type AnyCall, CALLS, callById, splitSignature } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyArgs, Attribute, AttributeQuery, CallArgs, Mechanism, Version } from "../../cryptoki/types.js";
import { readAttributes, readQueries, writeAttributes, writeQueries } from "./attributes.js";
import { type Budget, createBudget, DEFAULT_LIMITS, type P11KitLimits, Refusal } from "./limits.js";
import { type Dialect, readMechanism, type UnlistedForm, writeMechanism } from "./mechanisms.js";
import * as values from "./values.js";

/** What C_Initialize must carry: PKCS#11 RPC's only handshake. */
export const HANDSHAKE = Buffer.from("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1", "latin1");

/** The arguments of a C_Initialize as a stock client without an init string sends it. */
export function initializeArgs(): CallArgs<"C_Initialize"> {
  return { handshake: HANDSHAKE, hasReserved: 0, reserved: Buffer.alloc(1) };
}

/** The length that Cryptoki demands of a token label. */
const LABEL_BYTES = 32;

interface CallLayout {
  readonly request: readonly string[];
  readonly signature: Buffer;
  readonly secret: boolean;
  readonly forms: Readonly<Record<Dialect, readonly Form[]>>;
}

const LAYOUTS: ReadonlyMap<number, CallLayout> = new Map(
  CALLS.map((call: AnyCall) => {
    const request = splitSignature(call.request);
    const forms = { legacy: formsOf(request, "legacy"), new: formsOf(request, "new") };
    return [call.id, { request, signature: Buffer.from(call.request, "latin1"), secret: call.args.some(isSecretName), forms }];
  }),
);

/** True for the arguments that carry a PIN. */
export function isSecretName(name: string): boolean {
  return name === "pin" || name.endsWith("Pin");
}

/** How a request is to be written for a peer. */
export interface RequestForm {
  readonly dialect: Dialect;
  /** How NULL bytes are written. Default `valid`, which every server reads rightly. */
  readonly nullForm?: values.NullForm;
  /** False for a version 0 server, which cannot take an output buffer of no bytes. Default true. */
  readonly emptyRooms?: boolean;
  /** False leaves out the rooms within templates (servers before 0.25.4). Default true. */
  readonly nestedQueries?: boolean;
}

/** True for a call that carries a PIN: what is made of it is to be overwritten after use. */
export function carriesSecret(call: AnyCall): boolean {
  return layoutOf(call).secret;
}

/** What a request takes besides its byte strings, with room to spare. */
const MAX_OVERHEAD_BYTES = 256;

/**
 * A request body, no part of which is left in memory besides when it carries a PIN. Throws Refusal
 * CKR_MECHANISM_PARAM_INVALID for a mechanism that cannot be carried.
 */
export function encodeRequest(call: AnyCall, args: AnyArgs, form: RequestForm): Buffer {
  const inPins = carriesSecret(call)
    ? Object.values(args).reduce((sum: number, arg) => sum + (Buffer.isBuffer(arg) ? arg.length : 0), 0)
    : 0;
  // A writer that has to grow would leave its first memory behind.
  const writer = createWriter(MAX_OVERHEAD_BYTES + inPins);
  writer.u32(call.id);
  writer.u32(call.request.length);
  writer.bytes(layoutOf(call).signature);
  for (const [index, element] of layoutOf(call).request.entries()) writeArgument(writer, element, args[call.args[index] ?? ""], form);
  return writer.finish();
}

function writeArgument(writer: Writer, element: string, value: unknown, form: RequestForm): void {
  switch (element) {
    case "y":
      writer.u8(value as number);
      break;
    case "u":
      writer.u64(value as bigint);
      break;
    case "v":
      values.writeVersion(writer, value as Version);
      break;
    case "s":
      values.writeString(writer, value as Buffer, LABEL_BYTES);
      break;
    case "z":
      values.writeString(writer, value as Buffer, (value as Buffer).length);
      break;
    case "M":
      writeMechanism(writer, value as Mechanism | null, form.dialect);
      break;
    case "ay":
      values.writeBytes(writer, value as Buffer | null, form.nullForm);
      break;
    case "aA":
      writeAttributes(writer, value as readonly Attribute[]);
      break;
    case "fy":
      values.writeByteRoom(writer, value as number | null, form.emptyRooms ?? true);
      break;
    case "fu":
      values.writeNumberRoom(writer, value as number | null);
      break;
    case "fA":
      writeQueries(writer, value as readonly AttributeQuery[], form.nestedQueries ?? true);
      break;
    default:
      throw new TypeError(`no such request element: ${element}`);
  }
}

/**
 * What a request body turned out to be. `call` is ready to be made; its byte strings are copies when `secret` (it
 * carries a PIN), and views of the body otherwise; `trailing` bytes after them were ignored. `unknown` is a call id outside the table. `refused` is sound but over
 * a cap, or carries a value we will not act on: it is to be answered with ERROR `rv`.
 */
export type DecodedRequest =
  | {
      readonly kind: "call";
      readonly call: AnyCall;
      readonly args: AnyArgs;
      readonly secret: boolean;
      readonly dialect: Dialect;
      readonly trailing: number;
    }
  | { readonly kind: "unknown"; readonly id: number }
  | { readonly kind: "refused"; readonly call: AnyCall; readonly rv: number; readonly why: string };

interface Form {
  readonly dialect: Dialect;
  readonly unlisted: UnlistedForm;
  readonly nestedQueries: boolean;
}

/**
 * Reads a request body of a peer that should speak `dialect`. Where the arguments do not consume the body exactly, the
 * other forms that stock releases write are tried too, and the first that fits is taken; if none does, trailing bytes
 * are ignored as stock servers do. Throws DecodeError for a body that no form explains.
 */
export function decodeRequest(body: Buffer, dialect: Dialect, limits: P11KitLimits = DEFAULT_LIMITS): DecodedRequest {
  const head = createReader(body);
  const id = head.u32("call id");
  const call = callById(id);
  if (call === undefined) return { kind: "unknown", id };
  const layout = layoutOf(call);
  readSignature(head, layout.signature);
  const content = body.subarray(head.offset);

  let loose: DecodedRequest | null = null;
  let refusal: DecodedRequest | null = null;
  let failure: unknown = null;
  for (const form of layout.forms[dialect]) {
    const reader = createReader(content);
    try {
      const args = readArguments(reader, call, layout, form, createBudget(limits));
      const decoded: DecodedRequest = {
        kind: "call",
        call,
        args,
        secret: layout.secret,
        dialect: form.dialect,
        trailing: reader.remaining,
      };
      if (decoded.trailing === 0) return decoded;
      loose ??= decoded;
    } catch (thrown) {
      if (thrown instanceof Refusal) refusal ??= { kind: "refused", call, rv: thrown.rv, why: thrown.message };
      else failure ??= thrown;
    }
  }
  const answer = loose ?? refusal;
  if (answer === null) throw failure;
  return answer;
}

/** The forms worth trying for a call, the likeliest first. */
function formsOf(elements: readonly string[], dialect: Dialect): readonly Form[] {
  const legacy: Form = { dialect: "legacy", unlisted: "flagged", nestedQueries: true };
  const flagged: Form = { ...legacy, dialect: "new" };
  const bare: Form = { ...flagged, unlisted: "bare" };
  if (elements.includes("M")) return dialect === "legacy" ? [legacy, flagged, bare] : [flagged, bare, legacy];
  const own = dialect === "legacy" ? legacy : flagged;
  return elements.includes("fA") ? [own, { ...own, nestedQueries: false }] : [own];
}

function readSignature(reader: Reader, expected: Buffer): void {
  const length = reader.u32("signature length");
  if (length !== expected.length) throw reader.malformed("signature of another length");
  for (const byte of expected) if (reader.u8("signature") !== byte) throw reader.malformed("another signature");
}

/** Overwrites the PINs among arguments. They must be copies, as decodeRequest makes them. */
export function wipeSecrets(args: AnyArgs): void {
  for (const [name, value] of Object.entries(args)) if (isSecretName(name) && Buffer.isBuffer(value)) value.fill(0);
}

function readArguments(reader: Reader, call: AnyCall, layout: CallLayout, form: Form, budget: Budget): AnyArgs {
  const args: Record<string, unknown> = {};
  try {
    let index = 0;
    for (const element of layout.request) {
      const name = call.args[index++] ?? "";
      const value = readArgument(reader, element, name, form, budget);
      args[name] = layout.secret && Buffer.isBuffer(value) ? ownCopy(value) : value;
    }
  } catch (thrown) {
    wipeSecrets(args);
    throw thrown;
  }
  return args;
}

function readArgument(reader: Reader, element: string, name: string, form: Form, budget: Budget): unknown {
  switch (element) {
    case "y":
      return reader.u8(name);
    case "u":
      return reader.u64(name);
    case "s":
    case "z": {
      const text = values.readString(reader, name);
      // The only strings of requests are token labels, and C_InitToken reads 32 bytes whatever it is given.
      if (text.length !== LABEL_BYTES) throw new Refusal(CKR.CKR_ARGUMENTS_BAD, "token label that is not of 32 bytes");
      return text;
    }
    case "M":
      return readMechanism(reader, form.dialect, form.unlisted);
    case "ay": {
      const value = values.readBytes(reader, name);
      return typeof value === "number" ? null : value;
    }
    case "aA":
      return readAttributes(reader, { budget });
    case "fy":
      return values.readByteRoom(reader, name, budget);
    case "fu":
      return values.readNumberRoom(reader, name, budget);
    case "fA":
      return readQueries(reader, budget, form.nestedQueries);
    default:
      throw new DecodeError("malformed", `no such request element: ${element}`, reader.offset);
  }
}

/** A copy that shares its memory with nothing, so that it can be overwritten. */
function ownCopy(bytes: Buffer): Buffer {
  const copy = wipeable(bytes.length);
  bytes.copy(copy);
  return copy;
}

function layoutOf(call: AnyCall): CallLayout {
  return LAYOUTS.get(call.id) as CallLayout;
}
