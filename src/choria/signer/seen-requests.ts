/*
 * Which requests were signed not long ago, so that none is signed twice. Stock Choria signs each batch of a request anew, with the
 * same requestid and a later time: that is the one thing that may come again. It must never forget a request that could still be
 * signed, nor grow without end.
 */
import { createHash } from "node:crypto";
import { type ChoriaRequest, formatRequest } from "../documents/request.js";

interface Seen {
  /** Of the request without its time. */
  readonly digest: string;
  time: number;
  /** Unix time in seconds. */
  until: number;
}

export interface SeenRequests {
  /**
   * Notes a request that is about to be signed; answers how to take that back when it was not. `again`: its requestid stood in
   * another request, or in this one with a time that is not later. `full`: nothing more can be kept for now.
   */
  note(request: ChoriaRequest, nowSeconds: number): (() => void) | "again" | "full";
}

/** Remembers at most `most` requests, each for its ttl and `graceSeconds`. */
export function createSeenRequests(most: number, graceSeconds: number): SeenRequests {
  const seen = new Map<string, Seen>();

  function makeRoom(nowSeconds: number): boolean {
    if (seen.size < most) return true;
    for (const [id, { until }] of seen) if (until < nowSeconds) seen.delete(id);
    return seen.size < most;
  }

  return {
    note(request, nowSeconds) {
      const { requestid, time, ttl } = request.envelope;
      const digest = digestOf(request);
      const until = Math.max(time, nowSeconds) + ttl + graceSeconds;
      const before = seen.get(requestid);
      if (before !== undefined && before.until >= nowSeconds) {
        if (before.digest !== digest || time <= before.time) return "again";
        const kept = { time: before.time, until: before.until };
        Object.assign(before, { time, until });
        return () => {
          if (before.time === time) Object.assign(before, kept);
        };
      }
      if (!makeRoom(nowSeconds)) return "full";
      const entry = { digest, time, until };
      seen.set(requestid, entry);
      return () => {
        if (seen.get(requestid) === entry && entry.time === time) seen.delete(requestid);
      };
    },
  };
}

function digestOf(request: ChoriaRequest): string {
  const timeless = { ...request, envelope: { ...request.envelope, time: 0 } };
  return createHash("sha256").update(formatRequest(timeless)).digest("base64");
}
