/*
 * Which nodes are asked, from the words of a command line, as choria's own options read them: facts with an operator, classes, agents
 * and identities, the last three also as /regular expressions/. Compound filters need a language of choria's, and are not taken.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import type { FactFilter, RequestFilter } from "../documents/request.js";

export interface FilterWords {
  /** `FACT=VALUE`, with one of = == != < <= > >= =~ between them. */
  readonly facts: readonly string[];
  readonly classes: readonly string[];
  readonly agents: readonly string[];
  readonly identities: readonly string[];
}

const OPERATOR = /=~|<=|>=|=>|=<|<|>|!=|={1,2}/g;
/** What choria makes of an operator that protocol v1 does not have. */
const AS: Readonly<Record<string, string>> = { "=": "==", "=<": "<=", "=>": ">=" };

/** Throws E_USAGE for a fact that is none. */
export function parseFilter({ facts, classes, agents, identities }: FilterWords): RequestFilter {
  const filled = (words: readonly string[]): readonly string[] => words.filter((word) => word !== "");
  return {
    fact: facts.map(parseFact),
    cf_class: filled(classes),
    agent: filled(agents),
    identity: filled(identities),
    compound: [],
  };
}

/** The operator furthest to the right is the one; a value between slashes is an expression whatever it says. */
function parseFact(word: string): FactFilter {
  const last = [...word.matchAll(OPERATOR)].at(-1);
  const operator = last?.[0] ?? "";
  const fact = word.slice(0, last?.index ?? 0).trim();
  const value = word.slice((last?.index ?? 0) + operator.length).trim();
  if (operator === "" || fact === "" || value === "") {
    throw new TokenfwdError("E_USAGE", `${printable(word, 100)} is no fact to look for`, {
      hint: "write FACT=VALUE, such as os.family=Debian",
    });
  }
  const isExpression = value.startsWith("/") && value.endsWith("/");
  return { fact, operator: isExpression ? "=~" : (AS[operator] ?? operator), value };
}
