/* The version comes from package.json and nowhere else. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { version } from "../../../src/base/version.js";

it("says the version of package.json", () => {
  const parsed = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as { version: string };
  expect(version()).toBe(parsed.version);
});
