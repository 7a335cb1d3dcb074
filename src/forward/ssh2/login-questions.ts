/*
 * What a server asks a person at login: a password, or the prompts of keyboard-interactive. The server writes the texts, so every
 * line shown begins with who asks and is printable, and there is an end to how many there are. It must never keep an answer.
 */
import type { AnyAuthMethod } from "ssh2";
import { printable } from "../../base/printable.js";
import type { SshSettings } from "../ssh-settings.js";
import type { ForwardUi } from "../types.js";

/** Prompts in one round, and in one login: a hostile server could ask without end. */
const MAX_PROMPTS = 10;
const MAX_PROMPTS_IN_ALL = 30;
const MAX_LINES = 20;
const MAX_LINE = 300;
/** Columns of a line that is shown, who asks included: no terminal may wrap it into one that lacks who asks. */
const MAX_COLUMNS = 72;
/** What is left for the text where who asks is long. */
const MIN_TEXT_COLUMNS = 24;

export interface QuestionDeps {
  readonly settings: SshSettings;
  readonly ui: Pick<ForwardUi, "askLogin">;
  readonly whileAsking: <T>(question: () => Promise<T>) => Promise<T>;
  /** Ends the connection: it asks more than anybody has to answer. */
  readonly tooMuch: (why: string) => void;
}

/** One attempt of a method that asks. */
export interface Question {
  readonly step: AnyAuthMethod;
  /** Whether somebody answered. */
  answered(): boolean;
  /** The server has spoken: what was typed is overwritten. */
  over(): void;
}

/** What asks at one login. */
export interface Questions {
  /** A password to try, null when nobody gives one. */
  password(): Promise<Question | null>;
  keyboardInteractive(): Question;
}

/** The texts of a server as lines for a terminal, each with who asks in front. Exported for tests. */
export function promptLines(who: string, texts: readonly string[]): string[] {
  const room = Math.max(MIN_TEXT_COLUMNS, MAX_COLUMNS - who.length - "() ".length);
  const lines = texts.flatMap((text) => (text === "" ? [] : text.replace(/\s+$/, "").split(/\r\n|\r|\n/)));
  return lines
    .slice(0, MAX_LINES)
    .flatMap((line) => folded(printable(line, MAX_LINE), room))
    .map((line) => `(${who}) ${line}`);
}

/** A line in pieces that are at most so many columns wide, where what is no ASCII may take two. */
function folded(line: string, room: number): string[] {
  const pieces: string[] = [];
  let piece = "";
  let columns = 0;
  for (const character of line) {
    const width = character <= "~" ? 1 : 2;
    if (columns + width > room) {
      pieces.push(piece);
      piece = "";
      columns = 0;
    }
    piece += character;
    columns += width;
  }
  return [...pieces, piece];
}

/** Questions for one connection. */
export function createQuestions({ settings, ui, whileAsking, tooMuch }: QuestionDeps): Questions {
  const username = settings.user;
  const who = `${printable(settings.user)}@${printable(settings.host)}`;
  let asked = 0;

  const ask = async (lines: readonly string[], echo: boolean): Promise<Buffer | null> =>
    await whileAsking(() => ui.askLogin({ lines, echo }));

  return {
    async password() {
      const password = await ask([`(${who}) password: `], false);
      if (password === null) return null;
      return {
        step: { type: "password", username, password: password as unknown as string },
        answered: () => true,
        over: () => void password.fill(0),
      };
    },
    keyboardInteractive() {
      let answered = true;
      const typed: Buffer[] = [];
      const over = () => {
        for (const answer of typed.splice(0)) answer.fill(0);
      };
      const round = async (texts: readonly string[], prompts: readonly { prompt: string; echo?: boolean }[]): Promise<string[]> => {
        asked += prompts.length;
        if (prompts.length > MAX_PROMPTS || asked > MAX_PROMPTS_IN_ALL) {
          tooMuch(
            `it asks more than ${prompts.length > MAX_PROMPTS ? `${MAX_PROMPTS} questions at once` : `${MAX_PROMPTS_IN_ALL} questions`}`,
          );
          return [];
        }
        let before = promptLines(who, texts);
        for (const { prompt, echo } of prompts) {
          const own = promptLines(who, [prompt]);
          const answer = answered
            ? await ask([...before, ...(own.length === 0 ? [`(${who}) `] : own.map(spaced(own.length)))], echo === true)
            : null;
          before = [];
          if (answer === null) answered = false;
          // A server must get as many answers as it asked for; none of them is one.
          typed.push(answer ?? Buffer.alloc(0));
        }
        // ssh2 takes strings alone; they live until the next garbage collection, which the security notes say.
        const answers = typed.map((answer) => answer.toString("utf8"));
        over();
        return answers;
      };
      return {
        step: {
          type: "keyboard-interactive",
          username,
          prompt: (name, instructions, _language, prompts, finish) => {
            void round([name, instructions], prompts).then(finish, () => finish(prompts.map(() => "")));
          },
        },
        answered: () => answered,
        over,
      };
    },
  };
}

/** The last line of a question ends with a space, where the answer is typed. */
const spaced = (count: number) => (line: string, index: number) => (index === count - 1 ? `${line} ` : line);
