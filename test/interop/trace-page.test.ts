/*
 * The page of a trace in a real browser: it shows what there is, is driven by keys, loads nothing, runs nothing of what it shows, and
 * stays quick with ten thousand records.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createPage } from "../../src/trace/page/page.js";
import { createSummary } from "../../src/trace/summary.js";
import type { CallRecord, TraceRecord } from "../../src/wire/trace/records.js";
import { type ChromiumPage, startChromium } from "../support/chromium.js";
import { stockConversations, traceOf } from "../support/traces.js";

let browser: ChromiumPage;
let dir: string;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-page-"));
  browser = await startChromium();
}, 60_000);
afterAll(async () => {
  await browser?.dispose();
  if (dir) rmSync(dir, { recursive: true, force: true });
});
beforeEach(() => browser.emulate({ width: 1400, height: 900, dark: true }));

async function open(records: readonly TraceRecord[], of = "test", complete = true): Promise<void> {
  const summary = createSummary();
  for (const record of records) summary.add(record);
  const header = { tokenfwdTrace: 1, started: "2026-11-23T10:00:00.000Z", by: "tokenfwd 0.1.0", of: { socket: of }, data: false } as const;
  const path = join(dir, "page.html");
  writeFileSync(path, createPage({ header, records, summary: summary.result(), complete }));
  await browser.open(pathToFileURL(path).href);
}

const conversation = (name: string): TraceRecord[] => traceOf(stockConversations().find((one) => one.name === name)?.passed ?? []);

/** What is on the page, and twice the next frame: what was asked for is drawn then. */
const drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
const text = (selector: string) =>
  browser.evaluate<string>(`${drawn}.then(() => document.querySelector(${JSON.stringify(selector)}).innerText)`);
const rows = () =>
  browser.evaluate<string[][]>(
    `${drawn}.then(() => [...document.querySelectorAll(".row:not([hidden])")].sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top)).map((row) => [...row.children].map((cell) => cell.textContent)))`,
  );
const type = (id: string, value: string) =>
  browser.evaluate(
    `(() => { const field = document.getElementById(${JSON.stringify(id)}); field.value = ${JSON.stringify(value)}; field.dispatchEvent(new Event("input")); field.dispatchEvent(new Event("change")); })()`,
  );

test("it shows every record, the totals, and the calls by kind", async () => {
  const records = conversation("09-wrong-pin");
  await open(records);
  const seen = await rows();
  expect(seen).toHaveLength(records.length);
  expect(seen.map((row) => row[2])).toContain("C_Login");
  expect(await text("#totals")).toMatch(/1\s*connections\s*8\s*calls\s*1\s*failed\s*9\s*round trips/);
  expect(await text("#side")).toMatch(/Calls by kind[\s\S]*C_GetSlotList\s+2\s+0/);
  expect(await text("#count")).toBe(`${records.length} of ${records.length}`);
  expect(browser.complaints).toEqual([]);
});

test("it is driven by keys: to the failure, to the filter, and back", async () => {
  await open(conversation("09-wrong-pin"));
  await browser.press("n");
  expect(await text("#side")).toMatch(/C_Login[\s\S]*CKR_PIN_INCORRECT[\s\S]*userType\s+CKU_USER\s+pin\s+given, and never written down/);
  await browser.press("k");
  expect(await text("#side")).toMatch(/^C_GetTokenInfo/);
  await browser.press("/");
  expect(await browser.evaluate("document.activeElement.id")).toBe("search");
  await type("search", "c_getslot -room=null");
  expect((await rows()).map((row) => row[2])).toEqual(["C_GetSlotList"]);
  // What is typed goes into the field and does not act.
  await browser.press("f");
  expect(await browser.evaluate("document.getElementById('failed').checked")).toBe(false);
  await browser.press("Escape");
  expect((await rows()).length).toBeGreaterThan(8);
  await browser.press("f");
  expect((await rows()).map((row) => row[2])).toEqual(["C_Login"]);
  await browser.press("f");
  await browser.press("?");
  expect(await browser.evaluate("document.getElementById('keys').open")).toBe(true);
  await browser.press("Escape");
  await browser.press("t");
  expect(await browser.evaluate("document.documentElement.dataset.theme")).toBe("light");
  expect(browser.complaints).toEqual([]);
});

test("filters by kind, connection, duration and a range on the timeline hold together", async () => {
  await open(conversation("41-h-misc-26"));
  await type("kind", "sign");
  expect((await rows()).every((row) => /^C_Sign/.test(row[2] ?? ""))).toBe(true);
  await type("kind", "");
  await type("slower", "2");
  expect(await rows()).toEqual([]);
  await type("slower", "");
  const before = (await rows()).length;
  const box = await browser.evaluate<{ x: number; y: number; w: number }>(
    "(() => { const box = document.getElementById('timeline').getBoundingClientRect(); return { x: box.x, y: box.y, w: box.width }; })()",
  );
  await browser.mouse("mousePressed", box.x + box.w / 3, box.y + 5);
  await browser.mouse("mouseMoved", box.x + box.w / 2, box.y + 5);
  await browser.mouse("mouseReleased", box.x + box.w / 2, box.y + 5);
  const within = (await rows()).length;
  expect(within).toBeGreaterThan(2);
  expect(within).toBeLessThan(before);
  await browser.evaluate("document.getElementById('range').click()");
  expect((await rows()).length).toBe(before);
});

test("nothing of a hostile trace is markup, runs, or is loaded", async () => {
  const hostile = [
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "]]><img src=http://127.0.0.1:1/x onerror=\"document.title='owned'\">",
    "<svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "\u2028\u2029\u202e</title>&lt;",
    "__proto__",
  ];
  const records: TraceRecord[] = hostile.flatMap((word, index): TraceRecord[] => [
    { kind: "open", t: index, c: 1, origin: { [word]: word } },
    { kind: "client", t: index, c: 1, name: word },
    { kind: "note", t: index, c: 1, level: "broken", from: null, text: word },
    { kind: word, t: index, c: 1 } as unknown as TraceRecord,
    {
      ...(conversation("09-wrong-pin")[3] as CallRecord),
      t: index,
      call: word,
      class: word as "sign",
      args: { [word]: [word, { type: word, value: word }, { [word]: word }] },
      rv: word,
      note: word,
      error: { code: word, message: word },
    },
  ]);
  const asked = browser.requests.length;
  await open(records, hostile.join(" "));
  for (let index = 0; index < records.length; index++) {
    await browser.press("j");
    await browser.evaluate(drawn);
  }
  expect(await browser.evaluate("document.title")).toBe("tokenfwd trace");
  expect(await browser.evaluate("document.querySelectorAll('script').length")).toBe(2);
  expect(await browser.evaluate("document.querySelectorAll('img, svg, iframe, object, link, a').length")).toBe(0);
  expect(browser.requests.slice(asked)).toHaveLength(1);
  expect(browser.requests[asked]).toMatch(/^file:/);
  expect(await browser.evaluate("document.body.innerText.includes('\\u202e')")).toBe(false);
  expect(browser.complaints).toEqual([]);
});

test("its policy lets nothing run but its own script", async () => {
  await open(conversation("09-wrong-pin"));
  const before = browser.complaints.length;
  const ran = await browser.evaluate<string[]>(`(() => {
    const ran = [];
    window.owned = () => ran.push("script");
    const script = document.createElement("script");
    script.append("owned()");
    try { document.body.append(script); } catch { /* refused */ }
    try { document.body.innerHTML += "<b>markup</b>"; ran.push("markup"); } catch { /* refused */ }
    return ran;
  })()`);
  expect(ran).toEqual([]);
  await expect(browser.evaluate("fetch('http://127.0.0.1:1/').then(() => 'fetched')")).rejects.toThrow();
  expect(browser.complaints.slice(before).join()).toMatch(/Content Security Policy/);
});

test("ten thousand records are there at once, and a key answers at once", async () => {
  const some = conversation("41-h-misc-26").filter((record) => record.kind === "call");
  const many = Array.from({ length: 10_000 }, (_, index): TraceRecord => {
    const one = some[index % some.length] as CallRecord;
    return { ...one, t: index * 3, ms: 1 + (index % 7), c: 1 + Math.floor(index / 500), n: index + 1 };
  });
  await open(many);
  expect(await text("#count")).toBe("10,000 of 10,000");
  // Only what is seen is made.
  expect(await browser.evaluate<number>("document.querySelectorAll('.row').length")).toBeLessThan(80);
  const took = async (what: string): Promise<number> =>
    browser.evaluate<number>(`(() => { const begun = performance.now(); ${what}; return performance.now() - begun; })()`);
  const key = (name: string) => `document.dispatchEvent(new KeyboardEvent("keydown", { key: ${JSON.stringify(name)}, bubbles: true }))`;
  expect(await took(key("End"))).toBeLessThan(1000);
  expect((await rows()).at(-1)?.[0]).toBe("29997.000");
  expect(await took(key("Home"))).toBeLessThan(1000);
  expect(
    await took(`{ const field = document.getElementById("search"); field.value = "c_sign"; field.dispatchEvent(new Event("input")); }`),
  ).toBeLessThan(1500);
  expect((await rows()).every((row) => /^C_Sign/.test(row[2] ?? ""))).toBe(true);
  await open(many, "test", false);
  expect(await text("#about")).toContain("cut off");
});
