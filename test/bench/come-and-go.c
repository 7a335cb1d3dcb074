/*
 * A PKCS#11 program that comes, asks what slots there are, and goes, so many times, one after the other: with
 * p11-kit-client.so each time is a connection of its own. What it costs is looked up at the server.
 *
 *   come-and-go MODULE TIMES
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

static void check(const char *call, CK_RV rv)
{
	if (rv == CKR_OK)
		return;
	fprintf(stderr, "come-and-go: %s answered 0x%lx\n", call, rv);
	exit(1);
}

int main(int argc, char **argv)
{
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR);
	CK_FUNCTION_LIST_PTR p11;
	void *module = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;

	get = module ? (CK_RV (*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(module, "C_GetFunctionList") : NULL;
	if (!get) {
		fprintf(stderr, "usage: come-and-go MODULE TIMES\n");
		return 2;
	}
	check("C_GetFunctionList", get(&p11));
	for (int i = atoi(argv[2]); i > 0; i--) {
		CK_SLOT_ID slots[64];
		CK_ULONG n = 64;

		check("C_Initialize", p11->C_Initialize(NULL));
		check("C_GetSlotList", p11->C_GetSlotList(CK_TRUE, slots, &n));
		check("C_Finalize", p11->C_Finalize(NULL));
		if (n == 0) {
			fprintf(stderr, "come-and-go: there is no token\n");
			return 1;
		}
	}
	return 0;
}
