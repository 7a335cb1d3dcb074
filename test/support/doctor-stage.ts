/*
 * A workstation and a bastion for one run of `tokenfwd doctor` as a process: a token of SoftHSM with its PIN in a file, a home and a
 * runtime directory of their own, a real sshd. Faults are made on it before the run. Everything is gone after dispose.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CliExit, runCli } from "../interop/cli-process.js";
import { createSoftHsm, type SoftHsm } from "./softhsm.js";
import { type Sshd, type SshdOptions, startSshd } from "./sshd.js";

/** One check of `doctor --json`. */
export interface SeenCheck {
  readonly id: string;
  readonly status: "pass" | "warn" | "fail" | "not-reached";
  readonly cause: string | null;
  readonly detail: string;
  readonly mend: string | null;
}

export interface DoctorRun {
  readonly exit: CliExit;
  readonly checks: readonly SeenCheck[];
  /** The checks that failed or warned. */
  readonly broken: readonly SeenCheck[];
}

/** What a fault does to the command line. */
export interface DoctorWords {
  readonly destination?: string;
  readonly options?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** In the place of the stage's module. */
  readonly module?: string;
  /** In the place of the stage's token. */
  readonly token?: SoftHsm;
}

export interface DoctorStage {
  readonly token: SoftHsm;
  readonly sshd: Sshd;
  /** Private; gone after the run. */
  readonly dir: string;
  /** HOME of the command. */
  readonly home: string;
  /** HOME of the sessions on the bastion: what lies in this machine's own does not count. */
  readonly bastionHome: string;
  /** The workstation's id: the name of our directory on the bastion. */
  readonly mark: string;
  /** A path in that directory, which is made. */
  ours(name: string): string;
  /** A path in the directory p11-kit of the bastion, which is made. */
  p11Kit(name: string): string;
  /** Done after the run, the last one first. */
  defer(cleanUp: () => Promise<unknown> | unknown): void;
  /** Runs `doctor --json`. */
  doctor(words?: DoctorWords): Promise<DoctorRun>;
  /** Runs `connect --json` with the same words, and answers its last error. */
  connect(words?: DoctorWords): Promise<{ readonly code: number | null; readonly error: Readonly<Record<string, unknown>> | null }>;
  dispose(): Promise<void>;
}

/** The token of a test file, with one RSA key and its certificate. */
export async function createStageToken(): Promise<SoftHsm> {
  const token = await createSoftHsm({ objects: "rsa" });
  writePin(token);
  return token;
}

function writePin(token: SoftHsm): string {
  const path = join(token.dir, "pin");
  writeFileSync(path, `${token.pin}\n`, { mode: 0o600 });
  return path;
}

/** Sets it up; always `await dispose()` it. */
export async function createDoctorStage(token: SoftHsm, options: SshdOptions = {}): Promise<DoctorStage> {
  const cleanUps: (() => Promise<unknown> | unknown)[] = [];
  const dir = mkdtempSync(join(tmpdir(), "tfwd-doctor-"));
  cleanUps.push(() => rmSync(dir, { recursive: true, force: true }));
  const mark = randomBytes(4).toString("hex");
  const [home, state, runtime] = ["home", "state", "run"].map((name) => join(dir, name)) as [string, string, string];
  for (const path of [home, runtime, join(state, "tokenfwd")]) mkdirSync(path, { recursive: true, mode: 0o700 });
  writeFileSync(join(state, "tokenfwd", "workstation-id"), `${mark}\n`, { mode: 0o600 });
  const bastionHome = join(dir, "bastion");
  mkdirSync(bastionHome, { mode: 0o700 });
  const sshd = await startSshd({ ...options, setEnv: { HOME: bastionHome, ...options.setEnv } });
  cleanUps.push(() => sshd.dispose());

  const commandLine = (command: string, { destination = "bastion", options: more = [], module, token: other = token }: DoctorWords) => [
    command,
    destination,
    "-F",
    sshd.sshConfig,
    "--module",
    module ?? other.modulePath,
    "--json",
    ...more,
  ];
  const environment = ({ env = {}, token: other = token }: DoctorWords): NodeJS.ProcessEnv => {
    const { SSH_AUTH_SOCK: _agent, ...inherited } = other.env;
    return { ...inherited, HOME: home, XDG_STATE_HOME: state, XDG_RUNTIME_DIR: runtime, PWD: dir, ...env };
  };
  const made = (...names: string[]): string => {
    const path = join(sshd.runtimeDir, ...names);
    for (let index = 0; index < names.length; index++) {
      const each = join(sshd.runtimeDir, ...names.slice(0, index + 1));
      mkdirSync(each, { recursive: true, mode: 0o700 });
      chmodSync(each, 0o700);
    }
    return path;
  };
  return {
    token,
    sshd,
    dir,
    home,
    bastionHome,
    mark,
    ours: (name) => join(made("tokenfwd", mark), name),
    p11Kit: (name) => join(made("p11-kit"), name),
    defer: (cleanUp) => void cleanUps.push(cleanUp),
    async doctor(words = {}) {
      const pin = words.options?.includes("--pin-source") ? [] : ["--pin-source", `file:${writePin(words.token ?? token)}`];
      const exit = await runCli([...commandLine("doctor", words), ...pin], { env: environment(words), cwd: dir });
      const text = exit.stdout.toString();
      const document = text === "" ? { v: 0, checks: [] } : (JSON.parse(text) as { v: number; checks: SeenCheck[] });
      if (document.v !== 1) throw new Error(`no document: ${exit.stderr}`);
      const { checks } = document;
      return { exit, checks, broken: checks.filter(({ status }) => status === "warn" || status === "fail") };
    },
    async connect(words = {}) {
      const exit = await runCli([...commandLine("connect", words), "--unlock", "later"], { env: environment(words), cwd: dir });
      const events = exit.stdout
        .toString()
        .split("\n")
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      return { code: exit.code, error: events.filter(({ event }) => event === "error").at(-1) ?? null };
    },
    async dispose() {
      for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
    },
  };
}

/** Everything below the bastion's runtime directory, as the bastion's user finds it. */
export function leftOnBastion(sshd: Sshd): string[] {
  return spawnSync("find", [sshd.runtimeDir, "-mindepth", "1"], { encoding: "utf8" }).stdout.split("\n").filter(Boolean).sort();
}
