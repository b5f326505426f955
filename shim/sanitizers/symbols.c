/*
 * The functions of a sanitizer's runtime: libraries and Clang's static runtimes export them. Those that GCC links
 * statically are in the executable's table of symbols, unless it is stripped.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The functions that the loader finds. Not by dlsym, which allocates if there is none: this may be in an allocator. */
#define FUNCTIONS(X)                                                                                                   \
    X(__asan_region_is_poisoned) X(__asan_loadN_noabort) X(__asan_storeN_noabort) X(__tsan_create_fiber)               \
    X(__tsan_destroy_fiber) X(__tsan_switch_to_fiber) X(__tsan_get_current_fiber) X(__tsan_set_fiber_name)             \
    X(__tsan_acquire) X(__tsan_release) X(__tsan_read_range_pc) X(__tsan_write_range_pc) X(__tsan_func_entry)          \
    X(__tsan_func_exit) X(__tsan_atomic8_fetch_add) X(__tsan_atomic16_fetch_add) X(__tsan_atomic32_fetch_add)          \
    X(__tsan_atomic64_fetch_add) X(__tsan_atomic8_load) X(__tsan_atomic16_load) X(__tsan_atomic32_load)                \
    X(__tsan_atomic64_load) X(__sanitizer_install_malloc_and_free_hooks) X(__sanitizer_set_death_callback)
/* By other names: the compiler knows some, with their types. */
#define DECLARED(name) EXPORT __attribute__((weak)) extern const char of##name[] __asm__(#name);
FUNCTIONS(DECLARED)
#define LISTED(name) {#name, (void *)of##name},
static const struct {
    const char *name;
    void *address;
} exported[] = {FUNCTIONS(LISTED)};

/* The executable's file, mapped. */
struct image {
    const char *bytes;
    size_t size;
};

static const void *part(const struct image *image, uint64_t offset, uint64_t size)
{
    return offset <= image->size && size <= image->size - offset ? image->bytes + offset : NULL;
}

/* The value of a symbol of the table in section `header`; 0: it is not in it. */
static uintptr_t value_in(const struct image *image, const Elf64_Shdr *sections, unsigned count,
                          const Elf64_Shdr *header, const char *name)
{
    const Elf64_Sym *symbols = part(image, header->sh_offset, header->sh_size);
    if (!symbols || header->sh_link >= count)
        return 0;
    const Elf64_Shdr *strings = sections + header->sh_link;
    const char *names = part(image, strings->sh_offset, strings->sh_size);
    const size_t length = strlen(name) + 1;
    for (size_t i = 0; names && i < header->sh_size / sizeof *symbols; i++)
        if (symbols[i].st_value != 0 && ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC &&
            symbols[i].st_name < strings->sh_size && length <= strings->sh_size - symbols[i].st_name &&
            memcmp(names + symbols[i].st_name, name, length) == 0)
            return symbols[i].st_value;
    return 0;
}

static uintptr_t value_of(const struct image *image, const char *name)
{
    const Elf64_Ehdr *header = part(image, 0, sizeof *header);
    const Elf64_Shdr *sections =
        header && memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_ident[EI_CLASS] == ELFCLASS64
            ? part(image, header->e_shoff, (uint64_t)header->e_shnum * sizeof *sections)
            : NULL;
    for (unsigned i = 0; sections && i < header->e_shnum; i++)
        if (sections[i].sh_type == SHT_SYMTAB)
            return value_in(image, sections, header->e_shnum, sections + i, name);
    return 0;
}

/* Mapped once, for all functions. Calls that no library intercepts. */
static struct image executable(void)
{
    static struct image image;
    struct stat file;
    if (image.bytes)
        return image;
    const long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return image;
    if (syscall(SYS_newfstatat, fd, "", &file, AT_EMPTY_PATH) == 0 && file.st_size > 0) {
        const long mapped = syscall(SYS_mmap, NULL, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapped > 0 || mapped < -4095)
            image = (struct image){(const char *)mapped, (size_t)file.st_size};
    }
    syscall(SYS_close, fd);
    return image;
}

/* The executable, if it has a function of the C library itself; else NULL. */
static const struct link_map *executable_with(const char *function)
{
    Dl_info found;
    struct link_map *map = NULL;
    void *const own = dlsym(RTLD_DEFAULT, function);
    return own && dladdr1(own, &found, (void **)&map, RTLD_DL_LINKMAP) && map && !map->l_name[0] ? map : NULL;
}

static uintptr_t in_executable(const char *name)
{
    const struct link_map *const map = executable_with("ioctl");
    if (!map)
        return 0;
    const struct image image = executable();
    const uintptr_t value = image.bytes ? value_of(&image, name) : 0;
    return value == 0 ? 0 : map->l_addr + value;
}

static void allocated(const volatile void *block, size_t bytes)
{
    (void)block, (void)bytes;
}

void sanitizers_watch_frees(void (*freed)(const volatile void *block))
{
    int (*install)(void *, void *) =
        executable_with("free") ? sanitizer_symbol("__sanitizer_install_malloc_and_free_hooks") : NULL;
    if (install)
        install(allocated, freed);
}

void *sanitizer_symbol(const char *name)
{
    for (size_t i = 0; i < sizeof exported / sizeof exported[0]; i++)
        if (strcmp(exported[i].name, name) == 0 && exported[i].address)
            return exported[i].address;
    return (void *)in_executable(name);
}
