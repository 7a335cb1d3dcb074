/*
 * The calls that tell about the module, its slots and tokens: from what pkcs11js decoded back to the exact bytes and
 * widths of the C structs, because layers above serve them to C programs.
 */
import { type CallName, callByName, splitSignature } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult, Version } from "../../cryptoki/types.js";
import { handleBytes, handleValue, Refusal, u32, ulong } from "./arguments.js";
import type { NativeModule } from "./native.js";

/** Each handler gets the arguments as they came: nothing is trusted to have the type that the compiler believes. */
export type Handler = (args: Readonly<Record<string, unknown>>) => CallResult;

/** The slot of a call, as pkcs11js wants it. */
export const slotArgument = (args: Readonly<Record<string, unknown>>) => handleBytes(args["slot"], CKR.CKR_SLOT_ID_INVALID);

/** The value of a native call; any other CK_RV ends the call with it. */
export function mustSucceed(native: NativeModule, name: string, ...args: readonly unknown[]): unknown {
  const { rv, value } = native.invoke(name, ...args);
  if (rv !== CKR.CKR_OK) throw new Refusal(rv);
  return value;
}

/** Info strings come decoded; back to the exact bytes of the struct, padded with spaces. */
function padded(text: unknown, size: number): Buffer {
  const bytes = Buffer.alloc(size, " ");
  bytes.write(typeof text === "string" ? text : "", "utf8");
  return bytes;
}

/** A handle list for this room: the list when it fits, its length alone for a length query or too little room. */
function list(values: readonly bigint[], room: unknown): { rv: number; values: readonly bigint[] | number } {
  if (room === null) return { rv: CKR.CKR_OK, values: values.length };
  if (typeof room !== "number" || !Number.isInteger(room) || room < 0) throw new Refusal(CKR.CKR_ARGUMENTS_BAD);
  return room < values.length ? { rv: CKR.CKR_BUFFER_TOO_SMALL, values: values.length } : { rv: CKR.CKR_OK, values };
}

const TOKEN_INFO = callByName("C_GetTokenInfo");
const ELEMENTS = splitSignature(TOKEN_INFO.response);
/** pkcs11js names these fields as the calls table does. */
const TOKEN_NUMBERS = TOKEN_INFO.outs.filter((_, index) => ELEMENTS[index] === "u");

/** Handlers of the class `information` that take no session. */
export function createInformationHandlers(native: NativeModule): Partial<Record<CallName, Handler>> {
  const must = (name: string, ...args: readonly unknown[]) => mustSucceed(native, name, ...args);
  const info = (name: string, ...args: readonly unknown[]) => must(name, ...args) as Readonly<Record<string, unknown>>;
  return {
    C_GetInfo: () => {
      const value = info("C_GetInfo");
      return {
        rv: CKR.CKR_OK,
        cryptokiVersion: value["cryptokiVersion"] as Version,
        manufacturer: padded(value["manufacturerID"], 32),
        flags: ulong(value["flags"]),
        description: padded(value["libraryDescription"], 32),
        libraryVersion: value["libraryVersion"] as Version,
      } as CallResult;
    },
    C_GetSlotList: (args) => {
      const found = must("C_GetSlotList", args["tokenPresent"] !== 0) as readonly unknown[];
      const { rv, values } = list(found.map(handleValue), args["room"]);
      return { rv, slots: values } as CallResult;
    },
    C_GetSlotInfo: (args) => {
      const value = info("C_GetSlotInfo", slotArgument(args));
      return {
        rv: CKR.CKR_OK,
        description: padded(value["slotDescription"], 64),
        manufacturer: padded(value["manufacturerID"], 32),
        flags: ulong(value["flags"]),
        hardwareVersion: value["hardwareVersion"] as Version,
        firmwareVersion: value["firmwareVersion"] as Version,
      } as CallResult;
    },
    C_GetTokenInfo: (args) => {
      const value = info("C_GetTokenInfo", slotArgument(args));
      return {
        rv: CKR.CKR_OK,
        label: padded(value["label"], 32),
        manufacturer: padded(value["manufacturerID"], 32),
        model: padded(value["model"], 16),
        serial: padded(value["serialNumber"], 16),
        ...Object.fromEntries(TOKEN_NUMBERS.map((name) => [name, ulong(value[name])])),
        hardwareVersion: value["hardwareVersion"] as Version,
        firmwareVersion: value["firmwareVersion"] as Version,
        utcTime: padded(value["utcTime"], 16),
      } as CallResult;
    },
    C_GetMechanismList: (args) => {
      const found = must("C_GetMechanismList", slotArgument(args)) as readonly number[];
      const { rv, values } = list(found.map(BigInt), args["room"]);
      return { rv, mechanisms: values } as CallResult;
    },
    C_GetMechanismInfo: (args) => {
      const value = info("C_GetMechanismInfo", slotArgument(args), u32(args["mechanismType"], CKR.CKR_MECHANISM_INVALID));
      const [minKeySize, maxKeySize, flags] = [value["minKeySize"], value["maxKeySize"], value["flags"]].map(ulong);
      return { rv: CKR.CKR_OK, minKeySize, maxKeySize, flags } as CallResult;
    },
  };
}
