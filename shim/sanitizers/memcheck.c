/* valgrind's memcheck. Without valgrind's headers at build time, this file does nothing. */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <stdlib.h>

#include "../protocol.h"

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define HAVE_MEMCHECK
#endif
#endif

#ifdef HAVE_MEMCHECK
/* Paddings are sent everywhere: only if it was asked for. */
static bool reports_undefined;

bool memcheck_detect(void)
{
    reports_undefined = getenv(USERDMA_ENV_UNDEFINED) != NULL;
    return RUNNING_ON_VALGRIND != 0;
}

uintptr_t memcheck_report(uintptr_t start, size_t bytes)
{
    return VALGRIND_CHECK_MEM_IS_ADDRESSABLE(start, bytes);
}

void memcheck_sent(uintptr_t start, size_t bytes)
{
    if (reports_undefined)
        (void)VALGRIND_CHECK_MEM_IS_DEFINED(start, bytes);
}

void memcheck_written(uintptr_t start, size_t bytes)
{
    (void)VALGRIND_MAKE_MEM_DEFINED_IF_ADDRESSABLE(start, bytes);
}

void memcheck_ignore(bool is_ignored)
{
    if (is_ignored)
        VALGRIND_DISABLE_ERROR_REPORTING;
    else
        VALGRIND_ENABLE_ERROR_REPORTING;
}
#else
bool memcheck_detect(void)
{
    return false;
}

uintptr_t memcheck_report(uintptr_t start, size_t bytes)
{
    (void)start, (void)bytes;
    return 0;
}

void memcheck_sent(uintptr_t start, size_t bytes)
{
    (void)start, (void)bytes;
}

void memcheck_written(uintptr_t start, size_t bytes)
{
    (void)start, (void)bytes;
}

void memcheck_ignore(bool is_ignored)
{
    (void)is_ignored;
}
#endif
