/*
 * Whether the shim is active, and the C library's own versions of the interposed functions.
 *
 * Runs as a constructor, or earlier if another library's constructor calls an interposed function. Makes no connection.
 * All functions are looked up at once: dlsym is not safe in a signal handler, which may call write().
 */
#define _GNU_SOURCE
#include "loading.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <string.h>
#include <sys/syscall.h>

/* The next function of this name; until it is known, the system call itself. */
__attribute__((visibility("hidden"))) __typeof__(&syscall) shim_next_syscall = (__typeof__(&syscall))early_syscall;

int shim_ready;
bool shim_is_active;
bool shim_is_traced;
char shim_socket_path[108];
char shim_tag[sizeof(((struct userdma_hello *)0)->tag)];

/* Functions that a C library may lack: old ones have no close_range, most no openat2, future ones may drop __xstat. */
static int absent_close_range(unsigned int first, unsigned int last, int flags)
{
    return (int)syscall(SYS_close_range, first, last, flags);
}

static void absent_closefrom(int first)
{
    long last = sysconf(_SC_OPEN_MAX);
    if (syscall(SYS_close_range, first, ~0u, 0) != 0)
        for (int fd = first; fd < last; fd++)
            syscall(SYS_close, fd);
}

static int absent_openat2(int dir, const char *path, const struct open_how *how, size_t size)
{
    /* syscall() here is the shim's, which calls openat2 again. */
    return (int)shim_next_syscall(SYS_openat2, dir, path, how, size);
}

static int absent_xstat(int version, const char *path, struct stat *out)
{
    (void)version;
    return shim_real.stat(path, out);
}

static int absent_lxstat(int version, const char *path, struct stat *out)
{
    (void)version;
    return shim_real.lstat(path, out);
}

static int absent_fxstat(int version, int fd, struct stat *out)
{
    (void)version;
    return shim_real.fstat(fd, out);
}

static int absent_fxstatat(int version, int dir, const char *path, struct stat *out, int flags)
{
    (void)version;
    return shim_real.fstatat(dir, path, out, flags);
}

/* Before glibc 2.33 stat, lstat, fstat and fstatat are inline: they call __xstat and the like with _STAT_VER. */
#ifdef __x86_64__
#define STAT_VERSION 1
#define FIRST_VERSION "GLIBC_2.2.5"
#else
#define STAT_VERSION 0
#define FIRST_VERSION "GLIBC_2.17"
#endif

static int absent_stat(const char *path, struct stat *out)
{
    return shim_real.__xstat(STAT_VERSION, path, out);
}

static int absent_lstat(const char *path, struct stat *out)
{
    return shim_real.__lxstat(STAT_VERSION, path, out);
}

static int absent_fstat(int fd, struct stat *out)
{
    return shim_real.__fxstat(STAT_VERSION, fd, out);
}

static int absent_fstatat(int dir, const char *path, struct stat *out, int flags)
{
    return shim_real.__fxstatat(STAT_VERSION, dir, path, out, flags);
}

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "64-bit systems only");

static void fill_absent(struct real *real)
{
#define ABSENT(name, replacement)                                                                                      \
    if (!real->name)                                                                                                   \
        real->name = (__typeof__(real->name))replacement;
    ABSENT(close_range, absent_close_range)
    ABSENT(closefrom, absent_closefrom)
    ABSENT(openat2, absent_openat2)
    ABSENT(fcntl64, real->fcntl)
    ABSENT(__xstat, absent_xstat)
    ABSENT(__xstat64, absent_xstat)
    ABSENT(__lxstat, absent_lxstat)
    ABSENT(__lxstat64, absent_lxstat)
    ABSENT(__fxstat, absent_fxstat)
    ABSENT(__fxstat64, absent_fxstat)
    ABSENT(__fxstatat, absent_fxstatat)
    ABSENT(__fxstatat64, absent_fxstatat)
    ABSENT(stat, absent_stat)
    ABSENT(stat64, absent_stat)
    ABSENT(lstat, absent_lstat)
    ABSENT(lstat64, absent_lstat)
    ABSENT(fstat, absent_fstat)
    ABSENT(fstat64, absent_fstat)
    ABSENT(fstatat, absent_fstatat)
    ABSENT(fstatat64, absent_fstatat)
#undef ABSENT
}

/*
 * Functions that are not looked up: their replacements make the same system calls as the C library's functions. A dlsym
 * that finds nothing allocates, and the caller may be the program's allocator.
 */
static const char *const plain_system_calls[] = {"close_range", "openat2"};

/*
 * Functions with a version that replaced the C library's first one. The first realpath does not allocate, and the first
 * nftw knows only FTW_PHYS, FTW_MOUNT, FTW_CHDIR and FTW_DEPTH.
 */
static const struct {
    const char *name, *version;
} replaced_versions[] = {
#ifdef __x86_64__
    {"realpath", "GLIBC_2.3"},
    {"nftw", "GLIBC_2.3.3"},
#endif
    {"glob", "GLIBC_2.27"},
    {"glob64", "GLIBC_2.27"},
};

/* Before glibc 2.36, dlsym with RTLD_NEXT finds the first version. A function of another preload library is kept. */
static void *replace_first_version(const char *name, void *found)
{
    void *newer = NULL;
    for (size_t i = 0; i < sizeof replaced_versions / sizeof *replaced_versions; i++)
        if (strcmp(name, replaced_versions[i].name) == 0 && found == dlvsym(RTLD_NEXT, name, FIRST_VERSION))
            newer = dlvsym(RTLD_NEXT, name, replaced_versions[i].version);
    return newer ? newer : found;
}

static void *find_next(const char *name)
{
    /*
     * In glibc since 2.34. It is used although the replacement needs no lookup: on a kernel without close_range(2) it
     * closes more descriptors than the replacement.
     */
    if (strcmp(name, "closefrom") == 0 && strverscmp(gnu_get_libc_version(), "2.34") < 0)
        return NULL;
    for (size_t i = 0; i < sizeof plain_system_calls / sizeof *plain_system_calls; i++)
        if (strcmp(name, plain_system_calls[i]) == 0)
            return NULL;
    return replace_first_version(name, dlsym(RTLD_NEXT, name));
}

__attribute__((constructor)) void shim_init(void)
{
    static __thread bool is_looking_up __attribute__((tls_model("initial-exec")));
    if (shim_is_ready() || is_looking_up)
        return;
    /*
     * The C library does not have the environment yet, and the runtime of a sanitizer, which starts before it, not the
     * functions that it replaces.
     */
    if (UNLIKELY(!environ))
        return;
    is_looking_up = true;
    int saved = errno;
    struct real real;
#define X(name) real.name = (__typeof__(real.name))find_next(#name);
    INTERPOSED(X)
#undef X
    fill_absent(&real);
    shim_real = real;
    __atomic_store_n(&shim_next_syscall, real.syscall, __ATOMIC_RELEASE);

    const char *path = getenv(USERDMA_ENV_SOCKET);
    size_t length = path ? strlen(path) : 0;
    if (length > 0 && length < sizeof shim_socket_path) {
        memcpy(shim_socket_path, path, length + 1);
        shim_is_active = true;
    } else if (length > 0) {
        fprintf(stderr, "userdma: " USERDMA_ENV_SOCKET " has %zu bytes; a socket path has at most %zu\n", length,
                sizeof shim_socket_path - 1);
    }
    const char *tag = getenv(USERDMA_ENV_TAG);
    if (tag)
        strncpy(shim_tag, tag, sizeof shim_tag - 1);
    shim_is_traced = shim_tag[0] != 0;
    start_parts();
    /* Libraries' constructors may start threads that come here at once. None waits: it may hold the loader's lock. */
    const bool is_first = __atomic_exchange_n(&shim_ready, 1, __ATOMIC_ACQ_REL) == 0;
    is_looking_up = false;
    if (is_first && shim_is_active)
        start_own_process();
    errno = saved;
}
