/*
 * The one file that names pkcs11js: loads a module into this process and makes single native calls. It turns what
 * pkcs11js throws into a CK_RV and nothing else. It must never call close(), never use an asynchronous call (both end
 * in a use-after-free), and never be given an argument that driver/arguments.ts has not checked: a malformed template
 * or mechanism ends the process.
 */
import { createRequire } from "node:module";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { CKF } from "../../cryptoki/constants.js";
import { CKR, rvName } from "../../cryptoki/rv.js";

/** What one native call gave: its return value with CKR_OK, `undefined` with anything else. */
export interface NativeResult {
  readonly rv: number;
  readonly value: unknown;
  /** pkcs11js itself could not express the answer (an empty date); the module's own answer was CKR_OK. */
  readonly lost: boolean;
}

/** One loaded module. There is no way to unload it: the process is the unit of unloading. */
export interface NativeModule {
  /** Calls pkcs11js's native method of this name, without its JavaScript wrappers. */
  invoke(name: string, ...args: readonly unknown[]): NativeResult;
  /** C_Initialize with CKF_OS_LOCKING_OK. Throws E_MODULE_FAULT where it refuses. */
  initialize(): void;
}

type NativeMethods = Readonly<Record<string, (...args: readonly unknown[]) => unknown>>;
interface Pkcs11js {
  readonly PKCS11: new () => object & { load(path: string): void };
}

const RV_IN_MESSAGE = /CKR_\w+:(\d+)/;

function rvOf(thrown: unknown): number | null {
  const found = thrown instanceof Error ? RV_IN_MESSAGE.exec(thrown.message) : null;
  return found ? Number(found[1]) : null;
}

function loadError(modulePath: string, thrown: unknown): TokenfwdError {
  const path = printable(modulePath);
  const rv = rvOf(thrown);
  if (rv !== null)
    return new TokenfwdError("E_MODULE_FAULT", `${path} answered C_GetFunctionList with ${rvName(rv)}`, {
      cause: thrown,
      reason: "refuses",
    });
  const text = printable(thrown instanceof Error ? thrown.message : String(thrown));
  if (text.includes("C_GetFunctionList")) {
    return new TokenfwdError("E_MODULE", `${path} is a library but not a PKCS#11 module: it has no C_GetFunctionList`, {
      hint: "name the vendor's PKCS#11 module with --module; its documentation calls it a Cryptoki or PKCS#11 library",
      reason: "not-a-module",
    });
  }
  return new TokenfwdError("E_MODULE", `${path} cannot be loaded: ${text}`, {
    hint: "run ldd on the module: a library that it needs may be missing",
    reason: "unloadable",
  });
}

/** pkcs11js itself, which npm compiles at installation. Throws E_MODULE where that was not done. Loads no module. */
export function loadAddon(): Pkcs11js {
  try {
    return createRequire(import.meta.url)("pkcs11js") as Pkcs11js;
  } catch (cause) {
    throw new TokenfwdError("E_MODULE", "the native part of pkcs11js is not built, so no PKCS#11 module can be loaded", {
      hint: "npm's install scripts were not run: install a C++ compiler and python3, then npm rebuild pkcs11js, or npm install -g --allow-scripts=pkcs11js tokenfwd",
      reason: "not-built",
      cause,
    });
  }
}

/**
 * Loads the module and calls C_Initialize with CKF_OS_LOCKING_OK.
 * Throws E_MODULE where it cannot be loaded, E_MODULE_FAULT where it loads and refuses to start.
 */
export function loadModule(modulePath: string): NativeModule {
  const pkcs11js = loadAddon();
  const instance = new pkcs11js.PKCS11();
  // The subclass wraps each method and drops the lengths that the native ones return: go below it.
  const native = Object.getPrototypeOf(pkcs11js.PKCS11.prototype) as NativeMethods;
  try {
    instance.load(modulePath);
  } catch (error) {
    throw loadError(modulePath, error);
  }

  function invoke(name: string, ...args: readonly unknown[]): NativeResult {
    const method = native[name];
    if (method === undefined) return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED, value: undefined, lost: false };
    try {
      return { rv: CKR.CKR_OK, value: method.apply(instance, [...args]), lost: false };
    } catch (error) {
      const rv = rvOf(error);
      // Not a CK_RV: pkcs11js refused the arguments (a bug of ours) or could not express the answer (a known loss).
      return rv === null ? { rv: CKR.CKR_GENERAL_ERROR, value: undefined, lost: true } : { rv, value: undefined, lost: false };
    }
  }

  function initialize(): void {
    const { rv } = invoke("C_Initialize", { flags: Number(CKF.CKF_OS_LOCKING_OK) });
    if (rv === CKR.CKR_OK || rv === CKR.CKR_CRYPTOKI_ALREADY_INITIALIZED) return;
    throw new TokenfwdError("E_MODULE_FAULT", `${printable(modulePath)} answered C_Initialize with ${rvName(rv)}`, {
      hint: "check the module's own configuration and that its service (pcscd or the vendor's daemon) runs",
      reason: "refuses",
    });
  }

  initialize();
  return { invoke, initialize };
}
