/*
 * Lets a host key pass or not, as ssh does, once for a connection. It must never let an unknown one pass without a yes or
 * accept-new, nor a changed one at all.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { addKnownKey, fingerprint, judgeHostKey, type KnownKey, keyType, knownHostsName } from "../known-hosts.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ForwardUi } from "../types.js";

export interface HostKeyDeps {
  readonly settings: SshSettings;
  readonly known: readonly KnownKey[];
  readonly ui: Pick<ForwardUi, "confirmHostKey" | "event">;
  readonly whileAsking: <T>(question: () => Promise<T>) => Promise<T>;
}

/** A check for one connection: resolves when the key may be used. @throws TokenfwdError E_HOST_KEY_UNKNOWN, E_HOST_KEY_CHANGED */
export function createHostKeyCheck({ settings, known, ui, whileAsking }: HostKeyDeps): (key: Buffer) => Promise<void> {
  let accepted: Buffer | null = null;
  return async (key) => {
    const name = knownHostsName(settings);
    const print = fingerprint(key);
    if (accepted !== null) {
      // A later key exchange of the same connection: what was settled once is neither asked nor written again.
      if (accepted.equals(key)) return;
      throw new TokenfwdError("E_HOST_KEY_CHANGED", `the host key of ${printable(name)} changed within the connection: it is ${print}`, {
        hint: "somebody may be listening; do not connect before the bastion's administrator explains",
        reason: "host-key-changed",
      });
    }
    const verdict = judgeHostKey(name, key, known);
    let added = false;
    if (verdict === "unknown") {
      const unknown = (why: string) =>
        new TokenfwdError("E_HOST_KEY_UNKNOWN", `the host key of ${printable(name)} is not known (${keyType(key)} ${print}) and ${why}`, {
          hint: "compare the fingerprint with the administrator's, then connect once with ssh or answer yes",
          reason: "host-key-unknown",
        });
      if (settings.strictHostKeyChecking === "yes") throw unknown("StrictHostKeyChecking is yes");
      if (settings.strictHostKeyChecking === "ask") {
        if (settings.batchMode) throw unknown("BatchMode is on");
        const question = { host: printable(name), keyType: keyType(key), fingerprint: print };
        if (!(await whileAsking(() => ui.confirmHostKey(question)))) throw unknown("nobody confirmed it");
      }
      added = await addKnownKey(settings, key);
      if (!added)
        ui.event("warning", {
          text: `the host key could not be written to ${printable(settings.userKnownHostsFiles[0] ?? "known_hosts")}`,
        });
    }
    accepted = Buffer.from(key);
    ui.event("hostkey", { host: printable(name), keyType: keyType(key), hostKey: print, known: verdict === "known", added });
  };
}
