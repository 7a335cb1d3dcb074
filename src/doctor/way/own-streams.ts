/*
 * Serves at the workstation only what doctor itself opens at the bastion's end: the token is unlocked for a signature of doctor's, and
 * nobody else on the bastion may use it meanwhile. It must never let a stream through that was not expected, and who takes the place of
 * an expected one makes doctor's own fail, which is before the log-in.
 */
import type { Duplex } from "node:stream";
import { within } from "../../base/within.js";
import type { ForwardService } from "../../forward/types.js";

export interface OwnStreams {
  /** The service, for expected streams alone; others are closed. */
  guard(service: ForwardService): ForwardService;
  /** Lets so many streams through while `work` runs. */
  expecting<T>(streams: number, work: () => Promise<T>): Promise<T>;
  /** Within `expecting`: waits until every expected stream has come, at most so long, and answers whether they have. */
  arrived(timeoutMs: number): Promise<boolean>;
  /** Closes every stream that was let through. */
  drop(): void;
}

/** None is expected yet. */
export function createOwnStreams(): OwnStreams {
  const served = new Set<Duplex>();
  let expected = 0;
  let allHere = (): void => {};
  return {
    guard: ({ attach, ...rest }) => ({
      ...rest,
      attach(stream) {
        if (expected === 0) {
          stream.on("error", () => {});
          stream.destroy();
          return { onFirstFrameOptions() {} };
        }
        expected -= 1;
        served.add(stream);
        if (expected === 0) allHere();
        return attach(stream);
      },
    }),
    async expecting(streams, work) {
      expected = streams;
      try {
        return await work();
      } finally {
        expected = 0;
      }
    },
    async arrived(timeoutMs) {
      if (expected > 0) {
        const here = new Promise<void>((resolve) => {
          allHere = resolve;
        });
        await within(timeoutMs, here);
      }
      return expected === 0;
    },
    drop() {
      for (const stream of served) stream.destroy();
      served.clear();
    },
  };
}
