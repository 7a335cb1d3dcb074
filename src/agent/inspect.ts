/*
 * Looks at a token before anybody logs in: which tokens there are, and the public objects on the chosen one, as URIs.
 * It must never log in.
 */
import { TokenfwdError } from "../base/errors.js";
import { paddedText, printable } from "../base/printable.js";
import { boolAttribute, CKA, findBool, findBytes, ulongAttribute } from "../cryptoki/attributes.js";
import { CKF, CKO } from "../cryptoki/constants.js";
import { findAll } from "../cryptoki/keys/find.js";
import { localContext } from "../cryptoki/local-context.js";
import { CKR, rvName } from "../cryptoki/rv.js";
import type { CallContext } from "../cryptoki/types.js";
import { matchesToken, objectUri, parseSelector, type TokenIdentity, tokenUri } from "../cryptoki/uri.js";
import type { TokenHost } from "../token/host/host.js";

/** One token. `uri`, `label` and `serial` are printable. */
export interface TokenSummary extends TokenIdentity {
  readonly slot: bigint;
  readonly uri: string;
  readonly flags: bigint;
}

/** One public object. */
export interface PublicObject {
  readonly slot: bigint;
  readonly class: bigint;
  readonly uri: string;
  readonly label: string;
  readonly id: Buffer;
  readonly labelBytes: Buffer;
}

export interface Inspection {
  readonly tokens: readonly TokenSummary[];
  readonly certificates: readonly PublicObject[];
  readonly publicKeys: readonly PublicObject[];
}

const MAX_SLOTS = 1_024;
const MAX_LABEL_BYTES = 4_096;

/** The initialised tokens of a module, each as it describes itself. Throws E_MODULE_FAULT when the module cannot say. */
export async function listTokens(host: TokenHost, ctx: CallContext): Promise<TokenSummary[]> {
  return (await readTokens(host, ctx)).tokens;
}

interface TokensRead {
  readonly tokens: TokenSummary[];
  /** Tokens that are there and have not been initialised. */
  readonly blank: number;
  /** The answers for tokens that are there and cannot be read. */
  readonly unreadable: readonly number[];
}

async function readTokens(host: TokenHost, ctx: CallContext): Promise<TokensRead> {
  const { rv, slots } = await host.cryptoki.call("C_GetSlotList", { tokenPresent: 1, room: MAX_SLOTS }, ctx);
  if (rv !== CKR.CKR_OK || !Array.isArray(slots)) {
    throw new TokenfwdError("E_MODULE_FAULT", `the module cannot list its slots: ${rvName(rv)}`, {
      hint: "try the same with: pkcs11-tool --module MODULE -L",
      reason: "unlistable",
    });
  }
  const tokens: TokenSummary[] = [];
  const unreadable: number[] = [];
  let blank = 0;
  for (const slot of slots as readonly bigint[]) {
    const info = await host.cryptoki.call("C_GetTokenInfo", { slot }, ctx);
    const { label, manufacturer, model, serial, flags } = info;
    if (info.rv !== CKR.CKR_OK || !label || !manufacturer || !model || !serial || flags === undefined) {
      if (info.rv !== CKR.CKR_TOKEN_NOT_PRESENT) unreadable.push(info.rv);
      continue;
    }
    if ((flags & CKF.CKF_TOKEN_INITIALIZED) === 0n) {
      blank += 1;
      continue;
    }
    const token = {
      label: paddedText(label),
      manufacturer: paddedText(manufacturer),
      model: paddedText(model),
      serial: paddedText(serial),
    };
    tokens.push({ slot, ...token, flags, uri: tokenUri(token) });
  }
  return { tokens, blank, unreadable };
}

/** True when `selector`, a label or a pkcs11: URI, means this token; null means every token. */
function selectsToken(selector: string | null, token: TokenIdentity): boolean {
  if (selector === null) return true;
  return /^pkcs11:/i.test(selector) ? matchesToken(parseSelector(selector), token) : token.label === selector;
}

async function publicObjects(host: TokenHost, token: TokenSummary, ctx: CallContext): Promise<PublicObject[]> {
  const opened = await host.cryptoki.call("C_OpenSession", { slot: token.slot, flags: CKF.CKF_SERIAL_SESSION }, ctx);
  const session = opened.session;
  if (opened.rv !== CKR.CKR_OK || session === undefined) {
    throw new TokenfwdError("E_MODULE_FAULT", `no session with the token ${token.label}: ${rvName(opened.rv)}`);
  }
  const found: PublicObject[] = [];
  for (const cls of [CKO.CKO_CERTIFICATE, CKO.CKO_PUBLIC_KEY]) {
    const template = [ulongAttribute(CKA.CKA_CLASS, cls), boolAttribute(CKA.CKA_TOKEN, true)];
    const { objects } = await findAll(host.cryptoki, session, template, ctx);
    for (const object of objects) {
      const query = [CKA.CKA_PRIVATE, CKA.CKA_LABEL, CKA.CKA_ID].map((type) => ({ type, room: MAX_LABEL_BYTES }));
      const { attributes = [] } = await host.cryptoki.call("C_GetAttributeValue", { session, object, query }, ctx);
      if (findBool(attributes, CKA.CKA_PRIVATE) === true) continue;
      const labelBytes = Buffer.from(findBytes(attributes, CKA.CKA_LABEL) ?? []);
      const id = Buffer.from(findBytes(attributes, CKA.CKA_ID) ?? []);
      // The key is what a person chooses, so the URI names the private key that belongs to this object.
      const uri = objectUri(token, { class: CKO.CKO_PRIVATE_KEY, label: id.length > 0 ? Buffer.alloc(0) : labelBytes, id });
      found.push({ slot: token.slot, class: cls, uri, label: printable(labelBytes), id, labelBytes });
    }
  }
  await host.cryptoki.call("C_CloseSession", { session }, ctx);
  return found;
}

function noToken(all: readonly TokenSummary[], blank: number, unreadable: readonly number[]): TokenfwdError {
  const failed = (message: string, hint: string, reason: string) => new TokenfwdError("E_TOKEN_NOT_FOUND", message, { hint, reason });
  const there = all.map((each) => each.label).join(", ");
  if (there !== "") return failed("no token matches --token", `the tokens there are: ${there}`, "no-match");
  const [rv] = unreadable;
  if (rv !== undefined)
    return failed(
      `the module cannot read the card: ${rvName(rv)}`,
      "is it a card of this module, and does another program hold it? tokenfwd doctor names who does",
      "unreadable",
    );
  if (blank > 0)
    return failed(
      "the module has no token that was initialised",
      "initialise it with its own tool (SoftHSM: softhsm2-util --init-token --free --label NAME), or plug in the one that is meant",
      "not-initialized",
    );
  return failed("the module has no token", "is the token plugged in? tokenfwd token list shows what each module sees", "none");
}

/**
 * The tokens that `token` (a label, a pkcs11: URI, or null for all) selects, with their public objects.
 * Throws E_TOKEN_NOT_FOUND with the tokens there are, E_TOKEN_UNSUPPORTED for a token with a PIN pad, E_MODULE_FAULT.
 */
export async function inspectToken(
  host: TokenHost,
  token: string | null = null,
  signal: AbortSignal = new AbortController().signal,
): Promise<Inspection> {
  const ctx = localContext("agent", signal);
  const { tokens: all, blank, unreadable } = await readTokens(host, ctx);
  const tokens = all.filter((each) => selectsToken(token, each));
  if (tokens.length === 0) {
    throw noToken(all, blank, unreadable);
  }
  const pad = tokens.find((each) => (each.flags & CKF.CKF_PROTECTED_AUTHENTICATION_PATH) !== 0n);
  if (pad !== undefined) {
    throw new TokenfwdError("E_TOKEN_UNSUPPORTED", `the token ${pad.label} has a PIN pad, which this version cannot use`, {
      hint: "choose another token with --token, or switch the reader's PIN pad off in the module's configuration",
      reason: "pin-pad",
    });
  }
  const objects: PublicObject[] = [];
  for (const each of tokens) objects.push(...(await publicObjects(host, each, ctx)));
  return {
    tokens,
    certificates: objects.filter((object) => object.class === CKO.CKO_CERTIFICATE),
    publicKeys: objects.filter((object) => object.class === CKO.CKO_PUBLIC_KEY),
  };
}
