/*
 * What is wrong with single lines of the configuration: those that choria passes over, values with quotes or a comment, keys that it
 * does not know, words that are no number. It must never show the value of a password.
 */
import { printable } from "../../base/printable.js";
import { colonForm, uncommented, unquoted } from "./as-meant.js";
import type { ClientConfig, ConfigFile } from "./client-config.js";
import type { Findings } from "./finding.js";
import { BOOLEAN_KEYS, INTEGER_KEYS, mayBeKnown, nearestKey, OLD_KEYS, PATH_KEYS } from "./keys.js";
import { integerOf, type Setting } from "./parse.js";

const SECRET = /pass|secret|credential/i;
const shown = (key: string, value: string): string => (SECRET.test(key) ? "..." : printable(value, 200));

/** Looks at every line of every file. */
export function checkLines(config: ClientConfig, findings: Findings): void {
  for (const file of config.files) {
    if (file.cutAt !== null) {
      findings.add(
        "line-too-long",
        "error",
        `line ${file.cutAt} of ${printable(file.path)} has 64 KiB or more: choria reads neither it nor what follows`,
        "split the line, or take it out",
        { source: { path: file.path, line: file.cutAt } },
      );
    }
    for (const { text, line } of file.ignored) ignoredLine(text, { path: file.path, line }, findings);
    const named = new Map<string, Setting>();
    for (const setting of file.settings) {
      checkSetting(setting, file, findings);
      const before = named.get(setting.key);
      if (before !== undefined && before.value !== setting.value) {
        findings.add(
          "key-twice",
          "warning",
          `${printable(setting.key)} stands twice in ${printable(file.path)}, in lines ${before.line} and ${setting.line}: the later counts`,
          `take out line ${before.line}`,
          { source: { path: file.path, line: setting.line } },
        );
      }
      named.set(setting.key, setting);
    }
  }
}

/** A line that choria passes over: most often YAML's `key: "value"`. */
function ignoredLine(text: string, source: { readonly path: string; readonly line: number }, findings: Findings): void {
  const form = colonForm(text);
  if (form !== null) {
    const what = `choria passes over this line in silence: it wants key = value, and this is "${printable(form.key)}: ..."`;
    findings.add("colon", "error", what, `write: ${printable(form.key)} = ${shown(form.key, form.value)}`, { source });
    return;
  }
  const [, empty] = /^([A-Za-z][\w.]*)\s*=$/.exec(text) ?? [];
  if (empty !== undefined) {
    findings.add(
      "no-value",
      "warning",
      `${printable(empty)} has no value, so choria passes over this line`,
      "give it one, or take the line out",
      {
        source,
      },
    );
    return;
  }
  findings.add(
    "no-setting",
    "warning",
    "choria passes over this line in silence: it is no key = value",
    "take it out, or begin it with #",
    {
      source,
    },
  );
}

function checkSetting({ key, value, line }: Setting, file: ConfigFile, findings: Findings): void {
  const source = { path: file.path, line };
  const name = printable(key);
  const whole = file.kind === "plugin" ? `plugin.choria.${key}` : key;
  const colon = /^([A-Za-z][\w.]*)\s*:/.exec(key);
  if (key.startsWith("\ufeff")) {
    const first = printable(key.slice(1));
    findings.add(
      "byte-order-mark",
      "error",
      `the file begins with a byte order mark, so choria does not know ${first}`,
      "save it as UTF-8 without one",
      {
        source,
      },
    );
    return;
  }
  if (colon !== null) {
    const text = `choria takes ${name} for the name of a key: it splits the line at the first =, and this is YAML's form`;
    findings.add("colon", "error", text, `write: ${printable(colon[1] ?? "")} = VALUE, without quotes`, { source });
    return;
  }
  unknownKey(whole, source, findings);
  const plain = unquoted(value);
  if (plain !== null) {
    findings.add(
      "quotes",
      "error",
      `choria strips no quotes: they are part of the value of ${name}`,
      `write: ${name} = ${shown(key, plain)}`,
      {
        source,
      },
    );
    return;
  }
  const kept = uncommented(value);
  if (kept !== null && !SECRET.test(key)) {
    const text = `choria takes what stands behind # for a part of the value of ${name}`;
    findings.add("comment", "error", text, `write: ${name} = ${printable(kept)}, and the comment on a line of its own`, { source });
    return;
  }
  badValue(whole, name, value, source, findings);
}

function unknownKey(key: string, source: { readonly path: string; readonly line: number }, findings: Findings): void {
  if (mayBeKnown(key)) return;
  const name = printable(key, 200);
  if (OLD_KEYS.has(key)) {
    findings.add(
      "old-key",
      "note",
      `${name} is of an older choria, and passed over by today's`,
      "take it out when all your choria are new",
      { source },
    );
    return;
  }
  const near = nearestKey(key);
  const mend = near === null ? "look the name up with choria tool config --list ." : `did you mean ${near}?`;
  findings.add("unknown-key", "warning", `choria knows no key ${name}, and passes over it in silence`, mend, { source });
}

function badValue(
  key: string,
  name: string,
  value: string,
  source: { readonly path: string; readonly line: number },
  findings: Findings,
): void {
  if (INTEGER_KEYS.has(key) && integerOf(value) === null) {
    findings.add(
      "no-number",
      "error",
      `${name} is ${printable(value, 100)}, no whole number: choria keeps what it had`,
      `write: ${name} = NUMBER`,
      {
        source,
      },
    );
  }
  if (BOOLEAN_KEYS.has(key) && !/^(0|no|false|n|f|1|yes|true|y|t)$/i.test(value.trim())) {
    const text = `${name} is ${printable(value, 100)}, which choria takes for no`;
    findings.add("no-boolean", "error", text, `write: ${name} = true, or ${name} = false`, { source });
  }
  if (PATH_KEYS.has(key) && /\$(\w|\{)/.test(value)) {
    const mend = value.includes("HOME") ? `write: ${name} = ${printable(value.replace(/\$(HOME|\{HOME\})/, "~"))}` : "write the path out";
    findings.add("variable", "error", `choria expands no variable in ${name}; only a ~ at its beginning`, mend, { source });
  }
}
