/*
 * What can be said about a module before any of its code runs: is it there, is it a library of this machine, is it one
 * that would lead back to us. It reads a file's first bytes and loads nothing.
 */
import { closeSync, openSync, readlinkSync, readSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

/** Modules of p11-kit that lead to other modules or other machines: a loop through our own socket (p11-kit issue 531). */
const DENIED = /^(p11-kit-(client|proxy|trust)|libp11-kit)\.(so|dylib|dll)/;

/** e_machine of the ELF header for each process.arch. */
const MACHINES: Readonly<Partial<Record<NodeJS.Architecture, number>>> = {
  x64: 62,
  arm64: 183,
  ia32: 3,
  arm: 40,
  riscv64: 243,
  ppc64: 21,
  s390x: 22,
};

/** Every name the path has on its way through symbolic links. */
function namesOf(path: string): string[] {
  const names: string[] = [];
  let current = resolve(path);
  for (let hop = 0; hop < 40; hop += 1) {
    names.push(basename(current));
    try {
      current = resolve(dirname(current), readlinkSync(current));
    } catch {
      // Not a link: the last name.
      return names;
    }
  }
  return names;
}

/** The name behind links in the directories of the path as well; none where there is no such file. */
function realName(path: string): string[] {
  try {
    return [basename(realpathSync(path))];
  } catch {
    return [];
  }
}

function architectureOf(path: string): "ours" | "other" | "none" {
  const header = Buffer.alloc(20);
  const fd = openSync(path, "r");
  try {
    if (readSync(fd, header, 0, header.length, 0) < header.length) return "none";
  } finally {
    closeSync(fd);
  }
  // Mach-O, thin or universal: dlopen says the rest.
  if ([0xfeedfacf, 0xcffaedfe, 0xcafebabe].includes(header.readUInt32BE())) return "ours";
  if (header.readUInt32BE() !== 0x7f454c46) return "none";
  const wide = header[4] === 2;
  const machine = header[5] === 2 ? header.readUInt16BE(18) : header.readUInt16LE(18);
  const expected = MACHINES[process.arch];
  if (expected === undefined) return "ours";
  return machine === expected && wide === (process.arch !== "ia32" && process.arch !== "arm") ? "ours" : "other";
}

/** The real path of the module. Throws E_MODULE: missing, unreadable, not a library, another architecture, or denied. */
export function checkModuleFile(modulePath: string): string {
  const shown = printable(modulePath);
  const denied = [...namesOf(modulePath), ...realName(modulePath)].find((name) => DENIED.test(name));
  if (denied !== undefined) {
    throw new TokenfwdError(
      "E_MODULE",
      `${shown} is p11-kit's own ${printable(denied)}, which leads to other modules and may lead back here`,
      {
        hint: "name the module of the token itself, for example opensc-pkcs11.so or libykcs11.so",
        reason: "leads-elsewhere",
      },
    );
  }
  try {
    const real = realpathSync(modulePath);
    if (!statSync(real).isFile())
      throw new TokenfwdError("E_MODULE", `${shown} is not a file`, {
        hint: "name the module's file with --module",
        reason: "not-a-library",
      });
    const architecture = architectureOf(real);
    if (architecture === "none") {
      throw new TokenfwdError("E_MODULE", `${shown} is not a shared library`, {
        hint: "name the module's .so file with --module",
        reason: "not-a-library",
      });
    }
    if (architecture === "other") {
      throw new TokenfwdError("E_MODULE", `${shown} is built for another architecture than this program (${process.arch})`, {
        hint: `install the ${process.arch} build of the module`,
        reason: "architecture",
      });
    }
    return real;
  } catch (error) {
    if (error instanceof TokenfwdError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    const missing = code === "ENOENT" || code === "ENOTDIR";
    const why = missing ? "does not exist" : `cannot be read (${code ?? "unknown"})`;
    throw new TokenfwdError("E_MODULE", `the PKCS#11 module ${shown} ${why}`, {
      cause: error,
      hint: "check the path given with --module; the module's package may not be installed",
      reason: missing ? "missing" : "unreadable",
    });
  }
}
