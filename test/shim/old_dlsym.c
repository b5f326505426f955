/* dlsym with RTLD_NEXT as before glibc 2.36, for libibverbs: it finds a function's first version. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

/* Of dlsym itself. */
#ifdef __x86_64__
#define FIRST_VERSION "GLIBC_2.2.5"
#else
#define FIRST_VERSION "GLIBC_2.17"
#endif

void *dlsym(void *handle, const char *name)
{
    static void *(*original)(void *, const char *);
    if (!original)
        original = dlvsym(RTLD_NEXT, "dlsym", FIRST_VERSION);
    void *first = NULL;
    if (handle == RTLD_NEXT && strncmp(name, "ibv_", 4) == 0)
        first = dlvsym(RTLD_NEXT, name, "IBVERBS_1.0");
    return first ? first : original(handle, name);
}
