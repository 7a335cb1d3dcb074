/*
 * The PINs a token host holds: what each token accepted, and a salted hash of what it refused. Keyed by slot and by
 * the token in it, so that one card's PIN never reaches another card. It must never hand out a PIN that a token refused.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { SecretBytes } from "../../base/secret.js";

/** A token: its slot and what tells it from another one in that slot. */
export interface TokenKey {
  readonly slot: bigint;
  /** The bytes of its serial number and label. */
  readonly identity: string;
}

export interface PinStore {
  /** The PIN this token accepted, still the store's; null where there is none, or for another token in the slot. */
  accepted(token: TokenKey): SecretBytes | null;
  /** The same without a consequence: another host may ask for another token. */
  lendable(token: TokenKey): SecretBytes | null;
  /** Takes over a PIN that the token has just accepted. */
  keep(token: TokenKey, pin: SecretBytes): void;
  /** Wipes the PIN of this slot and remembers nothing of it. */
  wipe(slot: bigint): void;
  /** Notes that the token refused these bytes. */
  refuse(token: TokenKey, pin: Buffer): void;
  /** True when this token refused exactly these bytes before. */
  wasRefused(token: TokenKey, pin: Buffer): boolean;
  readonly size: number;
  /** Wipes everything. */
  dispose(): void;
}

export function createPinStore(): PinStore {
  const kept = new Map<bigint, { readonly identity: string; readonly pin: SecretBytes }>();
  const refused = new Map<string, Buffer>();
  // Lives as long as the process: a refused PIN is only ever compared within it.
  const key = randomBytes(32);
  const nameOf = ({ slot, identity }: TokenKey) => `${slot}/${identity}`;
  const digest = (token: TokenKey, pin: Buffer) => createHmac("sha256", key).update(nameOf(token)).update(pin).digest();

  function wipe(slot: bigint): void {
    kept.get(slot)?.pin.dispose();
    kept.delete(slot);
  }

  return {
    accepted(token) {
      const entry = kept.get(token.slot);
      if (entry === undefined) return null;
      if (entry.identity === token.identity) return entry.pin;
      wipe(token.slot);
      return null;
    },
    lendable(token) {
      const entry = kept.get(token.slot);
      return entry?.identity === token.identity ? entry.pin : null;
    },
    keep(token, pin) {
      if (kept.get(token.slot)?.pin !== pin) wipe(token.slot);
      kept.set(token.slot, { identity: token.identity, pin });
      refused.delete(nameOf(token));
    },
    wipe,
    refuse: (token, pin) => void refused.set(nameOf(token), digest(token, pin)),
    wasRefused(token, pin) {
      const known = refused.get(nameOf(token));
      return known !== undefined && timingSafeEqual(known, digest(token, pin));
    },
    get size() {
      return kept.size;
    },
    dispose() {
      for (const slot of [...kept.keys()]) wipe(slot);
      refused.clear();
      key.fill(0);
    },
  };
}
