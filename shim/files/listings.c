/*
 * Lists of the folders above RDMA paths, such as /dev and /sys/class: after a folder's own entries follow those of the
 * same folder in the daemon's tree, for example infiniband, unless the folder has such an entry itself. The list of
 * /dev/infiniband shows device nodes as character devices.
 */
#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "64-bit systems only");

/* A folder in the daemon's tree, and the same folder outside. */
struct tree_list {
    DIR *stream;
    char folder[64]; /* longer than any folder above RDMA paths; a longer one of PCI is cut off, and not in the tree */
    int outside_fd;
};

/* Maximum streams of the program that are in the tree at the same time. Further streams have only their own entries. */
#define CONTINUED 16
/* Streams of the program whose own entries have ended. Each is used by one thread at a time, as POSIX demands. */
static struct {
    DIR *stream;
    struct tree_list tree;
} continued[CONTINUED];
/* Entries of `continued` in use. */
static unsigned continued_count;

/* False if `fd` is not a folder above RDMA paths, or there is no daemon. */
static bool open_in_tree(int fd, struct tree_list *list)
{
    char root[sizeof(((struct userdma_hello_reply *)0)->root)], path[sizeof root + sizeof list->folder];
    if (!path_of_fd(fd, list->folder, sizeof list->folder) || !path_is_parent(list->folder) ||
        !session_root_silently(root))
        return false;
    snprintf(path, sizeof path, "%s%s", root, list->folder);
    list->stream = REAL(opendir)(path);
    list->outside_fd = fd;
    return list->stream != NULL;
}

/* The next entry that the folder outside lacks; NULL: none. */
static struct dirent *next_in_tree(const struct tree_list *list)
{
    struct dirent *entry;
    while ((entry = REAL(readdir)(list->stream))) {
        char path[sizeof list->folder + sizeof entry->d_name];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", list->folder, entry->d_name);
        if (path_matches(path) && early_syscall(SYS_newfstatat, list->outside_fd, (long)entry->d_name, (long)&st,
                                                AT_SYMLINK_NOFOLLOW, 0, 0) != 0)
            return entry;
    }
    return NULL;
}

/* The entry after the last own one of a stream. */
static struct dirent *continue_in_tree(DIR *stream)
{
    unsigned free_slot = CONTINUED;
    for (unsigned i = 0; i < CONTINUED; i++) {
        DIR *const other = __atomic_load_n(&continued[i].stream, __ATOMIC_ACQUIRE);
        if (other == stream)
            return next_in_tree(&continued[i].tree);
        if (!other && free_slot == CONTINUED)
            free_slot = i;
    }
    struct tree_list tree;
    if (!open_in_tree(dirfd(stream), &tree))
        return NULL;
    DIR *none = NULL;
    for (unsigned i = free_slot; i < CONTINUED; i++, none = NULL) {
        if (!__atomic_compare_exchange_n(&continued[i].stream, &none, stream, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        continued[i].tree = tree;
        __atomic_fetch_add(&continued_count, 1, __ATOMIC_RELAXED);
        return next_in_tree(&tree);
    }
    REAL(closedir)(tree.stream);
    return NULL;
}

/* A stream is closed, or continues with its own entries. Preserves errno. */
static void forget_stream(DIR *stream)
{
    if (LIKELY(__atomic_load_n(&continued_count, __ATOMIC_RELAXED) == 0))
        return;
    const int saved = errno;
    for (unsigned i = 0; i < CONTINUED; i++) {
        if (__atomic_load_n(&continued[i].stream, __ATOMIC_ACQUIRE) != stream)
            continue;
        DIR *const in_tree = continued[i].tree.stream;
        if (!in_tree) /* closedir(NULL): an unused entry */
            continue;
        continued[i].tree.stream = NULL;
        REAL(closedir)(in_tree);
        __atomic_store_n(&continued[i].stream, NULL, __ATOMIC_RELEASE);
        __atomic_fetch_sub(&continued_count, 1, __ATOMIC_RELAXED);
    }
    errno = saved;
}

/* Shows a device node as a character device: in the tree it is a plain file. Preserves errno. */
static struct dirent *show_node(DIR *stream, struct dirent *entry)
{
    static const char nodes[] = "/dev/infiniband/";
    char path[sizeof nodes + sizeof entry->d_name], folder[PATH_SIZE];
    if (LIKELY(entry->d_type != DT_REG || (entry->d_name[0] != 'u' && entry->d_name[0] != 'r')))
        return entry;
    strcpy(stpcpy(path, nodes), entry->d_name);
    if (path_device_node(path) < 0 || !path_of_fd(dirfd(stream), folder, sizeof folder))
        return entry;
    const size_t root_length = path_root_length(folder);
    if (root_length > 0 && strncmp(folder + root_length, nodes, sizeof nodes - 2) == 0)
        entry->d_type = DT_CHR;
    return entry;
}

EXPORT struct dirent *readdir(DIR *stream)
{
    const int saved = errno;
    struct dirent *entry = REAL(readdir)(stream);
    if (LIKELY(!shim_is_active))
        return entry;
    if (entry)
        return show_node(stream, entry);
    if (errno != saved)
        return NULL;
    entry = continue_in_tree(stream);
    errno = saved;
    return entry;
}

EXPORT struct dirent64 *readdir64(DIR *stream)
{
    return (struct dirent64 *)readdir(stream);
}

EXPORT void rewinddir(DIR *stream)
{
    forget_stream(stream);
    REAL(rewinddir)(stream);
}

EXPORT void seekdir(DIR *stream, long position)
{
    forget_stream(stream);
    REAL(seekdir)(stream, position);
}

EXPORT int closedir(DIR *stream)
{
    forget_stream(stream);
    return REAL(closedir)(stream);
}

/* ---- scandir ---- */

typedef int select_function(const struct dirent *);
typedef int compare_function(const struct dirent **, const struct dirent **);

static void free_list(struct dirent **list, size_t count)
{
    while (count > 0)
        free(list[--count]);
    free(list);
}

/* Adds a copy of `entry` to a list of `count` entries. False with errno if there is no memory. */
static bool append(struct dirent ***list, size_t count, const struct dirent *entry)
{
    if ((count & (count - 1)) == 0) { /* full: its size is a power of two */
        struct dirent **longer = realloc(*list, (count ? 2 * count : 1) * sizeof *longer);
        if (!longer)
            return false;
        *list = longer;
    }
    struct dirent *copy = malloc(entry->d_reclen);
    if (copy)
        (*list)[count] = memcpy(copy, entry, entry->d_reclen);
    return copy != NULL;
}

/* The C library's scandirat does not call the shim's readdir. */
static int scan(DIR *stream, struct dirent ***list, select_function *select, compare_function *compare)
{
    const int saved = errno;
    struct dirent **found = NULL;
    size_t count = 0;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(stream));) {
        const bool is_selected = !select || select(entry);
        errno = 0; /* `select` may change it */
        if (is_selected && !append(&found, count, entry))
            break;
        count += is_selected;
    }
    if (errno != 0) {
        free_list(found, count);
        return -1;
    }
    if (compare && count > 1)
        qsort(found, count, sizeof *found, (int (*)(const void *, const void *))compare);
    *list = found;
    errno = saved;
    return (int)count;
}

EXPORT int scandirat(int dir, const char *path, struct dirent ***list, select_function *select,
                     compare_function *compare)
{
    REWRITE_AT(dir, path, -1);
    if (LIKELY(!shim_is_active))
        return REAL(scandirat)(dir, path, list, select, compare);
    const int fd = REAL(openat)(dir, path, O_RDONLY | O_NONBLOCK | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        if (fd >= 0)
            REAL(close)(fd);
        return -1;
    }
    const int count = scan(stream, list, select, compare), error = errno;
    closedir(stream);
    errno = error;
    return count;
}

EXPORT int scandirat64(int dir, const char *path, struct dirent64 ***list, int (*select)(const struct dirent64 *),
                       int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
    return scandirat(dir, path, (struct dirent ***)list, (select_function *)select, (compare_function *)compare);
}

EXPORT int scandir(const char *path, struct dirent ***list, select_function *select, compare_function *compare)
{
    return scandirat(AT_FDCWD, path, list, select, compare);
}

EXPORT int scandir64(const char *path, struct dirent64 ***list, int (*select)(const struct dirent64 *),
                     int (*compare)(const struct dirent64 **, const struct dirent64 **))
{
    return scandirat64(AT_FDCWD, path, list, select, compare);
}
