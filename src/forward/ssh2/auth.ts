/*
 * Which login methods are tried, in which order: those that the server still takes, as PreferredAuthentications ranks them, each
 * key once and each question as often as NumberOfPasswordPrompts says (design 9). It must never try what the configuration
 * switches off, and never keep what was typed.
 */
import type { AnyAuthMethod, AuthHandlerMiddleware } from "ssh2";
import { printable } from "../../base/printable.js";
import type { LoginMethod, SshSettings } from "../ssh-settings.js";
import type { ForwardUi } from "../types.js";
import { type LoginKey, loginKeys } from "./login-keys.js";
import { createQuestions, type Question } from "./login-questions.js";

export interface Attempt {
  readonly method: "agent" | LoginMethod;
  /** Printable: the key file, what the agent calls its key, or empty for a question. */
  readonly key: string;
  /** null while it is being tried. */
  ok: boolean | null;
  why?: string;
}

export interface Authentication {
  readonly handler: AuthHandlerMiddleware;
  readonly attempts: readonly Attempt[];
  /** Method names the server would go on with, as of its last answer. */
  methodsLeft(): readonly string[];
  /** ssh2's debug texts go here: they alone say which methods are left after a key of an agent was taken in part. */
  debug(text: string): void;
  /** The server has accepted what was tried last. */
  succeeded(): void;
  /** The connection has ended: what was typed is overwritten. */
  ended(): void;
}

interface Deps {
  readonly settings: SshSettings;
  readonly ui: Pick<ForwardUi, "askPassphrase" | "askLogin" | "event">;
  /** Called around a question, so that no timer runs while a person thinks. */
  readonly whileAsking: <T>(question: () => Promise<T>) => Promise<T>;
  /** Ends the connection for what the server asks. */
  readonly tooMuch: (why: string) => void;
}

/** The next methods, one after the other, as ssh2 asks for them. */
export function createAuthentication(deps: Deps): Authentication {
  const { settings } = deps;
  const username = settings.user;
  const attempts: Attempt[] = [];
  let left: readonly string[] = [];
  let before: readonly string[] = [];
  let current: { readonly attempt: Attempt; why(): string | undefined; over(): void; signed: boolean } | null = null;
  const finish = (succeeded: boolean) => {
    if (current === null) return;
    const { attempt, why, over, signed } = current;
    current = null;
    over();
    // A key that signed, and other methods after it: the server took the key and wants more (AuthenticationMethods).
    const inPart = !succeeded && signed && left.join() !== before.join();
    attempt.ok = succeeded || inPart;
    const said = inPart ? "taken, and more is wanted" : why();
    if (said !== undefined && !succeeded) attempt.why = said;
    deps.ui.event("auth", { method: attempt.method, key: attempt.key, ok: attempt.ok });
  };
  const begin = (method: Attempt["method"], key: string, why: () => string | undefined = () => undefined, over: () => void = () => {}) => {
    const attempt: Attempt = { method, key, ok: null };
    attempts.push(attempt);
    before = left;
    current = { attempt, why, over, signed: false };
  };
  const signed = () => {
    if (current !== null) current.signed = true;
  };
  const questions = createQuestions(deps);
  const keys = loginKeys({ ...deps, signed });
  const rounds: Record<Exclude<LoginMethod, "publickey">, number> = { "keyboard-interactive": 0, password: 0 };

  /** The next key that can be offered; those that cannot are told on the way. */
  const nextKey = async (): Promise<AnyAuthMethod | null> => {
    for (;;) {
      const next = await keys.next();
      if (next.done === true) return null;
      const key: LoginKey = next.value;
      begin(key.method, key.name, () => key.why());
      if (key.agent !== null) return { type: "agent", username, agent: key.agent };
      finish(false);
    }
  };
  const nextQuestion = async (method: Exclude<LoginMethod, "publickey">): Promise<AnyAuthMethod | null> => {
    rounds[method] += 1;
    if (rounds[method] > settings.passwordPrompts) return null;
    const question: Question | null = method === "password" ? await questions.password() : questions.keyboardInteractive();
    const gone = "nobody answered";
    begin(
      method,
      "",
      () => {
        if (question?.answered() === true) return undefined;
        // Who has not answered once is not asked again.
        rounds[method] = settings.passwordPrompts;
        return gone;
      },
      () => question?.over(),
    );
    if (question !== null) return question.step;
    finish(false);
    return null;
  };
  const exhausted = new Set<LoginMethod>();
  const next = async (): Promise<AnyAuthMethod | null> => {
    for (;;) {
      const method = settings.loginMethods.find((one) => left.includes(one) && !exhausted.has(one));
      if (method === undefined) return null;
      const step = method === "publickey" ? await nextKey() : await nextQuestion(method);
      if (step !== null) return step;
      exhausted.add(method);
    }
  };

  let begun = false;
  return {
    attempts,
    methodsLeft: () => left,
    debug(text) {
      const methods = /^Inbound: Received USERAUTH_FAILURE \(([\x21-\x7e]*)\)$/.exec(text)?.[1];
      if (methods !== undefined) left = methods.split(",").filter((one) => one !== "");
    },
    succeeded: () => finish(true),
    ended: () => current?.over(),
    handler(_authsLeft, _partial, done) {
      finish(false);
      // Costs one round trip and tells which methods the server takes at all.
      if (!begun) {
        begun = true;
        return { type: "none", username };
      }
      next().then(
        // ssh2 takes false for "no more"; its types do not say so.
        (step) => done(step ?? (false as unknown as AnyAuthMethod)),
        () => done(false as unknown as AnyAuthMethod),
      );
      return undefined;
    },
  };
}

/** An attempt in words. */
export function attemptText({ method, key, why }: Attempt): string {
  return `${method}${key === "" ? "" : ` ${printable(key)}`}${why === undefined ? "" : ` (${why})`}`;
}
