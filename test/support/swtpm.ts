/*
 * A real TPM token for tests: swtpm, and a token in it made through libtpm2-pkcs11 itself, as a user without tpm2_ptool would. It
 * needs no systemd and no resource manager, and serves one process at a time. It must be disposed of by whoever made it, which ends
 * the process by its id. Its PINs are throw-away: they appear in the arguments of tools, which no code of ours does.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";

const execute = promisify(execFile);

const MODULE =
  ["x86_64-linux-gnu", "aarch64-linux-gnu"].map((triplet) => `/usr/lib/${triplet}/pkcs11/libtpm2_pkcs11.so`).find(existsSync) ??
  "/usr/lib/pkcs11/libtpm2_pkcs11.so";
const ATTEMPTS = 5;

export interface SwTpm extends AsyncDisposable {
  readonly modulePath: string;
  /** The process environment with which the module finds this TPM and its store. */
  readonly env: NodeJS.ProcessEnv;
  readonly label: string;
  readonly pin: string;
  /** Runs pkcs11-tool on the module; rejects on a non-zero exit. */
  pkcs11Tool(...args: string[]): Promise<{ stdout: string; stderr: string }>;
  /** Ends swtpm and removes its files. Safe to call twice. */
  dispose(): Promise<void>;
}

const listen = (port: number): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
const unlisten = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));

/** A port that is free with the one above it: the TPM's own and its control channel, as the module expects them. */
async function freePorts(): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    const first = await listen(0);
    const { port } = first.address() as AddressInfo;
    try {
      await unlisten(await listen(port + 1));
      return port;
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
    } finally {
      await unlisten(first);
    }
  }
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });

/** Starts a TPM and makes a token with an RSA-2048 key (id 01, label `rsa key`) and a P-256 key (id 02, label `ec key`). */
export async function createSwTpm(): Promise<SwTpm> {
  const dir = await mkdtemp(join(tmpdir(), "tokenfwd-swtpm-"));
  await Promise.all([mkdir(join(dir, "state")), mkdir(join(dir, "store"))]);
  const port = await freePorts();
  const place = (where: number) => `type=tcp,port=${where},bindaddr=127.0.0.1`;
  const words = ["--server", place(port), "--ctrl", place(port + 1), "--tpmstate", `dir=${join(dir, "state")}`];
  const child = spawn("swtpm", ["socket", "--tpm2", ...words, "--flags", "not-need-init,startup-clear"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  let over = false;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const gone = new Promise<void>((resolve) => {
    const end = (): void => {
      over = true;
      resolve();
    };
    child.once("error", (error) => {
      said += error.message;
      end();
    });
    child.once("close", end);
  });
  const dispose = async (): Promise<void> => {
    child.kill("SIGTERM");
    await gone;
    await rm(dir, { recursive: true, force: true });
  };

  const [label, pin, soPin] = ["tpm test", "1234", "12345678"];
  const env = { ...process.env, TPM2_PKCS11_TCTI: `swtpm:host=127.0.0.1,port=${port}`, TPM2_PKCS11_STORE: join(dir, "store") };
  const pkcs11Tool = (...args: string[]) => execute("pkcs11-tool", ["--module", MODULE, ...args], { env });
  try {
    // It says nothing when it is ready; its control channel then takes connections.
    while (!(await answers(port + 1))) {
      if (over) throw new Error(`swtpm did not start: ${said}`);
      await pause(10);
    }
    await pkcs11Tool("--init-token", "--label", label, "--so-pin", soPin, "--slot-index", "0");
    const where = ["--token-label", label, "--login"];
    await pkcs11Tool(...where, "--login-type", "so", "--so-pin", soPin, "--init-pin", "--pin", pin);
    const make = [...where, "--pin", pin, "--keypairgen"];
    await pkcs11Tool(...make, "--key-type", "rsa:2048", "--id", "01", "--label", "rsa key");
    await pkcs11Tool(...make, "--key-type", "EC:secp256r1", "--id", "02", "--label", "ec key");
  } catch (error) {
    await dispose();
    throw error;
  }
  return { modulePath: MODULE, env, label, pin, pkcs11Tool, dispose, [Symbol.asyncDispose]: dispose };
}
