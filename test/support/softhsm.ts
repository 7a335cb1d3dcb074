/*
 * A real SoftHSM token in a temporary directory of its own, with keys made by openssl and imported, for tests.
 * It must never touch the machine's own token store, and must be disposed of by whoever made it. Its PINs are
 * throw-away: they appear in the arguments of tools, which no code of ours does.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, extname, join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** Where Debian and its kin put the module. */
export const SOFTHSM_MODULE = "/usr/lib/softhsm/libsofthsm2.so";

export interface SoftHsmOptions {
  /** Token label, default `tokenfwd test`. */
  readonly label?: string;
  /** User PIN, default `1234`. */
  readonly pin?: string;
  /** SO PIN, default `12345678`. */
  readonly soPin?: string;
  /** Which key pairs: RSA-2048 (id 01, label `rsa key`), P-256 (id 02, label `ec key`). Default `rsa+ec`. */
  readonly objects?: "none" | "rsa" | "ec" | "rsa+ec";
  /** A certificate per key, same id and label, signed by a CA made for this token. Default true. */
  readonly certificates?: boolean;
  /** Common name of the certificates, default `ops.mcollective`. */
  readonly commonName?: string;
}

export interface SoftHsmKey {
  readonly id: string;
  readonly label: string;
  /** PEM files on disk: the private key (also on the token), its public key, its certificate (null without). */
  readonly keyFile: string;
  readonly publicKeyFile: string;
  readonly certificateFile: string | null;
}

export interface SoftHsm extends AsyncDisposable {
  readonly dir: string;
  /** The process environment with SOFTHSM2_CONF for this token; hand it to every child that loads the module. */
  readonly env: NodeJS.ProcessEnv;
  readonly configFile: string;
  readonly modulePath: string;
  readonly label: string;
  readonly pin: string;
  readonly soPin: string;
  /** Certificate of the CA that signed the keys' certificates; it is not on the token. */
  readonly caFile: string | null;
  readonly keys: { readonly rsa?: SoftHsmKey; readonly ec?: SoftHsmKey };
  /** Runs pkcs11-tool on this token's module and answers its output; rejects on a non-zero exit. */
  pkcs11Tool(...args: string[]): Promise<{ stdout: string; stderr: string }>;
  /** Puts a key of a PEM file on the token, with its certificate where one is named: as DER it lies in `dir` by the same name. */
  importKey(key: {
    readonly id: string;
    readonly label: string;
    readonly keyFile: string;
    readonly certificateFile?: string;
  }): Promise<void>;
  /** Adds a second token with the same PINs to the same directory. */
  addToken(label: string): Promise<void>;
  /** Removes the directory. Safe to call twice. */
  dispose(): Promise<void>;
}

/** Makes the token. One after another: several processes that start on one token directory at once fail. */
export async function createSoftHsm(options: SoftHsmOptions = {}): Promise<SoftHsm> {
  const { label = "tokenfwd test", pin = "1234", soPin = "12345678", objects = "rsa+ec" } = options;
  const { certificates = true, commonName = "ops.mcollective" } = options;
  const dir = await mkdtemp(join(tmpdir(), "tokenfwd-softhsm-"));
  const configFile = join(dir, "softhsm2.conf");
  const env = { ...process.env, SOFTHSM2_CONF: configFile };
  const run = (file: string, args: readonly string[]) => execute(file, [...args], { env });
  const pkcs11Tool = (...args: string[]) => run("pkcs11-tool", ["--module", SOFTHSM_MODULE, ...args]);
  const initialize = (name: string) => run("softhsm2-util", ["--init-token", "--free", "--label", name, "--pin", pin, "--so-pin", soPin]);
  const dispose = () => rm(dir, { recursive: true, force: true });

  const importKey: SoftHsm["importKey"] = async ({ id, label: name, keyFile, certificateFile }) => {
    await run("softhsm2-util", ["--import", keyFile, "--token", label, "--label", name, "--id", id, "--pin", pin]);
    if (certificateFile === undefined) return;
    const der = join(dir, `${basename(certificateFile, extname(certificateFile))}.der`);
    await run("openssl", ["x509", "-in", certificateFile, "-outform", "DER", "-out", der]);
    const where = ["--token-label", label, "--login", "--pin", pin];
    await pkcs11Tool(...where, "--write-object", der, "--type", "cert", "--id", id, "--label", name);
  };

  async function makeKey(name: "rsa" | "ec", id: string, genpkey: readonly string[]): Promise<SoftHsmKey> {
    const keyFile = join(dir, `${name}.key`);
    const publicKeyFile = join(dir, `${name}.pub`);
    await run("openssl", ["genpkey", ...genpkey, "-out", keyFile]);
    await run("openssl", ["pkey", "-in", keyFile, "-pubout", "-out", publicKeyFile]);
    if (!certificates) {
      await importKey({ id, label: `${name} key`, keyFile });
      return { id, label: `${name} key`, keyFile, publicKeyFile, certificateFile: null };
    }
    const certificateFile = join(dir, `${name}.crt`);
    const ca = ["-CA", join(dir, "ca.crt"), "-CAkey", join(dir, "ca.key")];
    await run("openssl", [
      "req",
      "-x509",
      "-new",
      "-key",
      keyFile,
      "-subj",
      `/CN=${commonName}`,
      "-days",
      "30",
      ...ca,
      "-out",
      certificateFile,
    ]);
    await importKey({ id, label: `${name} key`, keyFile, certificateFile });
    return { id, label: `${name} key`, keyFile, publicKeyFile, certificateFile };
  }

  try {
    await mkdir(join(dir, "tokens"));
    const config = [`directories.tokendir = ${join(dir, "tokens")}`, "objectstore.backend = file", "log.level = ERROR", ""];
    await writeFile(configFile, config.join("\n"));
    await initialize(label);
    const caFile = join(dir, "ca.crt");
    if (certificates && objects !== "none") {
      const ca = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", join(dir, "ca.key")];
      await run("openssl", ["req", "-x509", ...ca, "-subj", "/CN=tokenfwd test CA", "-days", "30", "-out", caFile]);
    }
    const keys: { rsa?: SoftHsmKey; ec?: SoftHsmKey } = {};
    if (objects.includes("rsa")) keys.rsa = await makeKey("rsa", "01", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    if (objects.includes("ec")) keys.ec = await makeKey("ec", "02", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    return {
      dir,
      env,
      configFile,
      modulePath: SOFTHSM_MODULE,
      label,
      pin,
      soPin,
      caFile: certificates && objects !== "none" ? caFile : null,
      keys,
      pkcs11Tool,
      importKey,
      addToken: async (name) => {
        await initialize(name);
      },
      dispose,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}
