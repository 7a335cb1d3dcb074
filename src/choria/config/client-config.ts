/*
 * The user's own client configuration, found and read in choria's order: one file, then `plugin.d/choria.cfg` beside it, then
 * every `choria.conf` from the root down to the working directory, which win. Reading is handed in, so that the same code reads
 * this machine's files and, over SSH, those of a bastion. It must never look into a file that choria would not read.
 */
import { dirname, isAbsolute, join, resolve } from "node:path";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { booleanOf, integerOf, listOf, type ParsedConfig, parseConfig, pathOf } from "./parse.js";

/** The text of a file, null when there is none. Rejects with an Error, fit for a terminal, when it is there and cannot be read. */
export type ReadFile = (path: string) => Promise<string | null>;

export interface ReadClientConfigOptions {
  /** `$HOME` where choria runs; null when it has none. */
  readonly home: string | null;
  /** The directory choria is started in, as `$PWD` has it: absolute, links not resolved. */
  readonly cwd: string;
  /** Of the variables that choria looks at: MCOLLECTIVE_CERTNAME, CHORIA_SRV_DOMAIN, CHORIA_FED_COLLECTIVE. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly read: ReadFile;
  /** What `choria --config` would be given, instead of choria's own search. */
  readonly choriaConfig?: string;
  /** True: where choria would find none, an empty one is taken. Default false. */
  readonly optional?: boolean;
  /** Whether choria runs as root, whose puppet provider asks Puppet where its files are. Default false. */
  readonly root?: boolean;
}

/** A file that was read. */
export interface ConfigFile extends ParsedConfig {
  readonly path: string;
  /** `main`, `plugin` (plugin.d/choria.cfg) or `overlay` (a choria.conf). */
  readonly kind: "main" | "plugin" | "overlay";
}

/** Where a value came from. */
export interface ValueSource {
  readonly value: string;
  readonly path: string;
  readonly line: number;
}

export interface ClientConfig {
  /** The main file. */
  readonly path: string;
  /** Every file in the order they were read. */
  readonly files: readonly ConfigFile[];
  /** The `choria.conf` files among them: they override even `choria --config`. */
  readonly overlays: readonly string[];
  /** What counts for each key, raw. */
  readonly values: ReadonlyMap<string, ValueSource>;
  /** `puppet` unless one is named. */
  readonly provider: string;
  readonly collectives: readonly string[];
  readonly mainCollective: string;
  /** `plugin.choria.middleware_hosts` as written; empty when it is not set. */
  readonly middlewareHosts: readonly string[];
  readonly useSrv: boolean;
  /** The domain of SRV records, null when none is named. */
  readonly srvDomain: string | null;
  /** Names of federations that requests are sent to; then the brokers are those of the federation. */
  readonly federations: readonly string[];
  readonly federationHosts: readonly string[];
  /** Path of the CA, as the provider finds it; null when it has none or only Puppet knows. */
  readonly ca: string | null;
  /** Seconds. */
  readonly discoveryTimeout: number;
  readonly ttl: number;
  /** MCOLLECTIVE_CERTNAME, null when it is not set. */
  readonly certname: string | null;
  /** For the paths in it. */
  readonly home: string | null;
}

const SYSTEM_FILES = ["/etc/choria/client.conf", "/usr/local/etc/choria/client.conf"] as const;
/** Taken when there is none of the others, whether it exists or not. */
const LAST_FILE = "/etc/puppetlabs/mcollective/client.cfg";

/** The files that choria looks for, in its order; the first that exists is the one. `~/.config` is not among them. */
export function candidates(home: string | null): string[] {
  const own = home === null || home === "" ? [] : [join(home, ".choriarc"), join(home, ".mcollective")];
  return [...own, ...SYSTEM_FILES, LAST_FILE];
}

/** Every place of a `choria.conf` that is laid over the configuration, from the root down to `cwd`: the last wins. */
export function overlayPlaces(cwd: string): string[] {
  const places: string[] = [];
  for (let dir = cwd; ; dir = dirname(dir)) {
    places.unshift(join(dir, "choria.conf"));
    if (dirname(dir) === dir) return places;
  }
}

/** `plugin.d/choria.cfg` beside a file, which choria passes over where the file is in the home directory (or begins like it). */
export function pluginFile(path: string, home: string | null): string | null {
  return home !== null && home !== "" && path.startsWith(home) ? null : join(dirname(path), "plugin.d", "choria.cfg");
}

/** Reads it all. Rejects with E_CHORIA_CONFIG when there is no configuration, or a file that choria would read cannot be read. */
export async function readClientConfig(options: ReadClientConfigOptions): Promise<ClientConfig> {
  const { home, cwd } = options;
  const read = async (path: string): Promise<string | null> => {
    try {
      return await options.read(path);
    } catch (error) {
      throw new TokenfwdError("E_CHORIA_CONFIG", `${printable(path)} cannot be read: ${printable((error as Error).message)}`, {
        hint: "choria itself could not read it either; make it readable for you, or name another with --config",
        cause: error,
      });
    }
  };
  const main = await findMain(options, read);
  const files: ConfigFile[] = [{ path: main.path, kind: "main", ...parseConfig(main.text) }];
  const plugin = pluginFile(main.path, home);
  const places = [
    ...(plugin === null ? [] : [{ path: plugin, kind: "plugin" as const }]),
    ...overlayPlaces(cwd).map((path) => ({ path, kind: "overlay" as const })),
  ];
  for (const place of places) {
    const text = await read(place.path);
    if (text !== null) files.push({ ...place, ...parseConfig(text) });
  }
  return interpretConfig(main.path, files, options);
}

async function findMain(options: ReadClientConfigOptions, read: ReadFile): Promise<{ readonly path: string; readonly text: string }> {
  const { home, cwd, choriaConfig } = options;
  const looked = choriaConfig === undefined ? candidates(home) : [isAbsolute(choriaConfig) ? choriaConfig : resolve(cwd, choriaConfig)];
  for (const path of looked) {
    const text = await read(path);
    if (text !== null) return { path, text };
  }
  if (choriaConfig !== undefined) {
    throw new TokenfwdError("E_CHORIA_CONFIG", `there is no ${printable(looked[0] ?? "")}`, { hint: "name choria's client configuration" });
  }
  if (options.optional === true) return { path: LAST_FILE, text: "" };
  throw new TokenfwdError(
    "E_CHORIA_CONFIG",
    `choria has no client configuration here; looked at ${looked.map((one) => printable(one)).join(", ")}`,
    {
      hint: "tokenfwd choria config prints one, and says where to put it; or name yours",
      reason: "no-configuration",
    },
  );
}

/** What the values mean, with choria's defaults. */
export function interpretConfig(
  path: string,
  files: readonly ConfigFile[],
  options: Pick<ReadClientConfigOptions, "env" | "home" | "root">,
): ClientConfig {
  const { env, home } = options;
  const values = new Map<string, ValueSource>();
  for (const file of files) {
    for (const { key, value, line } of file.settings) {
      values.set(file.kind === "plugin" ? `plugin.choria.${key}` : key, { value, path: file.path, line });
    }
  }
  const text = (key: string): string | null => values.get(key)?.value ?? null;
  const list = (key: string): string[] => listOf(text(key) ?? "").filter((one) => one !== "");
  // A number that is none leaves what stood before.
  const integer = (key: string, otherwise: number): number =>
    files
      .flatMap(({ kind, settings }) => (kind === "plugin" ? [] : settings))
      .filter((setting) => setting.key === key)
      .reduce((before, { value }) => integerOf(value) ?? before, otherwise);
  const expanded = (key: string): string | null => {
    const value = text(key);
    return value === null ? null : pathOf(value, home ?? "");
  };

  const provider = text("plugin.security.provider") ?? "puppet";
  const named = list("collectives");
  const collectives = named.length > 0 ? named : [provider === "choria" ? "choria" : "mcollective"];
  return {
    path,
    files,
    overlays: files.filter(({ kind }) => kind === "overlay").map((file) => file.path),
    values,
    provider,
    collectives,
    mainCollective: text("main_collective") ?? collectives[0] ?? "mcollective",
    middlewareHosts: list("plugin.choria.middleware_hosts"),
    useSrv: booleanOf(text("plugin.choria.use_srv") ?? "true"),
    srvDomain: (env["CHORIA_SRV_DOMAIN"] ?? text("plugin.choria.srv_domain")) || null,
    federations: env["CHORIA_FED_COLLECTIVE"] ? listOf(env["CHORIA_FED_COLLECTIVE"]) : list("plugin.choria.federation.collectives"),
    federationHosts: list("plugin.choria.federation_middleware_hosts"),
    ca: caOf(provider, expanded, home, options.root ?? false),
    discoveryTimeout: integer("discovery_timeout", 2),
    ttl: integer("ttl", 60),
    certname: env["MCOLLECTIVE_CERTNAME"] ?? null,
    home,
  };
}

/** Where each provider has the CA that the broker is verified against. */
function caOf(provider: string, expanded: (key: string) => string | null, home: string | null, root: boolean): string | null {
  switch (provider) {
    case "file":
    case "pkcs11":
      return expanded("plugin.security.file.ca");
    case "choria":
      return expanded("plugin.security.choria.ca");
    case "puppet": {
      const users = root || home === null ? null : join(home, ".puppetlabs", "etc", "puppet", "ssl");
      const dir = expanded("plugin.choria.ssldir") ?? users;
      return dir === null ? null : join(dir, "certs", "ca.pem");
    }
    default:
      return null;
  }
}
