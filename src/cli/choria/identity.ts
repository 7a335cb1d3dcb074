/*
 * Who the operator is: the one RSA key with its certificate among the keys that a client shows, or the one that is named, and
 * that key as a signer of whole documents. It must never take one of several, and logs in nowhere by itself.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { KeyEntry, TokenfwdClient } from "../../bastion/client/index.js";
import { identityOf } from "../../choria/signer/certificate.js";
import type { ChoriaIdentity, DocumentSigner } from "../../choria/types.js";
import { spkiFingerprint } from "../../cryptoki/keys/spki.js";
import { CKM } from "../../cryptoki/mechanisms.js";
import { type Pkcs11Uri, parseSelector, parseUri } from "../../cryptoki/uri.js";

/** What the workstation is told that it signs; it shows the request itself. */
const CHORIA_PURPOSE = "choria-request";

export interface FoundIdentity {
  readonly identity: ChoriaIdentity;
  readonly signer: DocumentSigner;
}

export interface FindIdentityOptions {
  /** `pkcs11:` URI without query attributes. */
  readonly key?: string;
  readonly signal: AbortSignal;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
}

/**
 * Finds it. Rejects with E_KEY_CHOICE, E_KEY_NOT_FOUND, E_CHORIA_CERT with a text for each fault of the certificate, and with
 * what the client's `keys` rejects with.
 */
export async function findIdentity(
  client: Pick<TokenfwdClient, "keys" | "signer">,
  { key, signal, now = Date.now }: FindIdentityOptions,
): Promise<FoundIdentity> {
  const keys = await client.keys({ signal });
  const entry = key === undefined ? onlyKey(keys) : namedKey(keys, key);
  const { certificate, spki } = entry;
  if (certificate === null) {
    throw new TokenfwdError("E_CHORIA_CERT", `there is no certificate of the key ${shown(entry)} on the token`, {
      hint: "load it on the token, with the same id as the key: pkcs11-tool --write-object CERT.der --type cert --id ID",
      reason: "no-certificate",
    });
  }
  const identity = identityOf(certificate, { uri: printable(entry.uri, 4096), spki: spki === null ? null : spkiFingerprint(spki) }, now());
  return { identity, signer: documentSigner(client, identity, spki) };
}

function documentSigner(client: Pick<TokenfwdClient, "signer">, identity: ChoriaIdentity, expect: Buffer | null): DocumentSigner {
  return {
    async sign(document, { signal }) {
      const { signature } = await client.signer.sign(
        {
          key: { uri: null, spki: identity.spki },
          mechanism: CKM.CKM_SHA256_RSA_PKCS,
          parameter: null,
          data: document,
          isDigest: false,
          purpose: CHORIA_PURPOSE,
          expect,
        },
        { signal },
      );
      return signature;
    },
  };
}

const shown = ({ uri }: KeyEntry): string => printable(uri, 500);

function onlyKey(keys: readonly KeyEntry[]): KeyEntry {
  if (keys.length === 0) throw none("no key is visible");
  const usable = keys.filter(({ type, certificate }) => type === "RSA" && certificate !== null);
  if (usable.length > 1) throw several("several keys have a certificate, and one must be named", usable);
  // Of a key that cannot be used the certificate says why.
  const found = usable[0] ?? keys.find(({ certificate }) => certificate !== null) ?? keys.find(({ type }) => type === "RSA") ?? keys[0];
  if (found === undefined) throw none("no key is visible");
  return found;
}

function namedKey(keys: readonly KeyEntry[], name: string): KeyEntry {
  const uri = parseSelector(name);
  const found = keys.filter((entry) => matches(uri, entry));
  if (found.length > 1) throw several("several keys match --key", found);
  if (found[0] !== undefined) return found[0];
  if (keys.length === 0) throw none("no key is visible");
  throw new TokenfwdError("E_KEY_NOT_FOUND", "no key matches --key", { hint: `the keys there are: ${listed(keys)}` });
}

/** Which of the key's objects is named does not matter. */
function matches({ path }: Pkcs11Uri, entry: KeyEntry): boolean {
  const own = parseUri(entry.uri).path;
  return [...path].every(([name, value]) => name === "type" || own.get(name)?.equals(value) === true);
}

function none(message: string): TokenfwdError {
  return new TokenfwdError("E_KEY_NOT_FOUND", message, {
    hint: "is the token plugged in at the workstation? one that shows its keys after a log-in alone is unlocked there: tokenfwd connect --unlock now",
  });
}

function several(message: string, keys: readonly KeyEntry[]): TokenfwdError {
  return new TokenfwdError("E_KEY_CHOICE", message, { hint: `name one with --key: ${listed(keys)}` });
}

function listed(keys: readonly KeyEntry[]): string {
  return printable(keys.map(({ uri }) => uri).join("  "), 2_000);
}
