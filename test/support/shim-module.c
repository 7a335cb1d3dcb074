/*
 * A PKCS#11 module that forwards to the one named in SHIM_MODULE and misbehaves as SHIM_CONTROL says. For tests only.
 *
 * SHIM_CONTROL names a file that is read at each intercepted call, so a test can change its mind. One rule a line:
 *   C_Sign sleep 400        wait that many milliseconds, then forward
 *   C_Sign hang             never return
 *   C_Sign abort            end the process
 *   C_Sign rv a4            answer this CK_RV (hex) and forward nothing
 *   C_Sign print TEXT       write TEXT and an escape sequence to stdout and stderr, then forward
 *   load abort | load hang  the same for C_GetFunctionList
 *   flags 20000             OR these bits (hex) into the flags of C_GetTokenInfo
 *   clear 400               AND these bits (hex) out of them
 * SHIM_LOGINS names a file that gets one line for each C_Login that reached this module: the user type and the length
 * of the PIN, never the PIN.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pkcs11/pkcs11.h>

static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST list;

/* Carries out the rules for this call; true when *rv is the answer. */
static int fault(const char *call, CK_RV *rv)
{
  char line[512];
  const char *path = getenv("SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  int answered = 0;
  if (!file)
    return 0;
  while (fgets(line, sizeof line, file))
  {
    char name[64], what[64];
    int rest = 0;
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "%63s %63s %n", name, what, &rest) < 2 || strcmp(name, call))
      continue;
    if (!strcmp(what, "sleep"))
      usleep((useconds_t)atoi(line + rest) * 1000);
    else if (!strcmp(what, "hang"))
      for (;;)
        pause();
    else if (!strcmp(what, "abort"))
      abort();
    else if (!strcmp(what, "rv"))
    {
      *rv = strtoul(line + rest, NULL, 16);
      answered = 1;
    }
    else if (!strcmp(what, "print"))
    {
      fprintf(stdout, "%s\033[31m\n", line + rest);
      fflush(stdout);
      fprintf(stderr, "%s\033[31m\n", line + rest);
    }
  }
  fclose(file);
  return answered;
}

/* The number behind `flags` or `clear` in the control file. */
static CK_FLAGS mask(const char *word)
{
  char line[512], name[64], value[64];
  const char *path = getenv("SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  CK_FLAGS bits = 0;
  if (!file)
    return 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "%63s %63s", name, value) == 2 && !strcmp(name, word))
      bits |= strtoul(value, NULL, 16);
  fclose(file);
  return bits;
}

/* Every intercepted call but those below: faults first, then the real one. */
#define INTERCEPT(NAME, PARAMETERS, ARGUMENTS) \
  static CK_RV shim_##NAME PARAMETERS          \
  {                                            \
    CK_RV rv;                                  \
    if (fault(#NAME, &rv))                     \
      return rv;                               \
    return real->NAME ARGUMENTS;               \
  }
#define CALLS(X)                                                                                                          \
  X(C_Initialize, (CK_VOID_PTR a), (a))                                                                                   \
  X(C_GetInfo, (CK_INFO_PTR a), (a))                                                                                      \
  X(C_GetSlotList, (CK_BBOOL a, CK_SLOT_ID_PTR b, CK_ULONG_PTR c), (a, b, c))                                             \
  X(C_OpenSession, (CK_SLOT_ID a, CK_FLAGS b, CK_VOID_PTR c, CK_NOTIFY d, CK_SESSION_HANDLE_PTR e), (a, b, c, d, e))      \
  X(C_GetSessionInfo, (CK_SESSION_HANDLE a, CK_SESSION_INFO_PTR b), (a, b))                                               \
  X(C_FindObjectsInit, (CK_SESSION_HANDLE a, CK_ATTRIBUTE_PTR b, CK_ULONG c), (a, b, c))                                  \
  X(C_SignInit, (CK_SESSION_HANDLE a, CK_MECHANISM_PTR b, CK_OBJECT_HANDLE c), (a, b, c))                                 \
  X(C_Sign, (CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c, CK_BYTE_PTR d, CK_ULONG_PTR e), (a, b, c, d, e))             \
  X(C_GenerateRandom, (CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c), (a, b, c))

CALLS(INTERCEPT)

static CK_RV shim_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
  CK_RV rv;
  if (fault("C_GetTokenInfo", &rv))
    return rv;
  rv = real->C_GetTokenInfo(slot, info);
  if (rv == CKR_OK)
    info->flags = (info->flags | mask("flags")) & ~mask("clear");
  return rv;
}

static CK_RV shim_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length)
{
  CK_RV rv;
  const char *path = getenv("SHIM_LOGINS");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file)
  {
    fprintf(file, "%lu %lu\n", user, length);
    fclose(file);
  }
  if (fault("C_Login", &rv))
    return rv;
  return real->C_Login(session, user, pin, length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out)
{
  CK_RV rv;
  const char *path = getenv("SHIM_MODULE");
  void *handle;
  CK_C_GetFunctionList get;
  if (fault("load", &rv))
    return rv;
  handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  get = handle ? (CK_C_GetFunctionList)dlsym(handle, "C_GetFunctionList") : NULL;
  if (!get)
    return CKR_GENERAL_ERROR;
  rv = get(&real);
  if (rv != CKR_OK)
    return rv;
  list = *real;
#define ASSIGN(NAME, PARAMETERS, ARGUMENTS) list.NAME = shim_##NAME;
  CALLS(ASSIGN)
  list.C_GetTokenInfo = shim_C_GetTokenInfo;
  list.C_Login = shim_C_Login;
  list.C_GetFunctionList = C_GetFunctionList;
  *out = &list;
  return CKR_OK;
}
