/*
 * Reads which modules a TypeScript source names, without a compiler: a small lexer that knows comments, strings, templates
 * and regular expressions, and patterns over its tokens. It must find every way to load a module: import and export ... from,
 * `import "x"`, `import("x")`, `require("x")`, a require made by createRequire, and `.resolve("x")` of either.
 */

interface Token {
  readonly kind: "word" | "string" | "punctuation" | "other";
  readonly text: string;
}

/** One module that a source names. `specifier` is null when it is computed at run time, which no test could follow. */
export interface ImportSite {
  readonly specifier: string | null;
}

const BEFORE_REGEX = new Set(["return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do", "await", "yield"]);

function endOfString(source: string, start: number): number {
  const quote = source[start];
  let at = start + 1;
  while (at < source.length && source[at] !== quote && source[at] !== "\n") at += source[at] === "\\" ? 2 : 1;
  return at + 1;
}

function endOfRegex(source: string, start: number): number {
  let inClass = false;
  let at = start + 1;
  for (; at < source.length && source[at] !== "\n"; at++) {
    if (source[at] === "\\") at++;
    else if (source[at] === "[") inClass = true;
    else if (source[at] === "]") inClass = false;
    else if (source[at] === "/" && !inClass) break;
  }
  return at + 1;
}

/** The end of a template and the tokens of what it interpolates. */
function readTemplate(source: string, start: number, tokens: Token[]): number {
  let at = start + 1;
  let plain = true;
  const firstToken = tokens.length;
  while (at < source.length && source[at] !== "`") {
    if (source[at] === "\\") at += 2;
    else if (source.startsWith("${", at)) {
      plain = false;
      at = lex(source, at + 2, tokens, true);
    } else at++;
  }
  // A template without interpolation is as good as a string: import(`x`).
  const text = plain ? source.slice(start + 1, at) : "`";
  tokens.splice(firstToken, 0, { kind: plain ? "string" : "other", text });
  return at + 1;
}

function lex(source: string, start: number, tokens: Token[], untilBrace: boolean): number {
  let depth = 0;
  let at = start;
  while (at < source.length) {
    const c = source[at] ?? "";
    const last = tokens.at(-1);
    if (/\s/.test(c)) at++;
    else if (source.startsWith("//", at)) at = (source.indexOf("\n", at) + 1 || source.length + 1) - 1;
    else if (source.startsWith("/*", at)) at = source.indexOf("*/", at + 2) + 2 || source.length;
    else if (c === '"' || c === "'") {
      const end = endOfString(source, at);
      tokens.push({ kind: "string", text: source.slice(at + 1, end - 1) });
      at = end;
    } else if (c === "`") at = readTemplate(source, at, tokens);
    else if (c === "/") {
      const value = last !== undefined && (last.kind !== "punctuation" ? !BEFORE_REGEX.has(last.text) : /[)\]}]/.test(last.text));
      if (value) tokens.push({ kind: "punctuation", text: c });
      else tokens.push({ kind: "other", text: "/regex/" });
      at = value ? at + 1 : endOfRegex(source, at);
    } else if (/[\w$]/.test(c)) {
      const word = /^[\w$]+/.exec(source.slice(at))?.[0] ?? c;
      tokens.push({ kind: "word", text: word });
      at += word.length;
    } else {
      if (c === "{") depth++;
      if (c === "}" && depth-- === 0 && untilBrace) return at + 1;
      tokens.push({ kind: "punctuation", text: c });
      at++;
    }
  }
  return at;
}

/** Every module that the source names, in order. */
export function importsOf(source: string): readonly ImportSite[] {
  const tokens: Token[] = [];
  lex(source, 0, tokens, false);
  const text = (index: number): string => tokens[index]?.text ?? "";
  const punctuated = (index: number, what: string): boolean => tokens[index]?.kind === "punctuation" && text(index) === what;
  const worded = (index: number, what: string): boolean => tokens[index]?.kind === "word" && text(index) === what;

  // Names that hold a require: `const load = createRequire(...)`.
  const loaders = new Set(["require", "import"]);
  tokens.forEach((_, index) => {
    if (worded(index, "createRequire") && punctuated(index + 1, "(") && punctuated(index - 1, "=")) loaders.add(text(index - 2));
  });

  const sites: ImportSite[] = [];
  const called = (index: number): void => {
    const argument = tokens[index];
    const alone = punctuated(index + 1, ")") || punctuated(index + 1, ",");
    sites.push({ specifier: argument?.kind === "string" && alone ? argument.text : null });
  };
  tokens.forEach((token, index) => {
    if (token.kind === "string" && (worded(index - 1, "from") || worded(index - 1, "import"))) sites.push({ specifier: token.text });
    if (!punctuated(index, "(")) return;
    const before = tokens[index - 1];
    const member = punctuated(index - 2, ".");
    if (before?.kind === "word" && loaders.has(before.text) && !member) called(index + 1);
    // require.resolve("x") and import.meta.resolve("x"), and createRequire(...)("x").
    if (worded(index - 1, "resolve") && member && (loaders.has(text(index - 3)) || worded(index - 3, "meta"))) called(index + 1);
    if (punctuated(index - 1, ")") && openerIsCreateRequire(index - 1)) called(index + 1);
  });
  return sites;

  function openerIsCreateRequire(close: number): boolean {
    let depth = 0;
    for (let at = close; at >= 0; at--) {
      if (punctuated(at, ")")) depth++;
      if (punctuated(at, "(") && --depth === 0) return worded(at - 1, "createRequire");
    }
    return false;
  }
}
