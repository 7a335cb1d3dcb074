/*
 * Writes the generated parts of protocol/*.md: the tables between `<!-- generated: NAME -->` and `<!-- /generated -->`.
 * `npm run docs` runs it on dist/; test/arch/generated-docs.test.ts renders the same from the sources and compares.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** The pages with generated parts, from the project's root. */
export const PAGES = ["protocol/p11kit-rpc.md", "protocol/errors.md", "docs/troubleshooting.md"];

const code = (text) => (text === "" ? "" : `\`${text}\``);
const row = (cells) => `| ${cells.join(" | ")} |`;
const table = (head, rows) => [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");

function callTable(calls) {
  const head = ["id", "call", "request", "arguments", "answer", "outputs", "class", "since"];
  const rows = calls.map((call) => {
    const { id, name, request, args, response, outs, since } = call;
    return [id, name, code(request), args.join(", "), code(response), outs.join(", "), call.class, since];
  });
  return table(head, rows);
}

function mechanismTable(mechanisms) {
  const byShape = new Map();
  for (const { type, shape, stockSince } of mechanisms) {
    if (shape === null) continue;
    const key = `${shape} ${stockSince}`;
    byShape.set(key, [...(byShape.get(key) ?? []), type.toString(16)]);
  }
  const rows = [...byShape].map(([key, types]) => [...key.split(" "), types.join(" ")]);
  rows.sort((a, b) => a[0].localeCompare(b[0]) || Number(a[1]) - Number(b[1]));
  return table(["parameter", "since", "mechanisms (hex)"], rows);
}

function attributeTable(attributes) {
  const byKind = new Map();
  for (const { type, kind } of attributes) byKind.set(kind, [...(byKind.get(kind) ?? []), type.toString(16)]);
  const rows = [...byKind].filter(([kind]) => kind !== "bytes").map(([kind, types]) => [kind, types.join(" ")]);
  return table(["kind", "attributes (hex)"], rows);
}

function errorTable(errors, checks) {
  const where = (name) => {
    const ids = checksOfCode(name, checks).map((id) => `[${id}](../docs/troubleshooting.md#${id})`);
    return ids.join(", ");
  };
  const rows = Object.entries(errors).map(([name, { exitCode, meaning }]) => [code(name), exitCode, meaning, where(name)]);
  return table(["code", "exit status", "meaning", "doctor's checks"], rows);
}

/** The ids of the checks that have a cause with this error code, in their order. */
export function checksOfCode(name, checks) {
  return checks.filter(({ causes }) => Object.values(causes).some((cause) => cause.code === name)).map(({ id }) => id);
}

/** A text of the table as the page has it: facts in capitals, and nothing that Markdown takes for a tag. */
const pageText = (text) => text.replace(/\{(\w+)\}/g, (_whole, name) => name.toUpperCase()).replaceAll("<", "&lt;");

function causeLines(name, cause, errors) {
  const status = cause.code === null ? 1 : errors[cause.code].exitCode;
  const kind =
    cause.status === "warn" ? "a warning" : cause.code === null ? `fails, exit ${status}` : `fails, ${code(cause.code)}, exit ${status}`;
  return [`**${code(name)}** (${kind}). ${pageText(cause.meaning)}`, "", `Mend: ${pageText(cause.mend)}`, ""];
}

function checkSections(checks, errors) {
  const sections = checks.map(({ id, title, looks, needs, causes }) => [
    `### ${id}`,
    "",
    `*${title}.* ${pageText(looks)}${needs.length === 0 ? "" : ` Looked at when ${needs.map(code).join(" and ")} did not fail.`}`,
    "",
    ...Object.entries(causes).flatMap(([name, cause]) => causeLines(name, cause, errors)),
  ]);
  return sections.flat().join("\n").trimEnd();
}

/** The bastion's checks but those that have a section already. */
function ownSections({ workstation, choria, bastion }) {
  const before = new Set([...workstation, ...choria].map(({ id }) => id));
  return bastion.filter(({ id }) => !before.has(id));
}

function commonCauses(common, errors) {
  return Object.entries(common)
    .flatMap(([name, cause]) => causeLines(name, cause, errors))
    .join("\n")
    .trimEnd();
}

/**
 * The page with its generated parts made anew. `source` is `{ calls, mechanisms, attributes, errors, checks }`, where `checks` is
 * `{ workstation, way, choria, bastion, common }`. Throws for a part that nothing generates.
 */
export function renderPage(text, source) {
  const parts = {
    calls: () => callTable(source.calls),
    mechanisms: () => mechanismTable(source.mechanisms),
    attributes: () => attributeTable(source.attributes),
    errors: () => errorTable(source.errors, [...source.checks.workstation, ...source.checks.way, ...source.checks.choria]),
    workstation: () => checkSections(source.checks.workstation, source.errors),
    way: () => checkSections(source.checks.way, source.errors),
    choria: () => checkSections(source.checks.choria, source.errors),
    bastion: () => checkSections(ownSections(source.checks), source.errors),
    common: () => commonCauses(source.checks.common, source.errors),
  };
  return text.replace(/(<!-- generated: (\w+) -->\n)[\s\S]*?(<!-- \/generated -->)/g, (_whole, open, name, close) => {
    if (!Object.hasOwn(parts, name)) throw new Error(`nothing generates ${name}`);
    return `${open}\n${parts[name]()}\n\n${close}`;
  });
}

async function main() {
  const { CALLS } = await import("../../dist/cryptoki/calls.js");
  const { MECHANISMS } = await import("../../dist/cryptoki/mechanisms.js");
  const { CKA, attributeKind } = await import("../../dist/cryptoki/attributes.js");
  const { ERRORS } = await import("../../dist/base/errors.js");
  const { WORKSTATION_CHECKS } = await import("../../dist/doctor/workstation/checks.js");
  const { WAY_CHECKS } = await import("../../dist/doctor/way/checks.js");
  const { CHORIA_CHECKS } = await import("../../dist/doctor/choria/checks.js");
  const { BASTION_CHECKS } = await import("../../dist/doctor/bastion/checks.js");
  const { COMMON_CAUSES } = await import("../../dist/doctor/causes.js");
  const checks = {
    workstation: WORKSTATION_CHECKS,
    way: WAY_CHECKS,
    choria: CHORIA_CHECKS,
    bastion: BASTION_CHECKS,
    common: COMMON_CAUSES,
  };
  const attributes = Object.values(CKA).map((type) => ({ type, kind: attributeKind(type) }));
  const source = { calls: CALLS, mechanisms: [...MECHANISMS.values()], attributes, errors: ERRORS, checks };
  for (const page of PAGES) {
    const path = join(ROOT, page);
    const before = readFileSync(path, "utf8");
    const after = renderPage(before, source);
    if (after === before) continue;
    writeFileSync(path, after);
    process.stdout.write(`${page} written\n`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
