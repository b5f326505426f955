/*
 * Interposed calls with paths: RDMA paths are redirected to the daemon's tree, and opening a device node is a request
 * to the daemon. Other paths pass through.
 */
#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <linux/openat2.h>
#include <string.h>

#include "../check/check.h"

/* ---- open ---- */

typedef int openat_function(int dir, const char *path, int flags, ...);

static bool wants_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

/* With these flags, open(2) of an existing file that is no folder fails, whatever the rights. */
static bool opens_no_file(int flags)
{
    return (flags & O_DIRECTORY) || (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
}

/*
 * If the path is a device node, opens the device and stores the result of open(2). Else false. False also with O_PATH,
 * or if the flags open no file: then the file in the tree gives the result.
 */
static bool open_if_device(const char *path, int flags, int *result)
{
    const int node = path_device_node(path);
    if (node < 0 || (flags & O_PATH) || opens_no_file(flags))
        return false;
    *result = session_open((unsigned)node, flags);
    return true;
}

/*
 * Whether a file of the tree may be opened with these flags; false with errno EACCES. As in sysfs, programs, even of
 * root, write only some files, and create none.
 */
static bool may_open(const char *path, int flags)
{
    const bool is_write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    if ((flags & O_PATH) || !(is_write || (flags & O_CREAT)))
        return true;
    const char *name = strrchr(path, '/');
    static const char *const writable[] = {"/node_desc", "/lifespan", "/traffic_class", "/default_roce_tos"};
    bool is_writable = false;
    for (size_t i = 0; i < sizeof writable / sizeof writable[0]; i++)
        is_writable |= strcmp(name, writable[i]) == 0;
    struct stat found;
    const bool exists = REAL(stat)(path, &found) == 0;
    const bool writes_file = exists && is_write && S_ISREG(found.st_mode) && !is_writable && !opens_no_file(flags);
    const bool is_temporary = (flags & O_TMPFILE) == O_TMPFILE && exists && S_ISDIR(found.st_mode);
    const bool creates_file = is_temporary || (!exists && (flags & O_CREAT));
    if (!writes_file && !creates_file)
        return true;
    errno = EACCES;
    return false;
}

__attribute__((noinline)) static int open_ours(openat_function *real, const char *path, int flags, mode_t mode)
{
    char path_buffer[PATH_SIZE];
    int fd;
    if (open_if_device(path, flags, &fd))
        return fd;
    path = path_rewrite(path, path_buffer);
    return path && may_open(path, flags) ? fd_opened(real(AT_FDCWD, path, flags, mode)) : -1;
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
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, flags, mode);
    return check_opened("open", fd_opened(REAL(open)(path, flags, mode)));
}

EXPORT int open64(const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, flags, mode);
    return check_opened("open", fd_opened(REAL(open64)(path, flags, mode)));
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    ABSOLUTE(dir, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, flags, mode);
    return check_opened("open", fd_opened(REAL(openat)(dir, path, flags, mode)));
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags)
    ABSOLUTE(dir, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, flags, mode);
    return check_opened("open", fd_opened(REAL(openat64)(dir, path, flags, mode)));
}

/*
 * Programs that are compiled with _FORTIFY_SOURCE call these functions for an open without a mode. If the flags want a
 * mode, the C library ends the program.
 */

EXPORT int __open_2(const char *path, int flags)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat), path, flags, 0);
    return fd_opened(REAL(__open_2)(path, flags));
}

EXPORT int __open64_2(const char *path, int flags)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat64), path, flags, 0);
    return fd_opened(REAL(__open64_2)(path, flags));
}

EXPORT int __openat_2(int dir, const char *path, int flags)
{
    ABSOLUTE(dir, path);
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat), path, flags, 0);
    return fd_opened(REAL(__openat_2)(dir, path, flags));
}

EXPORT int __openat64_2(int dir, const char *path, int flags)
{
    ABSOLUTE(dir, path);
    if (UNLIKELY(path_is_ours(path)) && !wants_mode(flags))
        return open_ours(REAL(openat64), path, flags, 0);
    return fd_opened(REAL(__openat64_2)(dir, path, flags));
}

/* With RESOLVE_BENEATH or RESOLVE_IN_ROOT a path stays below `dir`, so it is not redirected. */
EXPORT int openat2(int dir, const char *path, const struct open_how *how, size_t size)
{
    if ((uintptr_t)how < LOWEST_ADDRESS || size < sizeof *how || (how->resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)))
        return fd_opened(REAL(openat2)(dir, path, how, size));
    ABSOLUTE(dir, path);
    if (LIKELY(!path_is_ours(path)))
        return fd_opened(REAL(openat2)(dir, path, how, size));
    char path_buffer[PATH_SIZE];
    int fd;
    if (open_if_device(path, (int)how->flags, &fd))
        return fd;
    path = path_rewrite(path, path_buffer);
    return path && may_open(path, (int)how->flags) ? fd_opened(REAL(openat2)(AT_FDCWD, path, how, size)) : -1;
}

EXPORT int creat(const char *path, mode_t mode)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat), path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    return fd_opened(REAL(creat)(path, mode));
}

EXPORT int creat64(const char *path, mode_t mode)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return open_ours(REAL(openat64), path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    return fd_opened(REAL(creat64)(path, mode));
}

/* The flags of open(2) for a mode of fopen(3). */
static int flags_of_mode(const char *mode)
{
    const int access = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    const int creates = *mode == 'w' ? O_CREAT | O_TRUNC : *mode == 'a' ? O_CREAT | O_APPEND : 0;
    return access | creates | (strchr(mode, 'e') ? O_CLOEXEC : 0) | (strchr(mode, 'x') ? O_EXCL : 0);
}

__attribute__((noinline)) static FILE *fopen_ours(const char *path, const char *mode)
{
    const int fd = open_ours(REAL(openat64), path, flags_of_mode(mode), 0666);
    FILE *stream = fd < 0 ? NULL : fdopen(fd, mode);
    if (fd >= 0 && !stream)
        close(fd);
    return stream;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    ABSOLUTE(AT_FDCWD, path);
    return UNLIKELY(path_is_ours(path)) ? fopen_ours(path, mode) : REAL(fopen)(path, mode);
}

EXPORT FILE *fopen64(const char *path, const char *mode)
{
    ABSOLUTE(AT_FDCWD, path);
    return UNLIKELY(path_is_ours(path)) ? fopen_ours(path, mode) : REAL(fopen64)(path, mode);
}

/* A device node is refused (EOPNOTSUPP). A failure closes the stream, as in the C library. */
__attribute__((noinline)) static FILE *freopen_ours(const char *path, const char *mode, FILE *stream)
{
    char path_buffer[PATH_SIZE];
    const char *redirected = path_rewrite(path, path_buffer);
    if (redirected && path_device_node(path) >= 0)
        errno = EOPNOTSUPP;
    else if (redirected && may_open(redirected, flags_of_mode(mode))) {
        fd_before_stream_close(stream);
        return REAL(freopen64)(redirected, mode, stream);
    }
    const int error = errno;
    fclose(stream);
    errno = error;
    return NULL;
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return freopen_ours(path, mode, stream);
    if (path) /* NULL: the same file, with another mode */
        fd_before_stream_close(stream);
    return REAL(freopen)(path, mode, stream);
}

EXPORT FILE *freopen64(const char *path, const char *mode, FILE *stream)
{
    ABSOLUTE(AT_FDCWD, path);
    if (UNLIKELY(path_is_ours(path)))
        return freopen_ours(path, mode, stream);
    if (path) /* NULL: the same file, with another mode */
        fd_before_stream_close(stream);
    return REAL(freopen64)(path, mode, stream);
}

/* ---- directories ---- */

EXPORT DIR *opendir(const char *path)
{
    REWRITE_AT(AT_FDCWD, path, NULL);
    return REAL(opendir)(path);
}

static void folder_changed(void)
{
    /* A vfork child has its parent's memory, but its own current folder. */
    if (!shim_is_other_process())
        path_folder_changed();
}

EXPORT int chdir(const char *path)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    int result = REAL(chdir)(path);
    if (UNLIKELY(shim_is_active) && result == 0)
        folder_changed();
    return result;
}

EXPORT int fchdir(int fd)
{
    int result = REAL(fchdir)(fd);
    if (UNLIKELY(shim_is_active) && result == 0)
        folder_changed();
    return result;
}

EXPORT int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(inotify_add_watch)(fd, path, mask);
}

/* ---- permissions, links ---- */

/*
 * The mode of access(2) for the file in the tree. All users may read and write device nodes except umad's, whatever the
 * rights of the file in the tree.
 */
static int mode_in_tree(int dir, const char *path, int mode)
{
    ABSOLUTE(dir, path);
    const int node = UNLIKELY(path_is_ours(path)) ? path_device_node(path) : -1;
    if (node < 0 || node_is_umad((unsigned)node))
        return mode;
    return mode & ~(R_OK | W_OK);
}

EXPORT int access(const char *path, int mode)
{
    mode = mode_in_tree(AT_FDCWD, path, mode);
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(access)(path, mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
    mode = mode_in_tree(dir, path, mode);
    REWRITE_AT(dir, path, -1);
    return REAL(faccessat)(dir, path, mode, flags);
}

EXPORT int euidaccess(const char *path, int mode)
{
    mode = mode_in_tree(AT_FDCWD, path, mode);
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(euidaccess)(path, mode);
}

EXPORT int eaccess(const char *path, int mode)
{
    mode = mode_in_tree(AT_FDCWD, path, mode);
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(eaccess)(path, mode);
}

/* `ls -l` reads access control lists. */
EXPORT ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(getxattr)(path, name, value, size);
}

EXPORT ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(lgetxattr)(path, name, value, size);
}

EXPORT ssize_t listxattr(const char *path, char *list, size_t size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(listxattr)(path, list, size);
}

EXPORT ssize_t llistxattr(const char *path, char *list, size_t size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(llistxattr)(path, list, size);
}

EXPORT ssize_t readlink(const char *path, char *buffer, size_t size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(readlink)(path, buffer, size);
}

EXPORT ssize_t readlinkat(int dir, const char *path, char *buffer, size_t size)
{
    REWRITE_AT(dir, path, -1);
    return REAL(readlinkat)(dir, path, buffer, size);
}

EXPORT ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t buffer_size)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(__readlink_chk)(path, buffer, size, buffer_size);
}

EXPORT ssize_t __readlinkat_chk(int dir, const char *path, char *buffer, size_t size, size_t buffer_size)
{
    REWRITE_AT(dir, path, -1);
    return REAL(__readlinkat_chk)(dir, path, buffer, size, buffer_size);
}

/* ---- owners and modes, new folders ---- */

/* Scripts prepare device nodes for other users by chmod and chown. They change the files of the tree. */

EXPORT int chmod(const char *path, mode_t mode)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(chmod)(path, mode);
}

EXPORT int fchmodat(int dir, const char *path, mode_t mode, int flags)
{
    REWRITE_AT(dir, path, -1);
    return REAL(fchmodat)(dir, path, mode, flags);
}

EXPORT int chown(const char *path, uid_t user, gid_t group)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(chown)(path, user, group);
}

EXPORT int lchown(const char *path, uid_t user, gid_t group)
{
    REWRITE_AT(AT_FDCWD, path, -1);
    return REAL(lchown)(path, user, group);
}

EXPORT int fchownat(int dir, const char *path, uid_t user, gid_t group, int flags)
{
    REWRITE_AT(dir, path, -1);
    return REAL(fchownat)(dir, path, user, group, flags);
}

/* The folder of a device in rdma_cm's configfs, in which the daemon then makes files. */
static int make_config_folder(const char *redirected, const char *device, mode_t mode)
{
    static const char class[] = "/sys/class/infiniband/";
    char path[PATH_SIZE], path_buffer[PATH_SIZE];
    struct stat found;
    if (strlen(device) >= sizeof path - sizeof class) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(stpcpy(path, class), device);
    const char *shown = path_rewrite(path, path_buffer);
    if (!shown || REAL(stat)(shown, &found)) {
        errno = ENODEV;
        return -1;
    }
    if (REAL(mkdir)(redirected, mode))
        return -1;
    const int error = session_refresh();
    errno = error;
    return error ? -1 : 0;
}

/*
 * `mkdir -p /dev/infiniband` finds the folder. Programs create no others (may_open) but those of devices in rdma_cm's
 * configfs.
 */
static int make_folder(const char *path, mode_t mode)
{
    char path_buffer[PATH_SIZE];
    struct stat found;
    const char *redirected = path_rewrite(path, path_buffer);
    if (!redirected)
        return -1;
    const char *device = path_config_device(path);
    const bool exists = REAL(lstat)(redirected, &found) == 0;
    if (device && !exists)
        return make_config_folder(redirected, device, mode);
    errno = exists ? EEXIST : EACCES;
    return -1;
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    ABSOLUTE(AT_FDCWD, path);
    return UNLIKELY(path_is_ours(path)) ? make_folder(path, mode) : REAL(mkdir)(path, mode);
}

EXPORT int mkdirat(int dir, const char *path, mode_t mode)
{
    ABSOLUTE(dir, path);
    return UNLIKELY(path_is_ours(path)) ? make_folder(path, mode) : REAL(mkdirat)(dir, path, mode);
}

/* ---- paths that the program gets ---- */

/* Removes the tree's folder from a path that the program gets. */
static char *without_root(char *resolved)
{
    if (UNLIKELY(shim_is_active) && resolved)
        path_strip_root(resolved);
    return resolved;
}

EXPORT char *realpath(const char *path, char *resolved)
{
    REWRITE_AT(AT_FDCWD, path, NULL);
    return without_root(REAL(realpath)(path, resolved));
}

EXPORT char *__realpath_chk(const char *path, char *resolved, size_t buffer_size)
{
    REWRITE_AT(AT_FDCWD, path, NULL);
    return without_root(REAL(__realpath_chk)(path, resolved, buffer_size));
}

EXPORT char *canonicalize_file_name(const char *path)
{
    REWRITE_AT(AT_FDCWD, path, NULL);
    return without_root(REAL(canonicalize_file_name)(path));
}

/*
 * The path that the program gets is shorter than that in the tree. So if the C library's getcwd finds a buffer of
 * `size` bytes too short (NULL with ERANGE), the path may fit.
 */
static char *without_root_in(char *resolved, char *buffer, size_t size)
{
    char folder[PATH_SIZE];
    if (LIKELY(resolved || !shim_is_active || errno != ERANGE))
        return without_root(resolved);
    if (!REAL(getcwd)(folder, sizeof folder))
        return NULL;
    path_strip_root(folder);
    if (strlen(folder) < size)
        return buffer ? strcpy(buffer, folder) : strdup(folder);
    errno = ERANGE;
    return NULL;
}

EXPORT char *getcwd(char *buffer, size_t size)
{
    return without_root_in(REAL(getcwd)(buffer, size), buffer, size);
}

EXPORT char *__getcwd_chk(char *buffer, size_t size, size_t buffer_size)
{
    return without_root_in(REAL(__getcwd_chk)(buffer, size, buffer_size), buffer, size);
}

EXPORT char *get_current_dir_name(void)
{
    return without_root(REAL(get_current_dir_name)());
}
