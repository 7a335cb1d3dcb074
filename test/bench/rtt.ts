/*
 * The bench over a link: what one signature costs at each round-trip time, cold and warm, through tokenfwd and through what
 * a person does without it. A way's round trips are how much longer it takes per millisecond of delay added, so that the
 * time which programs need to start is in none of them.
 */
import { P11KIT_CLIENT } from "../interop/agent-process.js";
import { delayedLinkMissing } from "../support/link-delay.js";
import { buildProgram, type Caller, startModuleCaller, startRpcCaller } from "./callers.js";
import type { CleanUps } from "./clean-ups.js";
import { type LinkScene, openLinkScene } from "./over-link.js";
import { verdict } from "./paired.js";
import { median, quantile, short, table } from "./stats.js";

export interface RttOptions {
  /** Milliseconds. Without delay is always measured too: the trips are counted from it. */
  readonly rtts: readonly number[];
  readonly say: (text: string) => void;
  readonly cleanUps: CleanUps;
}

/** One way to sign over the link. `signatures` is how many a measured time is for. */
export interface RttRow {
  readonly name: string;
  readonly signatures: number;
  /** `ms` is the median; `trips` comes from the shortest times, since a busy machine only ever adds. */
  readonly at: readonly { readonly rttMs: number; readonly ms: number; readonly shortestMs: number; readonly trips: number | null }[];
  /** Of the trips at the longest delay, to the nearest whole: at a short one they are of the size of the noise. */
  readonly targets: readonly { readonly text: string; readonly met: boolean }[];
}

interface Way {
  readonly name: string;
  readonly signatures: number;
  /** What it is held to, where it is. */
  readonly mostTrips?: number;
  /** Milliseconds of it once, at this delay. */
  once(): Promise<number>;
}

const FLIGHT = 64;

async function warm(caller: Caller, times: number): Promise<number> {
  await caller.run({ times });
  return quantile(Float64Array.from(await caller.latencies()).sort(), 0.5);
}

async function waysOf(scene: LinkScene, cleanUps: CleanUps, say: RttOptions["say"]): Promise<Way[]> {
  const keep = async (starting: Promise<Caller>): Promise<Caller> => {
    const caller = await starting;
    cleanUps.add(() => caller.end());
    return caller;
  };
  const { token, link, socket } = scene;
  const program = buildProgram("sign-loop", scene.dir);
  const stock = await scene.stockForward();
  const pkcs11 = (address: string) => {
    const env = { PATH: process.env["PATH"], XDG_RUNTIME_DIR: scene.bastion.runtimeDir, P11_KIT_SERVER_ADDRESS: address };
    return keep(startModuleCaller(program, P11KIT_CLIENT, token.label, "ec", { env, within: link.onBastion, pin: token.pin }));
  };
  const bastion = { env: { PATH: process.env["PATH"] }, within: link.onBastion };
  say("starting the callers on the bastion");
  const one = await keep(startRpcCaller(socket, "ec", "sign", 1, bastion));
  const many = await keep(startRpcCaller(socket, "ec", "sign", FLIGHT, bastion));
  const stockOverOurs = await pkcs11(scene.address);
  const stockOverSsh = await pkcs11(stock);
  const keys = JSON.parse((await scene.tokenfwd(["keys", "--json"])).stdout.toString("utf8")) as { keys: { uri: string; type: string }[] };
  const uri = keys.keys.find((key) => key.type === "EC")?.uri ?? "";
  const digest = Buffer.alloc(32, 0x5a);
  return [
    { name: "tokenfwd --version (nothing but starting)", signatures: 0, once: async () => (await scene.tokenfwd(["--version"])).ms },
    {
      name: "tokenfwd sign, cold",
      signatures: 1,
      mostTrips: 2,
      once: async () => (await scene.tokenfwd(["sign", "--key", uri, "--digest"], digest)).ms,
    },
    { name: "tokenfwd/client, warm, per signature", signatures: 1, mostTrips: 1, once: () => warm(one, 9) },
    {
      name: `tokenfwd/client, ${FLIGHT} in flight, all`,
      signatures: FLIGHT,
      mostTrips: 1,
      once: async () => (await many.run({ times: FLIGHT })).seconds * 1000,
    },
    { name: "pkcs11-tool through tokenfwd connect, cold", signatures: 1, once: async () => (await scene.pkcs11Tool(scene.address)).ms },
    { name: "stock client through tokenfwd connect, warm", signatures: 1, once: () => warm(stockOverOurs, 9) },
    { name: "pkcs11-tool through p11-kit server and ssh -R, cold", signatures: 1, once: async () => (await scene.pkcs11Tool(stock)).ms },
    { name: "stock client through p11-kit server and ssh -R, warm", signatures: 1, once: () => warm(stockOverSsh, 9) },
  ];
}

/** Runs it. Answers the reason when no such link can be made here. */
export async function benchRtt(options: RttOptions): Promise<RttRow[] | string> {
  const { rtts, say, cleanUps } = options;
  const missing = delayedLinkMissing();
  if (missing !== null) return `not measured: ${missing}`;
  const scene = await openLinkScene(cleanUps);
  const ways = await waysOf(scene, cleanUps, say);
  const all = [...new Set([0, ...rtts])].sort((a, b) => a - b);
  const measured = new Map<string, Map<number, number[]>>(ways.map((way) => [way.name, new Map()]));
  for (const rtt of all) {
    await scene.link.setRttMs(rtt);
    for (const way of ways) {
      await way.once();
      const times: number[] = [];
      while (times.length < (rtt > 20 ? 5 : 9)) times.push(await way.once());
      measured.get(way.name)?.set(rtt, times);
    }
    const { dropped, lateUs } = await scene.link.count();
    say(`RTT ${rtt} ms: the latest packet left ${lateUs} us late, ${dropped} dropped`);
  }
  await scene.link.setRttMs(0);
  return ways.map((way) => {
    const times = measured.get(way.name);
    const shortest = (rttMs: number) => Math.min(...(times?.get(rttMs) ?? []));
    const at = all.map((rttMs) => ({
      rttMs,
      ms: median(times?.get(rttMs) ?? []),
      shortestMs: shortest(rttMs),
      trips: rttMs === 0 ? null : (shortest(rttMs) - shortest(0)) / rttMs,
    }));
    const most = way.mostTrips;
    const trips = at.at(-1)?.trips ?? Number.NaN;
    const targets = most === undefined ? [] : [{ text: most === 1 ? "1 trip" : `${most} trips`, met: Math.round(trips) <= most }];
    return { name: way.name, signatures: way.signatures, at, targets };
  });
}

/** Times in milliseconds with the round trips behind them. */
export function rttTable(rows: readonly RttRow[]): string {
  const rtts = rows[0]?.at.map((one) => one.rttMs) ?? [];
  return table(
    ["way, ms (round trips)", ...rtts.map((rtt) => `${rtt} ms`), "target", "met"],
    rows.map((row) => [
      row.name,
      ...row.at.map((one) => `${short(one.ms)}${one.trips === null ? "" : ` (${one.trips.toFixed(1)})`}`),
      ...verdict(row.targets),
    ]),
  );
}
