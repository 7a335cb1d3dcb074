/*
 * Another certificate for a SoftHSM token's RSA key than the one it was made with: of other dates, or of another key.
 */
import { execFile } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { SoftHsm } from "./softhsm.js";

const execute = promisify(execFile);

const CA_CONFIG = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n[any]\n";

/** Writes a certificate of this key (PEM file), good between these days (YYYYMMDD), to the token in the place of the RSA key's own. */
export async function replaceCertificate(own: SoftHsm, keyFile: string, from: string, to: string): Promise<void> {
  const [pem, der] = [join(own.dir, "other.crt"), join(own.dir, "other.der")];
  const ca = { cwd: await mkdtemp(join(own.dir, "ca-")) };
  for (const [name, text] of Object.entries({ config: `${CA_CONFIG}commonName=supplied\n`, index: "", serial: "01\n" }))
    await writeFile(join(ca.cwd, name), text);
  await execute("openssl", ["req", "-new", "-key", keyFile, "-subj", "/CN=ops.mcollective", "-out", "csr"], ca);
  const dates = ["-startdate", `${from}000000Z`, "-enddate", `${to}000000Z`];
  await execute(
    "openssl",
    ["ca", "-config", "config", "-batch", "-selfsign", "-keyfile", keyFile, "-in", "csr", ...dates, "-notext", "-out", pem],
    ca,
  );
  await execute("openssl", ["x509", "-in", pem, "-outform", "DER", "-out", der]);
  const login = ["--token-label", own.label, "--login", "--pin", own.pin];
  await own.pkcs11Tool(...login, "--delete-object", "--type", "cert", "--id", "01").catch(() => undefined);
  await own.pkcs11Tool(...login, "--write-object", der, "--type", "cert", "--id", "01", "--label", "rsa key");
}

/** A day from now, YYYYMMDD. */
export const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10).replaceAll("-", "");
