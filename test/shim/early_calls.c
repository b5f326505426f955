/*
 * A library whose dlsym opens, reads, maps and closes a file first, as an allocator that dlsym calls may do. It is
 * preloaded after the shim, so the shim's open, read, mmap and close are called while the shim looks up the C
 * library's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *dlsym(void *restrict handle, const char *restrict name)
{
    static void *(*real)(void *, const char *);
    char byte;
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &byte, 1) != 1 || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED || munmap(page, 4096) != 0 || close(fd) != 0)
        abort();
    /* Versions: x86-64 until glibc 2.33; since 2.34; arm64 until 2.33. */
    if (!real)
        real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5") ?: dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34") ?:
            dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
    return real(handle, name);
}
