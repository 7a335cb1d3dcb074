/*
 * What the token says of its PIN, by the flags that it shows to everybody. It must never try a PIN.
 */
import { CKF } from "../../cryptoki/constants.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { tokenName } from "./token.js";

export const pinCheck = defineCheck<DoctorContext>()({
  id: "pin",
  title: "PIN",
  looks: "What the token says of its PIN: set, locked, tries left. No PIN is tried.",
  needs: ["token"],
  causes: {
    locked: {
      status: "fail",
      code: "E_PIN_LOCKED",
      usual: true,
      meaning: "Too many wrong PINs were entered, and the token takes none any more.",
      mend: "unblock it with the token's own tool, which asks for the PUK or SO PIN (YubiKey: ykman piv access unblock-pin)",
    },
    "not-set": {
      status: "fail",
      code: null,
      meaning: "The token is initialised and has no user PIN, so nobody can log in and no private key can be used.",
      mend: "set one with the token's own tool (pkcs11-tool --module MODULE --login --login-type so --init-pin)",
    },
    "last-try": {
      status: "warn",
      code: null,
      meaning: "One wrong PIN more locks the token. tokenfwd asks for a yes before it spends that try.",
      mend: "enter the right PIN once (pkcs11-tool --module MODULE --login -O), or unblock it first",
    },
    "count-low": {
      status: "warn",
      code: null,
      meaning: "A wrong PIN was entered since the last right one. The right PIN resets the count.",
      mend: "know the PIN before you type it; the token's own tool shows how many tries are left",
    },
  },
  async run({ token }, { broken }) {
    const { tokens } = await token.inspection();
    const which = (flag: bigint, wanted: boolean) => tokens.find(({ flags }) => ((flags & flag) !== 0n) === wanted);
    const locked = which(CKF.CKF_USER_PIN_LOCKED, true);
    if (locked !== undefined) return broken("locked", `the PIN of ${tokenName(locked)} is locked`);
    const unset = tokens.find(({ flags }) => (flags & CKF.CKF_LOGIN_REQUIRED) !== 0n && (flags & CKF.CKF_USER_PIN_INITIALIZED) === 0n);
    if (unset !== undefined) return broken("not-set", `${tokenName(unset)} has no user PIN`);
    const last = which(CKF.CKF_USER_PIN_FINAL_TRY, true);
    if (last !== undefined) return broken("last-try", `one PIN try is left on ${tokenName(last)}`);
    const low = which(CKF.CKF_USER_PIN_COUNT_LOW, true);
    if (low !== undefined) return broken("count-low", `a wrong PIN was entered on ${tokenName(low)}`);
    return pass("not locked, and no wrong one was entered");
  },
});
