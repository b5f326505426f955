/*
 * Functions that walk over many files: glob, ftw, nftw. Their calls within the C library do not reach the shim. So a
 * walk of an RDMA path starts in the daemon's tree, and the program gets paths without the tree's folder.
 */
#define _GNU_SOURCE
#include "../shim.h"

_Static_assert(sizeof(glob_t) == sizeof(glob64_t), "64-bit systems only");

/* ---- glob ---- */

static int glob_ours(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found)
{
    char path_buffer[PATH_SIZE];
    const char *redirected = path_rewrite(pattern, path_buffer);
    const size_t before = flags & GLOB_APPEND ? found->gl_pathc : 0;
    const int result = REAL(glob)(redirected ? redirected : pattern, flags, on_error, found);
    const size_t offset = flags & GLOB_DOOFFS ? found->gl_offs : 0;
    for (size_t i = before; result == 0 && i < found->gl_pathc; i++)
        path_strip_root(found->gl_pathv[offset + i]);
    return result;
}

EXPORT int glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found)
{
    ABSOLUTE(AT_FDCWD, pattern);
    if (LIKELY(!path_is_ours(pattern)))
        return REAL(glob)(pattern, flags, on_error, found);
    return glob_ours(pattern, flags, on_error, found);
}

EXPORT int glob64(const char *pattern, int flags, int (*on_error)(const char *, int), glob64_t *found)
{
    ABSOLUTE(AT_FDCWD, pattern);
    if (LIKELY(!path_is_ours(pattern)))
        return REAL(glob64)(pattern, flags, on_error, found);
    return glob_ours(pattern, flags, on_error, (glob_t *)found);
}

/* ---- ftw, nftw ---- */

/* The program's function in this thread's walk. */
static __thread __ftw_func_t ftw_function __attribute__((tls_model("initial-exec")));
static __thread __nftw_func_t nftw_function __attribute__((tls_model("initial-exec")));

/* The result of stat for the program. In the tree a device node is a plain file. */
static struct stat stat_of_node(const char *path, const struct stat *found)
{
    struct stat shown = *found;
    stat_show_node(path, &shown);
    return shown;
}

static int call_ftw_function(const char *path, const struct stat *found, int kind)
{
    path += path_root_length(path);
    const struct stat shown = stat_of_node(path, found);
    return ftw_function(path, &shown, kind);
}

static int call_nftw_function(const char *path, const struct stat *found, int kind, struct FTW *position)
{
    const size_t root = path_root_length(path);
    struct FTW shown_position = {.base = position->base - (int)root, .level = position->level};
    const struct stat shown = stat_of_node(path + root, found);
    return nftw_function(path + root, &shown, kind, &shown_position);
}

EXPORT int ftw(const char *path, __ftw_func_t function, int descriptors)
{
    ABSOLUTE(AT_FDCWD, path);
    if (LIKELY(!path_is_ours(path)))
        return REAL(ftw)(path, function, descriptors);
    REWRITE(path, -1);
    const __ftw_func_t previous = ftw_function;
    ftw_function = function;
    const int result = REAL(ftw)(path, call_ftw_function, descriptors);
    ftw_function = previous;
    return result;
}

EXPORT int nftw(const char *path, __nftw_func_t function, int descriptors, int flags)
{
    ABSOLUTE(AT_FDCWD, path);
    if (LIKELY(!path_is_ours(path)))
        return REAL(nftw)(path, function, descriptors, flags);
    REWRITE(path, -1);
    const __nftw_func_t previous = nftw_function;
    nftw_function = function;
    const int result = REAL(nftw)(path, call_nftw_function, descriptors, flags);
    nftw_function = previous;
    return result;
}

EXPORT int ftw64(const char *path, __ftw64_func_t function, int descriptors)
{
    return ftw(path, (__ftw_func_t)function, descriptors);
}

EXPORT int nftw64(const char *path, __nftw64_func_t function, int descriptors, int flags)
{
    return nftw(path, (__nftw_func_t)function, descriptors, flags);
}
