/*
 * A library whose socket functions work only after its own socket(), like librspreload. Preloaded after the shim.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>

static __typeof__(&getsockopt) next_getsockopt;
static __typeof__(&setsockopt) next_setsockopt;

int socket(int domain, int type, int protocol)
{
    next_getsockopt = (__typeof__(&getsockopt))dlsym(RTLD_NEXT, "getsockopt");
    next_setsockopt = (__typeof__(&setsockopt))dlsym(RTLD_NEXT, "setsockopt");
    return ((__typeof__(&socket))dlsym(RTLD_NEXT, "socket"))(domain, type, protocol);
}

int getsockopt(int fd, int level, int option, void *restrict value, socklen_t *restrict length)
{
    return next_getsockopt(fd, level, option, value, length);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    return next_setsockopt(fd, level, option, value, length);
}
