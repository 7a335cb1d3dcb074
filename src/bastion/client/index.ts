/*
 * `tokenfwd/client`: signatures with, and every Cryptoki call to, the token in a workstation, from a program on a bastion.
 * Node >= 20, no native code. See docs/client.md. It must never export what is not meant to be kept stable.
 *
 *     import { connectClient } from "tokenfwd/client";
 *     await using client = await connectClient();
 *     const [key] = await client.keys();
 */
import { connectClient as connect } from "./connect-client.js";
import type { ConnectOptions, TokenfwdClient } from "./types.js";

export { TokenfwdError } from "../../base/errors.js";
export type { Emitter } from "../../base/events.js";
export { derToRaw, rawToDer } from "../../cryptoki/keys/ecdsa-der.js";
export { spkiFingerprint, spkiOfCertificate } from "../../cryptoki/keys/spki.js";
export type { KeyEntry, KeyType } from "../../cryptoki/keys/types.js";
export { localContext } from "../../cryptoki/local-context.js";
export { CKM, mechanismName } from "../../cryptoki/mechanisms.js";
export type { Cryptoki, CryptokiEvents, MechanismParameter } from "../../cryptoki/types.js";
export type { KeyChoice, SignMessage, SignResult, StatusResult } from "../../wire/rpc/messages.js";
export { findSockets, type SocketPlace, type SocketSearch } from "./find-socket.js";
export type { ConnectOptions, PinProvider, Signer, TokenfwdClient } from "./types.js";

/**
 * A client on the first socket that can be used: `socket`, TOKENFWD_SOCKET, P11_KIT_SERVER_ADDRESS, TOKENFWD_AGENT, or a
 * well-known place. At most 10 s to connect, 10 s for the other end's first byte and 120 s for its list of keys. Rejects with
 * a TokenfwdError: E_AGENT_NOT_FOUND (nothing anywhere), E_AGENT_SOCKET (what was named cannot be used, or several
 * workstations are connected and none was named); or with the signal's reason.
 */
export function connectClient(options: ConnectOptions = {}): Promise<TokenfwdClient> {
  return connect(options);
}
