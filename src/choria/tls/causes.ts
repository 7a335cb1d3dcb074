/*
 * What OpenSSL, its engine and a broker say when something fails, as errors that a person can act on. Texts of a broker or of a
 * certificate pass base/printable; no error says more than is known.
 */
import { type ErrorCode, TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { hostPort } from "../loopback.js";
import type { TlsFailure } from "./messages.js";

/** A broker by name. */
export interface BrokerName {
  readonly host: string;
  readonly port: number;
}

/** `broker HOST:PORT`, printable. */
export function brokerName(broker: BrokerName): string {
  return `broker ${printable(hostPort(broker), 300)}`;
}

const CHAIN: Readonly<Record<string, readonly [what: string, mend: string]>> = {
  CERT_HAS_EXPIRED: ["has expired", "renew it, or set this machine's clock right"],
  CERT_NOT_YET_VALID: ["is not valid yet", "set this machine's clock right"],
  CERT_REVOKED: ["is revoked", "give the broker another certificate"],
  INVALID_PURPOSE: ["is not meant for a server", "give the broker a certificate with the extended key usage serverAuth"],
};
const NOT_OF_THE_CA: readonly [string, string] = [
  "is not signed by the CA that was given",
  "is the CA file of --ca the one of your brokers? if so, somebody else answers there",
];

/** A broker that is not the one it should be. Nothing was signed for it. */
export function strangerError({ code, message }: TlsFailure, broker: BrokerName): TokenfwdError {
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    const names = /is not in the cert's (?:altnames|list): (.*)$/.exec(message)?.[1] ?? /is not cert's CN: (.*)$/.exec(message)?.[1];
    const whose = names === undefined || names.trim() === "" ? "" : `: it is for ${printable(names.trim(), 300)}`;
    return new TokenfwdError("E_CHORIA_BROKER", `the certificate of ${brokerName(broker)} is for another name${whose}`, {
      hint: "name the broker as its certificate does; nothing was signed",
    });
  }
  const [what, mend] = CHAIN[code] ?? NOT_OF_THE_CA;
  const why = code in CHAIN ? "" : ` (${printable(message.split(";")[0] ?? "", 200)})`;
  return new TokenfwdError("E_CHORIA_BROKER", `the certificate of ${brokerName(broker)} ${what}${why}`, {
    hint: `${mend}; nothing was signed`,
  });
}

/** What Node says where it checks the broker itself, as it does where no key is in play. */
export function isStranger(code: string): boolean {
  return code === "ERR_TLS_CERT_ALTNAME_INVALID" || code in CHAIN || /^(UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|CERT_)/.test(code);
}

/** The reason in an error line of OpenSSL, `error:CODE:LIBRARY:FUNCTION:REASON:...`; all of any other text. */
function reasonOf(message: string): string {
  return printable(/error:[0-9A-Fa-f]+:[^:]*:[^:]*:([^:;]+)/.exec(message)?.[1]?.trim() ?? message, 200);
}

/** An alert or an end from the broker; `signed` when the token's certificate was shown before it. */
export function brokerRefusal({ code, message }: TlsFailure, broker: BrokerName, signed: boolean): TokenfwdError {
  const text = reasonOf(message);
  if (signed) {
    return new TokenfwdError("E_CHORIA_BROKER", `${brokerName(broker)} does not accept the token's certificate (${text})`, {
      hint: "is it signed by the CA of the brokers, valid today, and for a client (extended key usage clientAuth)?",
    });
  }
  const why = code === "ECONNRESET" ? "hung up at the beginning of the TLS handshake" : `does not speak TLS as we do (${text})`;
  return new TokenfwdError("E_CHORIA_BROKER", `${brokerName(broker)} ${why}`, { hint: "look at the broker's log; nothing was signed" });
}

/** What libp11 says of a log-in, by what stands in its error. */
const LOGIN: readonly (readonly [RegExp, ErrorCode, string, string])[] = [
  [
    /PIN (incorrect|invalid|len)/i,
    "E_PIN_WRONG",
    "the token refused the PIN",
    "it is not tried again; mend it before the token counts another",
  ],
  [/PIN locked/i, "E_PIN_LOCKED", "the token's PIN is locked", "unlock it with its PUK"],
  [/UI routines/, "E_PIN_SOURCE", "the token wants its PIN from this side, and there was none", "name --pin-source file:PATH, fd:N or ask"],
  [/Function (rejected|cancell?ed)|User not logged in/i, "E_REFUSED", "the log-in to the token was refused", "the workstation says why"],
];

/** The engine could not give us the key. */
export function keyFault({ message }: TlsFailure, where: { readonly keyUri: string; readonly address: string }): TokenfwdError {
  const said = reasonOf(message);
  if (/no such engine|dso not found|shared library|engine routines::init failed|setEngineKey is not/i.test(message)) {
    return new TokenfwdError("E_CHORIA_ENGINE", `Node's OpenSSL cannot load the PKCS#11 engine (${said})`, {
      hint: "the engine must be for OpenSSL 3, and this Node built with engines; else run tokenfwd connect --choria at the workstation",
    });
  }
  if (/key values mismatch|key type mismatch/i.test(message)) {
    return new TokenfwdError("E_KEY_MISMATCH", "the certificate is not the token key's own", {
      hint: "put the key's certificate on the token",
    });
  }
  for (const [pattern, code, text, hint] of LOGIN) if (pattern.test(message)) return new TokenfwdError(code, text, { hint });
  return new TokenfwdError(
    "E_KEY_NOT_FOUND",
    `OpenSSL's engine finds no key ${printable(where.keyUri, 300)} over ${printable(where.address, 200)}`,
    {
      hint: `is tokenfwd connect still running, and the token in its place? the engine says: ${said}`,
    },
  );
}

/** The key was asked, and there is no signature. */
export function signFault({ message }: TlsFailure): TokenfwdError {
  return new TokenfwdError("E_REFUSED", `the token did not sign the TLS handshake (${reasonOf(message)})`, {
    hint: "the workstation says why: a no, a touch that did not come, or a token that was pulled",
  });
}

/** Handshakes that a broker cut off while the token was signing, as often as is tried. */
export function cutError(broker: BrokerName, brokerMs: number, signMs: number, tries: number): TokenfwdError {
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  if (signMs < brokerMs || signMs < 500) {
    return new TokenfwdError("E_CHORIA_BROKER", `${brokerName(broker)} hung up at the end of the TLS handshake, ${tries} times`, {
      hint: "look at the broker's log",
    });
  }
  return new TokenfwdError(
    "E_CHORIA_BROKER",
    `${brokerName(broker)} gave ${seconds(brokerMs)} s for the TLS handshake, and the token took ${seconds(signMs)} s, ${tries} times`,
    {
      hint: "touch the token as soon as it blinks, give it a touch policy that remembers a touch, or raise plugin.choria.network.tls_timeout on the broker",
    },
  );
}

/** A broker whose sessions cannot be resumed: each connection would cost a signature. */
export function noTicketError(broker: BrokerName): TokenfwdError {
  return new TokenfwdError("E_CHORIA_BROKER", `${brokerName(broker)} resumes no TLS session`, {
    hint: "each of Choria's connections would cost a signature; does something stand between us and the broker?",
  });
}
