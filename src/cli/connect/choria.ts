/*
 * Choria through a connect, with nothing of ours running on the bastion (--choria): signer and relay are here, the bastion has two ports on
 * its loopback that lead to them and a small directory with a configuration, and brokers are reached back through it. It must never
 * put a key, a certificate or the token's PIN there, nor dial a broker for who has not said the secrets.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { listenOn } from "../../agent/listen.js";
import { TokenfwdError } from "../../base/errors.js";
import type { Log } from "../../base/log.js";
import { printable } from "../../base/printable.js";
import { connectClient } from "../../bastion/client/index.js";
import type { Broker } from "../../choria/config/brokers.js";
import { candidates, overlayPlaces, pluginFile, type ReadFile } from "../../choria/config/client-config.js";
import { readHere } from "../../choria/config/here.js";
import { createPrivateDirectory } from "../../choria/run/private-directory.js";
import { patientTimeout, throwawayConfig } from "../../choria/run/throwaway.js";
import { loginFile, WRAPPER_FILES, wrapperScript } from "../../choria/run/wrapper.js";
import type { BastionFiles } from "../../forward/remote/command-files.js";
import type { Forward } from "../../forward/types.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";
import { type Backing, brokerNames, openBacking, tellOfToken } from "../choria/backing.js";
import { findIdentity } from "../choria/identity.js";
import { type OwnConfig, readOwnConfig } from "../choria/own-config.js";
import type { Lifetime } from "../lifetime.js";

export interface ChoriaOptions {
  /** A client configuration of this workstation; null: the one that choria would find on the bastion. */
  readonly configFile: string | null;
  /** PEM of the CA that brokers are checked against; null: the configuration's. */
  readonly caPem: string | null;
  /** Empty: the configuration's. */
  readonly brokers: readonly Broker[];
  /** The longest ttl that is signed. */
  readonly maxTtlSeconds: number;
}

/** What a connect hands in. */
export interface OpenChoria {
  readonly forward: Pick<Forward, "listenLoopback" | "dial" | "keep">;
  /** Takes over a connection to the token, of the forward's own origin. */
  attach(stream: Duplex): void;
  readonly lifetime: Lifetime;
  readonly log: Log;
}

/** What holds once choria can run there. */
export interface ChoriaServing {
  /** `choria=NAME`. */
  readonly caller: string;
  readonly brokers: string;
  /** On the bastion; first on CMD's PATH. */
  readonly directory: string;
  /** Seconds, where the token was waited for and so answers are waited for longer; else null. */
  readonly discoveryTimeout: number | null;
  /** Resolves, never rejects, when there is no use in waiting any more. */
  readonly gone: Promise<TokenfwdError>;
}

export interface ChoriaPlan {
  /** Everything is closed with the lifetime. Rejects with E_CHORIA*, E_FORWARD_REFUSED, E_KEY_CHOICE, E_RUNTIME_DIR and what the token says. */
  open(around: OpenChoria): Promise<ChoriaServing>;
}

/** More than any configuration or CA that was seen. */
const MAX_BYTES = 64 * 1024;

/**
 * Reads the configuration and finds choria, before the token is opened; nothing is made anywhere. `files` are the bastion's.
 * Rejects with E_CHORIA, E_CHORIA_CONFIG, E_REMOTE_SHELL.
 */
export async function planChoria(options: ChoriaOptions, files: BastionFiles, isRoot: boolean): Promise<ChoriaPlan> {
  const { home, directory, program } = await files.login("choria");
  if (program === null) {
    throw new TokenfwdError("E_CHORIA", "there is no choria on the PATH of your log-in on the bastion", {
      hint: 'ssh DEST "command -v choria" shows what a log-in finds; install it there, or mend PATH in the shell\'s start files',
    });
  }
  const { configFile, caPem, brokers } = options;
  const cwd = directory ?? "/";
  const where =
    configFile === null
      ? { home, cwd, read: await readBastion(files, home, cwd), root: isRoot }
      : { home: homedir(), cwd: "/", read: readHere, choriaConfig: configFile };
  // One of this workstation's would override nothing there.
  const overlaid = configFile === null ? overlaidThere : null;
  const own = await readOwnConfig({ ...where, env: {}, caPem, brokers, domain: null, overlaid });
  return { open: (around) => open(own, program, options.maxTtlSeconds, around) };
}

function overlaidThere(path: string): TokenfwdError {
  return new TokenfwdError("E_CHORIA_CONFIG", `${path} on the bastion would override the configuration of this connection`, {
    hint: "it overrides every other, in its directory and below: move it away",
  });
}

/** The bastion's files as `readClientConfig` wants them; which of them are there is asked once for all. */
async function readBastion(files: BastionFiles, home: string | null, cwd: string): Promise<ReadFile> {
  const main = candidates(home);
  const plugins = main.map((path) => pluginFile(path, home)).filter((path) => path !== null);
  const places = [...new Set([...main, ...plugins, ...overlayPlaces(cwd)])];
  const present = await files.present(places);
  return async (path) => {
    if (present.others.has(path)) throw new Error("it is no file, or not readable for you");
    if (places.includes(path) && !present.files.has(path)) return null;
    return (await files.read(path, MAX_BYTES))?.toString("utf8") ?? null;
  };
}

async function open(
  own: OwnConfig,
  program: string,
  maxTtlSeconds: number,
  { forward, attach, lifetime, log }: OpenChoria,
): Promise<ChoriaServing> {
  const { signal } = lifetime;
  const socket = await servePrivately(attach, lifetime);
  const client = await connectClient({ socket, client: "tokenfwd connect --choria", signal });
  lifetime.defer(() => client.close());
  const found = await findIdentity(client, { signal });
  const backing = openBacking({
    ...found,
    brokers: own.brokers,
    dial: (host, port, stop) => forward.dial(host, port, stop),
    caPem: own.caPem,
    address: p11KitAddress(socket),
    pin: null,
    maxTtlSeconds,
    log,
  });
  lifetime.defer(() => backing.close());
  tellOfToken(backing, client);
  // What sshd forbids is found before anybody is asked to touch anything.
  const signer = `127.0.0.1:${await forward.listenLoopback((stream) => backing.serveSigner(stream))}`;
  const relay = `127.0.0.1:${await forward.listenLoopback((stream) => backing.serveRelay(stream))}`;
  const discoveryTimeout = patientTimeout(own.config, await backing.prewarm({ signal }));
  const { commonName } = found.identity;
  let directory = "";
  await forward.keep((made) => {
    directory = made;
    return commandFiles(made, own, backing, { commonName, program, signer, relay, discoveryTimeout });
  });
  return {
    caller: `choria=${printable(commonName)}`,
    brokers: printable(brokerNames(own.brokers)),
    directory,
    discoveryTimeout,
    gone: backing.gone,
  };
}

interface Places {
  readonly commonName: string;
  readonly program: string;
  readonly signer: string;
  readonly relay: string;
  readonly discoveryTimeout: number | null;
}

function commandFiles(directory: string, own: OwnConfig, backing: Backing, places: Places) {
  const { commonName, program, signer, relay, discoveryTimeout } = places;
  const { wrapper, config, token, seed, login } = WRAPPER_FILES;
  const ours = {
    relay,
    signerUrl: backing.signerAt(signer),
    tokenFile: join(directory, token),
    seedFile: join(directory, seed),
    discoveryTimeout,
  };
  const secret = (name: string, text: string) => ({ name, mode: "600" as const, text });
  return [
    secret(config, throwawayConfig(own.config, ours)),
    secret(token, backing.secrets.token.toString()),
    secret(seed, backing.secrets.seed.toString()),
    secret(login, loginFile(backing.login.user, backing.login.password)),
    { name: wrapper, mode: "700" as const, text: wrapperScript(directory, commonName, program) },
  ];
}

/** A socket of this workstation in a directory of our own, for the client library and what makes TLS; answers its path. */
async function servePrivately(attach: (stream: Duplex) => void, lifetime: Lifetime): Promise<string> {
  const directory = createPrivateDirectory();
  lifetime.defer(() => directory.remove());
  const listening = await listenOn({
    path: join(directory.path, "agent.sock"),
    onStream(stream) {
      try {
        attach(stream);
      } catch {
        // The agent takes no more.
        stream.destroy();
      }
    },
  });
  lifetime.defer(() => listening.close());
  return listening.path;
}
