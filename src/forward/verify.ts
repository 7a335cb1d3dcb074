/*
 * Proves that the socket on the bastion leads back to this very agent: a nonce goes in at the bastion's side and has to
 * come out on a stream of this forward, and the slots seen from there have to be the agent's. It must never call a
 * socket verified for answering alone: anybody's would.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { localContext } from "../cryptoki/local-context.js";
import { CKR } from "../cryptoki/rv.js";
import { createP11KitClient } from "../wire/p11kit/client.js";
import { initializeArgs } from "../wire/p11kit/requests.js";

/** What the first frame's options start with; 32 hex digits follow. */
const NONCE_PREFIX = "tokenfwd-verify:";
const TIMEOUT_MS = 10_000;
const CKR_OK: number = CKR.CKR_OK;

/** Nonces that were sent and not yet seen. One per forward. */
export interface NonceWatch {
  /** Give it the first frame's options of each stream of this forward. */
  seen(options: Buffer): void;
  expect(): { readonly options: Buffer; readonly arrived: () => boolean };
}

/** A watch with nothing expected. */
export function createNonceWatch(): NonceWatch {
  const expected = new Map<string, boolean>();
  return {
    seen(options) {
      const text = options.toString("latin1");
      if (expected.has(text)) expected.set(text, true);
    },
    expect() {
      const text = `${NONCE_PREFIX}${randomBytes(16).toString("hex")}`;
      expected.set(text, false);
      return { options: Buffer.from(text), arrived: () => expected.get(text) === true };
    },
  };
}

export type Verification =
  | { readonly passed: true; readonly rttMs: number }
  /** `answered`: something spoke the protocol. `foreign`: it did, and it was not us. */
  | { readonly passed: false; readonly answered: boolean; readonly foreign: boolean; readonly reason: string };

/**
 * Speaks p11-kit RPC on a connection made at the bastion's side. Owns the stream and ends it. Takes at most 10 s.
 * Never rejects for what the other side does.
 */
export async function verifyStream(
  stream: Duplex,
  watch: NonceWatch,
  expectedSlots: readonly bigint[],
  offerVersion: 0 | 2 = 2,
): Promise<Verification> {
  const nonce = watch.expect();
  const client = createP11KitClient({
    write: (bytes) => void stream.write(bytes),
    end: () => stream.end(),
    frameOptions: nonce.options,
    offerVersion,
  });
  const abort = new AbortController();
  const timer = setTimeout(() => {
    abort.abort();
    stream.destroy();
  }, TIMEOUT_MS);
  stream.on("data", (chunk: Buffer) => client.push(chunk));
  stream.on("error", () => client.closed());
  stream.on("end", () => client.closed());
  stream.on("close", () => client.closed());
  const ctx = localContext("verify", abort.signal);
  let answered = false;
  client.negotiated.then(
    () => {
      answered = true;
    },
    () => {},
  );
  const failed = (reason: string): Verification => ({ passed: false, answered, foreign: answered && !nonce.arrived(), reason });
  try {
    const initialized = await client.call("C_Initialize", initializeArgs(), ctx);
    if (abort.signal.aborted) return failed(`no answer in ${TIMEOUT_MS / 1000} s`);
    if (initialized.rv !== CKR_OK) return failed(nonce.arrived() ? "the agent refused the connection" : "the connection was closed");
    if (!nonce.arrived()) return failed("the answer did not come from this agent");
    const before = performance.now();
    const counted = await client.call("C_GetSlotList", { tokenPresent: 1, room: null }, ctx);
    const rttMs = performance.now() - before;
    const room = typeof counted.slots === "number" ? counted.slots : (counted.slots?.length ?? 0);
    const listed = room === 0 ? counted : await client.call("C_GetSlotList", { tokenPresent: 1, room }, ctx);
    if (counted.rv !== CKR_OK || listed.rv !== CKR_OK) return failed("the slot list could not be read");
    const slots = typeof listed.slots === "number" ? [] : (listed.slots ?? []);
    const same = slots.length === expectedSlots.length && slots.every((slot, index) => slot === expectedSlots[index]);
    if (!same) return failed(`the slots seen from the bastion are [${slots.join(", ")}], the agent's are [${expectedSlots.join(", ")}]`);
    return { passed: true, rttMs: Math.round(rttMs * 100) / 100 };
  } finally {
    clearTimeout(timer);
    await client.close();
    stream.end();
    stream.destroy();
  }
}

/** What a socket does with a version byte: answers it, stays silent, or has gone. Owns the stream. */
export async function answersVersionByte(stream: Duplex, waitMs = 3_000): Promise<"answers" | "silent"> {
  return await new Promise((resolve) => {
    const finish = (result: "answers" | "silent") => {
      clearTimeout(timer);
      resolve(result);
      stream.destroy();
    };
    const timer = setTimeout(() => finish("silent"), waitMs);
    stream.on("data", () => finish("answers"));
    stream.on("error", () => finish("silent"));
    stream.on("end", () => finish("silent"));
    stream.on("close", () => finish("silent"));
    stream.write(Buffer.from([0]));
  });
}
