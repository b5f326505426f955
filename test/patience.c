/*
 * alarm(2) of programs that hang (scripts/build.mjs links them so): on a slow machine they hang longer, by the factor
 * PATIENCE (test/limits.ts), so that `userdma check` has seen it before.
 */
#include <stdlib.h>

unsigned __real_alarm(unsigned seconds);
unsigned __wrap_alarm(unsigned seconds);

unsigned __wrap_alarm(unsigned seconds)
{
    const char *factor = getenv("PATIENCE");
    return __real_alarm(seconds * (factor ? (unsigned)atoi(factor) : 1));
}
