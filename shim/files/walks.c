/*
 * Functions that walk over many files. The C library's own calls within them do not reach the shim, so the walk starts
 * in the daemon's tree, and the program sees the paths without the tree's folder.
 */
#define _GNU_SOURCE
#include "../shim.h"

_Static_assert(sizeof(glob_t) == sizeof(glob64_t), "64-bit systems only");

/* ---- glob ---- */

static int glob_ours(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *found)
{
    char room[PATH_ROOM];
    const char *inside = path_rewrite(pattern, room);
    const size_t before = flags & GLOB_APPEND ? found->gl_pathc : 0;
    const int result = REAL(glob)(inside ? inside : pattern, flags, failed, found);
    const size_t offset = flags & GLOB_DOOFFS ? found->gl_offs : 0;
    for (size_t i = before; result == 0 && i < found->gl_pathc; i++)
        path_strip_root(found->gl_pathv[offset + i]);
    return result;
}

EXPORT int glob(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *found)
{
    ABSOLUTE(AT_FDCWD, pattern);
    if (LIKELY(!path_is_ours(pattern)))
        return REAL(glob)(pattern, flags, failed, found);
    return glob_ours(pattern, flags, failed, found);
}

EXPORT int glob64(const char *pattern, int flags, int (*failed)(const char *, int), glob64_t *found)
{
    ABSOLUTE(AT_FDCWD, pattern);
    if (LIKELY(!path_is_ours(pattern)))
        return REAL(glob64)(pattern, flags, failed, found);
    return glob_ours(pattern, flags, failed, (glob_t *)found);
}

/* ---- ftw, nftw ---- */

/* The program's function in the current walk of this thread. */
static __thread __ftw_func_t each __attribute__((tls_model("initial-exec")));
static __thread __nftw_func_t each_with_place __attribute__((tls_model("initial-exec")));

static struct stat seen(const char *path, const struct stat *found)
{
    struct stat shown = *found;
    stat_show_node(path, &shown);
    return shown;
}

static int show(const char *path, const struct stat *found, int kind)
{
    path += path_root_length(path);
    const struct stat shown = seen(path, found);
    return each(path, &shown, kind);
}

static int show_with_place(const char *path, const struct stat *found, int kind, struct FTW *place)
{
    const size_t root = path_root_length(path);
    struct FTW shown_place = {.base = place->base - (int)root, .level = place->level};
    const struct stat shown = seen(path + root, found);
    return each_with_place(path + root, &shown, kind, &shown_place);
}

EXPORT int ftw(const char *path, __ftw_func_t function, int descriptors)
{
    ABSOLUTE(AT_FDCWD, path);
    if (LIKELY(!path_is_ours(path)))
        return REAL(ftw)(path, function, descriptors);
    REWRITE(path, -1);
    const __ftw_func_t outer = each;
    each = function;
    const int result = REAL(ftw)(path, show, descriptors);
    each = outer;
    return result;
}

EXPORT int nftw(const char *path, __nftw_func_t function, int descriptors, int flags)
{
    ABSOLUTE(AT_FDCWD, path);
    if (LIKELY(!path_is_ours(path)))
        return REAL(nftw)(path, function, descriptors, flags);
    REWRITE(path, -1);
    const __nftw_func_t outer = each_with_place;
    each_with_place = function;
    const int result = REAL(nftw)(path, show_with_place, descriptors, flags);
    each_with_place = outer;
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
