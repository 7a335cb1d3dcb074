/*
 * The address of a Unix socket as p11-kit prints and reads it (P11_KIT_SERVER_ADDRESS).
 */

const PLAIN = /[A-Za-z0-9._/\\-]/;

/** `unix:path=` and the path, every byte outside `A-Za-z0-9.-_/\` as %XX. */
export function p11KitAddress(path: string): string {
  let encoded = "";
  for (const byte of Buffer.from(path, "utf8")) {
    const character = String.fromCharCode(byte);
    encoded += PLAIN.test(character) ? character : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }
  return `unix:path=${encoded}`;
}
