/*
 * Redirected paths: what the files of this folder call of each other.
 */
#ifndef USERDMA_PATHS_H
#define USERDMA_PATHS_H

#include "files.h"

/* ---- paths.c ---- */

/*
 * IB_UMAD_NUM_FIXED_MINOR and IB_UVERBS_BASE_MINOR: minor numbers of umadN begin at 0, of issmN at 64, of uverbsN at
 * 192.
 */
#define UMAD_MINORS 64
#define ISSM_MINOR 64
#define UVERBS_MINOR 192

/* Whether an absolute path is an RDMA path. Preserves errno. */
bool path_matches(const char *path);

/* The name of the device whose folder in rdma_cm's configfs a path is; NULL: another path. */
const char *path_config_device(const char *path);

/* The current folder may be in the daemon's tree: a relative path may lead to a counter file. */
extern bool shim_may_be_in_tree;

/*
 * Makes a path absolute and resolves each "..", in `path_buffer`. A relative path begins at folder `dir`, as in
 * openat(2). NULL if the path leads neither to nor from an RDMA path, or is absolute without "..". NULL also if a
 * relative path does not begin, after "./" and "../", like a part of an RDMA path, unless "../" leaves the tree.
 */
const char *path_absolute(int dir, const char *path, char path_buffer[PATH_SIZE]);

/* Whether an absolute path may be an RDMA path, by the first characters: /sys, /dev, also after more slashes or ".". */
static inline bool path_may_match(const char *path)
{
    return path[1] == 's' || path[1] == 'd' || path[1] == '/' || path[1] == '.';
}

/* Whether a path begins like a PCI address, with a domain: `0000:`. */
static inline bool path_begins_with_domain(const char *path)
{
    return path[1] && path[2] && path[3] && path[4] == ':';
}

/* Whether path_absolute may change the path, by the first characters and "..". */
static inline bool path_absolute_may_change(const char *path)
{
    if (UNLIKELY(is_invalid_path(path)))
        return false;
    switch (*path) {
    case 'b': /* bus, block */
    case 'c': /* class, char, cpu */
    case 'd': /* dev, devices */
    case 'i': /* infiniband, issm, iommu */
    case 'k': /* kernel */
    case 'm': /* misc */
    case 'n': /* net, node */
    case 'p': /* pci */
    case 'r': /* rdma_cm */
    case 's': /* sys, system */
    case 'u': /* umad, userdma, uverbs */
    case 'v': /* virtual */
    case '2': /* 231:N */
    case '.':
        return shim_is_active;
    case '/': /* with "..": /sys/class/net/../infiniband, /proc/../dev/infiniband */
        return shim_is_active && (path_may_match(path) || UNLIKELY(strstr(path, "/..") != NULL));
    default:
        return *path && UNLIKELY(path_begins_with_domain(path)) && shim_is_active;
    }
}

/*
 * Whether a path, after ABSOLUTE, is redirected. If the current folder may be in the tree, a relative path may lead to
 * a counter file: then the counter files are updated.
 */
static inline bool path_is_ours(const char *path)
{
    if (UNLIKELY(is_invalid_path(path)))
        return false;
    if (path[0] != '/') {
        if (UNLIKELY(shim_may_be_in_tree))
            session_refresh();
        return false;
    }
    if (LIKELY(!path_may_match(path)))
        return false;
    if (UNLIKELY(!shim_is_ready()))
        shim_init();
    return shim_is_active && path_matches(path);
}

/*
 * The redirected path of an RDMA path, in `path_buffer`. Updates the counter files for a path of counters. NULL with
 * errno: as session_root, ENOENT for a too long path, or the error of the update.
 */
const char *path_rewrite(const char *path, char path_buffer[PATH_SIZE]);
/*
 * The node number of a device file, also by its link in /dev/char: N of /dev/infiniband/uverbsN, USERDMA_UMAD_NODES + N
 * of umadN, USERDMA_ISSM_NODES + N of issmN, USERDMA_SYSTEM_NODE, USERDMA_CM_NODE; -1 for another path.
 */
int path_device_node(const char *path);
/* st_rdev of a device file, from the file `dev` in the tree; 0: none. Preserves errno. */
dev_t path_node_rdev(unsigned node);
/* Replaces `path` by path_absolute. Uses stack only if the path may change. */
#define ABSOLUTE(dir, path)                                                                                            \
    do {                                                                                                               \
        if (UNLIKELY(path_absolute_may_change(path))) {                                                                \
            char *path_buffer = alloca(PATH_SIZE);                                                                     \
            const char *absolute = path_absolute(dir, path, path_buffer);                                              \
            if (absolute)                                                                                              \
                path = absolute;                                                                                       \
        }                                                                                                              \
    } while (0)

/*
 * Replaces an RDMA path. If path_rewrite fails, returns `failure` from the function, with errno. Uses stack only for
 * RDMA paths: handlers on small signal stacks call open() and stat() too.
 */
#define REWRITE(path, failure)                                                                                         \
    do {                                                                                                               \
        if (UNLIKELY(path_is_ours(path))) {                                                                            \
            char *path_buffer = alloca(PATH_SIZE);                                                                     \
            path = path_rewrite(path, path_buffer);                                                                    \
            if (!path)                                                                                                 \
                return failure;                                                                                        \
        }                                                                                                              \
    } while (0)

/* Like REWRITE, for a path relative to folder `dir`. */
#define REWRITE_AT(dir, path, failure)                                                                                 \
    do {                                                                                                               \
        ABSOLUTE(dir, path);                                                                                           \
        REWRITE(path, failure);                                                                                        \
    } while (0)

/* Whether the list of a folder is continued in the tree: /dev, /sys/class, /sys/bus/pci/devices. */
bool path_is_parent(const char *folder);
/* Length of the tree's folder in a path in the daemon's tree; 0 for another path. */
size_t path_root_length(const char *path);
/* Removes the tree's folder from a path, in place. */
void path_strip_root(char *path);

/* ---- stat.c ---- */

/* If `path` (absolute, not redirected) is a device file, changes the result of stat to the device file's. */
void stat_show_node(const char *path, struct stat *out);

#endif
