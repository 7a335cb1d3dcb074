/*
 * All modules of this machine, looked at one after the other, and the one that is meant where no --module was given. A card that two
 * modules show is counted once, for the module that comes first. It must never guess between two different tokens.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable, shellWord } from "../../base/printable.js";
import { matchesToken, parseSelector, type TokenIdentity } from "../../cryptoki/uri.js";
import { type Candidate, findCandidates } from "./candidates.js";
import { type LookOptions, lookAt, type SeenModule, type SeenToken } from "./look.js";

export interface DiscoverOptions extends LookOptions {
  /** Tests hand in their own; default: those of this machine. */
  readonly candidates?: readonly Candidate[];
}

/**
 * Looks at each candidate, one at a time, each in a process of its own. A token that an earlier module has shown already, with the
 * same serial, label, manufacturer and model, has `sameAs`; a token without a serial (none, or all zeros, as TPMs have)
 * is never taken for another.
 */
export async function discoverModules(options: DiscoverOptions): Promise<SeenModule[]> {
  const modules: SeenModule[] = [];
  const first = new Map<string, string>();
  for (const candidate of options.candidates ?? findCandidates()) {
    const seen = await lookAt(candidate, options);
    const mark = (token: SeenToken): SeenToken => {
      if (/^0*$/.test(token.serial) || token.problems.includes("not-initialized")) return token;
      const identity = JSON.stringify([token.serial, token.label, token.manufacturer, token.model]);
      const before = first.get(identity);
      if (before === undefined) first.set(identity, seen.path ?? "");
      return before === undefined || before === seen.path ? token : { ...token, sameAs: before };
    };
    modules.push({ ...seen, slots: seen.slots.map((slot) => (slot.token === null ? slot : { ...slot, token: mark(slot.token) })) });
  }
  return modules;
}

/** True when `selector`, a label or a `pkcs11:` URI, means this token; null means every token. */
function isMeant(selector: string | null, token: TokenIdentity): boolean {
  if (selector === null) return true;
  return /^pkcs11:/i.test(selector) ? matchesToken(parseSelector(selector), token) : token.label === selector;
}

interface Found {
  readonly path: string;
  readonly token: SeenToken;
}

/** The initialised tokens, each card once, with the module that shows it first. */
export function tokensOf(modules: readonly SeenModule[]): Found[] {
  return modules.flatMap(({ path, slots }) =>
    slots.flatMap(({ token }) =>
      path === null ||
      token === null ||
      token.sameAs !== null ||
      token.problems.some((one) => one === "not-initialized" || one === "unreadable")
        ? []
        : [{ path, token }],
    ),
  );
}

/** As chooseModule, with every module of this machine. */
export async function findModule(token: string | null, options: Omit<DiscoverOptions, "objects">): Promise<string> {
  return chooseModule(token, await discoverModules({ ...options, objects: false }));
}

/**
 * The path of the one module that shows a token that `token` (a label, a `pkcs11:` URI, or null for any) selects.
 * Throws E_TOKEN_NOT_FOUND when there is none, and E_KEY_CHOICE when several modules do, each with what there is.
 */
export function chooseModule(token: string | null, modules: readonly SeenModule[]): string {
  const all = tokensOf(modules);
  const meant = all.filter((each) => isMeant(token, each.token));
  const [path, ...others] = new Set(meant.map((each) => each.path));
  if (path === undefined) throw notFound(token, modules, all);
  if (others.length === 0) return path;
  throw new TokenfwdError("E_KEY_CHOICE", `${others.length + 1} modules show a token, and one must be named`, {
    hint: `choose: ${meant.map((each) => `--module ${shellWord(each.path)} (${each.token.label || "no label"})`).join(", or ")}`,
    reason: "several-modules",
  });
}

function notFound(token: string | null, modules: readonly SeenModule[], all: readonly Found[]): TokenfwdError {
  const looked = modules.filter(({ state }) => state !== "denied").map(({ path }) => printable(path ?? ""));
  const there = all.map((each) => each.token.label || "no label").join(", ");
  const message =
    looked.length === 0
      ? "no PKCS#11 module was found on this machine"
      : token !== null && there !== ""
        ? "no token matches --token"
        : `no token was found; looked at ${looked.join(", ")}`;
  const hint =
    looked.length === 0
      ? "install the module of your token, for example ykcs11 or opensc, or name it with --module"
      : token !== null && there !== ""
        ? `the tokens there are: ${there}; tokenfwd token list shows more`
        : "is the token plugged in, and initialised? tokenfwd token list says what is wrong with each module; --module names another";
  return new TokenfwdError("E_TOKEN_NOT_FOUND", message, {
    hint,
    reason: looked.length === 0 ? "none-found" : token !== null && there !== "" ? "no-match" : "none",
  });
}
