/*
 * Replacements of the C library's functions while those are looked up: dlsym may allocate, and the program's allocator
 * may read files (the number of processors) or end the process. The replacements make raw system calls. Functions that
 * no allocator, and no runtime of a sanitizer, calls have no replacement.
 */
#define _GNU_SOURCE
#include "loading.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

/* A system call without the C library. The shim's syscall() jumps here until the C library's is known. */
long early_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
#ifdef __x86_64__
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    result = x0;
#endif
    if (result < 0 && result >= -4095) { /* Linux's MAX_ERRNO */
        errno = (int)-result;
        return -1;
    }
    return result;
}

static int early_openat(int folder, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const unsigned mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static int early_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const unsigned mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int early_open_2(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
}

static ssize_t early_read(int fd, void *buffer, size_t count)
{
    return syscall(SYS_read, fd, buffer, count);
}

static ssize_t early_pread(int fd, void *buffer, size_t count, off_t offset)
{
    return syscall(SYS_pread64, fd, buffer, count, offset);
}

static ssize_t early_write(int fd, const void *buffer, size_t count)
{
    return syscall(SYS_write, fd, buffer, count);
}

static int early_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

static int early_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const unsigned long argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

static off_t early_lseek(int fd, off_t offset, int whence)
{
    return syscall(SYS_lseek, fd, offset, whence);
}

static int early_access(const char *path, int mode)
{
    return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

static ssize_t early_readlink(const char *path, char *buffer, size_t size)
{
    return syscall(SYS_readlinkat, AT_FDCWD, path, buffer, size);
}

static int early_fstat(int fd, struct stat *out)
{
    return (int)syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH);
}

static int early_stat(const char *path, struct stat *out)
{
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, out, 0);
}

/* Runtimes of sanitizers make the folders of their log_path. */
static int early_mkdir(const char *path, mode_t mode)
{
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

static void early_exit(int status)
{
    for (;;)
        syscall(SYS_exit_group, status);
}

/* As in the C library: if a handler of SIGABRT returns, or SIGABRT is ignored, the default action ends the process. */
static void early_abort(void)
{
    static const unsigned long mask = 1ul << (SIGABRT - 1);
    static const unsigned long default_action[4]; /* struct kernel_sigaction with SIG_DFL */
    for (int attempt = 0; attempt < 2; attempt++) {
        syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, sizeof mask);
        syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), SIGABRT);
        syscall(SYS_rt_sigaction, SIGABRT, default_action, NULL, sizeof mask);
    }
    early_exit(127);
}

static void early_assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
    char text[512];
    const int length =
        snprintf(text, sizeof text, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function, assertion);
    syscall(SYS_write, 2, text, length < (int)sizeof text ? length : (int)sizeof text - 1);
    early_abort();
}

/* Initialised without code: a thread that looks the functions up must not undo what another thread has found. */
struct real shim_real = {
#define EARLY(name, replacement) .name = (__typeof__(shim_real.name))replacement,
    EARLY(open, early_open)
    EARLY(open64, early_open)
    EARLY(openat, early_openat)
    EARLY(openat64, early_openat)
    EARLY(__open_2, early_open_2)
    EARLY(__open64_2, early_open_2)
    EARLY(read, early_read)
    EARLY(pread, early_pread)
    EARLY(pread64, early_pread)
    EARLY(write, early_write)
    EARLY(close, early_close)
    EARLY(fcntl, early_fcntl)
    EARLY(fcntl64, early_fcntl)
    EARLY(lseek, early_lseek)
    EARLY(lseek64, early_lseek)
    EARLY(access, early_access)
    EARLY(readlink, early_readlink)
    EARLY(fstat, early_fstat)
    EARLY(fstat64, early_fstat)
    EARLY(stat, early_stat)
    EARLY(stat64, early_stat)
    EARLY(mkdir, early_mkdir)
    EARLY(_exit, early_exit)
    EARLY(_Exit, early_exit)
    EARLY(abort, early_abort)
    EARLY(__assert_fail, early_assert_fail)
#undef EARLY
};
