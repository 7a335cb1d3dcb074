/*
 * A configuration as its author most likely meant it, where the lines that choria misreads are mended: what else is wrong shows only
 * then. For the looks of checkConfig alone: what choria does is decided by what it reads, and never by this.
 */
import type { ClientConfig, ConfigFile } from "./client-config.js";
import { interpretConfig } from "./client-config.js";
import { PATH_KEYS } from "./keys.js";
import type { Setting } from "./parse.js";

/** The value without the quotes around it, null when there are none. */
export function unquoted(value: string): string | null {
  return /^(["'])(.*)\1$/.exec(value.trim())?.[2] ?? null;
}

/** YAML's `key: value`, null when a line is not of that form. */
export function colonForm(text: string): { readonly key: string; readonly value: string } | null {
  const [, key, value] = /^([A-Za-z][\w.]*)\s*:\s*(.+)$/.exec(text) ?? [];
  return key === undefined || value === undefined ? null : { key, value: unquoted(value) ?? value };
}

/** The value without a comment behind it, null when there is none. */
export function uncommented(value: string): string | null {
  const comment = /\s+#.*$/.exec(value);
  return comment === null ? null : value.slice(0, comment.index);
}

/** Whether there is anything to mend, and the configuration with it mended. */
export function asMeant(
  config: ClientConfig,
  surroundings: { readonly env: Readonly<Record<string, string | undefined>>; readonly root: boolean },
): ClientConfig {
  return interpretConfig(config.path, config.files.map(mended), { ...surroundings, home: config.home });
}

function mended(file: ConfigFile): ConfigFile {
  const passedOver = file.ignored.flatMap(({ text, line }) => {
    const form = colonForm(text);
    return form === null ? [] : [{ ...form, line }];
  });
  return { ...file, settings: [...file.settings.map(mendSetting), ...passedOver].sort((a, b) => a.line - b.line) };
}

function mendSetting(setting: Setting): Setting {
  const { line } = setting;
  const key = setting.key.replace(/^\ufeff/, "");
  const form = colonForm(`${key}=${setting.value}`);
  if (form !== null && key.includes(":")) return { ...form, line };
  const value = unquoted(setting.value) ?? uncommented(setting.value) ?? setting.value;
  return { key, line, value: PATH_KEYS.has(key) ? value.replace(/^\$(HOME|\{HOME\})/, "~") : value };
}
