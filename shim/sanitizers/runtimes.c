/* How runtimes of sanitizers start. In each library that is preloaded first. */
#define _GNU_SOURCE
#include "../recorder/recorder.h"

#include <link.h>
#include <string.h>

/*
 * ASan asks the program for options that ASAN_OPTIONS does not have. Buffers in stack frames that have returned are the
 * device's as any other.
 */
EXPORT const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_stack_use_after_return=1";
}

/* ---- the order of libraries ---- */

static bool has_begun;

/* After that of a runtime, which is a library that the program needs. */
__attribute__((constructor)) static void begin(void)
{
    has_begun = true;
}

typedef int phdr_callback(struct dl_phdr_info *info, size_t size, void *data);
struct walk {
    phdr_callback *callback;
    void *data;
};

IN_CHILD static int without_ours(struct dl_phdr_info *info, size_t size, void *data)
{
    const struct walk *walk = data;
    return strstr(info->dlpi_name, "/libuserdma_") ? 0 : walk->callback(info, size, walk->data);
}

/*
 * A runtime that is a library looks at its start whether it is the first one, and ends the program if not: memory could
 * be allocated otherwise. Our libraries, which come before, have no allocator.
 */
EXPORT IN_CHILD int dl_iterate_phdr(phdr_callback *callback, void *data)
{
    __typeof__(&dl_iterate_phdr) next = NEXT(dl_iterate_phdr);
    return LIKELY(has_begun) ? next(callback, data) : next(without_ours, &(struct walk){callback, data});
}
