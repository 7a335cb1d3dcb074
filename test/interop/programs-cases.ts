/*
 * The programs that are compared: what a person on a bastion does every day, and what somebody does who manages a token.
 * A case must run on its own token or leave it as it was, except in the managing set, whose cases build on each other.
 */
import { createHash, constants as crypto, verify } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { SoftHsm } from "../support/softhsm.js";
import type { Invocation, ProgramCase, Way } from "./programs.js";

/** What is signed. */
export const DOCUMENT = Buffer.from("a document that is signed in three ways\n");
const DIGEST = createHash("sha256").update(DOCUMENT).digest();
const DIGEST_INFO = Buffer.concat([Buffer.from("3031300d060960864801650304020105000420", "hex"), DIGEST]);

const tool = (way: Way, ...args: readonly string[]): string[] => ["pkcs11-tool", "--module", way.modulePath, ...args];
const signatureFile = (way: Way): string => join(way.dir, "signature");
const tokenUri = (token: SoftHsm): string => `pkcs11:token=${encodeURIComponent(token.label)}`;

/** Whether the signature in the way's directory is one over DOCUMENT. */
function signatureCheck(publicKeyFile: string, how: "pkcs1" | "pss" | "ecdsa") {
  return (way: Way): string => {
    if (!existsSync(signatureFile(way))) return "signature: none";
    const key = readFileSync(publicKeyFile, "utf8");
    const signature = readFileSync(signatureFile(way));
    const padding = how === "pss" ? { padding: crypto.RSA_PKCS1_PSS_PADDING, saltLength: 32 } : {};
    return `signature: ${verify("sha256", DOCUMENT, { key, ...padding }, signature) ? "good" : "bad"}`;
  };
}

interface Signing {
  readonly name: string;
  readonly mechanism: string;
  readonly key: "rsa" | "ec";
  readonly input: Buffer;
  readonly how: "pkcs1" | "pss" | "ecdsa";
  readonly more?: readonly string[];
  /** `--pin X`, or `--login` and no PIN. */
  readonly login: readonly string[];
}

function signing(token: SoftHsm, one: Signing): ProgramCase {
  const key = token.keys[one.key];
  if (key === undefined) throw new Error(`the token has no ${one.key} key`);
  return {
    name: one.name,
    run: (way): Invocation => ({
      argv: tool(way, "--sign", "-m", one.mechanism, "--id", key.id, ...(one.more ?? []), ...one.login, "-o", signatureFile(way)),
      input: one.input,
    }),
    check: (way) => signatureCheck(key.publicKeyFile, one.how)(way),
  };
}

/** Every day: looking, logging in and signing, under the profile `sign` and with the PIN at the workstation. */
export function everydayCases(token: SoftHsm): ProgramCase[] {
  const right = ["--pin", token.pin];
  const pss = ["--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256"];
  const rsa = { key: "rsa", how: "pkcs1", input: DOCUMENT, mechanism: "SHA256-RSA-PKCS" } as const;
  const gnutls = { GNUTLS_PIN: token.pin };
  const testSign = (kind: "RSA" | "EC"): ProgramCase => {
    const key = `${tokenUri(token)};object=${kind.toLowerCase()}%20key;type=private`;
    const argv = (way: Way) => ["p11tool", "--batch", "--provider", way.modulePath, "--login", "--test-sign", key];
    return { name: `p11tool --test-sign ${kind}`, run: (way) => ({ argv: argv(way), env: gnutls }) };
  };
  return [
    { name: "pkcs11-tool -L", run: (way) => ({ argv: tool(way, "-L") }) },
    // The module's own list is not compared: stock p11-kit's client hides what it does not know.
    { name: "pkcs11-tool -M", against: ["stock"], run: (way) => ({ argv: tool(way, "-M") }) },
    { name: "pkcs11-tool -O", run: (way) => ({ argv: tool(way, "-O") }) },
    { name: "pkcs11-tool --login -O", run: (way) => ({ argv: tool(way, "--login", ...right, "-O") }) },
    signing(token, { ...rsa, name: "sign RSA-PKCS", mechanism: "RSA-PKCS", input: DIGEST_INFO, login: right }),
    signing(token, { ...rsa, name: "sign SHA256-RSA-PKCS", login: right }),
    signing(token, { ...rsa, name: "sign RSA-PKCS-PSS", mechanism: "RSA-PKCS-PSS", how: "pss", input: DIGEST, more: pss, login: right }),
    signing(token, {
      name: "sign ECDSA",
      mechanism: "ECDSA",
      key: "ec",
      how: "ecdsa",
      input: DIGEST,
      more: ["--signature-format", "openssl"],
      login: right,
    }),
    signing(token, { ...rsa, name: "sign with no PIN", login: ["--login"] }),
    { name: "p11tool --list-tokens", run: (way) => ({ argv: ["p11tool", "--batch", "--provider", way.modulePath, "--list-tokens"] }) },
    {
      name: "p11tool --list-all --login",
      run: (way) => ({ argv: ["p11tool", "--batch", "--provider", way.modulePath, "--list-all", "--login", tokenUri(token)], env: gnutls }),
    },
    testSign("RSA"),
    testSign("EC"),
    { name: "ssh-keygen -D", run: (way) => ({ argv: ["ssh-keygen", "-D", way.modulePath] }) },
    {
      name: "openssl dgst, engine",
      run: (way) => ({
        argv: [
          ...["openssl", "dgst", "-engine", "pkcs11", "-keyform", "engine", "-sha256", "-out", signatureFile(way)],
          ...["-sign", `${tokenUri(token)};object=rsa%20key;type=private;pin-value=${token.pin}`],
        ],
        env: { PKCS11_MODULE_PATH: way.modulePath },
        input: DOCUMENT,
      }),
      check: (way) => signatureCheck(token.keys.rsa?.publicKeyFile ?? "", "pkcs1")(way),
    },
    // Last, since it makes the token say "PIN count low" until the next log-in.
    signing(token, { ...rsa, name: "sign with a wrong PIN", login: ["--pin", "0000"] }),
  ];
}

/** Managing a token with one RSA key, in this order: under `full` it works, under `sign` each that changes something is refused. */
export function managingCases(token: SoftHsm): ProgramCase[] {
  const login = ["--login", "--pin", token.pin];
  const certificate = token.keys.rsa?.certificateFile?.replace(/\.crt$/, ".der") ?? "";
  const made = ["--id", "33", "--label", "made here"];
  const uses = (name: string, ...args: readonly string[]): ProgramCase => ({ name, run: (way) => ({ argv: tool(way, ...args) }) });
  return [
    // 1 also on the module itself: OAEP with a label, which SoftHSM does not do.
    { ...uses("--test --login", ...login, "--test"), exit: 1 },
    uses("--keypairgen", ...login, "--keypairgen", "--key-type", "EC:prime256v1", ...made),
    uses("-O after --keypairgen", ...login, "-O", "--type", "privkey"),
    uses("--write-object", ...login, "--write-object", certificate, "--type", "cert", ...made),
    uses("-O after --write-object", ...login, "-O", "--type", "cert"),
    uses("--delete-object", ...login, "--delete-object", "--type", "cert", "--id", "33"),
    uses("--delete-object of a key", ...login, "--delete-object", "--type", "privkey", "--id", "33"),
    uses("-O after --delete-object", ...login, "-O", "--type", "privkey"),
    uses("--change-pin", "--login", "--change-pin", "--pin", token.pin, "--new-pin", "4321"),
    { ...uses("the old PIN after --change-pin", ...login, "-O", "--type", "privkey"), exit: 1 },
    uses("the new PIN after --change-pin", "--login", "--pin", "4321", "-O", "--type", "privkey"),
    uses("--init-pin", "--login", "--login-type", "so", "--so-pin", token.soPin, "--init-pin", "--new-pin", token.pin),
    uses("the PIN after --init-pin", ...login, "-O", "--type", "privkey"),
    uses("--init-token", "--init-token", "--slot-index", "0", "--label", "another label", "--so-pin", token.soPin),
    uses("-L after --init-token", "-L"),
  ];
}
