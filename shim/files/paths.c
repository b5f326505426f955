/*
 * RDMA paths, and their redirection into the daemon's tree: the same path below the tree's folder.
 *
 * A path matches by its first characters, with any number of slashes between components: "/sys/class/infiniband" also
 * matches infiniband_verbs and infiniband_mad. Most relative paths need no redirection: their directory was opened by a
 * redirected path, so it is in the tree. Relative paths are redirected from a folder above (/dev, /sys/class), and to
 * device nodes, because opening the file in the tree opens no device.
 *
 * PCI functions of the daemon's devices lie beside those of the machine: below `pci_prefixes` a path is an RDMA path if
 * the tree has it and the machine does not.
 *
 * A daemon with --machine shows another machine: all paths below `machine_prefixes` are in its tree.
 */
#define _GNU_SOURCE
#include "paths.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* How the numbers of uverbs and umad nodes begin: IB_UVERBS_MAJOR, IB_UMAD_MAJOR. */
#define DEVICE_NUMBER "231:"

/* rdma_cm's folder in configfs, where programs make a folder for a device. */
#define CM_CONFIG "/sys/kernel/config/rdma_cm"

/* Counter files are below the first two (leads_to_counters). */
static const char *const prefixes[] = {
    "/sys/class/infiniband",
    "/sys/devices/virtual/infiniband",
    "/sys/class/misc/rdma_cm",
    "/dev/infiniband",
    "/sys/devices/virtual/misc/rdma_cm",
    "/sys/dev/char/" DEVICE_NUMBER,
    "/dev/char/" DEVICE_NUMBER,
    CM_CONFIG,
};

static const char *const pci_prefixes[] = {"/sys/bus/pci", "/sys/devices/pci"};
#define PCI_PREFIXES (sizeof pci_prefixes / sizeof pci_prefixes[0])

static const char *const machine_prefixes[] = {
    "/sys/bus/pci",
    "/sys/devices/pci",
    "/sys/class/pci_bus",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/bus/cpu",
    "/sys/bus/node",
    "/sys/class/net",
    "/sys/devices/virtual/net",
    "/sys/class/dmi",
    "/sys/devices/virtual/dmi",
    "/sys/class/iommu",
    "/sys/devices/virtual/iommu",
    "/sys/kernel/iommu_groups",
    "/sys/kernel/pci_switch_link",
    "/sys/class/block",
};
#define MACHINE_PREFIXES (sizeof machine_prefixes / sizeof machine_prefixes[0])

/* The part of `path` after `prefix`; NULL: another prefix. Slashes, also with "." between them, count as one slash. */
static const char *match_prefix(const char *path, const char *prefix)
{
    while (*prefix) {
        if (*path != *prefix)
            return NULL;
        if (*path == '/') {
            for (;;) {
                if (path[1] == '/')
                    path++;
                else if (path[1] == '.' && path[2] == '/')
                    path += 2;
                else
                    break;
            }
        }
        path++;
        prefix++;
    }
    return path;
}

/* The element of `prefixes` with which a path begins, and in `suffix` the rest; NULL: none. */
static const char *find_prefix(const char *path, const char **suffix)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        *suffix = match_prefix(path, prefixes[i]);
        if (*suffix)
            return prefixes[i];
    }
    return NULL;
}

static bool is_pci_path(const char *path)
{
    for (size_t i = 0; i < PCI_PREFIXES; i++)
        if (match_prefix(path, pci_prefixes[i]))
            return true;
    return false;
}

static bool exists(const char *path)
{
    struct stat st;
    return early_syscall(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, AT_SYMLINK_NOFOLLOW, 0, 0) == 0;
}

static bool is_machine_path(const char *path)
{
    for (size_t i = 0; i < MACHINE_PREFIXES; i++)
        if (match_prefix(path, machine_prefixes[i]))
            return true;
    /* The processors and nodes to which the control group restricts the program, of which the other has none. */
    return match_prefix(path, "/sys/fs/cgroup") && strstr(path, "/cpuset.");
}

/*
 * Whether the daemon shows another machine, which a file in its tree says. It needs no session: allocators read the
 * number of processors before a program has begun. Preserves errno.
 */
static bool shows_machine(void)
{
    static enum { UNKNOWN, NO, YES } known;
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (UNLIKELY(answer == UNKNOWN)) {
        char path[sizeof shim_socket_path + sizeof ".tree/machine"];
        const int saved = errno;
        strcpy(stpcpy(path, shim_socket_path), ".tree/machine");
        answer = exists(path) ? YES : NO;
        errno = saved;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == YES;
}

/* hwloc would add what cpuid says of the processors here to those of the other machine, which it contradicts. */
void paths_show_machine(void)
{
#ifdef __x86_64__
    if (UNLIKELY(shows_machine()))
        setenv("HWLOC_COMPONENTS", "-x86", 0);
#endif
}

/* Whether the tree has a path and the machine does not. Preserves errno. Not inlined: only these paths need stack. */
static __attribute__((noinline)) bool is_only_in_tree(const char *path)
{
    char root[sizeof(((struct userdma_hello_reply *)0)->root)], in_tree[sizeof root + PATH_SIZE];
    const int saved = errno;
    const bool is_ours = session_root_silently(root) &&
                         (size_t)snprintf(in_tree, sizeof in_tree, "%s%s", root, path) < sizeof in_tree &&
                         exists(in_tree) && !exists(path);
    errno = saved;
    return is_ours;
}

bool path_matches(const char *path)
{
    const char *suffix;
    return find_prefix(path, &suffix) || (UNLIKELY(is_machine_path(path)) && shows_machine()) ||
           (UNLIKELY(is_pci_path(path)) && is_only_in_tree(path));
}

static bool is_directly_above(const char *folder, const char *prefix)
{
    const size_t length = strlen(folder);
    return strncmp(prefix, folder, length) == 0 && strrchr(prefix, '/') == prefix + length;
}

bool path_is_parent(const char *folder)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (is_directly_above(folder, prefixes[i]))
            return true;
    for (size_t i = 0; i < PCI_PREFIXES; i++)
        if (is_directly_above(folder, pci_prefixes[i]))
            return true;
    for (size_t i = 0; i < MACHINE_PREFIXES; i++)
        if (is_directly_above(folder, machine_prefixes[i]) && shows_machine())
            return true;
    /* Paths relative to the folder of drivers are not redirected (may_lead_to_rdma): its list lacks our drivers. */
    return is_pci_path(folder) && strcmp(folder, "/sys/bus/pci/drivers") != 0;
}

/* Whether a path begins with a PCI address: 0000:81:00.0. */
static bool begins_with_pci_address(const char *path)
{
    for (const char *form = "xxxx:xx:xx.x"; *form; form++, path++)
        if (*form == 'x' ? !isxdigit((unsigned char)*path) : *path != *form)
            return false;
    return *path == 0 || *path == '/';
}

const char *path_config_device(const char *path)
{
    const char *name = match_prefix(path, CM_CONFIG "/");
    return name && *name && !strchr(name, '/') ? name : NULL;
}

/*
 * Whether a path is a counter file, or another that the daemon updates when it is read, or a folder above. The program
 * may open files relative to the folder (grep -r), and those paths are not redirected.
 */
static bool leads_to_counters(const char *path)
{
    static const char class[] = "/infiniband";
    const char *suffix = NULL;
    if (!match_prefix(path, "/sys"))
        return false;
    if (match_prefix(path, CM_CONFIG))
        return true;
    for (const char *found = path; (found = strstr(found, class)); found += sizeof class - 1)
        suffix = found + sizeof class - 1;
    if (!suffix) /* the folder of a PCI function */
        return is_pci_path(path) && begins_with_pci_address(strrchr(path, '/') + 1);
    if (*suffix != 0 && *suffix != '/')
        return false;
    if (strstr(suffix, "counters") || strstr(suffix, "/tc"))
        return true;
    /* "", DEVICE, DEVICE/ports, DEVICE/ports/N, with any number of slashes */
    static const char ports[] = "ports";
    unsigned depth = 0;
    for (const char *name = suffix + strspn(suffix, "/"); *name; name += strspn(name, "/")) {
        const size_t length = strcspn(name, "/");
        if (depth == 1 && (length != strlen(ports) || memcmp(name, ports, length) != 0))
            return false;
        if (++depth > 3)
            return false;
        name += length;
    }
    return true;
}

const char *path_rewrite(const char *path, char path_buffer[PATH_SIZE])
{
    char root[sizeof(((struct userdma_hello_reply *)0)->root)];
    if (!path_matches(path)) {
        errno = ENOENT; /* a PCI function that was removed a moment ago */
        return NULL;
    }
    if (!session_root(root))
        return NULL;
    const size_t root_length = strlen(root), path_bytes = strlen(path) + 1;
    if (root_length + path_bytes > PATH_SIZE) {
        errno = ENOENT; /* the tree has no paths of this length */
        return NULL;
    }
    memcpy(path_buffer, root, root_length);
    memcpy(path_buffer + root_length, path, path_bytes);
    if (leads_to_counters(path)) {
        /* Other files and the folders above are valid also without the update. */
        const int error = session_refresh();
        if (error && strstr(path, "counters/")) {
            errno = error;
            return NULL;
        }
    }
    return path_buffer;
}

bool shim_may_be_in_tree;
/* The current folder may be any in the daemon's tree. */
static bool is_in_tree;

void path_folder_changed(void)
{
    char folder[PATH_SIZE];
    int saved = errno;
    /* Searches for the end of a tree's name, because the whole name is known only after HELLO. */
    const long length = early_syscall(SYS_getcwd, (long)folder, sizeof folder - 1, 0, 0, 0, 0);
    is_in_tree = length > 0 && strstr(folder, ".tree/");
    shim_may_be_in_tree = is_in_tree && strstr(folder, ".tree/sys/") && strstr(strcat(folder, "/"), "/infiniband/");
    errno = saved;
}

/* The number after `prefix` in a path: decimal, at most six digits, no leading zeros. -1: another path. */
static int number_after(const char *path, const char *prefix)
{
    const char *suffix = match_prefix(path, prefix);
    if (!suffix || *suffix < '0' || *suffix > '9' || (suffix[0] == '0' && suffix[1] != 0))
        return -1;
    int number = 0;
    for (; *suffix >= '0' && *suffix <= '9' && number < 100000; suffix++)
        number = number * 10 + *suffix - '0';
    return *suffix == 0 ? number : -1;
}

/* The node with a minor number, as number_after returns it. */
static int node_of_minor(int minor)
{
    if (minor >= UVERBS_MINOR)
        return minor - UVERBS_MINOR;
    if (minor >= ISSM_MINOR)
        return minor < ISSM_MINOR + UMAD_MINORS ? (int)USERDMA_ISSM_NODES + minor - ISSM_MINOR : -1;
    return minor >= 0 ? (int)USERDMA_UMAD_NODES + minor : -1;
}

int path_device_node(const char *path)
{
    const char *end = match_prefix(path, "/dev/infiniband/" USERDMA_SYSTEM_NAME);
    if (end && *end == 0)
        return USERDMA_SYSTEM_NODE;
    end = match_prefix(path, "/dev/infiniband/" USERDMA_CM_NAME);
    if (end && *end == 0)
        return USERDMA_CM_NODE;
    const int umad = number_after(path, "/dev/infiniband/" USERDMA_UMAD_NAME);
    if (umad >= 0)
        return (int)USERDMA_UMAD_NODES + umad;
    const int issm = number_after(path, "/dev/infiniband/" USERDMA_ISSM_NAME);
    if (issm >= 0)
        return (int)USERDMA_ISSM_NODES + issm;
    const int uverbs = number_after(path, "/dev/infiniband/uverbs");
    return uverbs >= 0 ? uverbs : node_of_minor(number_after(path, "/dev/char/" DEVICE_NUMBER));
}

dev_t path_node_rdev(unsigned node)
{
    char path[64], path_buffer[PATH_SIZE], text[32];
    if (node == USERDMA_CM_NODE)
        strcpy(path, "/sys/class/misc/" USERDMA_CM_NAME "/dev");
    else if (node_is_issm(node))
        snprintf(path, sizeof path, "/sys/class/infiniband_mad/" USERDMA_ISSM_NAME "%u/dev", node - USERDMA_ISSM_NODES);
    else if (node_is_umad(node))
        snprintf(path, sizeof path, "/sys/class/infiniband_mad/" USERDMA_UMAD_NAME "%u/dev", node - USERDMA_UMAD_NODES);
    else
        snprintf(path, sizeof path, "/sys/class/infiniband_verbs/uverbs%u/dev", node);
    const int saved = errno;
    const int fd = path_rewrite(path, path_buffer) ? REAL(open)(path_buffer, O_RDONLY | O_CLOEXEC) : -1;
    const ssize_t length = fd < 0 ? 0 : REAL(read)(fd, text, sizeof text - 1);
    if (fd >= 0)
        REAL(close)(fd);
    text[length > 0 ? length : 0] = 0;
    unsigned major_number, minor_number;
    const bool is_read = sscanf(text, "%u:%u", &major_number, &minor_number) == 2;
    errno = saved;
    return is_read ? makedev(major_number, minor_number) : 0;
}

size_t path_root_length(const char *path)
{
    char root[sizeof(((struct userdma_hello_reply *)0)->root)];
    const char *suffix;
    /* Most paths lack the end of a tree's name, and need no call to the daemon. */
    if (!shim_is_active || !strstr(path, ".tree/") || !session_root(root))
        return 0;
    const size_t length = strlen(root);
    if (strncmp(path, root, length) != 0)
        return 0;
    return find_prefix(path + length, &suffix) || is_machine_path(path + length) ? length : 0;
}

void path_strip_root(char *path)
{
    const int saved = errno;
    const size_t length = path_root_length(path);
    if (length > 0)
        memmove(path, path + length, strlen(path + length) + 1);
    errno = saved;
}

/* ---- relative paths, and parents of folders ---- */

static bool names_rdma(const char *path)
{
    /* A colon is in the numbers of devices and in PCI addresses. */
    return strstr(path, "infiniband") || strstr(path, USERDMA_CM_NAME) || strstr(path, "pci") || strchr(path, ':') ||
           shows_machine();
}

/* Whether a relative path may lead to an RDMA path: it begins like a part of one, and contains an RDMA name. */
static bool may_lead_to_rdma(const char *path)
{
    static const char *const first_names[] = {
        "infiniband", "dev",   "sys/", "class/",      USERDMA_CM_NAME, "misc/",
        "virtual/",   "char/", "bus/", DEVICE_NUMBER, "pci",           "system/",
        "node",       "cpu",   "net",  "kernel/",     "iommu",         "dmi",
        "block",
    };
    if (path[0] == '.' && (path[1] == '/' || (path[1] == '.' && path[2] == '/')))
        path += strspn(path, "./");
    if (path[0] == 'u') /* a device node: uverbsN, umadN, userdma */
        return strcmp(path, USERDMA_SYSTEM_NAME) == 0 || number_after(path, "uverbs") >= 0 ||
               number_after(path, USERDMA_UMAD_NAME) >= 0;
    if (path[0] == 'i' && number_after(path, USERDMA_ISSM_NAME) >= 0)
        return true;
    if (begins_with_pci_address(path))
        return true;
    for (size_t i = 0; i < sizeof first_names / sizeof first_names[0]; i++)
        if (path[0] == first_names[i][0] && strncmp(path, first_names[i], strlen(first_names[i])) == 0)
            return names_rdma(path);
    return false;
}

/* Whether a relative path may lead from the daemon's tree to a folder above: it begins with "..". */
static bool may_leave_tree(int dir, const char *path)
{
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return path[0] == '.' && path[1] == '.' && (path[2] == '/' || path[2] == 0) && (dir != AT_FDCWD || is_in_tree);
}

/*
 * Replaces an RDMA path that is or contains links by the path to which they lead, for a following "..". Other paths
 * stay, also if there is no daemon. Preserves errno.
 */
static void follow_links(char path_buffer[PATH_SIZE])
{
    char root[sizeof(((struct userdma_hello_reply *)0)->root)], in_tree[sizeof root + PATH_SIZE];
    const int saved = errno;
    if (path_matches(path_buffer) && session_root_silently(root)) {
        snprintf(in_tree, sizeof in_tree, "%s%s", root, path_buffer);
        const long fd = early_syscall(SYS_openat, AT_FDCWD, (long)in_tree, O_PATH | O_CLOEXEC, 0, 0, 0);
        if (fd >= 0 && path_of_fd((int)fd, in_tree, PATH_SIZE)) {
            path_strip_root(in_tree);
            strcpy(path_buffer, in_tree);
        }
        if (fd >= 0)
            early_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    }
    errno = saved;
}

/*
 * The absolute path with each ".." resolved, in `path_buffer`. NULL if the path has no "..", leads neither to nor from
 * an RDMA path, or is longer than half of the buffer (links make paths longer).
 */
static const char *without_parents(const char *path, char path_buffer[PATH_SIZE])
{
    if (LIKELY(!strstr(path, "/..")) || !names_rdma(path) || strlen(path) >= PATH_SIZE / 2)
        return NULL;
    size_t length = 0;
    bool is_from_rdma = false;
    while (*path) {
        const char *name = path + strspn(path, "/");
        const size_t name_length = strcspn(name, "/");
        path = name + name_length;
        path_buffer[length] = 0;
        if (name_length == 0 || (name_length == 1 && name[0] == '.'))
            continue;
        if (name_length == 2 && name[0] == '.' && name[1] == '.') {
            is_from_rdma |= path_matches(path_buffer);
            follow_links(path_buffer);
            char *last = strrchr(path_buffer, '/');
            length = last ? (size_t)(last - path_buffer) : 0;
        } else {
            path_buffer[length++] = '/';
            memcpy(path_buffer + length, name, name_length);
            length += name_length;
        }
    }
    path_buffer[length] = 0;
    if (!is_from_rdma && !path_matches(path_buffer))
        return NULL;
    return length > 0 ? path_buffer : "/";
}

/* without_parents in place. Not inlined: only these paths need the stack. */
static __attribute__((noinline)) const char *resolve_parents(char path_buffer[PATH_SIZE])
{
    char path[PATH_SIZE];
    return without_parents(strcpy(path, path_buffer), path_buffer);
}

const char *path_absolute(int dir, const char *path, char path_buffer[PATH_SIZE])
{
    if (*path == '/')
        return without_parents(path, path_buffer);
    if (LIKELY(!may_lead_to_rdma(path)) && !may_leave_tree(dir, path))
        return NULL;
    if (dir == AT_FDCWD) {
        const int saved = errno;
        const long bytes = early_syscall(SYS_getcwd, (long)path_buffer, PATH_SIZE, 0, 0, 0, 0);
        errno = saved;
        if (bytes <= 0)
            return NULL;
    } else if (!path_of_fd(dir, path_buffer, PATH_SIZE)) {
        return NULL;
    }
    const size_t bytes_to_append = strlen(path) + 2;
    if (strlen(path_buffer) + bytes_to_append > PATH_SIZE || path_buffer[0] != '/')
        return NULL;
    path_strip_root(path_buffer);
    const size_t folder_length = strlen(path_buffer);
    path_buffer[folder_length] = '/';
    memcpy(path_buffer + folder_length + 1, path, bytes_to_append - 1);
    if (UNLIKELY(strstr(path_buffer, "/..") != NULL))
        return resolve_parents(path_buffer);
    return path_matches(path_buffer) ? path_buffer : NULL;
}
