/*
 * Stock programs do through tokenfwd what they do on the module and through stock p11-kit, or programs-differences.txt says
 * why not. One program at a time: SoftHSM does not stand several processes that start on one token directory at once.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";
import { copyToken, differences, judge, type ProgramCase, parseDifferences, transcriptOf, type Way, wayTo } from "./programs.js";
import { everydayCases, managingCases } from "./programs-cases.js";

const KNOWN = parseDifferences(readFileSync(fileURLToPath(new URL("programs-differences.txt", import.meta.url)), "utf8"));

/** The names of the cases, without a token: the same lists with a token that has the keys and no files. */
const names = (list: (token: SoftHsm) => ProgramCase[]): string[] => {
  const key = { id: "01", label: "", keyFile: "", publicKeyFile: "", certificateFile: null };
  return list({ label: "", pin: "", soPin: "", keys: { rsa: key, ec: key } } as unknown as SoftHsm).map((one) => one.name);
};

interface Stage {
  readonly ways: Readonly<Record<"direct" | "stock" | "ours", Way>>;
  readonly cases: ReadonlyMap<string, ProgramCase>;
}

/** Runs the case in all ways and complains about what is not as listed. */
async function compare(stage: Stage | undefined, name: string): Promise<void> {
  const one = stage?.cases.get(name);
  if (stage === undefined || one === undefined) throw new Error(`no case ${name}`);
  const transcripts = {
    direct: await transcriptOf(one, stage.ways.direct),
    stock: await transcriptOf(one, stage.ways.stock),
    ours: await transcriptOf(one, stage.ways.ours),
  };
  const wrong: Record<string, unknown> = {};
  for (const against of one.against ?? (["direct", "stock"] as const)) {
    const { unlisted, unseen } = judge(name, against, differences(transcripts[against], transcripts.ours), KNOWN);
    if (unlisted.length + unseen.length > 0) wrong[against] = { unlisted, unseen };
  }
  expect(wrong, `${name}; ours:\n${transcripts.ours.join("\n")}`).toEqual({});
  // The same failure three times is no success.
  expect(transcripts.ours).toContain(`exit ${one.exit ?? 0}`);
  expect(transcripts.ours).not.toContain("signature: bad");
  expect(transcripts.ours).not.toContain("signature: none");
}

describe("the comparison itself", () => {
  it("sees a line more, a line less and a line twice", () => {
    expect(differences(["exit 0", "a", "b"], ["exit 1", "a", "a"]).sort()).toEqual(["+ a", "+ exit 1", "- b", "- exit 0"]);
    expect(differences(["b", "a"], ["a", "b"])).toEqual([]);
  });

  it("complains about what is not listed and about what is listed and not seen", () => {
    const known = parseDifferences("case x\nagainst stock\n- a\n-~ ^b\\d\n+ c\nbecause of a test\n");
    expect(judge("x", "stock", ["- a", "- b1", "- b2", "+ c"], known)).toEqual({ unlisted: [], unseen: [] });
    expect(judge("x", "stock", ["- a", "+ d"], known)).toEqual({ unlisted: ["+ d"], unseen: ["+ c", "-~ ^b\\d"] });
    expect(judge("x", "direct", ["- a"], known)).toEqual({ unlisted: ["- a"], unseen: [] });
    expect(() => parseDifferences("case x\nagainst stock\n- a\n")).toThrow("reason");
  });

  it("lists no difference of a case or a way that does not exist", () => {
    const all = new Set([...names(everydayCases), ...names(managingCases)]);
    expect(KNOWN.filter((one) => !all.has(one.case) || one.against.some((way) => way !== "direct" && way !== "stock"))).toEqual([]);
  });
});

describe("everyday programs, profile sign, PIN at the workstation", () => {
  let token: SoftHsm;
  let stock: ServerProcess | undefined;
  let agent: ServerProcess | undefined;
  let stage: Stage | undefined;
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-programs-"));

  beforeAll(async () => {
    token = await createSoftHsm();
    stock = await startStockServer(token);
    agent = await startAgent({ token, pin: "file" });
    stage = {
      ways: { direct: wayTo("direct", token, dir), stock: wayTo("stock", token, dir, stock), ours: wayTo("ours", token, dir, agent) },
      cases: new Map(everydayCases(token).map((one) => [one.name, one])),
    };
  });
  afterAll(async () => {
    await agent?.dispose();
    await stock?.dispose();
    await token?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  it.each(names(everydayCases))("%s is the same, or the difference is known", async (name) => {
    await compare(stage, name);
  });

  it("prints a line for the uses of private keys and never the PIN", () => {
    expect(agent?.stderr()).toMatch(/C_Sign/);
    expect(agent?.stderr()).not.toContain(token.pin);
    expect(agent?.stdout()).not.toContain(token.pin);
  });
});

describe("managing a token, profile full, PIN of the client", () => {
  const disposals: (() => Promise<void> | void)[] = [];
  const dir = mkdtempSync(join(tmpdir(), "tokenfwd-managing-"));
  let stage: Stage | undefined;

  beforeAll(async () => {
    // One key: with two, the order in which the module shows them would change the output of --test.
    const token = await createSoftHsm({ objects: "rsa" });
    disposals.push(() => token.dispose());
    // A token each, since each is changed.
    const copies = { direct: copyToken(token), stock: copyToken(token), ours: copyToken(token) };
    for (const copy of Object.values(copies)) disposals.push(copy.dispose);
    const stock = await startStockServer(copies.stock);
    disposals.push(() => stock.dispose());
    const agent = await startAgent({ token: copies.ours, pin: "client", args: ["--policy", "full"] });
    disposals.push(() => agent.dispose());
    stage = {
      ways: {
        direct: wayTo("direct", copies.direct, dir),
        stock: wayTo("stock", copies.stock, dir, stock),
        ours: wayTo("ours", copies.ours, dir, agent),
      },
      cases: new Map(managingCases(token).map((one) => [one.name, one])),
    };
  });
  afterAll(async () => {
    for (const dispose of disposals.reverse()) await dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  it.each(names(managingCases))("%s is the same, or the difference is known", async (name) => {
    await compare(stage, name);
  });
});
