/*
 * Libraries that would not find the shim's functions.
 *
 * With RTLD_DEEPBIND, a library and its dependencies find the C library's functions before ours. So RDMA libraries are
 * loaded without RTLD_DEEPBIND, also if they are dependencies of the requested library. A new namespace (dlmopen) has
 * no preload library: a line on standard error says so.
 *
 * dlopen and dlmopen end with a jump: the C library's functions choose RUNPATH and namespace by the return address.
 */
#define _GNU_SOURCE
#include "loading.h"

#include <errno.h>
#include <link.h>
#include <string.h>

/* Maximum examined dependencies of a library. */
#define MAX_LIBRARIES 64
/* Maximum folders from the RUNPATHs of these libraries. */
#define MAX_FOLDERS 16

#define CACHE_PATH "/etc/ld.so.cache"
#define CACHE_MAGIC "glibc-ld.so.cache1.1"
/* The `flags` of this processor's libraries in the cache (glibc: FLAG_ELF_LIBC6, FLAG_…_LIB64). */
#ifdef __aarch64__
#define CACHE_FLAGS 0x0a03
#else
#define CACHE_FLAGS 0x0303
#endif

/* glibc's struct cache_file_new, at the start of the cache. */
struct cache_header {
    char magic[20];
    uint32_t count;
    uint32_t other[6];
};

/* glibc's struct file_entry_new. `name`, `path`: offsets in the file. */
struct cache_entry {
    int32_t flags;
    uint32_t name;
    uint32_t path;
    uint32_t other[3];
};

struct search {
    /* Folder of the loaded file. */
    char folder[PATH_SIZE];
    /* The folders that the caller of dlopen searches; NULL if unknown. */
    Dl_serinfo *caller_folders;
    /* The folders in the RUNPATHs of the examined libraries. */
    unsigned folder_count;
    char folders[MAX_FOLDERS][PATH_SIZE];
    /* Dependencies, in the order of discovery. */
    unsigned count;
    char names[MAX_LIBRARIES][LIBRARY_NAME_SIZE];
};

static bool is_rdma(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    return strncmp(base, "libibverbs.so", 13) == 0 || strncmp(base, "librdmacm.so", 12) == 0 ||
           strncmp(base, "libibumad.so", 12) == 0;
}

static bool add_needed(void *context, const char *name)
{
    struct search *search = context;
    for (unsigned i = 0; i < search->count; i++)
        if (strcmp(search->names[i], name) == 0)
            return true;
    strcpy(search->names[search->count++], name);
    return search->count < MAX_LIBRARIES;
}

static int open_in(const char *folder, const char *name, char path[PATH_SIZE])
{
    if (snprintf(path, PATH_SIZE, "%s/%s", folder, name) >= PATH_SIZE)
        return -1;
    return REAL(open)(path, O_RDONLY | O_CLOEXEC);
}

/* Opens the library of a name that is in the loader's cache (ldconfig). */
static int open_cached(const char *name, char path[PATH_SIZE])
{
    const int cache = REAL(open)(CACHE_PATH, O_RDONLY | O_CLOEXEC);
    if (cache < 0)
        return -1;
    struct cache_header header = {.count = 0};
    struct cache_entry entry;
    int fd = -1;
    if (REAL(pread)(cache, &header, sizeof header, 0) != sizeof header ||
        memcmp(header.magic, CACHE_MAGIC, sizeof header.magic) != 0)
        header.count = 0;
    for (uint32_t i = 0; fd < 0 && i < header.count; i++) {
        char found[LIBRARY_NAME_SIZE] = "";
        if (REAL(pread)(cache, &entry, sizeof entry, sizeof header + (off_t)i * sizeof entry) != sizeof entry)
            break;
        if (entry.flags != CACHE_FLAGS || REAL(pread)(cache, found, sizeof found - 1, entry.name) <= 0 ||
            strcmp(found, name) != 0)
            continue;
        memset(path, 0, PATH_SIZE);
        if (REAL(pread)(cache, path, PATH_SIZE - 1, entry.path) > 0)
            fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    }
    REAL(close)(cache);
    return fd;
}

/* Opens the library of a name, and stores the path. Returns the descriptor or -1. */
static int find_library(const struct search *search, const char *name, char path[PATH_SIZE])
{
    if (strchr(name, '/')) {
        snprintf(path, PATH_SIZE, "%s", name);
        return REAL(open)(path, O_RDONLY | O_CLOEXEC);
    }
    int fd = search->folder[0] ? open_in(search->folder, name, path) : -1;
    for (unsigned i = 0; fd < 0 && search->caller_folders && i < search->caller_folders->dls_cnt; i++)
        fd = open_in(search->caller_folders->dls_serpath[i].dls_name, name, path);
    for (unsigned i = 0; fd < 0 && i < search->folder_count; i++)
        fd = open_in(search->folders[i], name, path);
    return fd < 0 ? open_cached(name, path) : fd;
}

/* Loads an RDMA library without RTLD_DEEPBIND, and keeps it loaded. */
static void load_without_deepbind(const char *path)
{
    if (!REAL(dlopen)(path, RTLD_LAZY))
        dlerror();
}

static size_t length_if_prefix(const char *text, const char *prefix)
{
    const size_t length = strlen(prefix);
    return strncmp(text, prefix, length) == 0 ? length : 0;
}

/* Adds the libraries that the file at `path` needs, and the folders of its RUNPATH. */
static void add_dependencies(struct search *search, int fd, const char *path)
{
    char list[PATH_SIZE], *rest = list;
    elf_needed(fd, add_needed, search, list);
    if (!list[0])
        return;
    const char *folder;
    while (search->folder_count < MAX_FOLDERS && (folder = strsep(&rest, ":"))) {
        size_t token = length_if_prefix(folder, "$ORIGIN");
        if (token == 0)
            token = length_if_prefix(folder, "${ORIGIN}");
        const int origin_length = token != 0 ? (int)(strrchr(path, '/') - path) : 0;
        const int length = snprintf(search->folders[search->folder_count], PATH_SIZE, "%.*s%s", origin_length, path,
                                    folder + token);
        if (length > 0 && length < PATH_SIZE)
            search->folder_count++;
    }
}

/* Whether a library needs an RDMA library, directly or indirectly. With `should_load`, loads these RDMA libraries. */
static bool examine_dependencies(const char *library, Dl_serinfo *caller_folders, bool should_load)
{
    struct search search = {.caller_folders = caller_folders};
    char path[PATH_SIZE];
    int fd = find_library(&search, library, path);
    if (fd < 0)
        return false;
    snprintf(search.folder, sizeof search.folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    add_dependencies(&search, fd, path);
    REAL(close)(fd);
    bool found = false;
    for (unsigned i = 0; i < search.count; i++) {
        const char *name = search.names[i];
        fd = find_library(&search, name, path);
        if (is_rdma(name)) {
            found = true;
            if (should_load)
                load_without_deepbind(fd < 0 ? name : path);
        } else if (fd >= 0 && search.count < MAX_LIBRARIES) {
            add_dependencies(&search, fd, path);
        }
        if (fd >= 0)
            REAL(close)(fd);
    }
    return found;
}

/* examine_dependencies with the folders that the code at address `caller` searches. */
static bool examine_for_caller(const char *library, const void *caller, bool should_load)
{
    Dl_info info;
    Dl_serinfo size, *folders = NULL;
    void *map;
    if (dladdr1(caller, &info, &map, RTLD_DL_LINKMAP) && dlinfo(map, RTLD_DI_SERINFOSIZE, &size) == 0) {
        folders = alloca(size.dls_size);
        if (dlinfo(map, RTLD_DI_SERINFOSIZE, folders) != 0 || dlinfo(map, RTLD_DI_SERINFO, folders) != 0)
            folders = NULL;
    }
    return examine_dependencies(library, folders, should_load);
}

/* Loads the RDMA libraries that a library needs. Returns the flags for loading the library. */
static __attribute__((noinline)) int load_dependencies(const char *library, int flags, const void *caller)
{
    if (!shim_is_ready())
        shim_init();
    if (!shim_is_active || !library)
        return flags;
    const int saved = errno;
    if (is_rdma(library))
        flags &= ~RTLD_DEEPBIND;
    else
        examine_for_caller(library, caller, true);
    errno = saved;
    return flags;
}

static __attribute__((noinline)) void warn_of_namespace(const char *library, const void *caller)
{
    if (!shim_is_ready())
        shim_init();
    const int saved = errno;
    if (shim_is_active && library && (is_rdma(library) || examine_for_caller(library, caller, false)))
        fprintf(stderr,
                "userdma: %s will find no devices: dlmopen loads it into a namespace without the preload library\n",
                library);
    errno = saved;
}

/* Whether these flags can load a library with RTLD_DEEPBIND. */
static bool binds_deeply(int flags)
{
    return (flags & (RTLD_DEEPBIND | RTLD_NOLOAD)) == RTLD_DEEPBIND;
}

EXPORT void *dlopen(const char *library, int flags)
{
    if (UNLIKELY(binds_deeply(flags)))
        flags = load_dependencies(library, flags, __builtin_return_address(0));
    JUMP REAL(dlopen)(library, flags);
}

EXPORT void *dlmopen(Lmid_t namespace, const char *library, int flags)
{
    if (namespace != LM_ID_BASE)
        warn_of_namespace(library, __builtin_return_address(0));
    else if (binds_deeply(flags))
        flags = load_dependencies(library, flags, __builtin_return_address(0));
    JUMP REAL(dlmopen)(namespace, library, flags);
}

/* For dl_iterate_phdr: stores the number of unloads, which all entries have, and stops at the first entry. */
static int store_unloads(struct dl_phdr_info *info, size_t size, void *unloads)
{
    (void)size;
    *(unsigned long long *)unloads = info->dlpi_subs;
    return 1;
}

EXPORT int dlclose(void *library)
{
    if (LIKELY(!recorder_is_on))
        JUMP REAL(dlclose)(library);
    unsigned long long before = 0, after = 0;
    dl_iterate_phdr(store_unloads, &before);
    const int result = REAL(dlclose)(library);
    dl_iterate_phdr(store_unloads, &after);
    if (after != before) {
        stacks_unloaded();
        waiting_describe_modules();
    }
    return result;
}
