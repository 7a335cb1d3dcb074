/*
 * The caps of the p11-kit wire, and the two ways a message can be turned down. Every cap is checked before anything is
 * allocated for the value that it caps.
 */
import { CKR } from "../../cryptoki/rv.js";

/** Caps on what a peer may send or ask for. Sizes in bytes. */
export interface P11KitLimits {
  /** A whole frame: header, options and body. Above: the connection ends. */
  readonly maxFrameBytes: number;
  /** The options area of a frame. Above: the connection ends. */
  readonly maxOptionsBytes: number;
  /** Attributes and attribute queries in one message, nested ones included. Above: CKR_DEVICE_MEMORY. */
  readonly maxAttributes: number;
  /** Templates within templates. Above: CKR_DEVICE_ERROR. */
  readonly maxDepth: number;
  /** All output rooms of one message together. Above: CKR_DEVICE_MEMORY. */
  readonly maxRoomBytes: number;
}

/** What a server allows where its owner says nothing. */
export const DEFAULT_LIMITS: P11KitLimits = {
  maxFrameBytes: 1024 * 1024,
  maxOptionsBytes: 64 * 1024,
  maxAttributes: 1024,
  maxDepth: 8,
  maxRoomBytes: 1024 * 1024,
};

/** A message whose frame is sound but whose content we will not act on: answered with ERROR `rv`, the connection lives. */
export class Refusal extends Error {
  readonly rv: number;

  constructor(rv: number, why: string) {
    super(why);
    this.rv = rv;
  }
}
Refusal.prototype.name = "Refusal";

/** What is left of the caps while one message is being read. */
export interface Budget {
  readonly maxDepth: number;
  /** Takes `count` attributes; throws Refusal CKR_DEVICE_MEMORY when there are not as many left. */
  attributes(count: number): void;
  /** Takes `bytes` of output room; throws Refusal CKR_DEVICE_MEMORY when there is not as much left. */
  room(bytes: number): void;
}

/** A full budget for one message. */
export function createBudget(limits: P11KitLimits): Budget {
  let attributesLeft = limits.maxAttributes;
  let roomLeft = limits.maxRoomBytes;
  return {
    maxDepth: limits.maxDepth,
    attributes(count) {
      if (count > attributesLeft) throw new Refusal(CKR.CKR_DEVICE_MEMORY, `more than ${limits.maxAttributes} attributes`);
      attributesLeft -= count;
    },
    room(bytes) {
      if (bytes > roomLeft) throw new Refusal(CKR.CKR_DEVICE_MEMORY, `more than ${limits.maxRoomBytes} bytes of room`);
      roomLeft -= bytes;
    },
  };
}
