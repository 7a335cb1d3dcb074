/*
 * What programs here that load stock p11-kit-client.so will find: whether it is there, whether it looks where our socket is, and which of
 * the keys' mechanisms it hides. It loads nothing.
 */
import { execFile } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { printable } from "../../base/printable.js";
import { findSockets } from "../../bastion/client/find-socket.js";
import { findClientModule } from "../../choria/config/client-module.js";
import { lookHere } from "../../choria/config/here.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { defineCheck, pass } from "../check.js";
import { dialectOf, hiddenByStock } from "../way/p11-kit-releases.js";
import type { BastionContext } from "./context.js";

const RELEASE_MS = 5000;

export const bastionStockCheck = defineCheck<BastionContext>()({
  id: "bastion-stock",
  title: "stock programs here",
  looks:
    "Whether p11-kit-client.so is here, whether it will find our socket, its release and dialect, and which mechanisms of the keys it hides from its programs.",
  needs: ["bastion-keys"],
  causes: {
    "no-p11-kit": {
      status: "warn",
      code: null,
      meaning:
        "p11-kit-client.so was found in none of the usual places. Programs that use PKCS#11 cannot reach the token without it; tokenfwd sign and tokenfwd/client can.",
      mend: "send to this machine's administrator: \"Please install p11-kit's client module: package p11-kit-modules on Debian and Ubuntu, p11-kit-server on Fedora and RHEL.\"",
    },
    "looks-elsewhere": {
      status: "warn",
      code: null,
      meaning: "The socket answers, and stock programs look at another path: they see no slot, or somebody else's.",
      mend: "in this shell: export P11_KIT_SERVER_ADDRESS='{address}'",
    },
    "all-hidden": {
      status: "warn",
      code: null,
      meaning:
        "This release of p11-kit's client knows no mechanism with which a key signs, so stock programs see the key and cannot use it. No release up to 0.26.4 knows EdDSA.",
      mend: "use tokenfwd sign or tokenfwd/client; an RSA or P-256 key works with every release",
    },
  },
  async run({ client, keys, env, uid }, { broken, signal }) {
    const module = await findClientModule(lookHere);
    if (module === null) return broken("no-p11-kit", "p11-kit-client.so was not found");
    const { socket } = await client();
    const looked = stockPath(env, uid);
    if (looked === null || realOf(looked) !== realOf(socket))
      return broken("looks-elsewhere", `stock programs look at ${printable(looked ?? "no path")}`, { address: p11KitAddress(socket) });
    const release = await p11KitRelease(signal);
    const dialect = dialectOf(release);
    if (dialect === null) return pass(`${printable(module)}, of a release that is not known`);
    const hidden = new Set<number>();
    for (const { uri, mechanisms } of await keys()) {
      const lost = hiddenByStock(mechanisms, dialect);
      if (mechanisms.length > 0 && lost.length === mechanisms.length) return broken("all-hidden", `nothing of ${printable(uri)}`);
      for (const type of lost) hidden.add(type);
    }
    const how = `${printable(release ?? "")}, version byte ${dialect.version}, ${dialect.version === 2 ? "new" : "old"} dialect`;
    return pass(hidden.size === 0 ? how : `${how}; hides ${[...hidden].map(mechanismName).join(", ")}`);
  },
});

/** Where a stock client looks; null where it would not find a Unix socket. */
function stockPath(env: NodeJS.ProcessEnv, uid: number): string | null {
  const { P11_KIT_SERVER_ADDRESS: address, XDG_RUNTIME_DIR: runtime } = env;
  if (!address) return join(runtime || `/run/user/${uid}`, "p11-kit", "pkcs11");
  try {
    return findSockets({ env: { P11_KIT_SERVER_ADDRESS: address }, uid })[0]?.path ?? null;
  } catch {
    return null;
  }
}

function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** As the package manager has it, for p11-kit itself cannot say it everywhere; null where nobody knows. */
async function p11KitRelease(signal: AbortSignal): Promise<string | null> {
  const questions = [
    ["dpkg-query", "-W", "-f", `${"$"}{Version}`, "libp11-kit0"],
    ["rpm", "-q", "--qf", "%{VERSION}", "p11-kit"],
  ];
  for (const [program = "", ...words] of questions) {
    const answer = await new Promise<string>((resolve) => {
      execFile(program, words, { timeout: RELEASE_MS, maxBuffer: 4096, signal }, (error, stdout) => resolve(error === null ? stdout : ""));
    });
    if (/^[0-9][\w.+~:-]{0,60}$/.test(answer)) return answer;
  }
  return null;
}
