/*
 * The lines by which a program that signs is driven, as sign-loop.c reads them: the PIN first, then `go SECONDS`, `times N` and
 * `tell`. It measures whatever lanes it is given and knows nothing of how they sign.
 */
import { createInterface } from "node:readline";

/** Signs on all lanes until told to stop, and answers each signature's nanoseconds. */
async function run(lanes, more) {
  const taken = [];
  const started = process.hrtime.bigint();
  await Promise.all(
    lanes.map(async (sign) => {
      const digest = Buffer.alloc(32, 0x5a);
      while (more()) {
        const before = process.hrtime.bigint();
        digest[0] = taken.length & 0xff;
        await sign(digest);
        taken.push(Number(process.hrtime.bigint() - before));
      }
    }),
  );
  return { taken, ns: process.hrtime.bigint() - started };
}

/** Speaks the lines until stdin ends. `open` gets the PIN and answers the lanes: functions that sign 32 bytes once. */
export async function speakLines(open) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const lanes = await open((await lines.next()).value ?? "");
  // So that everything is known before the first measured one.
  await lanes[0](Buffer.alloc(32, 1));
  process.stdout.write("ready\n");
  let last = [];
  for await (const line of { [Symbol.asyncIterator]: () => lines }) {
    const [word, amount] = line.split(" ");
    if (word === "tell") {
      process.stdout.write(`${last.join(" ")}\n`);
      continue;
    }
    const end = performance.now() + Number(amount) * 1000;
    let left = Number(amount);
    const { taken, ns } = await run(lanes, word === "go" ? () => performance.now() < end : () => left-- > 0);
    last = taken;
    process.stdout.write(`done ${taken.length} ${ns}\n`);
  }
}
