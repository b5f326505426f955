/*
 * Functions that walk over many files: glob, ftw, nftw. Their calls within the C library do not reach the shim. glob
 * takes functions to call instead. A walk of an RDMA path by ftw starts in the daemon's tree, and the program gets the
 * paths without the redirection; a walk of a folder above does not find it.
 */
#define _GNU_SOURCE
#include "paths.h"

#include <string.h>

_Static_assert(sizeof(glob_t) == sizeof(glob64_t), "64-bit systems only");

/* The function of the program in this thread's walk. */
static __thread struct {
    __ftw_func_t ftw;
    __nftw_func_t nftw;
    /* Bytes that the redirection puts before each path of the walk: the tree's folder, and that of a relative path. */
    size_t added;
} walk __attribute__((tls_model("initial-exec")));

static size_t added_bytes(const char *path, const char *redirected)
{
    const size_t length = strlen(path), redirected_length = strlen(redirected);
    if (redirected_length >= length && strcmp(redirected + redirected_length - length, path) == 0)
        return redirected_length - length;
    return path_root_length(redirected); /* path_absolute has resolved ".." */
}

/* ---- glob ---- */

typedef int glob_function(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found);

static void close_folder(void *stream)
{
    closedir(stream);
}

/* The C library's glob, with the shim's functions for folders unless the program has given its own. */
static int glob_with(glob_function *real, const char *pattern, int flags, int (*on_error)(const char *, int),
                     glob_t *found)
{
    if (LIKELY(!shim_is_active) || !found || (flags & GLOB_ALTDIRFUNC))
        return real(pattern, flags, on_error, found);
    found->gl_opendir = (__typeof__(found->gl_opendir))opendir;
    found->gl_readdir = (__typeof__(found->gl_readdir))readdir;
    found->gl_closedir = close_folder;
    found->gl_stat = stat;
    found->gl_lstat = lstat;
    const int result = real(pattern, flags | GLOB_ALTDIRFUNC, on_error, found);
    found->gl_flags &= ~GLOB_ALTDIRFUNC;
    return result;
}

EXPORT int glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found)
{
    return glob_with(REAL(glob), pattern, flags, on_error, found);
}

EXPORT int glob64(const char *pattern, int flags, int (*on_error)(const char *, int), glob64_t *found)
{
    return glob_with((glob_function *)REAL(glob64), pattern, flags, on_error, (glob_t *)found);
}

/* ---- ftw, nftw ---- */

/* The result of stat for the program. In the tree a device node is a plain file. */
static struct stat stat_of_node(const char *path, const struct stat *found)
{
    struct stat shown = *found;
    stat_show_node(path, &shown);
    return shown;
}

static int call_ftw_function(const char *path, const struct stat *found, int kind)
{
    const struct stat shown = stat_of_node(path + path_root_length(path), found);
    return walk.ftw(path + walk.added, &shown, kind);
}

static int call_nftw_function(const char *path, const struct stat *found, int kind, struct FTW *position)
{
    struct FTW shown_position = {.base = position->base - (int)walk.added, .level = position->level};
    const struct stat shown = stat_of_node(path + path_root_length(path), found);
    return walk.nftw(path + walk.added, &shown, kind, &shown_position);
}

EXPORT int ftw(const char *path, __ftw_func_t function, int descriptors)
{
    const char *redirected = path;
    ABSOLUTE(AT_FDCWD, redirected);
    if (LIKELY(!path_is_ours(redirected)))
        return REAL(ftw)(redirected, function, descriptors);
    REWRITE(redirected, -1);
    const __typeof__(walk) previous = walk;
    walk.ftw = function;
    walk.added = added_bytes(path, redirected);
    const int result = REAL(ftw)(redirected, call_ftw_function, descriptors);
    walk = previous;
    return result;
}

EXPORT int nftw(const char *path, __nftw_func_t function, int descriptors, int flags)
{
    const char *redirected = path;
    ABSOLUTE(AT_FDCWD, redirected);
    if (LIKELY(!path_is_ours(redirected)))
        return REAL(nftw)(redirected, function, descriptors, flags);
    REWRITE(redirected, -1);
    const __typeof__(walk) previous = walk;
    walk.nftw = function;
    walk.added = added_bytes(path, redirected);
    const int result = REAL(nftw)(redirected, call_nftw_function, descriptors, flags);
    walk = previous;
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
