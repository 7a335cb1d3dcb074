"""Signs with one key as a simple program does: no attribute is read but the label, and no log-in is made for the key.

Usage: sign-plainly.py MODULE LABEL FILE. Prints the signature (CKM_SHA256_RSA_PKCS) in hex.
"""
import ctypes
import sys

ULONG = ctypes.c_ulong
CKF_SERIAL_SESSION, CKU_USER, CKM_SHA256_RSA_PKCS = 4, 1, 0x40
CKA_CLASS, CKA_LABEL, CKO_PRIVATE_KEY = 0, 3, 3

# Where these calls stand in CK_FUNCTION_LIST.
PLACES = {
    "C_Initialize": 0, "C_Finalize": 1, "C_GetSlotList": 4, "C_OpenSession": 12, "C_Login": 18, "C_FindObjectsInit": 26,
    "C_FindObjects": 27, "C_FindObjectsFinal": 28, "C_SignInit": 42, "C_Sign": 43,
}


class Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG)]


class Mechanism(ctypes.Structure):
    _fields_ = [("type", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG)]


def attribute(kind, buffer, length):
    return Attribute(kind, ctypes.cast(buffer, ctypes.c_void_p), length)


def main(path, label, file):
    module = ctypes.CDLL(path)
    table = ctypes.POINTER(ctypes.c_void_p)()
    if module.C_GetFunctionList(ctypes.byref(table)) != 0:
        sys.exit("no function list")

    def call(name, *args):
        # The first word of the list is its version.
        rv = ctypes.CFUNCTYPE(ULONG)(table[1 + PLACES[name]])(*args)
        if rv != 0:
            sys.exit(f"{name}: 0x{rv:x}")

    call("C_Initialize", None)
    count = ULONG(64)
    slots = (ULONG * 64)()
    call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
    session = ULONG()
    call("C_OpenSession", ULONG(slots[0]), ULONG(CKF_SERIAL_SESSION), None, None, ctypes.byref(session))
    call("C_Login", session, ULONG(CKU_USER), None, ULONG(0))
    cls, name = ULONG(CKO_PRIVATE_KEY), ctypes.create_string_buffer(label.encode())
    template = (Attribute * 2)(attribute(CKA_CLASS, ctypes.byref(cls), 8), attribute(CKA_LABEL, name, len(label)))
    call("C_FindObjectsInit", session, template, ULONG(2))
    key, found = ULONG(), ULONG()
    call("C_FindObjects", session, ctypes.byref(key), ULONG(1), ctypes.byref(found))
    call("C_FindObjectsFinal", session)
    if found.value != 1:
        sys.exit("no such key")
    data = open(file, "rb").read()
    mechanism = Mechanism(CKM_SHA256_RSA_PKCS, None, 0)
    call("C_SignInit", session, ctypes.byref(mechanism), key)
    signature, length = ctypes.create_string_buffer(1024), ULONG(1024)
    call("C_Sign", session, data, ULONG(len(data)), signature, ctypes.byref(length))
    print(signature.raw[: length.value].hex())
    call("C_Finalize", None)


main(*sys.argv[1:])
