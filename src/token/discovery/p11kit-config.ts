/*
 * Which modules p11-kit is configured to load, read as p11-kit 0.24 reads it (pkcs11.conf(5), p11-kit/conf.c): its files, their
 * order, and which of them win. It loads nothing, runs no `remote` command, and believes no file that others may write.
 */
import { readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { lstatOrNull } from "../../base/paths.js";
import { pathFault } from "../../base/trusted-path.js";

/** Where the files lie; tests hand in their own. */
export interface P11KitPlaces {
  /** Files of modules, most specific first, without the user's. */
  readonly moduleDirectories: readonly string[];
  /** The system's pkcs11.conf. */
  readonly configFile: string;
  /** Where a relative `module:` is looked for, in order. */
  readonly libraryDirectories: readonly string[];
}

/** One configured module. */
export interface ConfiguredModule {
  /** Name of its file without `.module`. */
  readonly name: string;
  /** The file that names the library. */
  readonly file: string;
  /** Absolute path of the library; null when there is nothing to load. */
  readonly path: string | null;
  readonly priority: number;
  /** Why it must not be loaded; null when nothing speaks against it. */
  readonly refused: string | null;
}

/** The name by which enable-in and disable-in mean us. */
const PROGRAM = "tokenfwd";
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._,-]*\.module$/;
const FIELD = /^([A-Za-z0-9._-]+)[ \t]*:[ \t]*(.*)$/;
const MAX_FILE_BYTES = 64 * 1024;

type Fields = ReadonlyMap<string, string>;

/** The `name: value` lines of a p11-kit configuration file; the first of a name counts, other lines are left out. */
export function parseP11KitConfig(text: string): Fields {
  const fields = new Map<string, string>();
  for (const line of text.split("\n").map((one) => one.trim())) {
    const [, name, value] = line.startsWith("#") ? [] : (FIELD.exec(line) ?? []);
    if (name !== undefined && value !== undefined && !fields.has(name)) fields.set(name, value);
  }
  return fields;
}

/** A file's fields; `fault` says why it is not believed. Null when there is none. */
function readConfig(path: string, uid: number): { readonly fields: Fields; readonly fault: string | null } | null {
  const found = lstatOrNull(path);
  if (found === null) return null;
  const fault = pathFault(path, uid, true);
  try {
    const text = readFileSync(path);
    if (text.length > MAX_FILE_BYTES) return { fields: new Map(), fault: `${path} is longer than a configuration file` };
    return { fields: parseP11KitConfig(text.toString("utf8")), fault };
  } catch (error) {
    return { fields: new Map(), fault: `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})` };
  }
}

type UserMode = "none" | "merge" | "only";

function userMode(fields: Fields | undefined, otherwise: UserMode): UserMode {
  const value = fields?.get("user-config");
  // What p11-kit does not know it takes for `none`; `override` is an old name of `only`.
  if (value === undefined) return otherwise;
  return value === "merge" ? "merge" : value === "only" || value === "override" ? "only" : "none";
}

function moduleFiles(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => FILE_NAME.test(name));
  } catch {
    // Not there, which is the normal case of all but one.
    return [];
  }
}

/**
 * The modules that p11-kit would load in a program of our name, and those it would not, with the reason: by priority, the highest
 * first, then by name. A file of the user stands above one of the same name in /etc, and that above the packages' one; fields that it
 * does not set are taken from below. `env` is read for XDG_CONFIG_HOME, HOME and P11_KIT_NO_USER_CONFIG.
 */
export function p11KitModules(places: P11KitPlaces, env: NodeJS.ProcessEnv, uid: number): ConfiguredModule[] {
  const xdg = env["XDG_CONFIG_HOME"];
  const userRoot = join(xdg && isAbsolute(xdg) ? xdg : join(env["HOME"] || homedir(), ".config"), "pkcs11");
  let mode = userMode(readConfig(places.configFile, uid)?.fields, "merge");
  if (env["P11_KIT_NO_USER_CONFIG"] !== undefined) mode = "none";
  if (mode !== "none") mode = userMode(readConfig(join(userRoot, "pkcs11.conf"), uid)?.fields, mode);
  const directories = [...(mode === "none" ? [] : [join(userRoot, "modules")]), ...(mode === "only" ? [] : places.moduleDirectories)];

  const layers = new Map<string, string[]>();
  for (const directory of directories) {
    for (const name of moduleFiles(directory)) layers.set(name, [...(layers.get(name) ?? []), join(directory, name)]);
  }
  return [...layers]
    .map(([name, files]) => configured(name.slice(0, -".module".length), files, places.libraryDirectories, uid))
    .sort((a, b) => b.priority - a.priority || (a.name < b.name ? -1 : 1));
}

function configured(name: string, files: readonly string[], libraries: readonly string[], uid: number): ConfiguredModule {
  const read = files.map((file) => ({ file, ...(readConfig(file, uid) ?? { fields: new Map<string, string>(), fault: "it has gone" }) }));
  const get = (field: string): string | undefined => read.find(({ fields }) => fields.has(field))?.fields.get(field);
  const named = read.find(({ fields }) => fields.has("module"));
  const file = (named ?? read[0])?.file ?? name;
  // What a file above has switched off keeps the path that the one below gave it, so that nothing else loads that library.
  const library = read.map(({ fields }) => fields.get("module")).find((value) => value !== undefined && value !== "");
  const priority = Number.parseInt(get("priority") ?? "0", 10) || 0;
  return {
    name,
    file,
    path: library === undefined ? null : findLibrary(library, libraries),
    priority,
    refused: read.find(({ fault }) => fault !== null)?.fault ?? reasonAgainst(get, file),
  };
}

function reasonAgainst(get: (field: string) => string | undefined, file: string): string | null {
  if (get("remote") !== undefined) return `${file} leads to another process or machine (remote)`;
  if (!get("module")) return `${file} switches it off`;
  if (get("trust-policy") === "yes") return `${file} says that it holds trust policy, not keys`;
  const lists = (field: string): boolean | null =>
    get(field)
      ?.split(/[ \t,]+/)
      .includes(PROGRAM) ?? null;
  if (lists("enable-in") === false) return `${file} enables it in other programs only (enable-in)`;
  if (lists("disable-in") === true) return `${file} disables it in ${PROGRAM} (disable-in)`;
  return null;
}

function findLibrary(library: string, directories: readonly string[]): string {
  if (isAbsolute(library)) return library;
  const found = directories.map((directory) => join(directory, library)).find((path) => lstatOrNull(path) !== null);
  return found ?? join(directories[0] ?? "/usr/lib/pkcs11", library);
}
