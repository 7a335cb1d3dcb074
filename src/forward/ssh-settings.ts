/*
 * What ssh would do for a destination, as `ssh -G` resolves it: the one source of every SSH setting. It must never read
 * ssh_config itself, and it refuses by name what our own transport cannot do (design 9). A jump host has settings of its own.
 */
import { existsSync, readFileSync } from "node:fs";
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import { run } from "../base/run.js";
import { jumpDestination, jumpsAtMostOnce } from "./ssh-jump.js";
import { refuseUnusable, unsupported } from "./ssh-refusals.js";
import { expandTokens, type TokenContext } from "./ssh-tokens.js";

export interface SshSettings {
  /** As typed. */
  readonly destination: string;
  readonly host: string;
  readonly user: string;
  readonly port: number;
  readonly hostKeyAlias: string | null;
  /** Absolute paths in the order ssh tries them; those that do not exist are left out. */
  readonly identityFiles: readonly string[];
  readonly identitiesOnly: boolean;
  /** Path of the agent's socket, null where there is none or `IdentityAgent none`. */
  readonly identityAgent: string | null;
  readonly userKnownHostsFiles: readonly string[];
  readonly globalKnownHostsFiles: readonly string[];
  readonly strictHostKeyChecking: "yes" | "ask" | "accept-new" | "no";
  readonly hashKnownHosts: boolean;
  readonly connectTimeoutMs: number;
  readonly keepaliveMs: number;
  readonly keepaliveCount: number;
  readonly addressFamily: "any" | "inet" | "inet6";
  readonly bindAddress: string | null;
  /** RemoteForward lines that point at a p11-kit path: leftovers of the recipe by hand. */
  readonly staleForwards: readonly string[];
  /** What may be tried, in the order of PreferredAuthentications; nothing that needs a person under BatchMode. */
  readonly loginMethods: readonly LoginMethod[];
  /** How often a password, and a round of questions, is asked for. */
  readonly passwordPrompts: number;
  /** Nobody may be asked anything. */
  readonly batchMode: boolean;
  /** What KexAlgorithms, Ciphers, MACs and HostKeyAlgorithms allow; null where `ssh -G` does not say. */
  readonly algorithms: Readonly<Record<"kex" | "cipher" | "hmac" | "hostKey", readonly string[] | null>>;
  /** The host that the connection goes through (ProxyJump), with settings of its own. */
  readonly jump: SshSettings | null;
}

/** The methods that can be used of those that ssh knows. */
export type LoginMethod = "publickey" | "keyboard-interactive" | "password";

/** What `ssh -G` says of one host, before its jump host has been asked about. */
export type ParsedSettings = SshSettings & { readonly proxyJump: string | null };

export interface ResolveOptions {
  /** `-F`. */
  readonly configFile?: string;
  readonly port?: number;
  /** `-i`. */
  readonly identity?: string;
  /** `-o KEY=VALUE` each. */
  readonly sshOptions?: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * Asks `ssh -G` with TOKENFWD_NESTED=1, so that a `Match exec` that calls us cannot recurse.
 * @throws TokenfwdError E_USAGE, E_SSH_CONFIG, E_SSH_UNSUPPORTED (naming the setting and the way round)
 */
export async function resolveSshSettings(destination: string, options: ResolveOptions = {}): Promise<SshSettings> {
  if (destination === "" || destination.startsWith("-")) {
    throw new TokenfwdError("E_USAGE", `not a destination: ${printable(destination)}`, {
      hint: "write it as ssh takes it: user@host, or a Host of ssh_config",
    });
  }
  const { configFile, signal } = options;
  const configured = configFile === undefined ? [] : ["-F", configFile];
  const flags = [
    ...configured,
    ...(options.port === undefined ? [] : ["-p", String(options.port)]),
    ...(options.identity === undefined ? [] : ["-i", options.identity]),
    ...(options.sshOptions ?? []).flatMap((option) => ["-o", option]),
  ];
  const settings = parseSshG(destination, await askSsh(flags, destination, signal));
  const jump = jumpDestination(settings.proxyJump);
  if (jump === null) return settings;
  // As for ssh, the options of the command line are the bastion's and not the jump host's; the configuration file is both's.
  const port = jump.port === null ? [] : ["-p", String(jump.port)];
  const parsed = parseSshG(jump.destination, await askSsh([...configured, ...port], jump.destination, signal));
  jumpsAtMostOnce(settings, parsed);
  return { ...settings, jump: parsed };
}

/** What `ssh -G` says of a destination; `flags` go before it. @throws TokenfwdError E_SSH_CONFIG, or the signal's reason */
export async function askSsh(flags: readonly string[], destination: string, signal: AbortSignal | undefined): Promise<string> {
  const env = { TOKENFWD_NESTED: "1" };
  const result = await run("ssh", ["-G", ...flags, "--", destination], { env, ...(signal === undefined ? {} : { signal }) });
  signal?.throwIfAborted();
  if (result.failure === "missing") {
    throw new TokenfwdError("E_SSH_CONFIG", "there is no ssh program on PATH", {
      hint: "install the OpenSSH client; its configuration is read through ssh -G",
      reason: "ssh-missing",
    });
  }
  if (result.exitCode !== 0) {
    const said = printable(result.stderr.toString("utf8").trim().split("\n").at(-1) ?? "");
    throw new TokenfwdError(
      "E_SSH_CONFIG",
      `ssh -G could not resolve ${printable(destination)}: ${said || result.failure || `exit ${result.exitCode}`}`,
      {
        hint: `try it yourself: ssh -G ${printable(destination)}`,
        reason: "ssh-config-broken",
      },
    );
  }
  return result.stdout.toString("utf8");
}

function valuesOf(text: string, key: string): string[] {
  const found: string[] = [];
  for (const line of text.split("\n")) {
    const space = line.indexOf(" ");
    if (space > 0 && line.slice(0, space).toLowerCase() === key) found.push(line.slice(space + 1).trim());
  }
  return found;
}

/** The settings in the output of `ssh -G`. Exported for tests. @throws TokenfwdError E_SSH_CONFIG, E_SSH_UNSUPPORTED */
export function parseSshG(destination: string, text: string): ParsedSettings {
  const all = (key: string) => valuesOf(text, key);
  const one = (key: string): string | null => all(key)[0] ?? null;
  const set = (key: string): string | null => {
    const value = one(key);
    return value === null || value.toLowerCase() === "none" || value === "" ? null : value;
  };
  const yes = (key: string) => ["yes", "true"].includes((one(key) ?? "").toLowerCase());
  const list = (key: string) => set(key)?.split(",") ?? null;
  const seconds = (key: string) => {
    const value = Number(one(key) ?? "0");
    return Number.isFinite(value) && value > 0 ? value : 0;
  };

  const host = one("hostname");
  const user = one("user");
  const port = Number(one("port"));
  if (host === null || user === null || !Number.isInteger(port) || port < 1 || port > 65535) {
    throw new TokenfwdError("E_SSH_CONFIG", "ssh -G printed no hostname, user or port", {
      hint: "tokenfwd needs OpenSSH 6.8 or newer on the workstation",
      reason: "ssh-config-broken",
    });
  }
  const context: TokenContext = { destination, host, user, port, hostKeyAlias: set("hostkeyalias") };
  const path = (value: string) => expandTokens(value, context);

  refuseUnusable(destination, set);

  const identityFiles = [
    ...new Set(
      all("identityfile")
        .filter((value) => value.toLowerCase() !== "none")
        .map(path),
    ),
  ].filter((file) => existsSync(file));
  for (const file of identityFiles) {
    if (existsSync(`${file}-cert.pub`)) {
      throw unsupported(
        "CertificateFile",
        `a certificate lies beside ${printable(file)}`,
        "name another key: -i KEY --ssh-option IdentitiesOnly=yes, or move the certificate away",
      );
    }
  }
  const agentSetting = one("identityagent");
  const identityAgent = agentPath(agentSetting, path);
  const usable = identityFiles.filter((file) => !isSecurityKey(file));
  if (usable.length === 0 && identityFiles.length > 0 && identityAgent === null) {
    throw unsupported(
      "IdentityFile",
      `the only login key is a security key (${printable(identityFiles[0] ?? "")})`,
      "name another key with -i KEY",
    );
  }

  const strict = (one("stricthostkeychecking") ?? "ask").toLowerCase();
  const interval = seconds("serveraliveinterval");
  const family = (one("addressfamily") ?? "any").toLowerCase();
  return {
    destination,
    host,
    user,
    port,
    hostKeyAlias: context.hostKeyAlias,
    identityFiles: usable,
    identitiesOnly: yes("identitiesonly"),
    identityAgent,
    userKnownHostsFiles: files(one("userknownhostsfile"), path),
    globalKnownHostsFiles: files(one("globalknownhostsfile"), path),
    strictHostKeyChecking:
      strict === "true" || strict === "yes"
        ? "yes"
        : strict === "false" || strict === "no" || strict === "off"
          ? "no"
          : strict === "accept-new"
            ? "accept-new"
            : "ask",
    hashKnownHosts: yes("hashknownhosts"),
    connectTimeoutMs: seconds("connecttimeout") * 1000 || 20_000,
    keepaliveMs: interval > 0 ? interval * 1000 : 15_000,
    keepaliveCount: interval > 0 ? Math.max(1, Number(one("serveralivecountmax") ?? "3") || 3) : 3,
    addressFamily: family === "inet" || family === "inet6" ? family : "any",
    bindAddress: set("bindaddress"),
    staleForwards: all("remoteforward")
      .filter((value) => value.includes("p11-kit"))
      .map((value) => printable(value)),
    loginMethods: loginMethods(one),
    passwordPrompts: Math.max(1, Number(one("numberofpasswordprompts") ?? "3") || 3),
    batchMode: yes("batchmode"),
    algorithms: { kex: list("kexalgorithms"), cipher: list("ciphers"), hmac: list("macs"), hostKey: list("hostkeyalgorithms") },
    jump: null,
    proxyJump: set("proxyjump"),
  };
}

/** PreferredAuthentications, or ssh's own order, without what is switched off or needs a person that may not be asked. */
function loginMethods(one: (key: string) => string | null): LoginMethod[] {
  const off = (key: string) => ["no", "false"].includes((one(key) ?? "").toLowerCase());
  const batch = one("batchmode")?.toLowerCase() === "yes";
  const allowed: Readonly<Record<LoginMethod, boolean>> = {
    publickey: !off("pubkeyauthentication"),
    "keyboard-interactive": !batch && !off("kbdinteractiveauthentication") && !off("challengeresponseauthentication"),
    password: !batch && !off("passwordauthentication"),
  };
  const preferred = one("preferredauthentications")?.split(",") ?? Object.keys(allowed);
  return preferred.filter((method): method is LoginMethod => Object.hasOwn(allowed, method) && allowed[method as LoginMethod]);
}

/** A list of file names, which `ssh -G` prints without quotes: a space belongs to a name unless what follows begins one. */
function files(value: string | null, path: (text: string) => string): string[] {
  return (value ?? "")
    .split(/\s+(?=[/~%$"]|none$)/)
    .filter((text) => text !== "" && text.toLowerCase() !== "none")
    .map(path);
}

function agentPath(setting: string | null, path: (text: string) => string): string | null {
  const { SSH_AUTH_SOCK } = process.env;
  const inherited = SSH_AUTH_SOCK || null;
  if (setting === null || setting === "SSH_AUTH_SOCK") return inherited;
  if (setting.toLowerCase() === "none") return null;
  if (setting.startsWith("$") && !setting.startsWith("${")) return process.env[setting.slice(1)] || null;
  return path(setting) || null;
}

/** A FIDO key (`sk-...`), which needs the OpenSSH client to sign. Told by the public half beside it. */
function isSecurityKey(file: string): boolean {
  try {
    return readFileSync(`${file}.pub`, "utf8").startsWith("sk-");
  } catch {
    return false;
  }
}
