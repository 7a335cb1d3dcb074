/*
 * Two network namespaces, a workstation and a bastion, joined by two links that a test can cut without a FIN: packets
 * just stop. It must never touch the machine's own network, and is deleted by whoever made it. Linux and root only.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";

export interface Link {
  /** The bastion's address on this link. */
  readonly bastionAddress: string;
  /** Takes the workstation's interface down: nothing gets through and nobody is told. */
  down(): void;
  up(): void;
}

export interface NamespacePair extends Disposable {
  /** The names that `ip netns` knows them by. */
  readonly workstation: string;
  readonly bastion: string;
  /** Words in front of a program that shall run on the workstation or the bastion; they end in an exec. */
  readonly onWorkstation: readonly string[];
  readonly onBastion: readonly string[];
  readonly links: readonly [Link, Link];
  /** Deletes both with their interfaces. Safe to call twice. */
  dispose(): void;
}

function ip(...words: string[]): void {
  execFileSync("ip", words, { stdio: ["ignore", "ignore", "pipe"] });
}

/** Why namespaces cannot be made here, or null when they can. */
export function namespacesMissing(): string | null {
  if (process.platform !== "linux") return "network namespaces are Linux's";
  if (process.getuid?.() !== 0) return "only root can make network namespaces";
  const name = `tfwd-try-${randomBytes(3).toString("hex")}`;
  const made = spawnSync("ip", ["netns", "add", name], { encoding: "utf8" });
  if (made.error !== undefined) return "ip is not installed (Debian: iproute2)";
  spawnSync("ip", ["netns", "delete", name]);
  return made.status === 0 ? null : `no network namespace can be made here: ${made.stderr.trim()}`;
}

/** Both links are up. The addresses are from the blocks for documentation, and seen by nobody outside. */
export function createNamespaces(): NamespacePair {
  const id = randomBytes(3).toString("hex");
  const workstation = `tfwd-ws-${id}`;
  const bastion = `tfwd-ba-${id}`;
  // The interfaces go with the namespaces they are in.
  const dispose = () => {
    for (const name of [workstation, bastion]) spawnSync("ip", ["netns", "delete", name]);
  };
  const join = (number: number, block: string): Link => {
    const [near, far] = [`tfw${number}-${id}`, `tfb${number}-${id}`];
    ip("link", "add", near, "netns", workstation, "type", "veth", "peer", "name", far, "netns", bastion);
    ip("-n", workstation, "address", "add", `${block}.1/30`, "dev", near);
    ip("-n", bastion, "address", "add", `${block}.2/30`, "dev", far);
    ip("-n", workstation, "link", "set", near, "up");
    ip("-n", bastion, "link", "set", far, "up");
    return {
      bastionAddress: `${block}.2`,
      down: () => ip("-n", workstation, "link", "set", near, "down"),
      up: () => ip("-n", workstation, "link", "set", near, "up"),
    };
  };
  try {
    for (const name of [workstation, bastion]) {
      ip("netns", "add", name);
      ip("-n", name, "link", "set", "lo", "up");
    }
    return {
      workstation,
      bastion,
      onWorkstation: ["ip", "netns", "exec", workstation],
      onBastion: ["ip", "netns", "exec", bastion],
      links: [join(1, "192.0.2"), join(2, "198.51.100")],
      dispose,
      [Symbol.dispose]: dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}
