/*
 * The interposed calls that take a path: those that lead to RDMA go to the daemon's tree, opening a device node is a
 * request to the daemon, and a node shows as the character device that it would be. All others go straight through.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <alloca.h>
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

/*
 * Replaces `path` if it leads to RDMA; leaves the function with `failure` (and ENOENT) if there is no daemon. Stack
 * is taken only then: handlers on small signal stacks call open() and stat() too.
 */
#define REWRITE(path, failure)                                                                                         \
    do {                                                                                                               \
        if (UNLIKELY(path_is_ours(path))) {                                                                            \
            char *room = alloca(PATH_ROOM);                                                                            \
            path = path_rewrite(path, room);                                                                           \
            if (!path)                                                                                                 \
                return failure;                                                                                        \
        }                                                                                                              \
    } while (0)

/* ---- open ---- */

typedef int open_function(const char *path, int flags, ...);
typedef int openat_function(int dir, const char *path, int flags, ...);

static bool wants_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

/* Opens the device if the path is that of a node. */
static bool opens_device(const char *path, int flags, int *result)
{
    const int node = path_device_node(path);
    if (node < 0 || (flags & O_PATH))
        return false;
    *result = -1;
    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        errno = EEXIST;
    else if (flags & O_DIRECTORY)
        errno = ENOTDIR;
    else
        *result = session_open((unsigned)node, flags);
    return true;
}

__attribute__((noinline)) static int open_ours(openat_function *real, const char *path, int flags, mode_t mode)
{
    char room[PATH_ROOM];
    int fd;
    if (opens_device(path, flags, &fd))
        return fd;
    path = path_rewrite(path, room);
    return path ? fd_opened(real(AT_FDCWD, path, flags, mode)) : -1;
}

#define MODE_ARGUMENT(flags)                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (wants_mode(flags)) {                                                                                           \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, mode_t);                                                                              \
        va_end(arguments);                                                                                             \
    }

EXPORT int open(const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, flags, mode);
    return fd_opened(REAL(open)(path, flags, mode));
}

EXPORT int open64(const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, flags, mode);
    return fd_opened(REAL(open64)(path, flags, mode));
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, flags, mode);
    return fd_opened(REAL(openat)(dir, path, flags, mode));
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, flags, mode);
    return fd_opened(REAL(openat64)(dir, path, flags, mode));
}

EXPORT int __open_2(const char *path, int flags)
{
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat), path, flags, 0);
    return fd_opened(REAL(__open_2)(path, flags));
}

EXPORT int __open64_2(const char *path, int flags)
{
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat64), path, flags, 0);
    return fd_opened(REAL(__open64_2)(path, flags));
}

EXPORT int __openat_2(int dir, const char *path, int flags)
{
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat), path, flags, 0);
    return fd_opened(REAL(__openat_2)(dir, path, flags));
}

EXPORT int __openat64_2(int dir, const char *path, int flags)
{
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat64), path, flags, 0);
    return fd_opened(REAL(__openat64_2)(dir, path, flags));
}

EXPORT int creat(const char *path, mode_t mode)
{
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    return fd_opened(REAL(creat)(path, mode));
}

EXPORT int creat64(const char *path, mode_t mode)
{
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    return fd_opened(REAL(creat64)(path, mode));
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    REWRITE(path, NULL);
    return REAL(fopen)(path, mode);
}

EXPORT FILE *fopen64(const char *path, const char *mode)
{
    REWRITE(path, NULL);
    return REAL(fopen64)(path, mode);
}

/* ---- directories ---- */

EXPORT DIR *opendir(const char *path)
{
    REWRITE(path, NULL);
    return REAL(opendir)(path);
}

EXPORT int scandir(const char *path, struct dirent ***list, int (*select)(const struct dirent *),
                   int (*compare)(const struct dirent **, const struct dirent **))
{
    REWRITE(path, -1);
    return REAL(scandir)(path, list, select, compare);
}

EXPORT int scandir64(const char *path, struct dirent64 ***list, int (*select)(const struct dirent64 *),
                     int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
    REWRITE(path, -1);
    return REAL(scandir64)(path, list, select, compare);
}

EXPORT int chdir(const char *path)
{
    REWRITE(path, -1);
    return REAL(chdir)(path);
}

EXPORT int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    REWRITE(path, -1);
    return REAL(inotify_add_watch)(fd, path, mask);
}

/* ---- permissions, links ---- */

EXPORT int access(const char *path, int mode)
{
    REWRITE(path, -1);
    return REAL(access)(path, mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
    REWRITE(path, -1);
    return REAL(faccessat)(dir, path, mode, flags);
}

EXPORT int euidaccess(const char *path, int mode)
{
    REWRITE(path, -1);
    return REAL(euidaccess)(path, mode);
}

EXPORT int eaccess(const char *path, int mode)
{
    REWRITE(path, -1);
    return REAL(eaccess)(path, mode);
}

EXPORT ssize_t readlink(const char *path, char *buffer, size_t size)
{
    REWRITE(path, -1);
    return REAL(readlink)(path, buffer, size);
}

EXPORT ssize_t readlinkat(int dir, const char *path, char *buffer, size_t size)
{
    REWRITE(path, -1);
    return REAL(readlinkat)(dir, path, buffer, size);
}

EXPORT ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t limit)
{
    REWRITE(path, -1);
    return REAL(__readlink_chk)(path, buffer, size, limit);
}

EXPORT ssize_t __readlinkat_chk(int dir, const char *path, char *buffer, size_t size, size_t limit)
{
    REWRITE(path, -1);
    return REAL(__readlinkat_chk)(dir, path, buffer, size, limit);
}

/* The program sees the path that it would see without us, where we can take it back. */
static char *shown(char *resolved, bool ours)
{
    if (UNLIKELY(ours) && resolved)
        path_strip_root(resolved);
    return resolved;
}

EXPORT char *realpath(const char *path, char *resolved)
{
    const bool ours = path_is_ours(path);
    REWRITE(path, NULL);
    return shown(REAL(realpath)(path, resolved), ours);
}

EXPORT char *__realpath_chk(const char *path, char *resolved, size_t limit)
{
    const bool ours = path_is_ours(path);
    REWRITE(path, NULL);
    return shown(REAL(__realpath_chk)(path, resolved, limit), ours);
}

EXPORT char *canonicalize_file_name(const char *path)
{
    const bool ours = path_is_ours(path);
    REWRITE(path, NULL);
    return shown(REAL(canonicalize_file_name)(path), ours);
}

/* ---- stat ---- */

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "64-bit systems only");

static void show_device(struct stat *out, dev_t rdev)
{
    out->st_mode = S_IFCHR | 0666;
    out->st_rdev = rdev;
    out->st_size = 0;
    out->st_blocks = 0;
}

static int seen_fd(int result, int fd, void *out)
{
    if (UNLIKELY(fd_kind(fd) == FD_CONTEXT) && result == 0)
        show_device(out, fd_table[fd].rdev);
    return result;
}

/* `path` as the program gave it. */
static int seen_path(int result, const char *path, void *out)
{
    int node;
    if (result == 0 && UNLIKELY(path_is_ours(path)) && (node = path_device_node(path)) >= 0)
        show_device(out, path_node_rdev((unsigned)node));
    return result;
}

static int seen_at(int result, int dir, const char *path, void *out, int flags)
{
    if ((flags & AT_EMPTY_PATH) && path && path[0] == 0)
        return seen_fd(result, dir, out);
    return seen_path(result, path, out);
}

#define STAT(name, type)                                                                                               \
    EXPORT int name(const char *path, struct type *out)                                                                \
    {                                                                                                                  \
        const char *given = path;                                                                                      \
        REWRITE(path, -1);                                                                                             \
        return seen_path(REAL(name)(path, out), given, out);                                                           \
    }
#define XSTAT(name, type)                                                                                              \
    EXPORT int name(int version, const char *path, struct type *out)                                                   \
    {                                                                                                                  \
        const char *given = path;                                                                                      \
        REWRITE(path, -1);                                                                                             \
        return seen_path(REAL(name)(version, path, out), given, out);                                                  \
    }
#define FSTAT(name, type)                                                                                              \
    EXPORT int name(int fd, struct type *out)                                                                          \
    {                                                                                                                  \
        return seen_fd(REAL(name)(fd, out), fd, out);                                                                  \
    }
#define FXSTAT(name, type)                                                                                             \
    EXPORT int name(int version, int fd, struct type *out)                                                             \
    {                                                                                                                  \
        return seen_fd(REAL(name)(version, fd, out), fd, out);                                                         \
    }
#define FSTATAT(name, type)                                                                                            \
    EXPORT int name(int dir, const char *path, struct type *out, int flags)                                            \
    {                                                                                                                  \
        const char *given = path;                                                                                      \
        REWRITE(path, -1);                                                                                             \
        return seen_at(REAL(name)(dir, path, out, flags), dir, given, out, flags);                                     \
    }
#define FXSTATAT(name, type)                                                                                           \
    EXPORT int name(int version, int dir, const char *path, struct type *out, int flags)                               \
    {                                                                                                                  \
        const char *given = path;                                                                                      \
        REWRITE(path, -1);                                                                                             \
        return seen_at(REAL(name)(version, dir, path, out, flags), dir, given, out, flags);                            \
    }

STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
XSTAT(__xstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat, stat)
XSTAT(__lxstat64, stat64)
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
FXSTAT(__fxstat, stat)
FXSTAT(__fxstat64, stat64)
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)
FXSTATAT(__fxstatat, stat)
FXSTATAT(__fxstatat64, stat64)

EXPORT int statx(int dir, const char *path, int flags, unsigned mask, struct statx *out)
{
    const char *given = path;
    REWRITE(path, -1);
    const int result = REAL(statx)(dir, path, flags, mask, out);
    if (result != 0)
        return result;
    int node;
    dev_t rdev;
    if (UNLIKELY(fd_kind(dir) == FD_CONTEXT) && (flags & AT_EMPTY_PATH) && (!given || !given[0]))
        rdev = fd_table[dir].rdev;
    else if (UNLIKELY(path_is_ours(given)) && (node = path_device_node(given)) >= 0)
        rdev = path_node_rdev((unsigned)node);
    else
        return result;
    out->stx_mode = S_IFCHR | 0666;
    out->stx_rdev_major = major(rdev);
    out->stx_rdev_minor = minor(rdev);
    out->stx_size = 0;
    out->stx_blocks = 0;
    return result;
}
