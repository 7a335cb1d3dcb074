/*
 * Which PKCS#11 modules this machine offers, in the order in which they are looked at and preferred: those that p11-kit is
 * configured to load, then well-known ones at well-known places. It loads nothing; what must not be loaded is in the list
 * with the reason. A module that lies anywhere else is loaded by nobody but --module.
 */
import { existsSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { pathFault, pathWay } from "../../base/trusted-path.js";
import { type P11KitPlaces, p11KitModules } from "./p11kit-config.js";

export interface Candidate {
  /** Absolute; null when p11-kit's file names none. */
  readonly path: string | null;
  /** Where it was found: `p11-kit FILE`, `well-known` or `--module`. */
  readonly from: string;
  /** Why it is not loaded; null when it may be. */
  readonly denied: string | null;
}

/** The surroundings that discovery looks at. */
export interface DiscoveryPlaces extends P11KitPlaces {
  /** Where well-known modules are looked for, in order. */
  readonly wellKnownDirectories: readonly string[];
}

const TRIPLETS: Readonly<Partial<Record<NodeJS.Architecture, string>>> = {
  x64: "x86_64-linux-gnu",
  arm64: "aarch64-linux-gnu",
  ia32: "i386-linux-gnu",
  arm: "arm-linux-gnueabihf",
  riscv64: "riscv64-linux-gnu",
  ppc64: "powerpc64le-linux-gnu",
  s390x: "s390x-linux-gnu",
};

/** The places of Debian, Fedora, Arch, Alpine, FreeBSD and macOS (Homebrew, OpenSC's own package). */
export function systemPlaces(
  architecture: NodeJS.Architecture = process.arch,
  platform: NodeJS.Platform = process.platform,
): DiscoveryPlaces {
  const triplet = TRIPLETS[architecture];
  const linux = [...(triplet === undefined ? [] : [`/usr/lib/${triplet}`]), "/usr/lib64", "/usr/lib", "/usr/local/lib"];
  const libraries = platform === "darwin" ? ["/opt/homebrew/lib", "/usr/local/lib", "/Library/OpenSC/lib"] : linux;
  const prefixes = platform === "darwin" ? ["/opt/homebrew", "/usr/local"] : platform === "freebsd" ? ["/usr/local"] : [""];
  return {
    moduleDirectories: prefixes.flatMap((prefix) => [
      `${prefix}/etc/pkcs11/modules`,
      `${prefix === "" ? "/usr" : prefix}/share/p11-kit/modules`,
    ]),
    configFile: `${prefixes[0] ?? ""}/etc/pkcs11/pkcs11.conf`,
    libraryDirectories: libraries.map((directory) => join(directory, "pkcs11")),
    wellKnownDirectories: libraries.flatMap((directory) => [directory, join(directory, "pkcs11"), join(directory, "softhsm")]),
  };
}

/** Vendors' own modules before the one for many cards, hardware before software. */
const WELL_KNOWN: readonly string[] = ["libykcs11", "opensc-pkcs11", "libtpm2_pkcs11", "libsofthsm2"];

/** What no discovery loads, whatever it is called on the way: these lead elsewhere, hold no keys of a token, or write down PINs. */
const DENIED: readonly (readonly [RegExp, string])[] = [
  [/^(p11-kit-(client|proxy|trust|remote)|libp11-kit)\./, "is p11-kit's own and leads to other modules, perhaps back here"],
  [/^gnome-keyring-pkcs11\./, "is the desktop's keyring, which may ask and start things when it is loaded"],
  [/^pkcs11-spy\./, "writes down every call, PINs included"],
  [/^libnssckbi\./, "is a list of certificates, not a token"],
];

/** Why discovery must not load this file; null when it may. Judges names, and who may write to it and its directories. */
export function deniedBecause(path: string, uid: number): string | null {
  if (!existsSync(path)) return "there is no such file";
  for (const { path: step, stats } of pathWay(path).steps) {
    if (stats.isDirectory()) continue;
    const name = basename(step);
    const why = DENIED.find(([pattern]) => pattern.test(name))?.[1];
    if (why !== undefined) return `${name} ${why}`;
  }
  return pathFault(path, uid, true);
}

const realOf = (path: string): string => {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
};

/**
 * Every module of this machine, each real file once, in the order of preference: p11-kit's by priority and name, then ykcs11, OpenSC,
 * tpm2, SoftHSM. What p11-kit's files switch off stays off though it lies at a well-known place.
 */
export function findCandidates(
  places: DiscoveryPlaces = systemPlaces(),
  env: NodeJS.ProcessEnv = process.env,
  uid: number = process.geteuid?.() ?? 0,
): Candidate[] {
  const found: Candidate[] = [];
  const seen = new Set<string>();
  const add = (path: string, from: string, refused: string | null): void => {
    const real = realOf(path);
    if (seen.has(real)) return;
    seen.add(real);
    found.push({ path, from, denied: refused ?? deniedBecause(path, uid) });
  };
  for (const { path, file, refused } of p11KitModules(places, env, uid)) {
    const from = `p11-kit ${file}`;
    if (path === null) found.push({ path: null, from, denied: refused });
    else add(path, from, refused);
  }
  for (const name of WELL_KNOWN) {
    for (const directory of places.wellKnownDirectories) {
      for (const ending of ["so", "dylib"]) {
        const path = join(directory, `${name}.${ending}`);
        if (existsSync(path)) add(path, "well-known", null);
      }
    }
  }
  return found;
}
