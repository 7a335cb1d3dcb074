/*
 * A trace in a few numbers: calls by kind, round trips, and where the time went. It adds records up as they come, in memory that
 * does not grow with their number.
 */

import { roundMs } from "../wire/trace/ledger.js";
import type { CallRecord, TraceRecord } from "../wire/trace/records.js";

/** All calls of one name. Times in milliseconds; quantiles are right to some 5 percent. */
export interface CallSummary {
  readonly call: string;
  readonly count: number;
  readonly failed: number;
  readonly totalMs: number;
  readonly medianMs: number;
  readonly p95Ms: number;
  readonly maxMs: number;
}

export interface TraceSummary {
  readonly records: number;
  readonly connections: number;
  readonly calls: number;
  readonly failed: number;
  readonly unanswered: number;
  readonly trips: number;
  readonly sent: number;
  readonly received: number;
  /** Over all connections that have ended: how long they lived; of that, with a request waiting for its answer; and without. */
  readonly connectionMs: number;
  readonly serverMs: number;
  readonly clientMs: number;
  /** What broke the protocol, and what could not be read here. */
  readonly broken: number;
  readonly lost: number;
  /** The most time first. */
  readonly byCall: readonly CallSummary[];
}

export interface Summary {
  add(record: TraceRecord): void;
  result(): TraceSummary;
}

/** Quantile bins: each is 5 percent wider than the one before, from a microsecond on. */
const GROWTH = Math.log(1.05);
const LEAST_MS = 0.001;

interface Tally {
  count: number;
  failed: number;
  answered: number;
  totalMs: number;
  minMs: number;
  maxMs: number;
  readonly bins: Map<number, number>;
}

/** Nothing yet. */
export function createSummary(): Summary {
  const tallies = new Map<string, Tally>();
  const sums = {
    records: 0,
    connections: 0,
    failed: 0,
    unanswered: 0,
    calls: 0,
    trips: 0,
    sent: 0,
    received: 0,
    connectionMs: 0,
    serverMs: 0,
  };
  let broken = 0;
  let lost = 0;

  function addCall({ call, ok, ms }: CallRecord): void {
    let tally = tallies.get(call);
    if (tally === undefined) {
      tally = { count: 0, failed: 0, answered: 0, totalMs: 0, minMs: Number.POSITIVE_INFINITY, maxMs: 0, bins: new Map() };
      tallies.set(call, tally);
    }
    sums.calls += 1;
    tally.count += 1;
    if (!ok) {
      tally.failed += 1;
      sums.failed += 1;
    }
    if (ms === null) {
      sums.unanswered += 1;
      return;
    }
    tally.answered += 1;
    tally.totalMs += ms;
    tally.minMs = Math.min(tally.minMs, ms);
    tally.maxMs = Math.max(tally.maxMs, ms);
    const bin = Math.max(0, Math.floor(Math.log(Math.max(ms, LEAST_MS) / LEAST_MS) / GROWTH));
    tally.bins.set(bin, (tally.bins.get(bin) ?? 0) + 1);
  }

  return {
    add(record) {
      sums.records += 1;
      switch (record.kind) {
        case "open":
          sums.connections += 1;
          break;
        case "call":
          addCall(record);
          break;
        case "close":
          sums.trips += record.trips;
          sums.sent += record.sent;
          sums.received += record.received;
          sums.connectionMs += record.ms;
          sums.serverMs += record.serverMs;
          break;
        case "note":
          if (record.level === "broken") broken += 1;
          else if (record.level === "lost") lost += 1;
          break;
      }
    },
    result: () => ({
      ...sums,
      connectionMs: roundMs(sums.connectionMs),
      serverMs: roundMs(sums.serverMs),
      clientMs: roundMs(sums.connectionMs - sums.serverMs),
      broken,
      lost,
      byCall: [...tallies].map(([call, tally]) => summaryOf(call, tally)).sort((a, b) => b.totalMs - a.totalMs || b.count - a.count),
    }),
  };
}

function summaryOf(call: string, tally: Tally): CallSummary {
  const { count, failed, totalMs, maxMs } = tally;
  const ms = { totalMs: roundMs(totalMs), medianMs: quantile(tally, 0.5), p95Ms: quantile(tally, 0.95), maxMs };
  return { call, count, failed, ...ms };
}

function quantile({ answered, bins, minMs, maxMs }: Tally, share: number): number {
  let seen = 0;
  for (const [bin, count] of [...bins].sort(([a], [b]) => a - b)) {
    seen += count;
    // The middle of the bin.
    if (seen >= answered * share) return roundMs(Math.min(maxMs, Math.max(minMs, LEAST_MS * Math.exp((bin + 0.5) * GROWTH))));
  }
  return 0;
}
