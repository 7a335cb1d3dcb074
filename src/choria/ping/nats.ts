/*
 * One connection to a broker for one question: subscribe, publish, count what comes. The only place that knows the NATS client. It
 * must never reconnect by itself: a question that was lost on the way is asked anew by a person, because it needs a signature.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";

export interface NatsOptions {
  /** Plain NATS: a relay on loopback. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  /** What the broker's operator sees. */
  readonly name: string;
  readonly timeoutMs: number;
}

export interface NatsLink {
  /** Every message on `subject` from now on; resolves when the broker knows of it. */
  subscribe(subject: string, received: (message: Buffer) => void): Promise<void>;
  /** Resolves when the broker has it. */
  publish(subject: string, message: Buffer): Promise<void>;
  /** Resolves with why when the connection has ended by itself; never rejects. */
  readonly lost: Promise<TokenfwdError>;
  /** Safe to call twice. */
  close(): Promise<void>;
}

function broken(why: unknown): TokenfwdError {
  const text = printable(why instanceof Error ? why.message : String(why), 300);
  return new TokenfwdError("E_CHORIA_BROKER", `the connection to the broker ended: ${text}`, {
    hint: "ask again; if it ends again, look at the broker's log",
    ...(why instanceof Error ? { cause: why } : {}),
  });
}

/** Connects and logs in. Rejects with E_CHORIA_BROKER. */
export async function openNats(options: NatsOptions): Promise<NatsLink> {
  const { host, port, user, password, name, timeoutMs } = options;
  let connection: NatsConnection;
  try {
    connection = await connect({
      servers: [`${host.includes(":") ? `[${host}]` : host}:${port}`],
      user,
      pass: password,
      name,
      timeout: timeoutMs,
      reconnect: false,
      ignoreClusterUpdates: true,
    });
  } catch (error) {
    throw broken(error);
  }
  const guarded = async (work: Promise<unknown>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      throw broken(error);
    }
  };
  return {
    subscribe(subject, received) {
      connection.subscribe(subject, {
        callback(error, message) {
          if (error === null) received(Buffer.from(message.data));
        },
      });
      return guarded(connection.flush());
    },
    publish(subject, message) {
      return guarded(
        (async () => {
          connection.publish(subject, message);
          await connection.flush();
        })(),
      );
    },
    lost: connection.closed().then((why) => broken(why instanceof Error ? why : "it was closed")),
    close: () => connection.close(),
  };
}
