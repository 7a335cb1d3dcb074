/*
 * Where this system keeps what TLS with the token's key needs: OpenSSL's PKCS#11 engine, and p11-kit's client module, which
 * carries that engine's calls to our socket. It looks for files and loads none.
 */
import { readdirSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

/** Both parts, as OpenSSL and libp11 are told of them by their own variables. */
export interface EnginePlaces {
  /** OPENSSL_ENGINES: the directory that has `pkcs11.so`. */
  readonly enginesDirectory: string;
  /** PKCS11_MODULE_PATH. */
  readonly modulePath: string;
}

/** What is looked at; tests hand in their own. */
export interface EngineSearch {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: NodeJS.Platform;
  isFile(path: string): boolean;
  /** Names in a directory; none where it cannot be read. */
  names(directory: string): readonly string[];
}

const processSearch = (): EngineSearch => ({
  env: process.env,
  platform: process.platform,
  isFile: (path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true,
  names(directory) {
    try {
      return readdirSync(directory);
    } catch {
      return [];
    }
  },
});

/** Debian and Ubuntu have a directory for each architecture, Fedora and its kin lib64, others lib; Homebrew has two homes. */
function libraryDirectories({ platform, names }: EngineSearch): readonly string[] {
  if (platform === "darwin") return ["/opt/homebrew/lib", "/usr/local/lib"];
  const debian = names("/usr/lib").filter((name) => /-linux-(gnu|musl)/.test(name));
  return [...debian.map((name) => `/usr/lib/${name}`), "/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib"];
}

/**
 * Finds both parts; OPENSSL_ENGINES and PKCS11_MODULE_PATH are followed where they are set. Throws E_CHORIA_ENGINE naming what
 * is missing and the package that has it.
 */
export function findEngine(search: EngineSearch = processSearch()): EnginePlaces {
  const { env, platform, isFile } = search;
  const libraries = libraryDirectories(search);
  const file = platform === "darwin" ? "pkcs11.dylib" : "pkcs11.so";
  const named = env["OPENSSL_ENGINES"];
  const directories = named ? [named] : libraries.flatMap((at) => [join(at, "engines-3"), join(at, "engines-1.1")]);
  const enginesDirectory = directories.find((at) => isFile(join(at, file)));
  if (enginesDirectory === undefined) {
    throw new TokenfwdError("E_CHORIA_ENGINE", `OpenSSL's PKCS#11 engine is not installed here${named ? " at OPENSSL_ENGINES" : ""}`, {
      hint: named
        ? `${printable(named, 200)} has no ${file}: unset OPENSSL_ENGINES, or let it name the directory of the engine`
        : `install it (${ENGINE_PACKAGES}), or run tokenfwd connect --choria at the workstation, which needs nothing here`,
    });
  }
  const module = env["PKCS11_MODULE_PATH"];
  const modules = module ? [module] : libraries.map((at) => join(at, "pkcs11", "p11-kit-client.so"));
  const modulePath = modules.find((at) => isAbsolute(at) && isFile(at));
  if (modulePath === undefined) {
    throw new TokenfwdError("E_CHORIA_ENGINE", `p11-kit's client module is not installed here${module ? " at PKCS11_MODULE_PATH" : ""}`, {
      hint: module
        ? `${printable(module, 200)} is no file by an absolute path: unset PKCS11_MODULE_PATH, or let it name p11-kit-client.so`
        : `install it (${MODULE_PACKAGES}), or run tokenfwd connect --choria at the workstation, which needs nothing here`,
    });
  }
  return { enginesDirectory, modulePath };
}

const ENGINE_PACKAGES =
  "Debian, Ubuntu: libengine-pkcs11-openssl; Fedora, RHEL 8 and 9: openssl-pkcs11; Arch, Alpine, Homebrew: libp11; RHEL 10 has none";
const MODULE_PACKAGES = "Debian, Ubuntu: p11-kit-modules; Fedora, RHEL: p11-kit-server; Arch, Alpine, Homebrew: p11-kit";
