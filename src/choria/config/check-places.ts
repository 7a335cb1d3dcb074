/*
 * Which files count: a choria.conf that overrides what was written elsewhere, a file that nobody reads, a variable that takes TLS
 * away. It must never call a file wrong that choria reads as its owner means it.
 */
import { join } from "node:path";
import { printable, shellWord } from "../../base/printable.js";
import { type ConfigFile, candidates } from "./client-config.js";
import type { CheckConfigInput, Findings } from "./finding.js";

/** Keys that `tokenfwd choria run` sets itself, and that a choria.conf would take from it. */
const WHAT_RUN_SETS =
  /^(plugin\.choria\.(middleware_hosts|security\..+|ssldir|use_srv|federation.*)|plugin\.security\..+|plugin\.nats\..+|collectives|main_collective|discovery_timeout)$/;

/** Looks at the files themselves, and at the variables. */
export async function checkPlaces(input: CheckConfigInput, findings: Findings): Promise<void> {
  for (const file of input.config.files) if (file.kind === "overlay") overlay(file, findings);
  await unreadFiles(input, findings);
  passwordInFile(input, findings);
  await Promise.all(input.config.files.map((file) => fileMode(file, input, findings)));
  variables(input, findings);
}

function overlay(file: ConfigFile, findings: Findings): void {
  const keys = file.settings.map(({ key }) => key);
  const ours = keys.filter((key) => WHAT_RUN_SETS.test(key));
  const path = printable(file.path);
  const source = { path: file.path, line: 1 };
  if (ours.length > 0) {
    const text = `${path} overrides every other configuration here and below, even choria --config: ${printable(ours.join(", "), 200)}`;
    const mend = "run choria in another directory (tokenfwd choria run --own-dir), or move these lines to the configuration itself";
    findings.add("overlay", "error", text, mend, { source });
  } else if (keys.length > 0) {
    const text = `${path} overrides ${printable(keys.join(", "), 200)} here and below`;
    findings.add("overlay", "note", text, "nothing, if it is meant so; tokenfwd choria run wants --own-dir here", { source });
  }
}

/** Files that look like a configuration and are not read: that of XDG, and those behind the first. */
async function unreadFiles({ config, look }: CheckConfigInput, findings: Findings): Promise<void> {
  const home = config.home;
  if (home !== null) {
    const path = join(home, ".config", "choria", "client.conf");
    if (path !== config.path && (await look(path, "mode")).state === "file") {
      const mend = `mv ${shellWord(path)} ${shellWord(join(home, ".choriarc"))}`;
      findings.add("not-read", "warning", `choria never reads ${printable(path)}; it reads ${printable(config.path)}`, mend);
    }
  }
  const places = candidates(home);
  const at = places.indexOf(config.path);
  for (const path of at < 0 ? [] : places.slice(at + 1)) {
    if ((await look(path, "mode")).state !== "file") continue;
    findings.add(
      "shadowed",
      "note",
      `${printable(path)} is not read, because ${printable(config.path)} is there`,
      "nothing, if it is meant so",
    );
  }
}

const holdsSecret = (file: ConfigFile): boolean => file.settings.some(({ key }) => key === "plugin.nats.pass");

async function fileMode(file: ConfigFile, { look }: CheckConfigInput, findings: Findings): Promise<void> {
  if (!holdsSecret(file)) return;
  const looked = await look(file.path, "mode");
  if (looked.state !== "file" || (looked.mode & 0o077) === 0) return;
  const text = `${printable(file.path)} holds a password and can be read by others (mode 0${looked.mode.toString(8)})`;
  findings.add("mode", "warning", text, `chmod 600 ${shellWord(file.path)}`, { source: { path: file.path, line: 1 } });
}

/** choria tool config prints it, so it is worth a word. */
function passwordInFile({ config }: CheckConfigInput, findings: Findings): void {
  const value = config.values.get("plugin.nats.pass");
  if (value === undefined || value.value === "x") return;
  const text = "plugin.nats.pass stands in the configuration, and choria tool config prints it";
  findings.add("password", "note", text, "write x there and hand the password over in MCOLLECTIVE_NATS_PASSWORD", { source: value });
}

const LOOPBACK = /^(?:[a-z]+:\/\/)?(?:127(?:\.\d+){3}|localhost|\[::1\])(?::\d+)?$/i;

/** Whether every broker that is named is one of this machine: a relay. */
export function onlyLoopback(hosts: readonly string[]): boolean {
  return hosts.length > 0 && hosts.every((host) => LOOPBACK.test(host));
}

function variables({ config, env }: CheckConfigInput, findings: Findings): void {
  const tls = env["INSECURE_DISABLE_TLS"];
  if (tls !== undefined && tls !== "true") {
    const text = `INSECURE_DISABLE_TLS is ${printable(tls, 50)}, and choria looks only for true`;
    findings.add(
      "variable-ignored",
      "warning",
      text,
      "export INSECURE_DISABLE_TLS=true behind a relay on loopback, else unset INSECURE_DISABLE_TLS",
      {
        stockOnly: true,
      },
    );
  }
  if (tls === "true" && !onlyLoopback(config.middlewareHosts)) {
    const text =
      "INSECURE_DISABLE_TLS=true is set for every choria of this shell, and the broker is not on loopback: nothing would be encrypted or verified";
    findings.add("no-tls", "error", text, "unset INSECURE_DISABLE_TLS; tokenfwd choria run sets it for its child only", {
      stockOnly: true,
    });
  }
  for (const name of ["INSECURE_ANON_TLS", "INSECURE_YES_REALLY"]) {
    if (env[name] !== "true") continue;
    findings.add("no-security", "error", `${name}=true takes away what choria's security rests on`, `unset ${name}`, { stockOnly: true });
  }
}
