/*
 * A PKCS#11 module that forwards to the one named in SHIM_MODULE and misbehaves as SHIM_CONTROL says. For tests only.
 *
 * SHIM_CONTROL names a file that is read at each intercepted call, so a test can change its mind. One rule a line:
 *   C_Sign sleep 400        wait that many milliseconds, then forward
 *   C_Sign hang             never return
 *   C_Sign abort            end the process
 *   C_Sign rv a4            answer this CK_RV (hex) and forward nothing
 *   C_Sign meet 2           wait until so many such calls have come, in whatever processes; CKR_FUNCTION_FAILED after 20 s
 *   C_Sign alone x          in a second process: CKR_GENERAL_ERROR
 *   C_Sign print TEXT       write TEXT and an escape sequence to stdout and stderr, then forward
 *   load abort | load hang  the same for C_GetFunctionList
 *   C_Sign length 9         say that the answer has this many bytes (hex), whatever was written
 *   C_Sign logout TAG       once for each TAG: the card is reset, and the module knows it; then forward
 *   C_Sign stale TAG        once for each TAG: the card is reset, and the module has not noticed: C_SignInit and C_Sign
 *                           answer CKR_USER_NOT_LOGGED_IN until somebody has called C_Logout
 *   token out               no token in any slot; its sessions are lost, also when nobody calls meanwhile but `serial` changes
 *   serial TEXT             another token: this serial number
 *   tries 3                 a PIN has so many tries; SHIM_STATE names the file that keeps what is left
 *   always card             as a card does: the log-in of a CKA_ALWAYS_AUTHENTICATE key ends with any command of another session
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
static int stale;                /* the card has been reset, and the module has not noticed */
static CK_SESSION_HANDLE always; /* whose key log-in the card holds */
static CK_SESSION_HANDLE broken; /* whose key log-in another command has ended */
static char seen_tags[1024];

/* The text behind this word in the control file; false where it is not there. */
static int rule(const char *word, char *value, size_t size)
{
  char line[512], name[64], text[64];
  const char *path = getenv("SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  int found = 0;
  if (!file)
    return 0;
  while (!found && fgets(line, sizeof line, file))
    if (sscanf(line, "%63s %63s", name, text) == 2 && !strcmp(name, word))
    {
      snprintf(value, size, "%s", text);
      found = 1;
    }
  fclose(file);
  return found;
}

static int first_time(const char *tag)
{
  char wanted[80];
  snprintf(wanted, sizeof wanted, "<%s>", tag);
  if (strstr(seen_tags, wanted) || strlen(seen_tags) + strlen(wanted) >= sizeof seen_tags)
    return 0;
  strcat(seen_tags, wanted);
  return 1;
}

/* Ends the log-in of each token, or all its sessions. */
static void each_slot(int close_sessions)
{
  CK_SLOT_ID slots[64];
  CK_ULONG count = 64, i;
  if (real->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK)
    return;
  for (i = 0; i < count; i++)
  {
    CK_SESSION_HANDLE session;
    if (close_sessions)
      real->C_CloseAllSessions(slots[i]);
    else if (real->C_OpenSession(slots[i], CKF_SERIAL_SESSION, NULL, NULL, &session) == CKR_OK)
    {
      real->C_Logout(session);
      real->C_CloseSession(session);
    }
  }
}

/* True while the token is out. Its sessions end when it goes, and when it is another one than before. */
static int out(void)
{
  static int was_out;
  static char last[64] = "-";
  char value[64] = "", serial[64] = "-";
  int is_out = rule("token", value, sizeof value) && !strcmp(value, "out");
  rule("serial", serial, sizeof serial);
  if ((is_out && !was_out) || strcmp(serial, last))
    each_slot(1);
  was_out = is_out;
  snprintf(last, sizeof last, "%s", serial);
  return is_out;
}

/* A command to the card: in `always card` it ends the key log-in of any other session. */
static void command(CK_SESSION_HANDLE session)
{
  char value[64];
  if (!always || always == session || !rule("always", value, sizeof value))
    return;
  broken = always;
  always = 0;
}

/* How many PIN tries are left, -1 where nobody counts; `spent` writes it. */
static long tries(long spent)
{
  char value[64];
  long left = -1;
  const char *path = getenv("SHIM_STATE");
  FILE *file;
  if (!path || !rule("tries", value, sizeof value))
    return -1;
  file = fopen(path, "r");
  if (!file || fscanf(file, "%ld", &left) != 1)
    left = atol(value);
  if (file)
    fclose(file);
  if (spent >= 0 && (file = fopen(path, "w")))
  {
    left = spent;
    fprintf(file, "%ld\n", left);
    fclose(file);
  }
  return left;
}

/* Adds a line to the file beside SHIM_STATE and answers how many it has. */
static int count_line(const char *suffix, int add)
{
  char path[512], line[64];
  const char *state = getenv("SHIM_STATE");
  FILE *file;
  int lines = 0;
  snprintf(path, sizeof path, "%s.%s", state ? state : "/nowhere", suffix);
  if (add && (file = fopen(path, "a")))
  {
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
  }
  if (!(file = fopen(path, "r")))
    return 0;
  while (fgets(line, sizeof line, file))
    lines++;
  fclose(file);
  return lines;
}

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
    else if (!strcmp(what, "meet"))
    {
      int waited, here = count_line("meet", 1);
      for (waited = 0; here < atoi(line + rest) && waited < 2000; waited++)
      {
        usleep(10000);
        here = count_line("meet", 0);
      }
      *rv = CKR_FUNCTION_FAILED;
      answered = here < atoi(line + rest);
    }
    else if (!strcmp(what, "alone"))
    {
      *rv = CKR_GENERAL_ERROR;
      answered = count_line("alone", 1) > 1;
    }
    else if (!strcmp(what, "rv"))
    {
      *rv = strtoul(line + rest, NULL, 16);
      answered = 1;
    }
    else if (!strcmp(what, "logout") && first_time(line + rest))
      each_slot(0);
    else if (!strcmp(what, "stale") && first_time(line + rest))
      stale = 1;
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

/* The length that the module claims, where a rule says so. */
static void claim(const char *call, CK_ULONG *length)
{
  char line[512], name[64], what[64], value[64];
  const char *path = getenv("SHIM_CONTROL");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file)
    return;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "%63s %63s %63s", name, what, value) == 3 && !strcmp(name, call) && !strcmp(what, "length"))
      *length = strtoul(value, NULL, 16);
  fclose(file);
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
  X(C_Finalize, (CK_VOID_PTR a), (a))

CALLS(INTERCEPT)

/* The same for calls in a session, which is lost with the token. */
#define INTERCEPT_IN_SESSION(NAME, PARAMETERS, ARGUMENTS) \
  static CK_RV shim_##NAME PARAMETERS                     \
  {                                                       \
    CK_RV rv;                                             \
    if (out())                                            \
      return CKR_DEVICE_REMOVED;                          \
    command(a);                                           \
    if (fault(#NAME, &rv))                                \
      return rv;                                          \
    return real->NAME ARGUMENTS;                          \
  }
#define CALLS_IN_SESSION(X)                                                                \
  X(C_GetSessionInfo, (CK_SESSION_HANDLE a, CK_SESSION_INFO_PTR b), (a, b))                \
  X(C_FindObjectsInit, (CK_SESSION_HANDLE a, CK_ATTRIBUTE_PTR b, CK_ULONG c), (a, b, c))   \
  X(C_GenerateRandom, (CK_SESSION_HANDLE a, CK_BYTE_PTR b, CK_ULONG c), (a, b, c))

CALLS_IN_SESSION(INTERCEPT_IN_SESSION)

static CK_RV shim_C_GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR count)
{
  CK_RV rv;
  if (fault("C_GetSlotList", &rv))
    return rv;
  if (out() && present)
  {
    *count = 0;
    return CKR_OK;
  }
  return real->C_GetSlotList(present, slots, count);
}

static CK_RV shim_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO_PTR info)
{
  CK_RV rv = real->C_GetSlotInfo(slot, info);
  if (rv == CKR_OK && out())
    info->flags &= ~(CK_FLAGS)CKF_TOKEN_PRESENT;
  return rv;
}

static CK_RV shim_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR session)
{
  CK_RV rv;
  if (fault("C_OpenSession", &rv))
    return rv;
  if (out())
    return CKR_TOKEN_NOT_PRESENT;
  command(0);
  return real->C_OpenSession(slot, flags, app, notify, session);
}

static CK_RV shim_C_Logout(CK_SESSION_HANDLE session)
{
  stale = 0;
  return real->C_Logout(session);
}

static CK_RV shim_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR attributes, CK_ULONG count)
{
  CK_RV rv = real->C_GetAttributeValue(session, object, attributes, count);
  CK_ULONG i;
  for (i = 0; i < count; i++)
    claim("C_GetAttributeValue", &attributes[i].ulValueLen);
  return rv;
}

static CK_RV shim_C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key)
{
  CK_RV rv;
  if (out())
    return CKR_DEVICE_REMOVED;
  command(session);
  if (fault("C_SignInit", &rv))
    return rv;
  return stale ? CKR_USER_NOT_LOGGED_IN : real->C_SignInit(session, mechanism, key);
}

static CK_RV shim_C_Sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR room)
{
  CK_RV rv;
  if (out())
    return CKR_DEVICE_REMOVED;
  command(session);
  if (fault("C_Sign", &rv))
    return rv;
  if (stale || broken == session)
  {
    CK_BYTE unused[1024];
    CK_ULONG size = sizeof unused;
    broken = 0;
    real->C_Sign(session, data, length, unused, &size); /* ends the operation */
    return CKR_USER_NOT_LOGGED_IN;
  }
  rv = real->C_Sign(session, data, length, signature, room);
  if (rv == CKR_OK)
    claim("C_Sign", room);
  if (rv == CKR_OK && signature && always == session)
    always = 0;
  return rv;
}

static CK_RV shim_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
  CK_RV rv;
  if (fault("C_GetTokenInfo", &rv))
    return rv;
  if (out())
    return CKR_TOKEN_NOT_PRESENT;
  rv = real->C_GetTokenInfo(slot, info);
  if (rv == CKR_OK)
  {
    char serial[64];
    long left = tries(-1);
    info->flags = (info->flags | mask("flags")) & ~mask("clear");
    if (left == 0)
      info->flags |= CKF_USER_PIN_LOCKED;
    else if (left == 1)
      info->flags |= CKF_USER_PIN_FINAL_TRY;
    else if (left == 2)
      info->flags |= CKF_USER_PIN_COUNT_LOW;
    if (rule("serial", serial, sizeof serial))
    {
      memset(info->serialNumber, ' ', sizeof info->serialNumber);
      memcpy(info->serialNumber, serial, strlen(serial) < 16 ? strlen(serial) : 16);
    }
  }
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
  if (out())
    return CKR_DEVICE_REMOVED;
  command(session);
  if (fault("C_Login", &rv))
    return rv;
  if (tries(-1) == 0)
    return CKR_PIN_LOCKED;
  rv = real->C_Login(session, user, pin, length);
  if (rv == CKR_PIN_INCORRECT && tries(-1) > 0)
    tries(tries(-1) - 1);
  if (rv == CKR_OK && user == CKU_CONTEXT_SPECIFIC)
    always = session;
  return rv;
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
  CALLS_IN_SESSION(ASSIGN)
  ASSIGN(C_GetSlotList, , )
  ASSIGN(C_GetSlotInfo, , )
  ASSIGN(C_OpenSession, , )
  ASSIGN(C_Logout, , )
  ASSIGN(C_GetAttributeValue, , )
  ASSIGN(C_SignInit, , )
  ASSIGN(C_Sign, , )
  list.C_GetTokenInfo = shim_C_GetTokenInfo;
  list.C_Login = shim_C_Login;
  list.C_GetFunctionList = C_GetFunctionList;
  *out = &list;
  return CKR_OK;
}
