/*
 * The start of the shim, a preload library: it shows the daemon's RDMA devices to an unmodified program, and forwards
 * the program's calls to the daemon (ARCHITECTURE.md; protocol.h has the messages).
 *
 *   init.c     whether the shim is active, and the C library's own functions
 *   early.c    replacements of the C library's functions while they are looked up
 *   loading.c  dlopen with RTLD_DEEPBIND, dlmopen
 *   elf.c      the libraries that a library needs
 *
 * Each folder has a header with what others may call. A folder calls those below it: recorder, loading, sanitizers,
 * session, check, verbs and files, and then the files beside the folders (test/architecture-shim.test.ts). What a
 * folder calls in one above it stands at the end of its header.
 *
 * Rules for all files:
 * - Calls that have nothing to do with RDMA cost a few comparisons.
 * - Successful calls preserve errno.
 * - Memory is static, on the stack or mapped, except XRC's objects (../verbs/xrc.c), the lists of scandir
 *   (../files/listings.c), and folders that are read at the program's end (../session/providers.c).
 * - A vfork child shares its parent's memory, so it does not change the table of descriptors.
 */
#ifndef USERDMA_LOADING_H
#define USERDMA_LOADING_H

/*
 * Undefines _FORTIFY_SOURCE and _FILE_OFFSET_BITS: either makes the C library's headers define or rename functions of
 * the shim. So this file is included first.
 */
#include "../recorder/recorder.h"

#include <alloca.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "../protocol.h"

/* Lower pointers are invalid. They are left to the kernel, which answers EFAULT. */
#define LOWEST_ADDRESS 4096
/* Whether a path is in the first or the last page: NULL, (char *)-1. */
static inline int is_invalid_path(const char *path)
{
    return (uintptr_t)path + LOWEST_ADDRESS < 2 * LOWEST_ADDRESS;
}
/* Types of ioctl requests: RDMA_IOCTL_MAGIC of Linux's RDMA, and the object dialect's. */
#define LINUX_MAGIC 0x1b
#define OBJECT_MAGIC 0xdb
/* Returns the result of a function, by a guaranteed tail call if the compiler has one. */
#if defined(__has_attribute) && __has_attribute(musttail)
#define JUMP __attribute__((musttail)) return
#else
#define JUMP return
#endif

/* Functions of the C library that its headers do not declare: fortified ones, and the stat family of old binaries. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                       socklen_t *length);
ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);
ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags);
ssize_t __pread_chk(int fd, void *buffer, size_t count, off_t offset, size_t buffer_size);
ssize_t __pread64_chk(int fd, void *buffer, size_t count, off64_t offset, size_t buffer_size);
ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t buffer_size);
ssize_t __readlinkat_chk(int dir, const char *path, char *buffer, size_t size, size_t buffer_size);
char *__realpath_chk(const char *path, char *resolved, size_t buffer_size);
char *__getcwd_chk(char *buffer, size_t size, size_t buffer_size);
int __xstat(int version, const char *path, struct stat *out);
int __xstat64(int version, const char *path, struct stat64 *out);
int __lxstat(int version, const char *path, struct stat *out);
int __lxstat64(int version, const char *path, struct stat64 *out);
int __fxstat(int version, int fd, struct stat *out);
int __fxstat64(int version, int fd, struct stat64 *out);
int __fxstatat(int version, int dir, const char *path, struct stat *out, int flags);
int __fxstatat64(int version, int dir, const char *path, struct stat64 *out, int flags);
/* Older C libraries lack them. */
int fcntl64(int fd, int command, ...);
int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);
struct open_how;
int openat2(int dir, const char *path, const struct open_how *how, size_t size);

_Noreturn void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function);

/* The functions of the C library that the shim interposes. */
#define INTERPOSED(X)                                                                                                  \
    X(open) X(open64) X(openat) X(openat64) X(openat2) X(__open_2) X(__open64_2) X(__openat_2) X(__openat64_2)         \
    X(creat) X(creat64) X(fopen) X(fopen64) X(freopen) X(freopen64) X(opendir) X(readdir) X(rewinddir) X(seekdir)      \
    X(closedir) X(scandirat) X(glob) X(glob64) X(ftw) X(nftw) X(statfs) X(statfs64) X(fstatfs) X(fstatfs64) X(statvfs) \
    X(statvfs64)                                                                                                       \
    X(getcwd) X(__getcwd_chk) X(get_current_dir_name) X(fchdir) X(access) X(faccessat) X(euidaccess) X(eaccess)        \
    X(stat) X(stat64) X(lstat) X(lstat64) X(fstat) X(fstat64) X(fstatat) X(fstatat64) X(statx) X(__xstat)              \
    X(__xstat64) X(__lxstat) X(__lxstat64) X(__fxstat) X(__fxstat64) X(__fxstatat) X(__fxstatat64) X(readlink)         \
    X(readlinkat) X(__readlink_chk) X(__readlinkat_chk) X(realpath) X(__realpath_chk) X(canonicalize_file_name)        \
    X(chdir) X(inotify_add_watch) X(socket) X(ioctl) X(read) X(__read_chk) X(pread) X(pread64) X(readv) X(write)       \
    X(pwrite) X(pwrite64) X(writev) X(close) X(close_range) X(closefrom) X(dup) X(dup2) X(dup3) X(fcntl) X(fcntl64)    \
    X(lseek) X(lseek64) X(preadv) X(preadv64) X(pwritev) X(pwritev64) X(preadv2) X(preadv64v2) X(pwritev2)            \
    X(pwritev64v2) X(__pread_chk) X(__pread64_chk) X(fallocate) X(fallocate64) X(posix_fallocate)                      \
    X(posix_fallocate64) X(ftruncate) X(ftruncate64) X(fclose) X(mmap) X(mmap64) X(getxattr) X(lgetxattr)              \
    X(listxattr) X(llistxattr) X(chmod) X(fchmodat) X(chown) X(lchown) X(fchownat) X(mkdir) X(mkdirat)                 \
    X(recv) X(__recv_chk) X(recvmsg) X(recvmmsg) X(recvfrom) X(__recvfrom_chk) X(send) X(sendto) X(sendmsg) X(sendmmsg) X(bind) X(connect)   \
    X(getsockname) X(getpeername) X(setsockopt) X(getsockopt) X(shutdown) X(dlopen) X(dlmopen) X(dlclose) X(syscall)  \
    X(_exit) X(_Exit) X(abort) X(__assert_fail)

/* ---- init.c ---- */

/*
 * The next functions after the shim's: the C library's, or those of another preload library; before shim_init,
 * early.c's. Used by REAL(name).
 */
struct real {
#define X(name) __typeof__(&name) name;
    INTERPOSED(X)
#undef X
};
extern struct real shim_real;
/* 0 until init has run. */
extern int shim_ready;
static inline bool shim_is_ready(void)
{
    return LIKELY(__atomic_load_n(&shim_ready, __ATOMIC_ACQUIRE));
}
/* Whether USERDMA_SOCKET has a usable path; otherwise all calls pass through. Read it after shim_init. */
extern bool shim_is_active;
/* The daemon's socket, from the environment. 108: the size of sun_path in struct sockaddr_un. */
extern char shim_socket_path[108];
/* From the environment; empty: none. */
extern char shim_tag[sizeof(((struct userdma_hello *)0)->tag)];
/* The program is traced: all calls go to the daemon, doorbells too. */
extern bool shim_is_traced;

/*
 * Initialises the shim unless it is ready. Several threads may call it at once. A recursive call does nothing: REAL
 * then gives early.c's versions.
 */
void shim_init(void);

/* The function that the program would call without the shim. */
#define REAL(name) (shim_is_ready() ? (void)0 : shim_init(), shim_real.name)

/* ---- early.c ---- */

/* A system call, as syscall(2). */
long early_syscall(long number, long a, long b, long c, long d, long e, long f);

/* The next syscall() after the shim's; before shim_init, early_syscall. */
extern __typeof__(&syscall) shim_next_syscall __attribute__((visibility("hidden")));

/* ---- elf.c ---- */

/* Bytes of buffers for paths. */
#define PATH_SIZE 1024
/* Bytes of a library's name with NUL. Longer names are truncated. */
#define LIBRARY_NAME_SIZE 128
/*
 * Calls `visit` with the name of each needed library (DT_NEEDED), until a call returns false. Stores the folders,
 * separated by colons, in which the loader searches needed libraries (DT_RUNPATH, DT_RPATH); "" if there are none.
 * 64-bit files only.
 */
void elf_needed(int fd, bool (*visit)(void *context, const char *name), void *context, char folders[PATH_SIZE]);

/* ---- of the folders above ---- */

/* At the end of shim_init, before and after the shim is ready. */
void start_parts(void);
void start_own_process(void);
/* Libraries were unloaded. */
void waiting_describe_modules(void);

#endif
