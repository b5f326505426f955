/*
 * Which programs and libraries have instructions that read the processor's counter, which no clock can move: told at
 * the end of a process if the command asks for it. Compilers put the two halves of rdtsc together at once, by a shift
 * of 32 bits, so that it is not taken for other instructions' bytes.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <link.h>

#if defined(__x86_64__)
/* From an instruction rdtsc on, which has two bytes. */
static bool is_read(const uint8_t *at, const uint8_t *end)
{
    /* shl $32 of a register, soon after it */
    for (const uint8_t *next = at + 2; next < at + 12 && next + 4 <= end; next++)
        if (next[0] == 0x48 && next[1] == 0xc1 && (next[2] & 0xf8) == 0xe0 && next[3] == 32)
            return true;
    return false;
}

static bool reads_counter(const uint8_t *code, size_t size)
{
    const uint8_t *const end = code + size;
    const uint8_t rdtsc[] = {0x0f, 0x31};
    for (const uint8_t *at = code; (at = memmem(at, (size_t)(end - at), rdtsc, sizeof rdtsc)); at++)
        if (is_read(at, end))
            return true;
    return false;
}
#else
static bool reads_counter(const uint8_t *code, size_t size)
{
    for (size_t i = 0; i + 4 <= size; i += 4) {
        uint32_t instruction;
        memcpy(&instruction, code + i, sizeof instruction);
        if ((instruction & ~0x1fu) == 0xd53be040u) /* mrs register, cntvct_el0 */
            return true;
    }
    return false;
}
#endif

static const char *last_part(const char *path)
{
    const char *const slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int tell_object(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size, (void)unused;
    const char *const name = object->dlpi_name[0] ? last_part(object->dlpi_name) : program_invocation_short_name;
    /* The loader's is for its own statistics. The kernel's page is how clocks are read. */
    if (strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "linux-vdso", 10) == 0)
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *const part = &object->dlpi_phdr[i];
        const int wanted = PF_X | PF_R;
        if (part->p_type != PT_LOAD || ((int)part->p_flags & wanted) != wanted ||
            !reads_counter((const uint8_t *)object->dlpi_addr + part->p_vaddr, part->p_filesz))
            continue;
        clock_note("the processor's counter, which %s reads", name);
        return 0;
    }
    return 0;
}

__attribute__((destructor)) static void tell_counters(void)
{
    if (clock_page && __atomic_load_n(&clock_page->tells_counters, __ATOMIC_RELAXED))
        dl_iterate_phdr(tell_object, NULL);
}
