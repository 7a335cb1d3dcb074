import { describe, expect, it } from "vitest";
import { type EngineSearch, findEngine } from "../../../../src/choria/tls/engine.js";

/** A system that has these files and no others. */
function system(files: readonly string[], more: Partial<EngineSearch> = {}): EngineSearch {
  return {
    env: {},
    platform: "linux",
    isFile: (path) => files.includes(path),
    names: (directory) =>
      files.filter((path) => path.startsWith(`${directory}/`)).map((path) => path.slice(directory.length + 1).split("/")[0] ?? ""),
    ...more,
  };
}

const PLACES = {
  "Debian on x86": ["/usr/lib/x86_64-linux-gnu/engines-3", "/usr/lib/x86_64-linux-gnu/pkcs11"],
  "Debian on ARM": ["/usr/lib/aarch64-linux-gnu/engines-3", "/usr/lib/aarch64-linux-gnu/pkcs11"],
  Fedora: ["/usr/lib64/engines-3", "/usr/lib64/pkcs11"],
  Arch: ["/usr/lib/engines-3", "/usr/lib/pkcs11"],
} as const;

describe("findEngine", () => {
  it.each(Object.entries(PLACES))("finds both parts where %s has them", (_name, [engines, modules]) => {
    expect(findEngine(system([`${engines}/pkcs11.so`, `${modules}/p11-kit-client.so`]))).toEqual({
      enginesDirectory: engines,
      modulePath: `${modules}/p11-kit-client.so`,
    });
  });

  it("finds both where Homebrew has them", () => {
    const files = ["/opt/homebrew/lib/engines-3/pkcs11.dylib", "/opt/homebrew/lib/pkcs11/p11-kit-client.so"];
    expect(findEngine(system(files, { platform: "darwin" })).enginesDirectory).toBe("/opt/homebrew/lib/engines-3");
  });

  it("follows OPENSSL_ENGINES and PKCS11_MODULE_PATH", () => {
    const files = ["/usr/lib64/engines-3/pkcs11.so", "/usr/lib64/pkcs11/p11-kit-client.so", "/opt/e/pkcs11.so", "/opt/m.so"];
    expect(findEngine(system(files, { env: { OPENSSL_ENGINES: "/opt/e", PKCS11_MODULE_PATH: "/opt/m.so" } }))).toEqual({
      enginesDirectory: "/opt/e",
      modulePath: "/opt/m.so",
    });
  });

  it("names the package of the engine for each distribution, and the way that needs none", () => {
    expect(() => findEngine(system(["/usr/lib64/pkcs11/p11-kit-client.so"]))).toThrow(
      expect.objectContaining({
        code: "E_CHORIA_ENGINE",
        message: "OpenSSL's PKCS#11 engine is not installed here",
        hint: expect.stringMatching(/libengine-pkcs11-openssl.*openssl-pkcs11.*libp11.*connect --choria/),
      }),
    );
  });

  it("names the package of the client module", () => {
    expect(() => findEngine(system(["/usr/lib64/engines-3/pkcs11.so"]))).toThrow(
      expect.objectContaining({
        code: "E_CHORIA_ENGINE",
        message: "p11-kit's client module is not installed here",
        hint: expect.stringMatching(/p11-kit-modules.*p11-kit-server/),
      }),
    );
  });

  it.each([
    [{ OPENSSL_ENGINES: "/nowhere" }, "at OPENSSL_ENGINES"],
    [{ PKCS11_MODULE_PATH: "/nowhere.so" }, "at PKCS11_MODULE_PATH"],
    [{ PKCS11_MODULE_PATH: "relative.so" }, "at PKCS11_MODULE_PATH"],
  ])("says that a variable leads nowhere: %j", (env, where) => {
    const files = ["/usr/lib64/engines-3/pkcs11.so", "/usr/lib64/pkcs11/p11-kit-client.so", "relative.so"];
    expect(() => findEngine(system(files, { env }))).toThrow(
      expect.objectContaining({ code: "E_CHORIA_ENGINE", message: expect.stringContaining(where) }),
    );
  });
});
