/*
 * loading MODE LIBRARY: loads a library with dlopen (MODE plain), with RTLD_DEEPBIND (deep), with dlmopen into the base
 * namespace and RTLD_DEEPBIND (base), or with dlmopen into a new namespace (dlmopen). Prints the number of RDMA
 * devices that the library finds: by its function `devices`, else by ibv_get_device_list; -1 if it has neither.
 * MODE noload: asks with RTLD_NOLOAD whether the library is loaded, and prints whether libibverbs is loaded then.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    const char *mode = arguments[1], *library = arguments[2];
    void *handle;
    if (strcmp(mode, "noload") == 0) {
        const int flags = RTLD_NOW | RTLD_NOLOAD;
        if (dlopen(library, flags | RTLD_DEEPBIND) || dlmopen(LM_ID_BASE, library, flags | RTLD_DEEPBIND))
            return 1;
        puts(dlopen("libibverbs.so.1", flags) ? "loaded" : "not loaded");
        return 0;
    }
    if (strcmp(mode, "dlmopen") == 0)
        handle = dlmopen(LM_ID_NEWLM, library, RTLD_NOW);
    else if (strcmp(mode, "base") == 0)
        handle = dlmopen(LM_ID_BASE, library, RTLD_NOW | RTLD_DEEPBIND);
    else
        handle = dlopen(library, RTLD_NOW | (strcmp(mode, "deep") == 0 ? RTLD_DEEPBIND : 0));
    if (!handle) {
        printf("%s\n", dlerror());
        return 1;
    }
    int (*devices)(void) = (int (*)(void))dlsym(handle, "devices");
    void *(*list)(int *) = (void *(*)(int *))dlsym(handle, "ibv_get_device_list");
    int found = -1;
    if (devices)
        found = devices();
    else if (list)
        list(&found);
    printf("%d\n", found);
    return 0;
}
