/*
 * Programs through our p11-kit client do what they do at the stock server behind it: the same output, line by line, with nothing
 * listed as different.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { startStockServer } from "./agent-process.js";
import { type Relay, startRelay } from "./over-client.js";
import { copyToken, differences, type ProgramCase, transcriptOf, type Way, wayTo } from "./programs.js";
import { everydayCases, managingCases } from "./programs-cases.js";

const names = (list: (token: SoftHsm) => ProgramCase[]): string[] => {
  const key = { id: "01", label: "", keyFile: "", publicKeyFile: "", certificateFile: null };
  return list({ label: "", pin: "", soPin: "", keys: { rsa: key, ec: key } } as unknown as SoftHsm).map((one) => one.name);
};

/** Where a program fails at the stock server as well. */
const FAILS = new Set(["sign with no PIN", "sign with a wrong PIN"]);

describe.each([
  ["everyday programs", "rsa+ec", everydayCases],
  ["managing a token", "rsa", managingCases],
] as const)("%s", (_, objects, list) => {
  const disposals: (() => Promise<void> | void)[] = [];
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-over-client-"));
  let ways: { readonly stock: Way; readonly ours: Way };
  let relay: Relay;
  let cases: ReadonlyMap<string, ProgramCase>;

  beforeAll(async () => {
    const token = await createSoftHsm({ objects });
    disposals.push(() => token.dispose());
    // A token each, since some cases change theirs.
    const [theirs, ours] = [copyToken(token), copyToken(token)];
    disposals.push(theirs.dispose, ours.dispose);
    const stock = await startStockServer(theirs);
    disposals.push(() => stock.dispose());
    const behind = await startStockServer(ours);
    disposals.push(() => behind.dispose());
    relay = await startRelay(behind.socket);
    disposals.push(() => relay.close());
    ways = { stock: wayTo("stock", theirs, dir, stock), ours: wayTo("ours", ours, dir, { ...behind, ...relay }) };
    cases = new Map(list(token).map((one) => [one.name, one]));
  }, 60_000);
  afterAll(async () => {
    for (const dispose of disposals.reverse()) await dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  it.each(names(list))("%s is the same", async (name) => {
    const one = cases.get(name);
    if (one === undefined) throw new Error(`no case ${name}`);
    const before = relay.calls;
    const theirs = await transcriptOf(one, ways.stock);
    const ours = await transcriptOf(one, ways.ours);
    expect(differences(theirs, ours), ours.join("\n")).toEqual([]);
    expect(ours).toContain(`exit ${FAILS.has(name) ? 1 : (one.exit ?? 0)}`);
    expect(ours).not.toContain("signature: bad");
    // It went through the client, and not past it.
    expect(relay.calls).toBeGreaterThan(before);
  });
});
