/*
 * What stands behind one choria, or behind all of one connection: the signer and the relay with their secrets, the same for
 * `choria run` on a bastion and `connect --choria` at the workstation. Both are given streams. It must never be reached by who has not
 * said the secrets of this very run.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { TokenfwdError } from "../../base/errors.js";
import type { Emitter } from "../../base/events.js";
import type { Log } from "../../base/log.js";
import type { TokenfwdClient } from "../../bastion/client/index.js";
import type { Broker } from "../../choria/config/brokers.js";
import { hostPort } from "../../choria/loopback.js";
import { type BrokerRelayEvents, createBrokerRelay } from "../../choria/relay/relay.js";
import { createRequestSigner } from "../../choria/signer/request-signer.js";
import { createSecrets, publicKeyOf, type SignerSecrets } from "../../choria/signer/secrets.js";
import { createSignerService } from "../../choria/signer/service.js";
import { SIGNING_PATH } from "../../choria/signer/signing-call.js";
import { createTlsClient } from "../../choria/tls/tls-client.js";
import type { ChoriaIdentity, Dial, DocumentSigner } from "../../choria/types.js";
import { handshakeProgram } from "./tls-handshake.js";

export interface BackingOptions {
  readonly identity: ChoriaIdentity;
  readonly signer: DocumentSigner;
  readonly brokers: readonly Broker[];
  readonly dial: Dial;
  readonly caPem: string;
  /** Value of P11_KIT_SERVER_ADDRESS that leads to the token. */
  readonly address: string;
  /** Asked where the token's other end wants the PIN from us; null: nobody is asked. */
  readonly pin: ((signal: AbortSignal) => Promise<Buffer | null>) | null;
  readonly maxTtlSeconds: number;
  readonly log: Log;
}

export interface Backing {
  readonly secrets: SignerSecrets;
  readonly login: { readonly user: string; readonly password: string };
  /** Serve one client each; the stream becomes theirs. */
  serveSigner(stream: Duplex): void;
  serveRelay(stream: Duplex): void;
  /** Where clients find the signer, `HOST:PORT`, once that is known. Answers the URL for choria. */
  signerAt(host: string): string;
  /**
   * Has the token make the first handshake, so that no touch falls into a time-out of choria's. Answers for how many seconds the key was
   * waited for. Rejects with what is wrong with the token or the brokers.
   */
  prewarm(options: { readonly signal: AbortSignal }): Promise<number>;
  /** The token has gone, or is there again: what it has opened is forgotten, and it is the cause of what goes wrong from then on. */
  tokenIs(where: "gone" | "back"): void;
  /** Resolves, never rejects, when there is no use in waiting any more. */
  readonly gone: Promise<TokenfwdError>;
  /** Safe to call twice. */
  close(): Promise<void>;
}

/** A broker that restarts is back by then. */
const DOWN_MS = 15_000;

/** Starts nothing before it is used. @throws TokenfwdError E_CHORIA_ENGINE where the parts for TLS with the token are missing */
export function openBacking(options: BackingOptions): Backing {
  const { identity, signer, brokers, dial, caPem, address, pin, maxTtlSeconds, log } = options;
  const { certificatePem, keyUri } = identity;
  const program = handshakeProgram();
  const tls = createTlsClient({ certificatePem, keyUri, caPem, address, program, log, ...(pin === null ? {} : { pin }) });
  const password = randomBytes(32).toString("hex");
  const login = { user: `tokenfwd-${randomBytes(4).toString("hex")}`, password };
  const relay = createBrokerRelay({ login: { user: login.user, password: Buffer.from(password) }, brokers, dial, tls, log });
  const secrets = createSecrets();
  const requestSigner = createRequestSigner({ identity, signer, maxTtlSeconds });
  const service = createSignerService({ requestSigner, token: secrets.token, publicKey: publicKeyOf(secrets), log });
  let isOut = false;
  let closing: Promise<void> | undefined;
  return {
    secrets,
    login,
    serveSigner: (stream) => service.serve(stream),
    serveRelay: (stream) => relay.serve(stream),
    signerAt(host) {
      service.hosts = [host];
      return `http://${host}${SIGNING_PATH}`;
    },
    async prewarm({ signal }) {
      let waitedMs = 0;
      const stop = tls.events.on("signed", ({ signMs }) => {
        waitedMs = Math.max(waitedMs, signMs);
      });
      const stopCuts = tls.events.on("cut", ({ signMs }) => {
        waitedMs = Math.max(waitedMs, signMs);
      });
      try {
        await relay.prewarm({ signal });
      } finally {
        stop();
        stopCuts();
      }
      return waitedMs / 1000;
    },
    tokenIs(where) {
      isOut = where === "gone";
      if (isOut) tls.dropSessions();
    },
    gone: whenUseless(relay.events, brokers.length).then((error) => (isOut ? pulled(error) : error)),
    close() {
      closing ??= (async () => {
        await Promise.all([relay.close(), service.close()]);
        await tls.close();
      })();
      return closing;
    },
  };
}

/** When the token cannot be used for TLS any more, or every one of the brokers stays away. Exported for tests. */
export function whenUseless(events: Emitter<BrokerRelayEvents>, brokers: number, downMs = DOWN_MS): Promise<TokenfwdError> {
  return new Promise((resolve) => {
    const down = new Set<string>();
    let timer: NodeJS.Timeout | null = null;
    events.on("fault", ({ error }) => resolve(error));
    events.on("upstream", ({ broker, state, cause }) => {
      if (state === "up") down.delete(broker);
      else down.add(broker);
      if (down.size < brokers) {
        if (timer !== null) clearTimeout(timer);
        timer = null;
      } else if (timer === null && cause !== null) {
        const { code, message, hint } = cause;
        const error = new TokenfwdError(code, `${message}, for ${downMs / 1000} s by now`, {
          ...(hint === undefined ? {} : { hint }),
          cause,
        });
        timer = setTimeout(() => resolve(error), downMs);
        timer.unref();
      }
    });
  });
}

function pulled(cause: TokenfwdError): TokenfwdError {
  return new TokenfwdError("E_TOKEN_NOT_FOUND", "the token was taken out at the workstation, and choria was not done with it", {
    hint: "put it back and run it again",
    cause,
  });
}

/** Tells it of a token that comes and goes. */
export function tellOfToken(backing: Pick<Backing, "tokenIs">, { events }: Pick<TokenfwdClient, "events">): void {
  events.on("token-gone", () => backing.tokenIs("gone"));
  events.on("token-in", () => backing.tokenIs("back"));
}

/** The names of brokers for a person. */
export function brokerNames(brokers: readonly Broker[]): string {
  return brokers.map((broker) => hostPort(broker)).join(", ");
}
