/*
 * Which login methods are tried, in which order: agent, then key files (design 9). It must never log a passphrase or keep
 * one longer than the key needs, and never offers a password.
 */
import { readFileSync } from "node:fs";
import ssh2, {
  type AnyAuthMethod,
  type AuthHandlerMiddleware,
  type IdentityCallback,
  type ParsedKey,
  type SignCallback,
  type SigningRequestOptions,
} from "ssh2";
import { printable } from "../../base/printable.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ForwardUi } from "../types.js";

const { BaseAgent, OpenSSHAgent, utils } = ssh2;
const PASSPHRASE_TRIES = 3;

export interface Attempt {
  readonly method: "agent" | "publickey";
  /** Printable: the key file, or how many keys the agent has. */
  readonly key: string;
  /** null while it is being tried. */
  ok: boolean | null;
  why?: string;
}

export interface Authentication {
  readonly handler: AuthHandlerMiddleware;
  readonly attempts: readonly Attempt[];
  /** Method names the server would go on with, as of its last answer. */
  methodsLeft(): readonly string[];
  /** The server has accepted what was tried last. */
  succeeded(): void;
}

interface Deps {
  readonly settings: SshSettings;
  readonly ui: Pick<ForwardUi, "askPassphrase" | "event">;
  /** Called around a question, so that no timer runs while a person thinks. */
  readonly whileAsking: <T>(question: () => Promise<T>) => Promise<T>;
}

/** The next methods, one after the other, as ssh2 asks for them. */
export function createAuthentication(deps: Deps): Authentication {
  const attempts: Attempt[] = [];
  let left: readonly string[] = [];
  let current: Attempt | null = null;
  const finish = (ok: boolean, why?: string) => {
    if (current === null) return;
    current.ok = ok;
    if (why !== undefined) current.why = why;
    deps.ui.event("auth", { method: current.method, key: current.key, ok });
    current = null;
  };
  const begin = (method: Attempt["method"], key: string) => {
    current = { method, key, ok: null };
    attempts.push(current);
  };

  async function* methods(): AsyncGenerator<AnyAuthMethod, void, void> {
    const username = deps.settings.user;
    // Costs one round trip and tells which methods the server takes at all, which makes the error message right.
    yield { type: "none", username };
    if (deps.settings.identityAgent !== null) {
      const { agent, count } = await orderedAgent(deps.settings.identityAgent, deps);
      if (count !== 0) {
        begin("agent", count === null ? "agent does not answer" : `${count} ${count === 1 ? "key" : "keys"}`);
        if (count === null) finish(false, "the agent does not answer");
        else yield { type: "agent", username, agent };
      }
    }
    for (const file of deps.settings.identityFiles) {
      begin("publickey", printable(file));
      const key = await loadKey(file, deps);
      if (typeof key === "string") finish(false, key);
      else yield { type: "agent", username, agent: keyAgent(key) };
    }
  }

  const source = methods();
  return {
    attempts,
    methodsLeft: () => left,
    succeeded: () => finish(true),
    handler(authsLeft, _partial, next) {
      if (authsLeft !== null) left = authsLeft as readonly string[];
      finish(false);
      source.next().then(
        // ssh2 takes false for "no more"; its types do not say so.
        (step) => next(step.done === true ? (false as unknown as AnyAuthMethod) : step.value),
        () => next(false as unknown as AnyAuthMethod),
      );
    },
  };
}

/** The private key, or a printable reason why it cannot be used. */
async function loadKey(file: string, deps: Deps): Promise<ParsedKey | string> {
  let data: Buffer;
  try {
    data = readFileSync(file);
  } catch (error) {
    return printable(error instanceof Error ? error.message : String(error));
  }
  try {
    const plain = utils.parseKey(data);
    if (!(plain instanceof Error)) return firstKey(plain);
    if (!/passphrase/i.test(plain.message)) return printable(plain.message);
    for (let attempt = 0; attempt < PASSPHRASE_TRIES; attempt++) {
      const passphrase = await deps.whileAsking(() => deps.ui.askPassphrase(file));
      if (passphrase === null) return "no passphrase";
      const key = utils.parseKey(data, passphrase);
      passphrase.fill(0);
      if (!(key instanceof Error)) return firstKey(key);
    }
    return "wrong passphrase";
  } finally {
    data.fill(0);
  }
}

function firstKey(parsed: ParsedKey | ParsedKey[]): ParsedKey | string {
  const key: ParsedKey | undefined = Array.isArray(parsed) ? parsed[0] : parsed;
  if (key === undefined) return "holds no key";
  return key.isPrivateKey() ? key : "is not a private key";
}

type Hash = "sha256" | "sha512" | undefined;

/**
 * Keys behind the interface of an agent, with a check that ssh2 lacks: it falls back to RSA with SHA-1 for a server that
 * names no signature algorithms. Such a key counts as refused. Exported for tests.
 */
export function sha2Agent(
  keys: ParsedKey[],
  sign: (key: ParsedKey, data: Buffer, hash: Hash, callback: SignCallback) => void,
): InstanceType<typeof BaseAgent> {
  return new (class extends BaseAgent<ParsedKey> {
    override getIdentities(callback: IdentityCallback<ParsedKey>): void {
      callback(undefined, keys);
    }
    override sign(key: ParsedKey, data: Buffer, options: SigningRequestOptions | SignCallback, callback?: SignCallback): void {
      const done = typeof options === "function" ? options : (callback ?? (() => {}));
      const hash = typeof options === "function" ? undefined : options.hash;
      if (hash === "sha1" || (key.type === "ssh-rsa" && hash === undefined))
        done(new Error("the server takes RSA only with SHA-1, which is not used"));
      else sign(key, data, hash, done);
    }
  })() as InstanceType<typeof BaseAgent>;
}

/** One private key, as an agent. */
function keyAgent(key: ParsedKey): InstanceType<typeof BaseAgent> {
  return sha2Agent([key], (_key, data, hash, callback) => {
    const signature = key.sign(data, hash);
    if (signature instanceof Error) callback(signature);
    else callback(undefined, signature);
  });
}

/** Public keys beside (or inside) the identity files, for IdentitiesOnly and for the order of the agent's keys. */
function wantedKeys(settings: SshSettings): Buffer[] {
  return settings.identityFiles.flatMap((file) => {
    for (const name of [`${file}.pub`, file]) {
      try {
        const parsed = utils.parseKey(readFileSync(name));
        if (parsed instanceof Error) continue;
        const key: ParsedKey | undefined = Array.isArray(parsed) ? parsed[0] : parsed;
        if (key !== undefined) return [key.getPublicSSH()];
      } catch {
        // No such file; the other name may do.
      }
    }
    return [];
  });
}

/** The agent with the configured keys first, and nothing else under IdentitiesOnly. `count` null: it does not answer. */
async function orderedAgent(socket: string, { settings, whileAsking }: Deps) {
  const inner = new OpenSSHAgent(socket);
  const wanted = wantedKeys(settings);
  const rank = (key: ParsedKey) => {
    const blob = key.getPublicSSH();
    const index = wanted.findIndex((one) => one.equals(blob));
    return index === -1 ? wanted.length : index;
  };
  const keys = await new Promise<ParsedKey[] | null>((resolve) => {
    inner.getIdentities((error, found) => resolve(error ? null : ((found ?? []) as ParsedKey[])));
  });
  const chosen = (keys ?? []).filter((key) => !settings.identitiesOnly || rank(key) < wanted.length).sort((a, b) => rank(a) - rank(b));
  // An agent may ask a person first (ssh-add -c, a touch), as long as that takes.
  const agent = sha2Agent(chosen, (key, data, hash, callback) => {
    const signing = () =>
      new Promise<void>((signed) => {
        inner.sign(key, data, hash === undefined ? {} : { hash }, (error, signature) => {
          callback(error, signature);
          signed();
        });
      });
    void whileAsking(signing);
  });
  return { agent, count: keys === null ? null : chosen.length };
}
