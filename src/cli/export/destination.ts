/*
 * What the text for doing it by hand has to know of a destination: ssh's own settings for it, and its runtime directory there. It asks
 * the system's ssh, which is what the text is for, and must never change anything on either side.
 */
import { randomBytes } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { type RunResult, run } from "../../base/run.js";
import { askSsh } from "../../forward/ssh-settings.js";

/** A person may have to answer ssh's questions on the terminal. */
const LOGIN_MS = 120_000;

/** The spelling of ssh_config(5) for what stands in such blocks most; ssh takes any. */
const KEYWORDS = [
  ...["HostName", "User", "Port", "IdentityFile", "IdentitiesOnly", "IdentityAgent", "CertificateFile", "ProxyJump", "ProxyCommand"],
  ...["UserKnownHostsFile", "GlobalKnownHostsFile", "StrictHostKeyChecking", "HostKeyAlias", "ServerAliveInterval", "AddressFamily"],
];
const SPELLING = new Map(KEYWORDS.map((keyword) => [keyword.toLowerCase(), keyword]));

/** Settings that are the text's own, or no setting of a host. */
const LEFT_OUT = new Set([
  ...["host", "originalhost", "remoteforward", "localforward", "dynamicforward", "permitremoteopen", "exitonforwardfailure"],
  ...["requesttty", "remotecommand", "sessiontype", "forkafterauthentication", "clearallforwardings", "stdinnull", "batchmode"],
]);
/** One path each, which `ssh -G` prints without the quotes that a space in it needs. */
const PATHS = new Set(["identityfile", "certificatefile", "identityagent", "controlpath", "xauthlocation"]);

function group(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [, key = "", value = ""] = /^(\S+) (.*)$/.exec(line.trim()) ?? [];
    if (key !== "" && !LEFT_OUT.has(key.toLowerCase())) found.set(key.toLowerCase(), [...(found.get(key.toLowerCase()) ?? []), value]);
  }
  return found;
}

/** What `ssh -G` says of one destination and not of another, as lines for a Host block. HostName is always among them. */
export function settingsBetween(destination: string, alias: string): string[] {
  const other = group(alias);
  return [...group(destination)]
    .filter(([key, values]) => key === "hostname" || values.join("\n") !== (other.get(key) ?? []).join("\n"))
    .flatMap(([key, values]) =>
      values.map((value) => {
        const quoted = PATHS.has(key) && /\s/.test(value) ? `"${value}"` : value;
        return `${SPELLING.get(key) ?? key} ${printable(quoted, 4_000)}`;
      }),
    );
}

/** The lines that make a Host called `alias` lead where `destination` leads. Rejects with E_SSH_CONFIG. */
export async function sshSettingsFor(destination: string, alias: string, flags: readonly string[], signal: AbortSignal): Promise<string[]> {
  const [wanted, other] = [await askSsh(flags, destination, signal), await askSsh(flags, alias, signal)];
  return settingsBetween(wanted, other);
}

/**
 * The first of $XDG_RUNTIME_DIR, /run/user/UID and /var/run/user/UID on the destination that is a directory, its user's and of mode
 * 0700: where stock clients look. Rejects with E_SSH where ssh cannot log in, and E_RUNTIME_DIR where there is none.
 */
export async function remoteRuntimeDir(destination: string, flags: readonly string[], signal: AbortSignal): Promise<string> {
  const nonce = randomBytes(8).toString("hex");
  const script = [
    "uid=$(id -u)",
    'for d in "$XDG_RUNTIME_DIR" /run/user/$uid /var/run/user/$uid; do',
    '  test -n "$d" && test -d "$d" && test ! -h "$d" || continue',
    '  set -- $(ls -ldn "$d")',
    `  case $1,$3 in drwx------,$uid|drwx------[.@],$uid) printf "%s-%s=%s.\\n" tokenfwd ${nonce} "$d"; exit 0;; esac`,
    "done",
    `printf "%s-%s=.\\n" tokenfwd ${nonce}`,
  ].join("\n");
  const options = ["-T", "-o", "ClearAllForwardings=yes", ...flags];
  // In quotes for csh, which knows no other way to start another shell on its stdin.
  const result = await run("ssh", [...options, "--", destination, "exec /bin/sh -s"], {
    env: { TOKENFWD_NESTED: "1" },
    input: Buffer.from(`${script}\n`),
    timeoutMs: LOGIN_MS,
    signal,
  });
  signal.throwIfAborted();
  const [, found] = new RegExp(`tokenfwd-${nonce}=(.*)\\.\\r?$`, "m").exec(result.stdout.toString("utf8")) ?? [];
  if (found === undefined) {
    throw new TokenfwdError("E_SSH", `ssh could not ask ${printable(destination)} for its runtime directory: ${said(result)}`, {
      hint: `ssh ${printable(destination)} true must work; a key in an ssh agent lets it work without a question`,
    });
  }
  if (found === "") {
    throw new TokenfwdError(
      "E_RUNTIME_DIR",
      `${printable(destination)} has no runtime directory, which is where stock p11-kit clients look`,
      {
        hint: "use tokenfwd connect, which makes a safe one; or log in so that XDG_RUNTIME_DIR names a directory of mode 0700",
      },
    );
  }
  return found;
}

function said(result: RunResult): string {
  const last = result.stderr.toString("utf8").trim().split("\n").at(-1) ?? "";
  return printable(last, 300) || result.failure || `exit ${result.exitCode}`;
}
