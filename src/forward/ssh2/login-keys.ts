/*
 * The keys of a login, agent first, then files, each offered once (design 9). It must never sign with SHA-1, log a passphrase or
 * keep one longer than the key needs, and never asks for one before the server has taken the key, where its public half is known.
 */
import { readFileSync } from "node:fs";
import ssh2, { type IdentityCallback, type ParsedKey, type SignCallback, type SigningRequestOptions } from "ssh2";
import { printable } from "../../base/printable.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ForwardUi } from "../types.js";

const { BaseAgent, OpenSSHAgent, utils } = ssh2;
const PASSPHRASE_TRIES = 3;

type Hash = "sha256" | "sha512" | undefined;
/** What ssh2 takes as an agent. */
export type KeyAgent = InstanceType<typeof BaseAgent>;

/** One key to offer. */
export interface LoginKey {
  readonly method: "agent" | "publickey";
  /** Printable: the key file, or what the agent calls its key. */
  readonly name: string;
  /** Holds this key alone; null when there is nothing to offer, and `why` says what is wrong. */
  readonly agent: KeyAgent | null;
  /** Printable: why it could not be used; may come only when it has been tried. */
  why(): string | undefined;
}

export interface KeyDeps {
  readonly settings: SshSettings;
  readonly ui: Pick<ForwardUi, "askPassphrase">;
  /** Called around a question, so that no timer runs while a person thinks. */
  readonly whileAsking: <T>(question: () => Promise<T>) => Promise<T>;
  /** A key has signed: what the server says next is about the signature and not the key. */
  readonly signed: () => void;
}

/** The keys in the order of the configuration: of the agent those it names first, then the agent's others, then the files. */
export async function* loginKeys(deps: KeyDeps): AsyncGenerator<LoginKey, void, void> {
  const { identityAgent, identityFiles } = deps.settings;
  const offered: Buffer[] = [];
  if (identityAgent !== null) {
    const keys = await agentKeys(identityAgent, deps);
    if (keys === null) yield { method: "agent", name: "agent does not answer", agent: null, why: () => "the agent does not answer" };
    for (const { key, agent } of keys ?? []) {
      offered.push(key.getPublicSSH());
      yield { method: "agent", name: printable(key.comment || key.type, 200), agent, why: () => undefined };
    }
  }
  for (const file of identityFiles) {
    const pub = publicKey(file);
    // The agent has offered it; a second time would only use up one of the tries that the server allows.
    if (pub !== null && offered.some((one) => one.equals(pub.getPublicSSH()))) continue;
    yield await fileKey(file, pub, deps);
  }
}

/** The key of a file: open, or opened by its passphrase once the server has taken its public half. */
async function fileKey(file: string, pub: ParsedKey | null, deps: KeyDeps): Promise<LoginKey> {
  const name = printable(file);
  let reason: string | undefined;
  const offer = (key: ParsedKey, open: () => Promise<ParsedKey | string>): LoginKey => {
    const agent = sha2Agent([key], (_key, data, hash, callback) => {
      void open().then((opened) => {
        if (typeof opened === "string") {
          reason = opened;
          return callback(new Error(opened));
        }
        const signature = opened.sign(data, hash);
        if (signature instanceof Error) return callback(signature);
        deps.signed();
        callback(undefined, signature);
      });
    });
    return { method: "publickey", name, agent, why: () => reason };
  };
  const opened = readKey(file);
  if (typeof opened === "object") return offer(opened, async () => opened);
  if (opened === "encrypted") {
    if (deps.settings.batchMode) return { method: "publickey", name, agent: null, why: () => "needs a passphrase, and BatchMode is on" };
    if (pub !== null) return offer(pub, () => withPassphrase(file, deps));
    const asked = await withPassphrase(file, deps);
    if (typeof asked === "object") return offer(asked, async () => asked);
    return { method: "publickey", name, agent: null, why: () => asked };
  }
  return { method: "publickey", name, agent: null, why: () => opened };
}

/** The private key, `encrypted`, or a printable reason why it cannot be used. */
function readKey(file: string, passphrase?: Buffer): ParsedKey | string {
  let data: Buffer;
  try {
    data = readFileSync(file);
  } catch (error) {
    return printable(error instanceof Error ? error.message : String(error));
  }
  try {
    const parsed = utils.parseKey(data, passphrase);
    if (parsed instanceof Error) return /passphrase/i.test(parsed.message) ? "encrypted" : printable(parsed.message);
    const key: ParsedKey | undefined = Array.isArray(parsed) ? parsed[0] : parsed;
    if (key === undefined) return "holds no key";
    return key.isPrivateKey() ? key : "is not a private key";
  } finally {
    data.fill(0);
  }
}

async function withPassphrase(file: string, deps: KeyDeps): Promise<ParsedKey | string> {
  for (let attempt = 0; attempt < PASSPHRASE_TRIES; attempt++) {
    const passphrase = await deps.whileAsking(() => deps.ui.askPassphrase(file));
    if (passphrase === null) return "no passphrase";
    const key = readKey(file, passphrase);
    passphrase.fill(0);
    if (typeof key === "object") return key;
  }
  return "wrong passphrase";
}

/**
 * Keys behind the interface of an agent, with a check that ssh2 lacks: it falls back to RSA with SHA-1 for a server that
 * names no signature algorithms. Such a key counts as refused. Exported for tests.
 */
export function sha2Agent(keys: ParsedKey[], sign: (key: ParsedKey, data: Buffer, hash: Hash, callback: SignCallback) => void): KeyAgent {
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
  })() as KeyAgent;
}

/** The public key beside (or inside) an identity file. */
function publicKey(file: string): ParsedKey | null {
  for (const name of [`${file}.pub`, file]) {
    try {
      const parsed = utils.parseKey(readFileSync(name));
      if (parsed instanceof Error) continue;
      const key: ParsedKey | undefined = Array.isArray(parsed) ? parsed[0] : parsed;
      if (key !== undefined) return key;
    } catch {
      // No such file; the other name may do.
    }
  }
  return null;
}

/** The agent's keys, the configured ones first, and nothing else under IdentitiesOnly. Null: it does not answer. */
async function agentKeys(socket: string, deps: KeyDeps): Promise<{ readonly key: ParsedKey; readonly agent: KeyAgent }[] | null> {
  const inner = new OpenSSHAgent(socket);
  const wanted = deps.settings.identityFiles.flatMap((file) => publicKey(file)?.getPublicSSH() ?? []);
  const rank = (key: ParsedKey) => {
    const blob = key.getPublicSSH();
    const index = wanted.findIndex((one) => one.equals(blob));
    return index === -1 ? wanted.length : index;
  };
  const keys = await new Promise<ParsedKey[] | null>((resolve) => {
    inner.getIdentities((error, found) => resolve(error ? null : ((found ?? []) as ParsedKey[])));
  });
  if (keys === null) return null;
  const chosen = keys.filter((key) => !deps.settings.identitiesOnly || rank(key) < wanted.length).sort((a, b) => rank(a) - rank(b));
  return chosen.map((key) => ({
    key,
    // An agent may ask a person first (ssh-add -c, a touch), as long as that takes.
    agent: sha2Agent([key], (which, data, hash, callback) => {
      const signing = () =>
        new Promise<void>((done) => {
          inner.sign(which, data, hash === undefined ? {} : { hash }, (error, signature) => {
            if (!error) deps.signed();
            callback(error, signature);
            done();
          });
        });
      void deps.whileAsking(signing);
    }),
  }));
}
