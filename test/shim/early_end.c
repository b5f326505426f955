/*
 * A library whose dlsym ends the process by END (-DEND=…), as an allocator that dlsym calls may do. Preloaded after
 * the shim, whose function that END calls has not found the C library's yet.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

void *dlsym(void *restrict handle, const char *restrict name)
{
    (void)handle;
    (void)name;
    END;
}
