/*
 * A Cryptoki with one token on paper: objects, sessions and a log-in, no cryptography. For what a real token cannot be
 * made to do at the right moment. Its signature is the mechanism, the key's handle and the SHA-256 of what was signed.
 */
import { createHash } from "node:crypto";
import { createEmitter } from "../../src/base/events.js";
import { CKA, findBool, findBytes, unavailableAttribute } from "../../src/cryptoki/attributes.js";
import { type CallName, callByName } from "../../src/cryptoki/calls.js";
import { CKF } from "../../src/cryptoki/constants.js";
import { CKR } from "../../src/cryptoki/rv.js";
import type { AnyArgs, AnyResult, Attribute, AttributeQuery, CallContext, Cryptoki, Mechanism } from "../../src/cryptoki/types.js";

export interface PaperToken extends Cryptoki {
  /** Names of the calls made, in order. */
  readonly calls: CallName[];
  readonly objects: Map<bigint, readonly Attribute[]>;
  readonly sessions: Set<bigint>;
  mechanisms: number[];
  flags: bigint;
  isLoggedIn: boolean;
  /** The most sessions that there can be. */
  maxSessions: number;
  /** Runs before a call; an answer stands in for the token's. */
  before: (name: CallName, args: AnyArgs, ctx: CallContext) => AnyResult | undefined | Promise<AnyResult | undefined>;
  /** The module starts again: no session, no log-in, other handles. */
  restart(): void;
}

const padded = (text: string, length: number) => Buffer.from(text.padEnd(length));

/** What the token answers for a signature. */
export function paperSignature(mechanism: number, key: bigint, data: Buffer): Buffer {
  return createHash("sha256").update(`${mechanism}/${key}/`).update(data).digest();
}

export function createPaperToken(objects: readonly (readonly Attribute[])[], mechanisms: readonly number[]): PaperToken {
  let nextHandle = 100n;
  let nextSession = 1n;
  const searches = new Map<bigint, bigint[]>();
  const signing = new Map<bigint, { readonly mechanism: Mechanism; readonly key: bigint }>();
  const place = (attributes: readonly Attribute[]) => {
    nextHandle += 1n;
    token.objects.set(nextHandle, attributes);
  };
  const visible = (attributes: readonly Attribute[]) => token.isLoggedIn || findBool(attributes, CKA.CKA_PRIVATE) !== true;
  const matches = (attributes: readonly Attribute[], template: readonly Attribute[]) =>
    visible(attributes) &&
    template.every(({ type, value }) => Buffer.isBuffer(value) && findBytes(attributes, type)?.equals(value) === true);

  function inSession(name: CallName, session: bigint, args: AnyArgs): AnyResult {
    if (!token.sessions.has(session)) return { rv: CKR.CKR_SESSION_HANDLE_INVALID };
    switch (name) {
      case "C_CloseSession":
        token.sessions.delete(session);
        signing.delete(session);
        return { rv: CKR.CKR_OK };
      case "C_Login":
        if (token.isLoggedIn) return { rv: CKR.CKR_USER_ALREADY_LOGGED_IN };
        token.isLoggedIn = true;
        return { rv: CKR.CKR_OK };
      case "C_FindObjectsInit": {
        const template = args["template"] as readonly Attribute[];
        searches.set(
          session,
          [...token.objects].filter(([, each]) => matches(each, template)).map(([handle]) => handle),
        );
        return { rv: CKR.CKR_OK };
      }
      case "C_FindObjects":
        return { rv: CKR.CKR_OK, objects: searches.get(session)?.splice(0) ?? [] };
      case "C_FindObjectsFinal":
        return { rv: CKR.CKR_OK };
      case "C_GetAttributeValue": {
        const object = token.objects.get(args["object"] as bigint);
        if (object === undefined) return { rv: CKR.CKR_OBJECT_HANDLE_INVALID };
        const query = args["query"] as readonly AttributeQuery[];
        const attributes = query.map(({ type }) => object.find((each) => each.type === type) ?? unavailableAttribute(type));
        return { rv: attributes.some(({ length }) => length < 0) ? CKR.CKR_ATTRIBUTE_TYPE_INVALID : CKR.CKR_OK, attributes };
      }
      case "C_SignInit": {
        const key = args["key"] as bigint;
        if (!token.isLoggedIn) return { rv: CKR.CKR_USER_NOT_LOGGED_IN };
        if (!token.objects.has(key)) return { rv: CKR.CKR_KEY_HANDLE_INVALID };
        if (signing.has(session)) return { rv: CKR.CKR_OPERATION_ACTIVE };
        signing.set(session, { mechanism: args["mechanism"] as Mechanism, key });
        return { rv: CKR.CKR_OK };
      }
      case "C_Sign": {
        const running = signing.get(session);
        if (running === undefined) return { rv: CKR.CKR_OPERATION_NOT_INITIALIZED };
        signing.delete(session);
        return { rv: CKR.CKR_OK, output: paperSignature(running.mechanism.type, running.key, args["data"] as Buffer) };
      }
      default:
        return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED };
    }
  }

  function answer(name: CallName, args: AnyArgs): AnyResult {
    if (typeof args["session"] === "bigint") return inSession(name, args["session"], args);
    switch (name) {
      case "C_GetSlotList":
        return { rv: CKR.CKR_OK, slots: [7n] };
      case "C_GetTokenInfo": {
        const names = { label: padded("paper", 32), manufacturer: padded("ours", 32), model: padded("m", 16), serial: padded("1", 16) };
        const rest = Object.fromEntries(
          callByName("C_GetTokenInfo")
            .outs.slice(5, 15)
            .map((out) => [out, 0n]),
        );
        const versions = { hardwareVersion: { major: 1, minor: 0 }, firmwareVersion: { major: 1, minor: 0 } };
        return { rv: CKR.CKR_OK, ...names, ...rest, ...versions, utcTime: padded("", 16), flags: token.flags };
      }
      case "C_GetMechanismList":
        return { rv: CKR.CKR_OK, mechanisms: token.mechanisms.map(BigInt) };
      case "C_OpenSession": {
        if (token.sessions.size >= token.maxSessions) return { rv: CKR.CKR_SESSION_COUNT };
        const session = nextSession;
        nextSession += 1n;
        token.sessions.add(session);
        return { rv: CKR.CKR_OK, session };
      }
      default:
        return { rv: CKR.CKR_FUNCTION_NOT_SUPPORTED };
    }
  }

  const token: PaperToken = {
    events: createEmitter(),
    close: async () => {},
    calls: [],
    objects: new Map(),
    sessions: new Set(),
    mechanisms: [...mechanisms],
    flags: CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED,
    isLoggedIn: false,
    maxSessions: 100,
    before: () => undefined,
    async call(name, args, ctx) {
      token.calls.push(name);
      const instead = await token.before(name, args as AnyArgs, ctx);
      return (instead ?? answer(name, args as AnyArgs)) as never;
    },
    restart() {
      token.sessions.clear();
      signing.clear();
      token.isLoggedIn = false;
      const all = [...token.objects.values()];
      token.objects.clear();
      for (const each of all) place(each);
    },
  };
  for (const each of objects) place(each);
  return token;
}
