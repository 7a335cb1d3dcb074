/*
 * The keys that connect would expose, with everything public that the token shows of each: what certificate lies beside which public
 * key. It must never log in, so a token that shows nothing before a log-in has no keys here.
 */
import { X509Certificate } from "node:crypto";
import { exposeKey } from "../../agent/exposure.js";
import type { Inspection, TokenSummary } from "../../agent/inspect.js";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { CKF, CKO } from "../../cryptoki/constants.js";
import { KeyError } from "../../cryptoki/keys/key-error.js";
import { describeSpki } from "../../cryptoki/keys/spki.js";
import { type KeyPart, readKeyParts } from "../../cryptoki/keys/token-reader.js";
import { localContext } from "../../cryptoki/local-context.js";
import { CKR, rvName } from "../../cryptoki/rv.js";
import { objectUri } from "../../cryptoki/uri.js";
import type { TokenHost } from "../../token/host/host.js";

/** A certificate on the token. */
export interface HeldCertificate {
  readonly der: Buffer;
  /** Null where it cannot be read. */
  readonly x509: X509Certificate | null;
  readonly spki: Buffer | null;
}

/** What the token shows under one CKA_ID, or one label. */
export interface HeldKey {
  /** Of the private key, printable. */
  readonly uri: string;
  /** Printable; `(no label)` where it has none. */
  readonly name: string;
  /** DER SubjectPublicKeyInfo of the public key objects. */
  readonly publicKeys: readonly Buffer[];
  /** Not those of CAs, unless there is no other. */
  readonly certificates: readonly HeldCertificate[];
}

/** Reads them. Throws E_KEY_NOT_FOUND and E_KEY_CHOICE as the agent does, E_MODULE_FAULT where the token cannot be read. */
export async function readHeldKeys(host: TokenHost, inspection: Inspection, key: string | null, signal: AbortSignal): Promise<HeldKey[]> {
  const exposure = exposeKey(key, inspection);
  const keys: HeldKey[] = [];
  for (const token of inspection.tokens) {
    if (!exposure.slots.has(token.slot)) continue;
    const parts = (await partsOf(host, token, signal)).filter((part) => {
      const { class: cls, label, id } = part;
      return exposure.object({ slot: token.slot, class: cls, private: false, label, id });
    });
    const groups = new Map<string, KeyPart[]>();
    for (const part of parts) {
      const name = part.id.length > 0 ? `id ${part.id.toString("hex")}` : `label ${part.label.toString("hex")}`;
      groups.set(name, [...(groups.get(name) ?? []), part]);
    }
    keys.push(...[...groups.values()].flatMap((group) => heldKey(token, group)));
  }
  return keys;
}

async function partsOf(host: TokenHost, { slot }: TokenSummary, signal: AbortSignal): Promise<KeyPart[]> {
  const ctx = localContext("doctor", signal);
  const { rv, session } = await host.cryptoki.call("C_OpenSession", { slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  if (rv !== CKR.CKR_OK || session === undefined) throw unreadable(`no session: ${rvName(rv)}`);
  try {
    return await readKeyParts(host.cryptoki, session, ctx);
  } catch (thrown) {
    throw thrown instanceof KeyError ? unreadable(thrown.message) : thrown;
  } finally {
    await host.cryptoki.call("C_CloseSession", { session }, ctx);
  }
}

function unreadable(why: string): TokenfwdError {
  return new TokenfwdError("E_MODULE_FAULT", `the token's objects cannot be read: ${why}`, {
    hint: "try the same with: pkcs11-tool --module MODULE -O",
    reason: "objects-unreadable",
  });
}

function readCertificate({ certificate, spki }: KeyPart): HeldCertificate {
  const der = certificate ?? Buffer.alloc(0);
  try {
    return { der, x509: new X509Certificate(der), spki };
  } catch {
    return { der, x509: null, spki: null };
  }
}

/** A group that has the certificate of a CA alone is no key. */
function heldKey(token: TokenSummary, group: readonly KeyPart[]): HeldKey[] {
  const certificates = group.filter((part) => part.class === CKO.CKO_CERTIFICATE).map(readCertificate);
  const leaves = certificates.filter(({ x509 }) => x509?.ca !== true);
  const [first] = group;
  const isKey = leaves.length > 0 || group.some((part) => part.class !== CKO.CKO_CERTIFICATE);
  if (first === undefined || !isKey) return [];
  const { id, label } = first;
  const uri = objectUri(token, { class: CKO.CKO_PRIVATE_KEY, id, label: id.length > 0 ? Buffer.alloc(0) : label });
  const publicKeys = group.flatMap((part) => (part.class === CKO.CKO_PUBLIC_KEY && part.spki !== null ? [part.spki] : []));
  return [{ uri, name: printable(label, 80) || "(no label)", publicKeys, certificates: leaves.length > 0 ? leaves : certificates }];
}

/** `RSA 2048`, `EC P-256`. */
export function kindOf(spki: Buffer): string {
  const { type, bits, curve } = describeSpki(spki);
  return [type, bits ?? curve].filter((part) => part !== null).join(" ");
}
