/*
 * A real Choria network on loopback: one broker, some servers and an operator with a token, each with certificates of an
 * authority made for it. Everything lies in one temporary directory. Whoever starts it must stop it; it takes no fixed port.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../free-port.js";
import { createSoftHsm, type SoftHsm } from "../softhsm.js";
import { type Daemon, startDaemon } from "./daemon.js";
import { createPki, type Leaf, type Pki } from "./pki.js";
import { choriaProgram } from "./program.js";
import { COMMON, fileProvider, type Setting, settingsText } from "./settings.js";

/** Whom the broker says it is: `good`, or one of those that a client must not talk to. */
export type BrokerCertificate = "good" | "wrong-name" | "expired" | "stranger";

export interface ChoriaNetworkOptions {
  /** Default 2. */
  readonly servers?: number;
  /** CN of the operator's certificate, the one name on the servers' list. Default `ptittle`. */
  readonly operator?: string;
  readonly brokerCertificate?: BrokerCertificate;
  /** Added to the broker's and to every server's configuration; what stands later wins. */
  readonly brokerSettings?: readonly Setting[];
  readonly serverSettings?: readonly Setting[];
  /** False starts no SoftHSM; `token` then throws. Default true. */
  readonly token?: boolean;
}

export interface ChoriaServer {
  /** `node1.example.net` and on. */
  readonly identity: string;
  readonly daemon: Daemon;
}

export interface RunChoriaOptions {
  /** A configuration file; without one choria looks for its own, in a home directory that holds nothing. */
  readonly config?: string;
  /** Added to a small environment: PATH, HOME, USER and MCOLLECTIVE_CERTNAME of the operator. Undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default: an empty directory without a choria.conf in it or above. */
  readonly cwd?: string;
  /** Then it is killed; default 50,000. */
  readonly timeoutMs?: number;
}

export interface ChoriaRun {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface ChoriaNetwork extends AsyncDisposable {
  /** Holds everything below. */
  readonly dir: string;
  /** The choria program. */
  readonly program: string;
  readonly pki: Pki;
  readonly operator: Leaf;
  /** Signed by the CA and not on the servers' list: the bastion's own, for TLS only, and somebody else's. */
  readonly bastion: Leaf;
  readonly mallory: Leaf;
  /** The operator's name on keys that protocol v1 cannot use: a request that is signed with one ends every server. */
  readonly ec: Leaf;
  readonly ed25519: Leaf;
  /** Holds the operator's key and certificate, id 01, label `operator`. */
  readonly token: SoftHsm;
  /** Always `localhost`, which its certificate names beside 127.0.0.1. */
  readonly host: "localhost";
  readonly port: number;
  readonly servers: readonly ChoriaServer[];
  /** The broker as it is now. */
  broker(): Daemon;
  /** Ends the broker by SIGKILL and starts it anew on the same port; resolves when the servers are connected again. */
  restartBroker(options?: { readonly certificate?: BrokerCertificate }): Promise<void>;
  /**
   * Writes a client's configuration and answers its path: the settings of everybody, the broker (another with `broker`, a URL),
   * a discovery_timeout of 2, then these.
   */
  clientConfig(name: string, settings: readonly Setting[], options?: { readonly broker?: string }): Promise<string>;
  /** The configuration with the operator's key in a file, as a baseline. */
  fileConfig(): Promise<string>;
  /** Runs choria to its end, as the operator and without a terminal. Never rejects for what it did. */
  runChoria(args: readonly string[], options?: RunChoriaOptions): Promise<ChoriaRun>;
  /** The environment that runChoria gives, for a test that starts choria some other way. */
  environment(): Record<string, string>;
  /** Stops everything and removes the directory. Safe to call twice. */
  dispose(): Promise<void>;
}

const BROKER_NAMES = { commonName: "localhost", names: "DNS:localhost,IP:127.0.0.1" } as const;
const BROKERS = {
  good: BROKER_NAMES,
  "wrong-name": { commonName: "broker.example.net" },
  expired: { ...BROKER_NAMES, days: -1 },
  stranger: { ...BROKER_NAMES, issuer: "stranger" },
} as const;

async function operatorToken(operator: Leaf): Promise<SoftHsm> {
  const token = await createSoftHsm({ objects: "none", label: "operator" });
  try {
    await token.importKey({ id: "01", label: "operator", keyFile: operator.key, certificateFile: operator.certificate });
    return token;
  } catch (error) {
    await token.dispose();
    throw error;
  }
}

/** Starts the network; about three seconds. Needs the program: see choriaAvailable. */
export async function startChoriaNetwork(options: ChoriaNetworkOptions = {}): Promise<ChoriaNetwork> {
  const found = await choriaProgram();
  if ("missing" in found) throw new Error(found.missing);
  const program = found.path;
  const name = options.operator ?? "ptittle";
  const dir = await mkdtemp(join(tmpdir(), "tfwd-choria-"));
  const undo: (() => Promise<unknown>)[] = [() => rm(dir, { recursive: true, force: true })];
  const dispose = async () => {
    while (undo.length > 0) await undo.pop()?.();
  };
  const file = (...names: string[]) => join(dir, ...names);
  const environment = () => ({
    PATH: process.env["PATH"] ?? "",
    HOME: file("home"),
    USER: name,
    TMPDIR: dir,
    MCOLLECTIVE_CERTNAME: name,
  });

  try {
    await Promise.all(["home", "work", "etc"].map((one) => mkdir(file(one))));
    const pki = await createPki(file("pki"));
    const certificate = options.brokerCertificate ?? "good";
    const [operator, bastion, mallory, ec, ed25519, server] = await Promise.all([
      pki.leaf("operator", { commonName: name }),
      pki.leaf("bastion", { commonName: "bastion1.example.net" }),
      pki.leaf("mallory", { commonName: "mallory" }),
      pki.leaf("operator-ec", { commonName: name, algorithm: "ec" }),
      pki.leaf("operator-ed25519", { commonName: name, algorithm: "ed25519" }),
      pki.leaf("server", { commonName: "servers.example.net" }),
      pki.leaf(`broker-${certificate}`, BROKERS[certificate]),
    ]);
    const token = options.token === false ? null : await operatorToken(operator);
    if (token !== null) undo.push(() => token.dispose());

    const start = async (kind: "broker" | "server", title: string, settings: readonly Setting[]): Promise<Daemon> => {
      const config = file("etc", `${title}.conf`);
      await writeFile(config, settingsText([...COMMON, ...settings]), { mode: 0o600 });
      return startDaemon(program, [kind, "run", "--config", config], environment(), file("work"));
    };

    const brokerOn = async (onPort: number, how: BrokerCertificate): Promise<Daemon> => {
      const daemon = await start("broker", "broker", [
        ...fileProvider(await pki.leaf(`broker-${how}`, BROKERS[how]), pki.ca),
        ["identity", "localhost"],
        ["plugin.choria.broker_network", true],
        ["plugin.choria.network.listen_address", "127.0.0.1"],
        ["plugin.choria.network.client_port", onPort],
        ...(options.brokerSettings ?? []),
      ]);
      undo.push(() => daemon.stop());
      await daemon.waitFor(/Listening for client connections on/);
      return daemon;
    };
    let port = await freePort();
    let broker = await brokerOn(port, certificate).catch(async () => {
      // Somebody took the port between our asking and our using it.
      port = await freePort();
      return brokerOn(port, certificate);
    });

    const url = `nats://localhost:${port}`;
    const count = options.servers ?? 2;
    const identities = Array.from({ length: count }, (_, index) => `node${index + 1}.example.net`);
    await writeFile(file("etc", "classes.txt"), "tokenfwd\n");
    await writeFile(file("etc", "facts.json"), JSON.stringify({ role: "test", os: { family: "Debian" } }));
    const servers = await Promise.all(
      identities.map(async (identity): Promise<ChoriaServer> => {
        const daemon = await start("server", identity, [
          ...fileProvider(server, pki.ca),
          ["identity", identity],
          ["classesfile", file("etc", "classes.txt")],
          ["plugin.yaml", file("etc", "facts.json")],
          ["plugin.choria.middleware_hosts", url],
          ["plugin.choria.security.certname_whitelist", `^${name}$`],
          ["rpcauthorization", false],
          ...(options.serverSettings ?? []),
        ]);
        undo.push(() => daemon.stop());
        return { identity, daemon };
      }),
    );
    // The last that a server subscribes to when it starts.
    if (certificate === "good") await Promise.all(servers.map(({ daemon }) => daemon.waitFor(/Subscribing node /)));

    const clientConfig: ChoriaNetwork["clientConfig"] = async (title, settings, { broker: other = url } = {}) => {
      const path = file("etc", `client-${title}.conf`);
      const ours: Setting[] = [
        ["discovery_timeout", 2],
        ["plugin.choria.middleware_hosts", other],
      ];
      await writeFile(path, settingsText([...COMMON, ...ours, ...settings]), { mode: 0o600 });
      return path;
    };

    return {
      dir,
      program,
      pki,
      operator,
      bastion,
      mallory,
      ec,
      ed25519,
      get token() {
        if (token === null) throw new Error("this network was started without a token");
        return token;
      },
      host: "localhost",
      port,
      servers,
      broker: () => broker,
      async restartBroker({ certificate: how = certificate } = {}) {
        const from = servers.map(({ daemon }) => daemon.log().length);
        await broker.stop("SIGKILL");
        broker = await brokerOn(port, how);
        const again = /reconnected after a previous disconnection/;
        if (how === "good") await Promise.all(servers.map(({ daemon }, index) => daemon.waitFor(again, { from: from[index] ?? 0 })));
      },
      clientConfig,
      fileConfig: () => clientConfig("file", fileProvider(operator, pki.ca)),
      runChoria: (args, run = {}) => runProgram(program, args, { ...environment(), ...run.env }, { cwd: file("work"), ...run }),
      environment,
      dispose,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** Runs choria with an environment of its own; see ChoriaNetwork.runChoria. */
export function runProgram(program: string, args: readonly string[], env: NodeJS.ProcessEnv, run: RunChoriaOptions): Promise<ChoriaRun> {
  const started = performance.now();
  const words = run.config === undefined ? args : [...args, "--config", run.config];
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { env, cwd: run.cwd, stdio: ["ignore", "pipe", "pipe"] });
    const text = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (chunk: string) => {
        text[name] += chunk;
      });
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), run.timeoutMs ?? 50_000);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, ...text, ms: performance.now() - started });
    });
  });
}
