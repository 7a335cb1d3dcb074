/*
 * A certificate authority of a test, made by openssl in a directory of the test's: whom the network trusts, and whom it must not.
 * Keys lie in files here, which is what a token is there to avoid: only tests may.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);
const openssl = (...args: string[]) => execute("openssl", args);

export interface Leaf {
  readonly commonName: string;
  /** PEM files. */
  readonly certificate: string;
  readonly key: string;
}

export interface LeafOptions {
  readonly commonName: string;
  /** subjectAltName as openssl writes it; `DNS:` and the common name by default. */
  readonly names?: string;
  /** Default `rsa` (2048 bits). */
  readonly algorithm?: "rsa" | "ec" | "ed25519";
  /** Whose signature: ours (`ca`, default) or that of an authority nobody trusts. */
  readonly issuer?: "ca" | "stranger";
  /** Default 30; a negative number has expired. */
  readonly days?: number;
}

export interface Pki {
  /** PEM files of the two authorities' certificates. */
  readonly ca: string;
  readonly stranger: string;
  /** Makes a key and its certificate, once for each name of file. */
  leaf(name: string, options: LeafOptions): Promise<Leaf>;
}

const ALGORITHMS = {
  rsa: ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  ec: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
  ed25519: ["-algorithm", "ED25519"],
} as const;

/** Makes both authorities in `dir`, which is made. */
export async function createPki(dir: string): Promise<Pki> {
  const file = (name: string) => join(dir, name);
  const leaves = new Map<string, Promise<Leaf>>();
  await mkdir(dir, { mode: 0o700 });
  await Promise.all(
    ["ca", "stranger"].map((name) =>
      openssl(
        ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-sha256", "-subj", `/CN=tokenfwd choria ${name}`],
        ...["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", file(`${name}.key`), "-out", file(`${name}.pem`)],
      ),
    ),
  );

  async function make(name: string, options: LeafOptions): Promise<Leaf> {
    const { commonName, names = `DNS:${commonName}`, algorithm = "rsa", issuer = "ca", days = 30 } = options;
    const [key, request, extensions, certificate] = ["key", "csr", "ext", "pem"].map((suffix) => file(`${name}.${suffix}`));
    if (key === undefined || request === undefined || extensions === undefined || certificate === undefined) throw new Error("no name");
    await openssl("genpkey", ...ALGORITHMS[algorithm], "-out", key);
    await chmod(key, 0o600);
    const use = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n";
    await writeFile(extensions, `${use}subjectAltName=${names}\n`);
    await openssl("req", "-new", "-key", key, "-subj", `/CN=${commonName}`, "-out", request);
    await openssl(
      ...["x509", "-req", "-in", request, "-CA", file(`${issuer}.pem`), "-CAkey", file(`${issuer}.key`), "-sha256"],
      ...["-set_serial", `0x1${randomBytes(8).toString("hex")}`, "-days", String(days), "-extfile", extensions, "-out", certificate],
    );
    return { commonName, certificate, key };
  }

  return {
    ca: file("ca.pem"),
    stranger: file("stranger.pem"),
    leaf(name, options) {
      const made = leaves.get(name) ?? make(name, options);
      leaves.set(name, made);
      return made;
    },
  };
}
