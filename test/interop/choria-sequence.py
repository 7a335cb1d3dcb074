# Choria's own sequence of Cryptoki calls (its pkcs11 security provider, `choria req rpcutil ping`), call by call, through ctypes:
# the first and only private key and certificate, one read-only session, a text for a PIN, ten signatures, each with a length query
# first, and no C_Finalize at the end. Prints one JSON object. It must not be cleverer than Choria.
#   python3 choria-sequence.py MODULE PIN DOCUMENT_FILE
import base64, ctypes, hashlib, json, sys

UL = ctypes.c_ulong


class Attribute(ctypes.Structure):
    _fields_ = [("type", UL), ("value", ctypes.c_void_p), ("length", UL)]


class Mechanism(ctypes.Structure):
    _fields_ = [("type", UL), ("parameter", ctypes.c_void_p), ("length", UL)]


class InitializeArgs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")] + [("flags", UL), ("reserved", ctypes.c_void_p)]


class FunctionList(ctypes.Structure):
    _fields_ = [("version", ctypes.c_ubyte * 2), ("calls", ctypes.c_void_p * 68)]


# Where each call stands in CK_FUNCTION_LIST of v2.40.
INDEX = dict(C_Initialize=0, C_GetSlotList=4, C_OpenSession=12, C_Login=18, C_GetAttributeValue=24, C_FindObjectsInit=26,
             C_FindObjects=27, C_FindObjectsFinal=28, C_SignInit=42, C_Sign=43)
CKO_CERTIFICATE, CKO_PRIVATE_KEY, CKA_CLASS, CKA_VALUE, CKM_RSA_PKCS, CKU_USER = 1, 3, 0, 0x11, 1, 1

module, pin, document_file = sys.argv[1:4]
with open(document_file, "rb") as handle:
    document = handle.read()
table = ctypes.POINTER(FunctionList)()
library = ctypes.CDLL(module)
if library.C_GetFunctionList(ctypes.byref(table)) != 0:
    sys.exit("C_GetFunctionList failed")


def call(name, *args):
    function = ctypes.CFUNCTYPE(UL, *[type(a) if isinstance(a, (UL, ctypes.c_ubyte)) else ctypes.c_void_p for a in args])
    rv = function(table.contents.calls[INDEX[name]])(*[ctypes.cast(a, ctypes.c_void_p) if not isinstance(a, (UL, ctypes.c_ubyte)) and a is not None else a for a in args])
    if rv != 0:
        print(json.dumps({"failed": name, "rv": rv}))
        sys.exit(1)


def pointer(thing):
    return ctypes.pointer(thing)


arguments = InitializeArgs(flags=2)
call("C_Initialize", pointer(arguments))
count = UL(0)
call("C_GetSlotList", ctypes.c_ubyte(1), None, pointer(count))
slots = (UL * count.value)()
call("C_GetSlotList", ctypes.c_ubyte(1), slots, pointer(count))
session = UL(0)
call("C_OpenSession", UL(slots[0]), UL(4), None, None, pointer(session))
text = ctypes.create_string_buffer(pin.encode())
call("C_Login", session, UL(CKU_USER), text, UL(len(pin)))


def find(what):
    wanted = UL(what)
    template = Attribute(CKA_CLASS, ctypes.cast(pointer(wanted), ctypes.c_void_p), ctypes.sizeof(wanted))
    call("C_FindObjectsInit", session, pointer(template), UL(1))
    found = []
    while True:
        handles, number = (UL * 100)(), UL(0)
        call("C_FindObjects", session, handles, UL(100), pointer(number))
        if number.value == 0:
            break
        found += handles[: number.value]
    call("C_FindObjectsFinal", session)
    return found


keys, certificates = find(CKO_PRIVATE_KEY), find(CKO_CERTIFICATE)
result = {"slots": len(slots), "keys": len(keys), "certificates": len(certificates)}
if len(keys) == 1 and len(certificates) == 1:
    value = Attribute(CKA_VALUE, None, 0)
    call("C_GetAttributeValue", session, UL(certificates[0]), pointer(value), UL(1))
    room = ctypes.create_string_buffer(value.length)
    value.value = ctypes.cast(room, ctypes.c_void_p)
    call("C_GetAttributeValue", session, UL(certificates[0]), pointer(value), UL(1))
    result["certificate"] = base64.b64encode(room.raw[: value.length]).decode()
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")
    signatures = []
    for number in range(10):
        data = prefix + hashlib.sha256(document + str(number).encode()).digest()
        mechanism = Mechanism(CKM_RSA_PKCS, None, 0)
        call("C_SignInit", session, pointer(mechanism), UL(keys[0]))
        to_sign, length = ctypes.create_string_buffer(data, len(data)), UL(0)
        call("C_Sign", session, to_sign, UL(len(data)), None, pointer(length))
        signature = ctypes.create_string_buffer(length.value)
        call("C_Sign", session, to_sign, UL(len(data)), signature, pointer(length))
        signatures.append(base64.b64encode(signature.raw[: length.value]).decode())
    result["signatures"] = signatures
print(json.dumps(result))
