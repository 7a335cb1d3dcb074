/*
 * Whether the security provider that choria takes has what it needs, and which of them cannot do what a token is for. It must never
 * read a private key: that it is there, and who may read it, is enough.
 */

import type { X509Certificate } from "node:crypto";
import { printable, shellWord } from "../../base/printable.js";
import { checkCertificate, pemCertificates } from "./check-certificate.js";
import { onlyLoopback } from "./check-places.js";
import type { ValueSource } from "./client-config.js";
import { findClientModule } from "./client-module.js";
import type { CheckConfigInput, Findings } from "./finding.js";
import { booleanOf, pathOf } from "./parse.js";

const PROVIDERS = ["puppet", "file", "pkcs11", "certmanager", "choria"] as const;

/** What the looks at provider, signer and token share. */
export interface ProviderFacts {
  /** The certificates of the CA file; null when it could not be looked at. */
  readonly authorities: readonly X509Certificate[] | null;
}

/** Looks at the provider; answers what it saw of the CA. */
export async function checkProvider(input: CheckConfigInput, findings: Findings): Promise<ProviderFacts> {
  const { config } = input;
  const source = config.values.get("plugin.security.provider");
  if (source === undefined) {
    const text = "no security provider is named, so choria takes puppet: the operator's key in a file of Puppet's";
    findings.add("provider-default", "note", text, "nothing for tokenfwd choria run; else write: plugin.security.provider = file", {
      stockOnly: true,
    });
  }
  const provider = PROVIDERS.find((one) => one === config.provider);
  if (provider === undefined) {
    const text = `choria has no security provider ${printable(config.provider, 100)}`;
    findings.add("provider", "error", text, `write: plugin.security.provider = file (there are ${PROVIDERS.join(", ")})`, { source });
    return { authorities: null };
  }
  if (provider === "choria") {
    const text =
      "the provider choria signs protocol v2 with an ed25519 seed in a file: no token can take part, and tokenfwd speaks v1 only";
    const mend = "use it as it is; a token is of use where the servers take protocol v1 (providers puppet, file, pkcs11)";
    findings.add("protocol-v2", "error", text, mend, { source });
    return { authorities: null };
  }
  anonymousTls(input, findings);
  const authorities = await checkCa(input, findings);
  if (provider === "file") await checkFile(input, authorities, findings);
  if (provider === "pkcs11") await checkPkcs11(input, findings);
  return { authorities };
}

/** Requests are signed elsewhere. */
const hasSigner = ({ config }: CheckConfigInput): boolean =>
  config.values.has("plugin.choria.security.request_signer.url") ||
  booleanOf(config.values.get("plugin.choria.security.request_signer.service")?.value ?? "");

/** TLS is somebody else's business: a relay on loopback. */
const isRelayed = ({ config }: CheckConfigInput): boolean => onlyLoopback(config.middlewareHosts);

function anonymousTls(input: CheckConfigInput, findings: Findings): void {
  const source = input.config.values.get("plugin.security.client_anon_tls");
  if (source === undefined || !booleanOf(source.value)) return;
  if (!hasSigner(input)) {
    const text = "plugin.security.client_anon_tls needs a request signer, and choria does not start without one";
    findings.add("anonymous-tls", "error", text, "write: plugin.security.client_anon_tls = false", { source, stockOnly: true });
    return;
  }
  const text = "with plugin.security.client_anon_tls choria does not verify the broker: whoever stands between sees requests and replies";
  findings.add("anonymous-tls", "warning", text, "tokenfwd choria run verifies it", { source, stockOnly: true });
}

async function checkCa(input: CheckConfigInput, findings: Findings): Promise<readonly X509Certificate[] | null> {
  const { config, look, now } = input;
  if (isRelayed(input) && config.ca === null) return null;
  const key = config.provider === "puppet" ? "plugin.choria.ssldir" : "plugin.security.file.ca";
  const source = config.values.get(key);
  if (config.ca === null) {
    const text = `no CA is named (${key}), so the broker cannot be verified`;
    const mend =
      config.provider === "puppet"
        ? "write: plugin.choria.ssldir = DIRECTORY, the answer of puppet config print ssldir"
        : `write: ${key} = /etc/choria/ca.pem, the file with Choria's CA`;
    findings.add("no-ca", "error", text, mend, { source: config.values.get("plugin.security.provider") });
    return null;
  }
  const path = printable(config.ca);
  const looked = await look(config.ca, "text");
  if (looked.state !== "file") {
    const text = `the CA ${path} ${looked.state === "missing" ? "does not exist" : `cannot be read: ${looked.why}`}`;
    findings.add("ca", "error", text, `copy Choria's CA there, or write: ${key} = ${config.provider === "puppet" ? "DIRECTORY" : "FILE"}`, {
      source,
    });
    return null;
  }
  const authorities = pemCertificates(looked.bytes);
  if (authorities.length === 0) {
    findings.add("ca", "error", `${path} holds no PEM certificate`, "copy Choria's CA there, as PEM", { source });
    return null;
  }
  if (authorities.every(({ validTo }) => Date.parse(validTo) < now)) {
    findings.add("ca", "error", `the CA of ${path} has expired`, "copy the new CA there", { source });
  }
  return authorities;
}

async function checkFile(input: CheckConfigInput, authorities: readonly X509Certificate[] | null, findings: Findings): Promise<void> {
  const { config, look, now } = input;
  const [certificate, key] = ["certificate", "key"].map((name) => config.values.get(`plugin.security.file.${name}`));
  const signer = hasSigner(input);
  if (certificate === undefined || key === undefined) {
    if (certificate !== key) {
      const [set, unset] = certificate === undefined ? ["key", "certificate"] : ["certificate", "key"];
      const text = `plugin.security.file.${set} is set and plugin.security.file.${unset} is not: choria does not start`;
      findings.add("half-a-pair", "error", text, `write: plugin.security.file.${unset} = FILE`, {
        source: certificate ?? key,
        stockOnly: true,
      });
    } else if (!isRelayed(input)) {
      const text = "no certificate and key are named: choria by itself does not start so";
      const mend = signer
        ? "name a pair of this machine's (any that Choria's CA signed, for TLS only), or put a relay before the broker: tokenfwd choria relay"
        : "nothing for tokenfwd choria run and connect --choria, which need none here";
      findings.add("no-pair", signer ? "error" : "note", text, mend, { stockOnly: true });
    }
    return;
  }
  const path = pathOf(key.value, config.home ?? "");
  const keyFile = await look(path, "mode");
  if (keyFile.state !== "file") missing("private key", path, keyFile, key, findings);
  else if ((keyFile.mode & 0o077) !== 0) {
    const text = `the private key ${printable(path)} can be read by others (mode 0${keyFile.mode.toString(8)})`;
    findings.add("mode", "warning", text, `chmod 600 ${shellWord(path)}`, { source: key });
  }
  if (keyFile.state === "file" && !signer) {
    const text = `the key that signs requests lies in ${printable(path)}: whoever reads it here is its owner to every server`;
    findings.add("key-in-file", "note", text, "tokenfwd choria run signs with the token's; this file can go then");
  }
  const certPath = pathOf(certificate.value, config.home ?? "");
  const certFile = await look(certPath, "text");
  if (certFile.state !== "file") return missing("certificate", certPath, certFile, certificate, findings);
  const found = pemCertificates(certFile.bytes)[0];
  if (found === undefined) {
    findings.add("certificate", "error", `${printable(certPath)} holds no PEM certificate`, "write the path of the certificate", {
      source: certificate,
      stockOnly: true,
    });
  } else if (!signer) {
    const subject = { what: `the certificate ${printable(certPath)}`, der: found.raw, spki: null };
    certname(input, checkCertificate(subject, authorities, now, findings, { source: certificate, stockOnly: true }), findings);
  } else if (Date.parse(found.validTo) < now) {
    const text = `the certificate ${printable(certPath)} has expired on ${found.validTo}`;
    findings.add("expired", "error", text, "have a new one made for the same key", { source: certificate, stockOnly: true });
  }
}

function missing(
  what: string,
  path: string,
  looked: { readonly state: "missing" } | { readonly state: "unreadable"; readonly why: string },
  source: { readonly path: string; readonly line: number },
  findings: Findings,
): void {
  const text = `the ${what} ${printable(path)} ${looked.state === "missing" ? "does not exist" : `cannot be read: ${looked.why}`}`;
  const mend = "write the right path, or take the line out: tokenfwd choria run and connect --choria need none here";
  findings.add(what.replace(" ", "-"), "error", text, mend, { source, stockOnly: true });
}

/** With a key in a file the caller is what MCOLLECTIVE_CERTNAME or the login say, and servers compare that with the CN. */
function certname({ config, env, root }: CheckConfigInput, name: string | null, findings: Findings): void {
  const user = env["USER"];
  const claimed = config.certname ?? (root || user === undefined ? null : `${user}.mcollective`);
  if (name === null || claimed === name) return;
  const claims = claimed === null ? "this machine's name" : printable(claimed, 100);
  const text = `choria will call itself ${claims}, and its certificate says ${printable(name, 100)}: servers drop that, and say nothing`;
  findings.add("certname", "error", text, `export MCOLLECTIVE_CERTNAME=${printable(name, 100)}`, { stockOnly: true });
}

async function checkPkcs11(input: CheckConfigInput, findings: Findings): Promise<void> {
  const { config } = input;
  const source = config.values.get("plugin.security.provider");
  await checkDriver(input, source, findings);
  if (!isRelayed(input)) {
    const text =
      "the pkcs11 provider cannot open TLS to today's brokers: it signs handshakes with PKCS#1 v1.5, and they want RSA-PSS (context deadline exceeded after 2 s, and 11 signatures)";
    findings.add("pkcs11-tls", "error", text, "use tokenfwd choria run, or put a relay before the broker: tokenfwd choria relay", {
      source,
      stockOnly: true,
    });
  }
  if (hasSigner(input)) {
    const text = "the pkcs11 provider signs with the token itself and ignores request_signer";
    findings.add("signer-ignored", "warning", text, "write: plugin.security.provider = file", {
      source: config.values.get("plugin.choria.security.request_signer.url"),
      stockOnly: true,
    });
  }
}

async function checkDriver({ config, look }: CheckConfigInput, source: ValueSource | undefined, findings: Findings): Promise<void> {
  const key = "plugin.security.pkcs11.driver_file";
  const driver = config.values.get(key);
  const module = await findClientModule(look);
  const mend =
    module === null
      ? `install p11-kit's client module (Debian: p11-kit-modules), and write: ${key} = the path of p11-kit-client.so`
      : `write: ${key} = ${module}`;
  if (driver === undefined) {
    findings.add("driver", "error", `the pkcs11 provider needs ${key}`, mend, { source, stockOnly: true });
    return;
  }
  const path = pathOf(driver.value, config.home ?? "");
  if ((await look(path, "mode")).state !== "file") {
    findings.add("driver", "error", `the module ${printable(path)} does not exist`, mend, { source: driver, stockOnly: true });
  } else if (!path.endsWith("p11-kit-client.so")) {
    const text = `${printable(path)} is a module for a token in this machine; one in your workstation is reached by p11-kit-client.so`;
    findings.add("driver", "note", text, mend, { source: driver, stockOnly: true });
  }
}
