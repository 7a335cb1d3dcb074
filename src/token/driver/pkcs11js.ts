/*
 * The module itself as a TokenDriver: every call of the table, synchronously, on real handles and slots. Whoever calls
 * it is blocked as long as the module is, so it lives in a process of its own (token/host/main.ts). What pkcs11js
 * cannot carry is emulated here, or refused before the module hears of it; what stays lost is listed in
 * docs/operations.md, "What this version cannot do", and tried case by case against test/interop/known-failing.txt.
 * A CK_RV is a value; an exception is a bug.
 */
import type { CallName } from "../../cryptoki/calls.js";
import { CKF } from "../../cryptoki/constants.js";
import { CKR } from "../../cryptoki/rv.js";
import type { AnyResult, CallArgs, CallResult } from "../../cryptoki/types.js";
import {
  handleBytes,
  handleValue,
  inputBytes,
  labelText,
  MAX_OUTPUT_BYTES,
  mechanismArgument,
  outputBuffer,
  pinText,
  Refusal,
  templateArgument,
  u32,
  ulong,
} from "./arguments.js";
import { getAttributes } from "./get-attributes.js";
import { createInformationHandlers, type Handler, mustSucceed, slotArgument } from "./information.js";
import { loadModule, type NativeModule } from "./native.js";

/** A loaded and initialised module. Calls block; one caller at a time. */
export interface TokenDriver {
  call<N extends CallName>(name: N, args: CallArgs<N>): CallResult<N>;
  /** C_Finalize, which lets go of the card; the next call initialises the module again. All handles are void then. */
  release(): void;
  readonly isReleased: boolean;
  /** C_Finalize of the module, at the end of the process; no call may follow. */
  finalize(): void;
}

const SCRATCH_BYTES = 4_096;
/** Most handles in one C_FindObjects. */
const MAX_FOUND = MAX_OUTPUT_BYTES / 8;

/**
 * Loads the module and initialises it.
 * Throws E_MODULE (not loadable, not a PKCS#11 module) or E_MODULE_FAULT (it refuses to start, also when it is opened again).
 * `onReopen` is called after a release, before the call that has opened the module again.
 */
export function createDriver(modulePath: string, onReopen: () => void = () => {}): TokenDriver {
  const native = loadModule(modulePath);
  const handlers = createHandlers(native);
  let isReleased = false;
  return {
    release() {
      if (!isReleased) native.invoke("C_Finalize");
      isReleased = true;
    },
    get isReleased() {
      return isReleased;
    },
    finalize: () => void native.invoke("C_Finalize"),
    call<N extends CallName>(name: N, args: CallArgs<N>): CallResult<N> {
      const handler = handlers[name];
      if (handler === undefined) return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED } as CallResult<N>;
      if (isReleased) {
        isReleased = false;
        native.initialize();
        onReopen();
      }
      try {
        return handler(args) as CallResult<N>;
      } catch (error) {
        if (error instanceof Refusal) return { rv: error.rv } as CallResult<N>;
        throw error;
      }
    },
  };
}

function createHandlers(native: NativeModule): Partial<Record<CallName, Handler>> {
  const must = (name: string, ...args: readonly unknown[]) => mustSucceed(native, name, ...args);
  const session = (args: Readonly<Record<string, unknown>>) => handleBytes(args["session"], CKR.CKR_SESSION_HANDLE_INVALID);
  const object = (value: unknown) => handleBytes(value, CKR.CKR_OBJECT_HANDLE_INVALID);
  const key = (value: unknown) => handleBytes(value, CKR.CKR_KEY_HANDLE_INVALID);

  const scratch = Buffer.alloc(SCRATCH_BYTES);

  /** A call that fills an output buffer: pkcs11js loses the needed length, so it is asked for again with NULL. */
  function output(name: string, before: readonly unknown[], room: unknown): CallResult {
    // Most outputs are small: they are written to the same memory each time, copied, and overwritten.
    const isSmall = typeof room === "number" && Number.isInteger(room) && room > 0 && room <= scratch.length;
    if (!isSmall) return outputInto(outputBuffer(room), name, before, room);
    const result = outputInto(scratch.subarray(0, room), name, before, room) as AnyResult;
    const { output: view } = result;
    const copied = Buffer.isBuffer(view) ? { rv: result.rv, output: Buffer.from(view) } : result;
    scratch.fill(0, 0, room);
    return copied as CallResult;
  }

  function outputInto(buffer: Buffer, name: string, before: readonly unknown[], room: unknown): CallResult {
    const given = native.invoke(name, ...before, buffer);
    if (given.rv === CKR.CKR_BUFFER_TOO_SMALL && room !== null) {
      const needed = native.invoke(name, ...before, outputBuffer(null));
      return needed.rv === CKR.CKR_OK
        ? ({ rv: CKR.CKR_BUFFER_TOO_SMALL, output: Number(needed.value) } as CallResult)
        : { rv: CKR.CKR_BUFFER_TOO_SMALL };
    }
    if (given.rv !== CKR.CKR_OK) return { rv: given.rv };
    const length = Number(given.value);
    // More than can be, or more than there was room for, and it calls that a success: not to be believed, nor passed on.
    if (length > (room === null ? MAX_OUTPUT_BYTES : buffer.length)) return { rv: CKR.CKR_DEVICE_ERROR };
    if (room === null) return { rv: CKR.CKR_OK, output: length } as CallResult;
    return { rv: CKR.CKR_OK, output: buffer.subarray(0, length) } as CallResult;
  }

  /** Handlers by shape, for the calls that differ in their name alone. */
  const initWithKey =
    (name: string): Handler =>
    (args) => ({ rv: native.invoke(name, session(args), mechanismArgument(args["mechanism"]), key(args["key"])).rv });
  const dataToOutput =
    (name: string, data = "data"): Handler =>
    (args) =>
      output(name, [session(args), inputBytes(args[data])], args["room"]);
  const finalOutput =
    (name: string): Handler =>
    (args) =>
      output(name, [session(args)], args["room"]);
  const bytesOnly =
    (name: string, ...names: readonly string[]): Handler =>
    (args) => ({ rv: native.invoke(name, session(args), ...names.map((one) => inputBytes(args[one]))).rv });
  const sessionOnly =
    (name: string): Handler =>
    (args) => ({ rv: native.invoke(name, session(args)).rv });
  const initToken: Handler = (args) => ({
    rv: native.invoke("C_InitToken", slotArgument(args), pinText(args["pin"]), labelText(args["label"])).rv,
  });

  return {
    // The module is initialised as long as the process lives; a client's own Initialize and Finalize do not reach it.
    C_Initialize: () => ({ rv: CKR.CKR_OK }),
    C_Finalize: () => ({ rv: CKR.CKR_OK }),
    ...createInformationHandlers(native),
    C_InitToken: initToken,
    C_InitToken2: initToken,
    C_OpenSession: (args) =>
      ({ rv: CKR.CKR_OK, session: handleValue(must("C_OpenSession", slotArgument(args), u32(args["flags"]))) }) as CallResult,
    C_CloseSession: sessionOnly("C_CloseSession"),
    C_CloseAllSessions: (args) => ({ rv: native.invoke("C_CloseAllSessions", slotArgument(args)).rv }),
    C_GetSessionInfo: (args) => {
      const value = must("C_GetSessionInfo", session(args)) as Readonly<Record<string, unknown>>;
      const [state, flags, deviceError] = [value["state"], value["flags"], value["deviceError"]].map(ulong);
      return { rv: CKR.CKR_OK, slot: handleValue(value["slotID"]), state, flags, deviceError } as CallResult;
    },
    C_InitPIN: (args) => ({ rv: native.invoke("C_InitPIN", session(args), pinText(args["pin"])).rv }),
    C_SetPIN: (args) => ({ rv: native.invoke("C_SetPIN", session(args), pinText(args["oldPin"]), pinText(args["newPin"])).rv }),
    C_GetOperationState: (args) => {
      const state = must("C_GetOperationState", session(args)) as Buffer;
      const room = outputBuffer(args["room"]).length;
      if (args["room"] === null) return { rv: CKR.CKR_OK, state: state.length } as CallResult;
      return (room < state.length ? { rv: CKR.CKR_BUFFER_TOO_SMALL, state: state.length } : { rv: CKR.CKR_OK, state }) as CallResult;
    },
    C_SetOperationState: (args) => ({
      rv: native.invoke(
        "C_SetOperationState",
        session(args),
        inputBytes(args["state"]),
        key(args["encryptionKey"]),
        key(args["authenticationKey"]),
      ).rv,
    }),
    C_Login: (args) => ({
      rv: native.invoke("C_Login", session(args), u32(args["userType"], CKR.CKR_USER_TYPE_INVALID), pinText(args["pin"])).rv,
    }),
    C_Logout: sessionOnly("C_Logout"),

    C_CreateObject: (args) =>
      ({ rv: CKR.CKR_OK, object: handleValue(must("C_CreateObject", session(args), templateArgument(args["template"]))) }) as CallResult,
    C_CopyObject: (args) =>
      ({
        rv: CKR.CKR_OK,
        object: handleValue(must("C_CopyObject", session(args), object(args["object"]), templateArgument(args["template"]))),
      }) as CallResult,
    C_DestroyObject: (args) => ({ rv: native.invoke("C_DestroyObject", session(args), object(args["object"])).rv }),
    C_GetObjectSize: (args) =>
      ({ rv: CKR.CKR_OK, size: ulong(must("C_GetObjectSize", session(args), object(args["object"]))) }) as CallResult,
    C_GetAttributeValue: (args) => getAttributes(native, session(args), object(args["object"]), args["query"]) as CallResult,
    C_SetAttributeValue: (args) => ({
      rv: native.invoke("C_SetAttributeValue", session(args), object(args["object"]), templateArgument(args["template"])).rv,
    }),
    C_FindObjectsInit: (args) => ({ rv: native.invoke("C_FindObjectsInit", session(args), templateArgument(args["template"])).rv }),
    C_FindObjects: (args) => {
      const room = args["room"];
      // PKCS#11 has no length query here, and a module is entitled to refuse NULL.
      if (typeof room !== "number" || !Number.isInteger(room) || room < 1) return { rv: CKR.CKR_ARGUMENTS_BAD };
      const found = must("C_FindObjects", session(args), Math.min(room, MAX_FOUND)) as readonly unknown[];
      return { rv: CKR.CKR_OK, objects: found.map(handleValue) } as CallResult;
    },
    C_FindObjectsFinal: sessionOnly("C_FindObjectsFinal"),

    C_EncryptInit: initWithKey("C_EncryptInit"),
    C_Encrypt: dataToOutput("C_Encrypt"),
    C_EncryptUpdate: dataToOutput("C_EncryptUpdate"),
    C_EncryptFinal: finalOutput("C_EncryptFinal"),
    C_DecryptInit: initWithKey("C_DecryptInit"),
    C_Decrypt: dataToOutput("C_Decrypt"),
    C_DecryptUpdate: dataToOutput("C_DecryptUpdate"),
    C_DecryptFinal: finalOutput("C_DecryptFinal"),
    C_DigestInit: (args) => ({ rv: native.invoke("C_DigestInit", session(args), mechanismArgument(args["mechanism"])).rv }),
    C_Digest: dataToOutput("C_Digest"),
    C_DigestUpdate: bytesOnly("C_DigestUpdate", "data"),
    C_DigestKey: (args) => ({ rv: native.invoke("C_DigestKey", session(args), key(args["key"])).rv }),
    C_DigestFinal: finalOutput("C_DigestFinal"),
    C_SignInit: initWithKey("C_SignInit"),
    C_Sign: dataToOutput("C_Sign"),
    C_SignUpdate: bytesOnly("C_SignUpdate", "data"),
    C_SignFinal: finalOutput("C_SignFinal"),
    C_SignRecoverInit: initWithKey("C_SignRecoverInit"),
    C_SignRecover: dataToOutput("C_SignRecover"),
    C_VerifyInit: initWithKey("C_VerifyInit"),
    C_Verify: bytesOnly("C_Verify", "data", "signature"),
    C_VerifyUpdate: bytesOnly("C_VerifyUpdate", "data"),
    C_VerifyFinal: bytesOnly("C_VerifyFinal", "signature"),
    C_VerifyRecoverInit: initWithKey("C_VerifyRecoverInit"),
    C_VerifyRecover: dataToOutput("C_VerifyRecover", "signature"),
    C_DigestEncryptUpdate: dataToOutput("C_DigestEncryptUpdate"),
    C_DecryptDigestUpdate: dataToOutput("C_DecryptDigestUpdate"),
    C_SignEncryptUpdate: dataToOutput("C_SignEncryptUpdate"),
    C_DecryptVerifyUpdate: dataToOutput("C_DecryptVerifyUpdate"),

    C_GenerateKey: (args) =>
      ({
        rv: CKR.CKR_OK,
        key: handleValue(must("C_GenerateKey", session(args), mechanismArgument(args["mechanism"]), templateArgument(args["template"]))),
      }) as CallResult,
    C_GenerateKeyPair: (args) => {
      const pair = must(
        "C_GenerateKeyPair",
        session(args),
        mechanismArgument(args["mechanism"]),
        templateArgument(args["publicTemplate"]),
        templateArgument(args["privateTemplate"]),
      ) as Readonly<Record<string, unknown>>;
      return { rv: CKR.CKR_OK, publicKey: handleValue(pair["publicKey"]), privateKey: handleValue(pair["privateKey"]) } as CallResult;
    },
    C_WrapKey: (args) =>
      output("C_WrapKey", [session(args), mechanismArgument(args["mechanism"]), key(args["wrappingKey"]), key(args["key"])], args["room"]),
    C_UnwrapKey: (args) =>
      ({
        rv: CKR.CKR_OK,
        key: handleValue(
          must(
            "C_UnwrapKey",
            session(args),
            mechanismArgument(args["mechanism"]),
            key(args["unwrappingKey"]),
            inputBytes(args["data"]),
            templateArgument(args["template"]),
          ),
        ),
      }) as CallResult,
    C_DeriveKey: (args) =>
      ({
        rv: CKR.CKR_OK,
        key: handleValue(
          must(
            "C_DeriveKey",
            session(args),
            mechanismArgument(args["mechanism"]),
            key(args["baseKey"]),
            templateArgument(args["template"]),
          ),
        ),
      }) as CallResult,
    C_SeedRandom: bytesOnly("C_SeedRandom", "seed"),
    C_GenerateRandom: (args) => {
      const buffer = outputBuffer(args["room"]);
      const { rv } = native.invoke("C_GenerateRandom", session(args), buffer);
      return (rv === CKR.CKR_OK ? { rv, output: buffer } : { rv }) as CallResult;
    },
    C_WaitForSlotEvent: (args) => {
      const flags = u32(args["flags"]);
      // A blocking wait would hold up every other client of the process.
      if ((BigInt(flags) & CKF.CKF_DONT_BLOCK) === 0n) return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED };
      const found = must("C_WaitForSlotEvent", flags);
      return (found === null ? { rv: CKR.CKR_NO_EVENT } : { rv: CKR.CKR_OK, slot: handleValue(found) }) as CallResult;
    },
  };
}
