/*
 * A PKCS#11 program as C programs are: loads a module, logs in and finds its key once, and then signs as fast as it is
 * answered, one signature after the other. The bench's caller of stock and of our servers, and of the module itself.
 *
 *   sign-loop MODULE TOKEN_LABEL KEY_ID_HEX rsa|ec        the PIN is the first line of stdin; prints `ready`
 *
 * Commands on stdin after that; at its end the program ends:
 *   go SECONDS    signs for so long and prints `done COUNT NANOSECONDS`
 *   times N       signs N times and prints the same
 *   tell          prints the nanoseconds of each signature of the last run, on one line
 */
#define CK_PTR *
#define CK_DECLARE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION_POINTER(returnType, name) returnType(*name)
#define CK_CALLBACK_FUNCTION(returnType, name) returnType(*name)
#define NULL_PTR 0
#include <pkcs11/pkcs11.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 4000000

static CK_FUNCTION_LIST_PTR p11;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE key;
static CK_MECHANISM mechanism;
static unsigned *taken; /* nanoseconds; above 4 seconds: 4 seconds */
static unsigned long count;

static void check(const char *call, CK_RV rv)
{
	if (rv == CKR_OK)
		return;
	fprintf(stderr, "sign-loop: %s answered 0x%lx\n", call, rv);
	exit(1);
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static CK_SLOT_ID find_slot(const char *label)
{
	CK_SLOT_ID slots[64];
	CK_ULONG n = 64;
	CK_TOKEN_INFO info;

	check("C_GetSlotList", p11->C_GetSlotList(CK_TRUE, slots, &n));
	for (CK_ULONG i = 0; i < n; i++) {
		check("C_GetTokenInfo", p11->C_GetTokenInfo(slots[i], &info));
		if (memcmp(info.label, label, strlen(label)) == 0)
			return slots[i];
	}
	fprintf(stderr, "sign-loop: there is no token of this label\n");
	exit(1);
}

static void find_key(const char *hex)
{
	CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
	unsigned id = 0;
	CK_BYTE byte;
	CK_ULONG n = 0;

	sscanf(hex, "%2x", &id);
	byte = (CK_BYTE)id;
	CK_ATTRIBUTE template[] = { { CKA_CLASS, &class, sizeof class }, { CKA_ID, &byte, 1 } };
	check("C_FindObjectsInit", p11->C_FindObjectsInit(session, template, 2));
	check("C_FindObjects", p11->C_FindObjects(session, &key, 1, &n));
	check("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
	if (n == 0) {
		fprintf(stderr, "sign-loop: there is no key of this id\n");
		exit(1);
	}
}

static void sign(long long duration, unsigned long most)
{
	CK_BYTE digest[32], signature[1024];
	long long start = now(), before = start, after = start;

	memset(digest, 0x5a, sizeof digest);
	for (count = 0; count < most && after - start < duration; count++) {
		CK_ULONG length = sizeof signature;

		digest[0] = (CK_BYTE)count;
		check("C_SignInit", p11->C_SignInit(session, &mechanism, key));
		check("C_Sign", p11->C_Sign(session, digest, sizeof digest, signature, &length));
		after = now();
		taken[count] = after - before > 4000000000LL ? 4000000000U : (unsigned)(after - before);
		before = after;
	}
	printf("done %lu %lld\n", count, after - start);
}

int main(int argc, char **argv)
{
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR);
	char line[256];
	void *module;
	CK_RV rv;

	if (argc != 5 || !fgets(line, sizeof line, stdin)) {
		fprintf(stderr, "usage: sign-loop MODULE TOKEN_LABEL KEY_ID_HEX rsa|ec\n");
		return 2;
	}
	line[strcspn(line, "\n")] = 0;
	module = dlopen(argv[1], RTLD_NOW);
	get = module ? (CK_RV (*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(module, "C_GetFunctionList") : NULL;
	if (!get) {
		fprintf(stderr, "sign-loop: %s\n", dlerror());
		return 1;
	}
	taken = malloc(MOST * sizeof *taken);
	check("C_GetFunctionList", get(&p11));
	check("C_Initialize", p11->C_Initialize(NULL));
	check("C_OpenSession", p11->C_OpenSession(find_slot(argv[2]), CKF_SERIAL_SESSION, NULL, NULL, &session));
	rv = p11->C_Login(session, CKU_USER, (CK_UTF8CHAR_PTR)line, strlen(line));
	if (rv != CKR_USER_ALREADY_LOGGED_IN)
		check("C_Login", rv);
	find_key(argv[3]);
	mechanism.mechanism = strcmp(argv[4], "rsa") == 0 ? CKM_SHA256_RSA_PKCS : CKM_ECDSA;
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		double seconds;
		unsigned long most;

		if (sscanf(line, "go %lf", &seconds) == 1)
			sign((long long)(seconds * 1e9), MOST);
		else if (sscanf(line, "times %lu", &most) == 1)
			sign(3600000000000LL, most < MOST ? most : MOST);
		else {
			for (unsigned long i = 0; i < count; i++)
				printf("%u ", taken[i]);
			puts("");
		}
		fflush(stdout);
	}
	return 0;
}
