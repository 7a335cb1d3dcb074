/*
 * ProxyJump of ssh_config: which host the connection goes through. It must never go through more hosts than were checked: one.
 */
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import { unsupported } from "./ssh-refusals.js";
import type { ParsedSettings } from "./ssh-settings.js";

/** As `ssh -J` takes it, apart. */
export interface JumpDestination {
  /** `host` or `user@host`. */
  readonly destination: string;
  readonly port: number | null;
}

const ROUND =
  "log in to the hop before it, and run tokenfwd there, or forward a port: ssh -L 2222:HOST:22 HOP, then -p 2222 USER@127.0.0.1";
const JUMP = /^(?:ssh:\/\/)?((?:[^@,/\s]+@)?(?:\[[0-9A-Fa-f:.%a-z]+\]|(?!-)[^@:,/\s[\]]+))(?::([0-9]{1,5}))?\/?$/;

/** The one hop of a ProxyJump value, null for none. @throws TokenfwdError E_SSH_UNSUPPORTED for several, E_SSH_CONFIG for what is none */
export function jumpDestination(value: string | null): JumpDestination | null {
  if (value === null) return null;
  if (value.includes(",")) throw several(value);
  const [, host, port] = JUMP.exec(value) ?? [];
  if (host === undefined || host.startsWith("-") || (port !== undefined && (Number(port) < 1 || Number(port) > 65535))) {
    throw new TokenfwdError("E_SSH_CONFIG", `ProxyJump is not a host: ${printable(value)}`, {
      hint: "write it as [user@]host[:port]",
      reason: "jump-wrong",
    });
  }
  // Brackets keep the colons of an address from the port's; the host itself has none.
  return { destination: host.replace(/\[(.*)\]$/, "$1"), port: port === undefined ? null : Number(port) };
}

/** Refuses a jump host that has one itself, and one that is the bastion. @throws TokenfwdError E_SSH_UNSUPPORTED, E_SSH_CONFIG */
export function jumpsAtMostOnce(bastion: ParsedSettings, jump: ParsedSettings): void {
  if (jump.host === bastion.host && jump.port === bastion.port && jump.user === bastion.user) {
    throw new TokenfwdError("E_SSH_CONFIG", `ProxyJump leads through ${printable(jump.host)} to itself`, {
      hint: "leave it out for this host: --ssh-option ProxyJump=none",
      reason: "jump-wrong",
    });
  }
  if (jump.proxyJump !== null) throw several(`${jump.proxyJump},${bastion.proxyJump ?? ""}`);
}

function several(hops: string): TokenfwdError {
  return unsupported("ProxyJump", `it is reached through more than one jump host: ${printable(hops)}`, ROUND);
}
