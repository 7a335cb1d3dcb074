/*
 * What `token list` found, as JSON (pinned, version 1; docs/guide.md has the shape) and as lines for a person. Every text in it
 * comes from modules and tokens and is printable already, but for paths. It must never leave out a module because something is
 * wrong with it.
 */
import { printable } from "../base/printable.js";
import { CKF, CKO } from "../cryptoki/constants.js";
import type { SeenModule, SeenObject, SeenSlot, SeenToken, TokenProblem } from "../token/discovery/look.js";

const CLASSES: ReadonlyMap<bigint, string> = new Map([
  [CKO.CKO_CERTIFICATE, "cert"],
  [CKO.CKO_PUBLIC_KEY, "public"],
  [CKO.CKO_PRIVATE_KEY, "private"],
  [CKO.CKO_SECRET_KEY, "secret-key"],
  [CKO.CKO_DATA, "data"],
]);
const classOf = (object: SeenObject): string => CLASSES.get(object.class) ?? "other";

const PROBLEMS: Readonly<Record<TokenProblem, string>> = {
  "not-initialized": "not initialised: there is no token on it yet",
  "pin-not-set": "no user PIN is set, so nobody can log in",
  "pin-locked": "the PIN is locked: unlock it with the token's own tool and the PUK or SO PIN",
  "pin-last-try": "one PIN try is left",
  "pin-count-low": "a wrong PIN has been entered since the last right one",
  "pin-pad": "has a PIN pad of its own, which this version cannot use",
  unreadable: "the card cannot be read by this module",
};

/** How many different tokens can be used. */
export function usableTokens(modules: readonly SeenModule[]): number {
  return modules.flatMap(({ slots }) => slots).filter(({ token }) => token?.usable === true && token.sameAs === null).length;
}

/** The document of `token list --json`. Slots are decimal strings, because they may need 64 bits; ids are lower-case hex. */
export function tokenListJson(modules: readonly SeenModule[]): string {
  const object = (one: SeenObject) => ({ uri: one.uri, type: classOf(one), label: one.label, id: one.id.toString("hex") });
  const token = ({ flags, objects, ...rest }: SeenToken) => ({
    uri: rest.uri,
    label: rest.label,
    manufacturer: rest.manufacturer,
    model: rest.model,
    serial: rest.serial,
    usable: rest.usable,
    problems: rest.problems,
    loginRequired: (flags & CKF.CKF_LOGIN_REQUIRED) !== 0n,
    sameAs: rest.sameAs,
    objects: objects?.map(object) ?? null,
    objectsWhy: rest.objectsWhy,
  });
  const slot = (one: SeenSlot) => ({
    slot: one.slot.toString(),
    description: one.description,
    token: one.token === null ? null : token(one.token),
  });
  const document = {
    v: 1,
    usable: usableTokens(modules),
    modules: modules.map(({ path, from, state, why, library, slots }) => ({
      module: path,
      from,
      state,
      why,
      library,
      slots: slots.map(slot),
    })),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

const WIDTH = 9;
const row = (depth: number, name: string, value: string): string => `${" ".repeat(2 * depth)}${name.padEnd(WIDTH)} ${value}`.trimEnd();

/** The same for a person: a paragraph for each module, names and values in columns. */
export function tokenListText(modules: readonly SeenModule[]): string {
  if (modules.length === 0) return "no PKCS#11 module was found on this machine\n";
  return modules.map((one) => `${moduleLines(one).join("\n")}\n`).join("\n");
}

function moduleLines({ path, from, state, why, library, slots }: SeenModule): string[] {
  const lines = [row(0, "module", path === null ? "(none)" : printable(path)), row(1, "from", from)];
  if (library !== null) lines.push(row(1, "library", [library.manufacturer, library.description].filter(Boolean).join(", ")));
  if (state !== "ok") lines.push(row(1, { denied: "not used", unloadable: "unusable", faulty: "faulty" }[state], why ?? ""));
  if (state === "ok" && slots.length === 0) lines.push(row(1, "slots", "none: no reader is connected, or the module does not see one"));
  for (const slot of slots) lines.push(...slotLines(slot));
  return lines;
}

function slotLines({ slot, description, token }: SeenSlot): string[] {
  const lines = [row(1, "slot", `${slot}${description === "" ? "" : `  ${description}`}`)];
  if (token === null) return [...lines, row(2, "token", "none")];
  if (token.sameAs !== null)
    return [
      ...lines,
      row(2, "token", token.label || "(no label)"),
      row(2, "same as", `the one that ${printable(token.sameAs)} shows; counted there`),
    ];
  if (token.uri !== "" && !token.problems.includes("not-initialized"))
    lines.push(row(2, "token", token.label || "(no label)"), row(2, "uri", token.uri));
  else lines.push(row(2, "token", "(none)"));
  for (const problem of token.problems) lines.push(row(2, "problem", PROBLEMS[problem]));
  if (token.objectsWhy !== null) lines.push(row(2, "objects", token.objectsWhy));
  const { objects } = token;
  if (objects === null) return lines;
  if (objects.length === 0) lines.push(row(2, "objects", "none that it shows before a log-in"));
  const widest = Math.min(32, Math.max(...objects.map(({ label }) => label.length), 0));
  for (const object of objects) lines.push(row(2, classOf(object), `${object.label.padEnd(widest)}  ${object.uri}`));
  return lines;
}
