/*
 * What the next client's PIN is checked against, in `client` mode: a salted scrypt of the one that the token accepted. It must
 * never keep the PIN.
 */
import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

const SALT_BYTES = 16;
const HASH_BYTES = 32;

const derive = promisify(scrypt) as (pin: Buffer, salt: Buffer, bytes: number) => Promise<Buffer>;

export interface AcceptedPin {
  /** True for the same PIN; takes as long for any other. */
  isSame(pin: Buffer): Promise<boolean>;
}

/** Remembers a PIN that the token has accepted; the Buffer stays the caller's. */
export async function acceptPin(accepted: Buffer): Promise<AcceptedPin> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derive(accepted, salt, HASH_BYTES);
  return { isSame: async (pin) => timingSafeEqual(await derive(pin, salt, HASH_BYTES), hash) };
}
