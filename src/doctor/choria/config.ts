/*
 * What is wrong with Choria's client configuration: `tokenfwd choria check` names all of it, a check of doctor the first that keeps choria
 * from working. The same for the machine where doctor runs and for the bastion's side. It runs from the bundle.
 */
import { printable } from "../../base/printable.js";
import { checkConfig } from "../../choria/config/check.js";
import type { CheckConfigInput, ConfigFinding } from "../../choria/config/finding.js";
import { type Cause, type Check, defineCheck, type Finding, pass } from "../check.js";
import type { ChoriaFound } from "./found.js";

const SEE_ALL = "tokenfwd choria check lists everything with the line that mends it";

const CAUSES = {
  unreadable: {
    status: "fail",
    code: "E_CHORIA_CONFIG",
    usual: true,
    meaning: "A file that choria would read is there and cannot be read, so that choria itself does not start.",
    mend: "make the file that the line names readable for you",
  },
  syntax: {
    status: "fail",
    code: "E_CHORIA_CONFIG",
    meaning:
      'A line is not what choria takes it for. It wants key = value, without quotes and without a comment behind; `key: "value"` it passes over in silence.',
    mend: `write it as key = value; ${SEE_ALL}`,
  },
  ca: {
    status: "fail",
    code: "E_CHORIA_CONFIG",
    meaning: "The CA by which the broker is verified is not named, not there, or not good.",
    mend: `copy Choria's CA to the file that plugin.security.file.ca names; ${SEE_ALL}`,
  },
  pkcs11: {
    status: "fail",
    code: "E_CHORIA_CONFIG",
    meaning: "The pkcs11 provider is configured with a module, a slot or a key that it cannot use.",
    mend: `plugin.security.pkcs11.driver_file names p11-kit-client.so, and one key is exposed with connect --key; ${SEE_ALL}`,
  },
  wrong: {
    status: "fail",
    code: "E_CHORIA_CONFIG",
    meaning: "A setting keeps choria from working; the line says which.",
    mend: SEE_ALL,
  },
  "stock-only": {
    status: "warn",
    code: null,
    meaning: "Choria by itself does not work so. tokenfwd choria run and connect --choria bring their own in the place of what is wrong.",
    mend: `use tokenfwd choria run, or: ${SEE_ALL}`,
  },
  careful: {
    status: "warn",
    code: null,
    meaning: "Choria works so, and hardly as it was meant.",
    mend: SEE_ALL,
  },
} as const satisfies Record<string, Cause>;

type CauseName = keyof typeof CAUSES;

const GROUPS: Readonly<Partial<Record<CauseName, readonly string[]>>> = {
  syntax: [
    "colon",
    "comment",
    "quotes",
    "no-value",
    "no-setting",
    "variable",
    "no-boolean",
    "no-number",
    "byte-order-mark",
    "key-twice",
    "line-too-long",
    "old-key",
  ],
  ca: ["ca", "no-ca"],
  pkcs11: ["driver", "slot", "several-keys", "no-key", "no-certificate", "certificate-type", "mechanism"],
};

function causeOf({ id, severity, stockOnly }: ConfigFinding): CauseName {
  if (severity === "warning") return "careful";
  const group = Object.entries(GROUPS).find(([, ids]) => ids.includes(id))?.[0] as CauseName | undefined;
  if (group === "syntax" || group === "ca") return group;
  return stockOnly ? "stock-only" : (group ?? "wrong");
}

const RANK: Readonly<Record<string, number>> = { fail: 0, warn: 1 };

/** The first finding that keeps choria from working, else the first warning, else a pass. */
async function look(found: ChoriaFound | null, keys: CheckConfigInput["token"], now: number): Promise<Finding<CauseName>> {
  if (found === null) return pass("no Choria configuration");
  const { findings } = await checkConfig({ ...found, token: keys, now });
  const named = findings.filter(({ severity }) => severity !== "note").map((finding) => ({ finding, cause: causeOf(finding) }));
  const [worst] = named.toSorted((a, b) => (RANK[CAUSES[a.cause].status] ?? 0) - (RANK[CAUSES[b.cause].status] ?? 0));
  const path = printable(found.config.path);
  if (worst === undefined) return pass(`${path}, provider ${printable(found.config.provider)}`);
  const { text, mend, file, line } = worst.finding;
  const at = file === null ? path : `${printable(file)}${line === null ? "" : ` line ${line}`}`;
  return { status: "broken", cause: worst.cause, detail: `${at}: ${text}`, mend };
}

/** Which configuration a check looks at. */
interface ChoriaConfigCheck<C> {
  readonly id: string;
  readonly title: string;
  readonly where: string;
  readonly needs: readonly string[];
  found(context: C): Promise<ChoriaFound | null>;
  /** The token's keys, where nobody else looks at them. */
  keys(context: C): Promise<CheckConfigInput["token"]>;
}

/** The check of a configuration. */
export function choriaConfigCheck<C>({ id, title, where, needs, found, keys }: ChoriaConfigCheck<C>): Check<C> {
  return defineCheck<C>()({
    id,
    title,
    looks: `Whether Choria's client configuration ${where}, if there is one, is what choria can work with: its syntax, the CA, the provider and what that needs.`,
    needs,
    causes: CAUSES,
    async run(context) {
      return look(await found(context), await keys(context), Date.now());
    },
  });
}
