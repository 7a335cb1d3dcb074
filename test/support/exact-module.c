/*
 * A PKCS#11 module whose every answer is known to the byte, for what a real token shows by accident or never: text that is
 * not UTF-8, numbers above 32 bits, nested templates, empty dates, sensitive attributes, a NULL mechanism that cancels, a NULL
 * PIN, a PIN of any bytes, and the 3.0 interface. One slot (7), one session (1), one object (2). For tests only.
 */
#include <string.h>
#include <pkcs11/pkcs11.h>

#define SLOT 7UL
#define SESSION 1UL
#define OBJECT 2UL
#define BIG 5000000000UL
#define NESTED_WRAP 0x40000211UL

static char reserved[32];
static int signing;

static void text(unsigned char *out, size_t size, const char *bytes)
{
  memset(out, ' ', size);
  memcpy(out, bytes, strlen(bytes) < size ? strlen(bytes) : size);
}

static CK_RV initialize(CK_VOID_PTR args)
{
  CK_C_INITIALIZE_ARGS *given = args;
  if (given && given->pReserved)
    strncpy(reserved, given->pReserved, sizeof reserved - 1);
  return CKR_OK;
}
static CK_RV finalize(CK_VOID_PTR args) { return args ? CKR_ARGUMENTS_BAD : CKR_OK; }

static CK_RV get_info(CK_INFO_PTR info)
{
  memset(info, 0, sizeof *info);
  info->cryptokiVersion.major = 2;
  info->cryptokiVersion.minor = 40;
  text(info->manufacturerID, 32, "exact");
  text(info->libraryDescription, 32, reserved);
  return CKR_OK;
}
static CK_RV get_slot_list(CK_BBOOL present, CK_SLOT_ID_PTR list, CK_ULONG_PTR count)
{
  (void)present;
  if (list)
    list[0] = SLOT;
  *count = 1;
  return CKR_OK;
}
static CK_RV get_slot_info(CK_SLOT_ID slot, CK_SLOT_INFO_PTR info)
{
  if (slot != SLOT)
    return CKR_SLOT_ID_INVALID;
  memset(info, 0, sizeof *info);
  text(info->slotDescription, 64, "a slot");
  text(info->manufacturerID, 32, "exact");
  info->flags = CKF_TOKEN_PRESENT;
  return CKR_OK;
}
static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
  if (slot != SLOT)
    return CKR_SLOT_ID_INVALID;
  memset(info, 0, sizeof *info);
  text(info->label, 32, "M\xfcller");
  text(info->manufacturerID, 32, "exact");
  text(info->model, 16, "m");
  text(info->serialNumber, 16, "1");
  text(info->utcTime, 16, "");
  info->flags = CKF_TOKEN_INITIALIZED;
  info->ulMaxSessionCount = BIG;
  info->ulSessionCount = CK_UNAVAILABLE_INFORMATION;
  info->ulTotalPublicMemory = BIG;
  return CKR_OK;
}
static CK_RV wait_for_slot_event(CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved_too)
{
  (void)reserved_too;
  if (flags & CKF_DONT_BLOCK)
    return CKR_NO_EVENT;
  *slot = SLOT;
  return CKR_OK;
}
static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR data, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR out)
{
  (void)flags, (void)data, (void)notify;
  *out = SESSION;
  return slot == SLOT ? CKR_OK : CKR_SLOT_ID_INVALID;
}
static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length)
{
  (void)session, (void)user;
  if (!pin)
    return CKR_OK;
  return length == 3 && !memcmp(pin, "\xff\xfe\x31", 3) ? CKR_OK : CKR_PIN_INCORRECT;
}

static const CK_BBOOL yes = CK_TRUE;

static CK_RV attribute(CK_ATTRIBUTE_PTR one)
{
  const void *value = NULL;
  CK_ULONG length = 0;
  switch (one->type)
  {
  case CKA_LABEL:
    value = "label";
    length = 5;
    break;
  case CKA_START_DATE:
    break;
  case CKA_END_DATE:
    value = "20270131";
    length = 8;
    break;
  case CKA_PRIVATE_EXPONENT:
    one->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return CKR_ATTRIBUTE_SENSITIVE;
  case NESTED_WRAP:
  {
    CK_ATTRIBUTE_PTR inner = one->pValue;
    if (inner)
    {
      if (one->ulValueLen < sizeof *inner)
        return CKR_BUFFER_TOO_SMALL;
      if (inner->pValue && inner->ulValueLen >= 1)
        memcpy(inner->pValue, &yes, 1);
      inner->type = CKA_TOKEN;
      inner->ulValueLen = 1;
    }
    one->ulValueLen = sizeof(CK_ATTRIBUTE);
    return CKR_OK;
  }
  default:
    one->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return CKR_ATTRIBUTE_TYPE_INVALID;
  }
  if (one->pValue && one->ulValueLen < length)
  {
    one->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return CKR_BUFFER_TOO_SMALL;
  }
  if (one->pValue && length)
    memcpy(one->pValue, value, length);
  one->ulValueLen = length;
  return CKR_OK;
}
static CK_RV get_attribute_value(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR list, CK_ULONG count)
{
  CK_RV worst = CKR_OK;
  CK_ULONG i;
  (void)session;
  if (object != OBJECT)
    return CKR_OBJECT_HANDLE_INVALID;
  for (i = 0; i < count; i++)
  {
    CK_RV rv = attribute(&list[i]);
    if (worst == CKR_OK)
      worst = rv;
  }
  return worst;
}
static CK_RV get_object_size(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG_PTR size)
{
  (void)session, (void)object;
  *size = BIG;
  return CKR_OK;
}
/* Answers CKR_OK only to a template that holds CKA_WRAP_TEMPLATE { CKA_TOKEN = true }. */
static CK_RV find_objects_init(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR list, CK_ULONG count)
{
  CK_ATTRIBUTE_PTR inner = count == 1 && list->type == NESTED_WRAP ? list->pValue : NULL;
  (void)session;
  return inner && list->ulValueLen == sizeof *inner && inner->type == CKA_TOKEN && *(CK_BBOOL *)inner->pValue ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

/* A NULL mechanism cancels, as v3.0 has it. */
static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
  (void)session, (void)key;
  signing = mechanism != NULL;
  return CKR_OK;
}
static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR out, CK_ULONG_PTR room)
{
  (void)session, (void)data, (void)length;
  if (!signing)
    return CKR_OPERATION_NOT_INITIALIZED;
  if (!out || *room < 4)
  {
    CK_RV rv = out ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    *room = 4;
    return rv;
  }
  memcpy(out, "sign", 4);
  *room = 4;
  signing = 0;
  return CKR_OK;
}
/*
 * CKM_IBM_BTC_DERIVE takes { ulong, ulong, bytes *, ulong length, ulong }, whose bytes must be "abc". Any other mechanism gets
 * 0x55 written into its parameter, as some derivations write back what they chose.
 */
static CK_RV derive_key(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE_PTR list, CK_ULONG count, CK_OBJECT_HANDLE_PTR key)
{
  CK_ULONG *words = mechanism->pParameter;
  (void)session, (void)base, (void)list, (void)count;
  *key = OBJECT;
  if (mechanism->mechanism == 0x80070001UL)
    return words && mechanism->ulParameterLen == 40 && words[3] == 3 && !memcmp((void *)words[2], "abc", 3) ? CKR_OK : CKR_MECHANISM_PARAM_INVALID;
  if (words && mechanism->ulParameterLen >= 1)
    *(CK_BYTE *)words = 0x55;
  return CKR_OK;
}
static CK_RV session_cancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
  (void)session, (void)flags;
  signing = 0;
  return CKR_OK;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out);

static CK_FUNCTION_LIST list = {
    .version = {2, 40},
    .C_Initialize = initialize,
    .C_Finalize = finalize,
    .C_GetInfo = get_info,
    .C_GetFunctionList = C_GetFunctionList,
    .C_GetSlotList = get_slot_list,
    .C_GetSlotInfo = get_slot_info,
    .C_GetTokenInfo = get_token_info,
    .C_OpenSession = open_session,
    .C_Login = login,
    .C_GetObjectSize = get_object_size,
    .C_GetAttributeValue = get_attribute_value,
    .C_FindObjectsInit = find_objects_init,
    .C_SignInit = sign_init,
    .C_Sign = sign,
    .C_DeriveKey = derive_key,
    .C_WaitForSlotEvent = wait_for_slot_event,
};

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out)
{
  *out = &list;
  return CKR_OK;
}

/* v3.0: the same, and after C_WaitForSlotEvent C_GetInterfaceList, C_GetInterface, C_LoginUser, C_SessionCancel and the rest. */
struct interface
{
  char *name;
  void *functions;
  CK_FLAGS flags;
};
static struct
{
  CK_FUNCTION_LIST old;
  void *more[24];
} list30;
static struct interface interface30 = {"PKCS 11", &list30, 0};

CK_RV C_GetInterface(CK_UTF8CHAR_PTR name, CK_VERSION *version, struct interface **out, CK_FLAGS flags)
{
  (void)name, (void)version, (void)flags;
  list30.old = list;
  list30.old.version.major = 3;
  list30.old.version.minor = 0;
  list30.more[1] = (void *)C_GetInterface;
  list30.more[3] = (void *)session_cancel;
  *out = &interface30;
  return CKR_OK;
}
