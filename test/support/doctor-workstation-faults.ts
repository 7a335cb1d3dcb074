/*
 * The faults of the workstation, each made for real on a stage: modules that are missing, no modules, crash or hang; tokens and
 * certificates. A state that SoftHSM cannot have, such as a locked PIN, comes from the shim in front of it, by the flags it shows.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { DoctorFault } from "./doctor-fault.js";
import type { DoctorStage, DoctorWords } from "./doctor-stage.js";
import { choriaConfig, fails, warns } from "./doctor-words.js";
import { createShimModule } from "./shim-module.js";
import { createSoftHsm, type SoftHsm, type SoftHsmOptions } from "./softhsm.js";
import { inDays, replaceCertificate } from "./token-certificate.js";

const execute = promisify(execFile);

/** The stage's module behind one that misbehaves. */
async function shim(stage: DoctorStage, ...rules: string[]): Promise<DoctorWords> {
  const made = await createShimModule(stage.token.modulePath);
  stage.defer(() => made.dispose());
  await made.control(...rules);
  return { module: made.modulePath, env: made.env };
}

async function ownToken(stage: DoctorStage, options: SoftHsmOptions): Promise<SoftHsm> {
  const token = await createSoftHsm(options);
  stage.defer(() => token.dispose());
  return token;
}

async function withCertificate(stage: DoctorStage, of: "own" | "other", from: string, to: string): Promise<DoctorWords> {
  const token = await ownToken(stage, { objects: "rsa" });
  let keyFile = token.keys.rsa?.keyFile ?? "";
  if (of === "other") {
    keyFile = join(token.dir, "other.key");
    await execute("openssl", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", keyFile]);
  }
  await replaceCertificate(token, keyFile, from, to);
  return { token };
}

/** Every fault of the workstation. */
export const WORKSTATION_FAULTS: readonly DoctorFault[] = [
  {
    name: "a module that is missing",
    ...fails("module", "missing", 20, /--module/),
    fast: true,
    make: (stage) => ({ module: join(stage.dir, "none.so") }),
  },
  {
    name: "a file that is no module",
    ...fails("module", "not-a-library", 20, /\.so/),
    make(stage) {
      writeFileSync(join(stage.dir, "text.so"), "module: x\n");
      return { module: join(stage.dir, "text.so") };
    },
  },
  {
    name: "a library that is no module",
    ...fails("module", "not-a-module", 20, /Cryptoki/),

    async make(stage) {
      const path = join(stage.dir, "plain.so");
      writeFileSync(`${path}.c`, "int plain(void) { return 1; }\n");
      await execute("cc", ["-shared", "-fPIC", "-o", path, `${path}.c`]);
      return { module: path };
    },
  },
  {
    name: "a module that crashes when it is loaded",
    ...fails("module", "crashes", 21, /pkcs11-tool/),
    fast: true,
    make: (stage) => shim(stage, "load abort"),
  },
  {
    name: "a module that hangs when it is loaded",
    ...fails("module", "hangs", 21, /pkcs11-tool/),
    make: (stage) => shim(stage, "load hang"),
  },
  {
    name: "no token",
    ...fails("token", "none", 20, /plugged in/),
    fast: true,
    make: (stage) => shim(stage, "token out"),
  },
  {
    name: "two tokens",
    ...fails("token", "several-tokens", 20, /--token|--key/),
    async make(stage) {
      const token = await ownToken(stage, { objects: "rsa" });
      await token.addToken("second");
      const der = join(token.dir, "second.der");
      const pem = readFileSync(token.keys.rsa?.certificateFile ?? "");
      writeFileSync(der, Buffer.from(/-----\n([^-]*)-----/.exec(pem.toString())?.[1] ?? "", "base64"));
      await token.pkcs11Tool(
        "--token-label",
        "second",
        "--login",
        "--pin",
        token.pin,
        "--write-object",
        der,
        "--type",
        "cert",
        "--id",
        "07",
      );
      return { token };
    },
  },
  {
    name: "a locked PIN",
    ...fails("pin", "locked", 31, /PUK/),
    fast: true,
    connectGoesOn: true,
    make: (stage) => shim(stage, "flags 40000"),
  },
  {
    name: "a wrong PIN",
    ...fails("signature", "pin-wrong", 30, /PIN source/),
    fast: true,
    connectGoesOn: true,
    async make(stage) {
      writeFileSync(join(stage.dir, "wrong"), "0000\n", { mode: 0o600 });
      // A token of its own: it counts the try.
      const token = await ownToken(stage, { objects: "rsa" });
      return { token, options: ["--pin-source", `file:${join(stage.dir, "wrong")}`] };
    },
  },
  {
    name: "a PIN file that others may read",
    ...fails("pin-source", "unusable", 30, /600/),
    make(stage) {
      writeFileSync(join(stage.dir, "open"), "1234\n", { mode: 0o644 });
      return { options: ["--pin-source", `file:${join(stage.dir, "open")}`] };
    },
  },
  {
    name: "two keys",
    ...fails("key", "several-keys", 20, /--key/),
    make: async (stage) => ({ token: await ownToken(stage, {}) }),
  },
  {
    name: "an expired certificate",
    ...fails("validity", "expired", 1, /certificate/),
    connectGoesOn: true,
    make: (stage) => withCertificate(stage, "own", "20200101", "20210101"),
  },
  {
    name: "a certificate of another key",
    ...fails("certificate", "of-another-key", 20, /certificate/),
    connectGoesOn: true,
    make: (stage) => withCertificate(stage, "other", "20200101", inDays(30)),
  },
  {
    name: "an EC key with no Choria about",
    ...warns("choria-identity", "not-rsa-yet", /RSA/),
    fast: true,
    make: async (stage) => ({ token: await ownToken(stage, { objects: "ec" }) }),
  },
  {
    name: "a choria configuration in the wrong syntax",
    ...fails("choria-config", "syntax", 50, /plugin\.choria\.srv_domain = example\.net/),
    fast: true,
    connectGoesOn: true,
    make({ home, token }) {
      writeFileSync(join(home, ".choriarc"), `${choriaConfig(token)}plugin.choria.srv_domain: "example.net"\n`, { mode: 0o600 });
      return {};
    },
  },
  {
    name: "a choria configuration, and an EC key",
    ...fails("choria-identity", "not-rsa", 50, /RSA/),
    connectGoesOn: true,
    async make(stage) {
      const token = await ownToken(stage, { objects: "ec" });
      writeFileSync(join(stage.home, ".choriarc"), choriaConfig(token), { mode: 0o600 });
      return { token };
    },
  },
];
