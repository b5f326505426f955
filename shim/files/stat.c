/*
 * The stat family, old and new: RDMA paths are redirected to the daemon's tree, and device nodes and opened devices
 * appear as character devices.
 */
#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "64-bit systems only");

/* IB_UMAD_MAJOR. Only the owner may open umad and issm nodes. */
#define UMAD_MAJOR 231

static bool is_umad(dev_t rdev)
{
    return major(rdev) == UMAD_MAJOR && minor(rdev) < ISSM_MINOR + UMAD_MINORS;
}

static mode_t mode_of(dev_t rdev)
{
    return S_IFCHR | (is_umad(rdev) ? 0600 : 0666);
}

static void show_device(struct stat *out, dev_t rdev)
{
    out->st_mode = mode_of(rdev);
    out->st_rdev = rdev;
    out->st_size = 0;
    out->st_blocks = 0;
}

/* Whether a descriptor is an opened device. Stores st_rdev. */
static bool is_device(int fd, dev_t *rdev)
{
    if (LIKELY(fd_kind(fd) == FD_OTHER))
        return false;
    const int kind = fd_kind_for_use(fd);
    if (kind == FD_CONTEXT || kind == FD_UMAD)
        *rdev = fd_table[fd].rdev;
    else if (kind == FD_CM)
        *rdev = path_node_rdev(USERDMA_CM_NODE);
    return kind == FD_CONTEXT || kind == FD_UMAD || kind == FD_CM;
}

/*
 * The path in the tree of an opened device's node: stat and fstat have the same inode, which cp compares. NULL without
 * a daemon. Preserves errno.
 */
static const char *path_of_device(int fd, dev_t rdev, char path_buffer[PATH_SIZE])
{
    /* The node of the system-wide device has no number. */
    char path[64] = "/dev/infiniband/" USERDMA_SYSTEM_NAME;
    if (fd_kind(fd) == FD_CM)
        strcpy(path, "/dev/infiniband/" USERDMA_CM_NAME);
    else if (is_umad(rdev) && minor(rdev) >= ISSM_MINOR)
        snprintf(path, sizeof path, "/dev/infiniband/" USERDMA_ISSM_NAME "%u", minor(rdev) - ISSM_MINOR);
    else if (is_umad(rdev))
        snprintf(path, sizeof path, "/dev/infiniband/" USERDMA_UMAD_NAME "%u", minor(rdev));
    else if (minor(rdev) >= UVERBS_MINOR)
        snprintf(path, sizeof path, "/dev/infiniband/uverbs%u", minor(rdev) - UVERBS_MINOR);
    const int saved = errno;
    const char *redirected = path_rewrite(path, path_buffer);
    errno = saved;
    return redirected;
}

/* After an fstat of `fd`, an opened device. Without a file of the node (the device was removed) the inode stays. */
__attribute__((noinline)) static void show_opened(int fd, dev_t rdev, struct stat *out)
{
    char path_buffer[PATH_SIZE];
    const int saved = errno;
    const char *path = path_of_device(fd, rdev, path_buffer);
    struct stat node;
    if (path && REAL(stat)(path, &node) == 0)
        *out = node;
    errno = saved;
    show_device(out, rdev);
}

/* After an fstat of `fd`: changes `out` if `fd` is an opened device. Returns `result`. */
static int show_fd(int result, int fd, void *out)
{
    dev_t rdev;
    if (result == 0 && is_device(fd, &rdev))
        show_opened(fd, rdev, out);
    return result;
}

void stat_show_node(const char *path, struct stat *out)
{
    const int node = S_ISLNK(out->st_mode) ? -1 : path_device_node(path);
    if (node >= 0)
        show_device(out, path_node_rdev((unsigned)node));
}

/* As show_fd, after a stat. `path`: before redirection. */
static int show_path(int result, const char *path, void *out)
{
    if (result == 0 && UNLIKELY(path_is_ours(path)))
        stat_show_node(path, out);
    return result;
}

/*
 * Whether a call is about the descriptor itself. Since Linux 6.11 the path may be NULL. glibc's headers declare it
 * nonnull, so a comparison with NULL would be removed.
 */
static bool is_of_descriptor(const char *path, int flags)
{
    return UNLIKELY(flags & AT_EMPTY_PATH) && (is_invalid_path(path) || path[0] == 0);
}

/* As show_fd, after an fstatat. */
static int show_at(int result, int dir, const char *path, void *out, int flags)
{
    if (is_of_descriptor(path, flags))
        return show_fd(result, dir, out);
    return show_path(result, path, out);
}

#define STAT(name, type)                                                                                               \
    EXPORT int name(const char *path, struct type *out)                                                                \
    {                                                                                                                  \
        ABSOLUTE(AT_FDCWD, path);                                                                                      \
        const char *original = path;                                                                                   \
        REWRITE(path, -1);                                                                                             \
        return show_path(REAL(name)(path, out), original, out);                                                        \
    }
#define XSTAT(name, type)                                                                                              \
    EXPORT int name(int version, const char *path, struct type *out)                                                   \
    {                                                                                                                  \
        ABSOLUTE(AT_FDCWD, path);                                                                                      \
        const char *original = path;                                                                                   \
        REWRITE(path, -1);                                                                                             \
        return show_path(REAL(name)(version, path, out), original, out);                                               \
    }
#define FSTAT(name, type)                                                                                              \
    EXPORT int name(int fd, struct type *out)                                                                          \
    {                                                                                                                  \
        return show_fd(REAL(name)(fd, out), fd, out);                                                                  \
    }
#define FXSTAT(name, type)                                                                                             \
    EXPORT int name(int version, int fd, struct type *out)                                                             \
    {                                                                                                                  \
        return show_fd(REAL(name)(version, fd, out), fd, out);                                                         \
    }
#define FSTATAT(name, type)                                                                                            \
    EXPORT int name(int dir, const char *path, struct type *out, int flags)                                            \
    {                                                                                                                  \
        ABSOLUTE(dir, path);                                                                                           \
        const char *original = path;                                                                                   \
        REWRITE(path, -1);                                                                                             \
        return show_at(REAL(name)(dir, path, out, flags), dir, original, out, flags);                                  \
    }
#define FXSTATAT(name, type)                                                                                           \
    EXPORT int name(int version, int dir, const char *path, struct type *out, int flags)                               \
    {                                                                                                                  \
        ABSOLUTE(dir, path);                                                                                           \
        const char *original = path;                                                                                   \
        REWRITE(path, -1);                                                                                             \
        return show_at(REAL(name)(version, dir, path, out, flags), dir, original, out, flags);                         \
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
    ABSOLUTE(dir, path);
    const char *original = path;
    REWRITE(path, -1);
    const int result = REAL(statx)(dir, path, flags, mask, out);
    if (result != 0)
        return result;
    dev_t rdev;
    if (is_of_descriptor(original, flags)) {
        if (LIKELY(!is_device(dir, &rdev)))
            return result;
        char *path_buffer = alloca(PATH_SIZE);
        const char *node_path = path_of_device(dir, rdev, path_buffer);
        struct statx found;
        const int saved = errno;
        if (node_path && REAL(statx)(AT_FDCWD, node_path, 0, mask, &found) == 0)
            *out = found;
        errno = saved;
    } else {
        if (LIKELY(!path_is_ours(original)))
            return result;
        const int node = S_ISLNK(out->stx_mode) ? -1 : path_device_node(original);
        if (node < 0)
            return result;
        rdev = path_node_rdev((unsigned)node);
    }
    out->stx_mode = mode_of(rdev);
    out->stx_rdev_major = major(rdev);
    out->stx_rdev_minor = minor(rdev);
    out->stx_size = 0;
    out->stx_blocks = 0;
    return result;
}

/* ---- file systems ---- */

/* Shows sysfs as the file system of RDMA paths in /sys, and tmpfs as that of /dev. */
static int show_file_system(int result, const char *path, struct statfs *out)
{
    /* The first letter of `sys` or `dev`. */
    if (result == 0 && UNLIKELY(path_is_ours(path)))
        out->f_type = path[strspn(path, "/.")] == 's' ? SYSFS_MAGIC : TMPFS_MAGIC;
    return result;
}

static int show_fd_file_system(int result, int fd, struct statfs *out)
{
    char path[PATH_SIZE];
    if (LIKELY(!shim_is_active) || result != 0 || !path_of_fd(fd, path, sizeof path))
        return result;
    path_strip_root(path);
    return show_file_system(result, path, out);
}

_Static_assert(sizeof(struct statfs) == sizeof(struct statfs64), "64-bit systems only");

#define STATFS(name, type)                                                                                             \
    EXPORT int name(const char *path, struct type *out)                                                                \
    {                                                                                                                  \
        ABSOLUTE(AT_FDCWD, path);                                                                                      \
        const char *original = path;                                                                                   \
        REWRITE(path, -1);                                                                                             \
        return show_file_system(REAL(name)(path, out), original, (struct statfs *)out);                                \
    }
#define FSTATFS(name, type)                                                                                            \
    EXPORT int name(int fd, struct type *out)                                                                          \
    {                                                                                                                  \
        return show_fd_file_system(REAL(name)(fd, out), fd, (struct statfs *)out);                                     \
    }
#define STATVFS(name, type)                                                                                            \
    EXPORT int name(const char *path, struct type *out)                                                                \
    {                                                                                                                  \
        REWRITE_AT(AT_FDCWD, path, -1);                                                                                \
        return REAL(name)(path, out);                                                                                  \
    }

STATFS(statfs, statfs)
STATFS(statfs64, statfs64)
FSTATFS(fstatfs, statfs)
FSTATFS(fstatfs64, statfs64)
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)
