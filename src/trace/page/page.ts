/*
 * A trace as one page for a browser: the records as data, a script and a style of ours, and a policy that lets nothing else be loaded
 * or run. Whatever a record holds it must never become markup: it is JSON with no `<` in it, and the script sets text alone.
 */
import { createHash } from "node:crypto";
import { printable } from "../../base/printable.js";
import type { TraceRecord } from "../../wire/trace/records.js";
import type { TraceHeader } from "../format.js";
import type { TraceSummary } from "../summary.js";
import { MARKUP } from "./markup.js";
import { DETAIL_SCRIPT } from "./script-detail.js";
import { MODEL_SCRIPT } from "./script-model.js";
import { TIMELINE_SCRIPT } from "./script-timeline.js";
import { VIEW_SCRIPT } from "./script-view.js";
import { STYLE } from "./style.js";

export interface PageOptions {
  readonly header: TraceHeader;
  readonly records: readonly TraceRecord[];
  readonly summary: TraceSummary;
  /** False for a trace that was cut off. */
  readonly complete: boolean;
}

const SCRIPT = `"use strict";\n(() => {\n${MODEL_SCRIPT}\n${TIMELINE_SCRIPT}\n${DETAIL_SCRIPT}\n${VIEW_SCRIPT}\n})();\n`;

const hashOf = (text: string): string => `'sha256-${createHash("sha256").update(text, "utf8").digest("base64")}'`;

/** No network, no frame, no form, no markup from a string; one script and one style, by their hashes. */
const POLICY = [
  "default-src 'none'",
  `script-src ${hashOf(SCRIPT)}`,
  `style-src ${hashOf(STYLE)}`,
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

/** The page's text. */
export function createPage({ header, records, summary, complete }: PageOptions): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>tokenfwd trace</title>
<style>${STYLE}</style>
</head>
<body>
${MARKUP}
<script type="application/json" id="trace">${dataOf({ header, summary, complete, records })}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

const BREAKERS = /[<>&\u2028\u2029]/g;

/** JSON that ends no element and begins no comment, whatever stands in it. */
function dataOf(value: unknown): string {
  return JSON.stringify(clean(value)).replace(BREAKERS, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const MAX_DEPTH = 40;

/** The same with every text printable: a file may be anybody's, and a page can be made to read backwards as a terminal can. */
function clean(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return printable(value, value.length);
  if (typeof value !== "object" || value === null) return value;
  if (depth > MAX_DEPTH) return null;
  if (Array.isArray(value)) return value.map((one) => clean(one, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [printable(name), clean(one, depth + 1)]));
}
