/*
 * The requests and answers of tokenfwd RPC that are no Cryptoki call, as a trace shows them. What is to be signed and what was signed
 * is its length alone, unless data was asked for.
 */
import { printable } from "../../base/printable.js";
import { mechanismName } from "../../cryptoki/mechanisms.js";
import type { RpcRequests, RpcRequestType, Snapshot } from "../rpc/messages.js";
import type { Shown, ShownFields } from "./records.js";
import { showBytes, showNumber, showParameter } from "./shown.js";

type Plain = Exclude<RpcRequestType, "call">;
type Shower<T extends Plain> = {
  request(request: RpcRequests[T]["request"], data: boolean): ShownFields;
  result(result: RpcRequests[T]["result"], data: boolean): ShownFields;
};

const NOTHING = { request: () => ({}), result: () => ({}) };

const SHOWERS: { readonly [T in Plain]: Shower<T> } = {
  hello: {
    request: ({ versions, client, snapshot }) => ({ versions, client: printable(client), snapshot }),
    result: ({ version, agent, snapshot }) => ({ version, agent: printable(agent), snapshot: showSnapshot(snapshot) }),
  },
  sign: {
    request({ key, mechanism, parameter, data: bytes, isDigest, purpose, expect }, data) {
      return {
        // A hash of public key material, which names the key.
        key: key.uri !== null ? printable(key.uri, 1000) : { spki: key.spki?.toString("hex") ?? null },
        mechanism: mechanism === null ? null : mechanismName(mechanism),
        ...(parameter === null ? {} : { parameter: showParameter(parameter, data) }),
        [isDigest ? "digest" : "data"]: showBytes(bytes, data),
        purpose,
        ...(expect === null ? {} : { expect: showBytes(expect, data) }),
      };
    },
    result: ({ signature, mechanism, uri, spki }, data) => ({
      signature: showBytes(signature, data),
      mechanism: mechanismName(mechanism),
      uri: printable(uri, 1000),
      spki: spki === null ? null : showBytes(spki, data),
    }),
  },
  status: {
    request: () => ({}),
    result: (status) => ({
      client: printable(status.client),
      origin: {
        kind: printable(status.origin.kind),
        destination: status.origin.destination === null ? null : printable(status.origin.destination),
      },
      connectId: printable(status.connectId),
      policy: printable(status.policy),
      pinMode: status.pin,
      loggedIn: status.loggedIn.map(showNumber),
      bytesIn: status.bytesIn,
      bytesOut: status.bytesOut,
      inFlight: status.inFlight,
    }),
  },
  subscribe: { request: ({ events }) => ({ events }), result: () => ({}) },
  ping: NOTHING,
};

/** The fields of a request that is no `call`. */
export function showRequest<T extends Plain>(type: T, request: RpcRequests[T]["request"], data: boolean): ShownFields {
  return SHOWERS[type].request(request, data);
}

/** The fields of its answer. */
export function showResult<T extends Plain>(type: T, result: RpcRequests[T]["result"], data: boolean): ShownFields {
  return SHOWERS[type].result(result, data);
}

function showSnapshot(snapshot: Snapshot | null): Shown {
  if (snapshot === null) return null;
  return {
    epoch: snapshot.epoch,
    tokens: snapshot.tokens.map((token) => ({
      slot: showNumber(token.slot),
      label: printable(token.label),
      uri: printable(token.uri, 1000),
      mechanisms: token.mechanisms.length,
      keys: token.keys.map(({ uri, type, bits }) => ({ uri: printable(uri, 1000), type, bits })),
    })),
  };
}
