/*
 * A connection in memory: two streams, each of which reads what is written to the other, with back-pressure and ends as a
 * socket has them.
 */
import { Duplex } from "node:stream";

/** Two ends of one connection: what is written to one is read from the other. `destroy` of one ends the other. */
export function streamPair(): readonly [Duplex, Duplex] {
  const ends: Duplex[] = [];
  const waiting: (() => void)[] = [() => {}, () => {}];
  for (const [mine, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    ends.push(
      new Duplex({
        read() {
          // The other end may go on: what it wrote last has been taken.
          const resume = waiting[other] ?? (() => {});
          waiting[other] = () => {};
          resume();
        },
        write(chunk: Buffer, _encoding, done) {
          if (ends[other]?.push(Buffer.from(chunk)) !== false) done();
          else waiting[mine] = done;
        },
        final(done) {
          ends[other]?.push(null);
          done();
        },
        destroy(error, done) {
          const peer = ends[other];
          if (peer !== undefined && !peer.destroyed) setImmediate(() => peer.destroy());
          done(error);
        },
      }),
    );
  }
  const [one, two] = ends;
  if (one === undefined || two === undefined) throw new Error("no pair");
  for (const end of [one, two]) end.on("error", () => undefined);
  return [one, two];
}
